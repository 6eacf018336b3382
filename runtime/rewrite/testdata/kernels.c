// Kernels for measuring what rewriting costs. Each takes a number of rounds
// and returns a checksum. Built with Debian's clang-19 and lld-19:
//
//	clang-19 --target=wasm32-unknown-unknown -nostdlib -ffreestanding -O2 \
//	  -fno-builtin -Wl,--no-entry -Wl,--strip-debug -o kernels.wasm kernels.c

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define EXPORT(name) __attribute__((export_name(#name), noinline)) u64 name(u32 n)

static u8 bytes[1 << 16];
static u32 words[1 << 14];
static double reals[3][64 * 64];

static u64 seed;
static u32 next(void) {
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return seed >> 33;
}

EXPORT(empty) {
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < n; i++) __asm__ volatile("");
	return n;
}

static u32 rotr(u32 x, int k) { return x >> k | x << (32 - k); }
static u32 K[64];

static void sha256_block(u32 *h, const u8 *p) {
	u32 w[64], s[8];
	for (int i = 0; i < 16; i++, p += 4) w[i] = p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
	for (int i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] + (rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10);
	for (int i = 0; i < 8; i++) s[i] = h[i];
	for (int i = 0; i < 64; i++) {
		u32 t1 = s[7] + (rotr(s[4], 6) ^ rotr(s[4], 11) ^ rotr(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + K[i] + w[i];
		u32 t2 = (rotr(s[0], 2) ^ rotr(s[0], 13) ^ rotr(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
		for (int j = 7; j > 0; j--) s[j] = s[j - 1];
		s[4] += t1;
		s[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++) h[i] += s[i];
}

EXPORT(sha256) {
	u32 h[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	for (int i = 0; i < 64; i++) K[i] = next();
	for (u32 i = 0; i < n; i++) sha256_block(h, bytes + (i * 64 & 0xffc0));
	return (u64)h[0] << 32 | h[7];
}

EXPORT(crc32) {
	static u32 table[256];
	for (u32 i = 0; i < 256; i++) {
		u32 c = i;
		for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ c >> 1 : c >> 1;
		table[i] = c;
	}
	u32 c = ~0u;
	for (u32 r = 0; r < n; r++)
		for (u32 i = 0; i < sizeof bytes; i++) c = table[(c ^ bytes[i]) & 255] ^ c >> 8;
	return c;
}

EXPORT(sieve) {
	u64 found = 0;
	for (u32 r = 0; r < n; r++) {
		for (u32 i = 0; i < sizeof bytes; i++) bytes[i] = 1;
		for (u32 i = 2; i * i < sizeof bytes; i++)
			if (bytes[i])
				for (u32 j = i * i; j < sizeof bytes; j += i) bytes[j] = 0;
		for (u32 i = 2; i < sizeof bytes; i++) found += bytes[i];
	}
	return found;
}

static void sort(u32 *a, int lo, int hi) {
	while (lo < hi) {
		u32 pivot = a[(lo + hi) / 2];
		int i = lo, j = hi;
		while (i <= j) {
			while (a[i] < pivot) i++;
			while (a[j] > pivot) j--;
			if (i <= j) {
				u32 t = a[i];
				a[i++] = a[j];
				a[j--] = t;
			}
		}
		sort(a, lo, j);
		lo = i;
	}
}

EXPORT(quicksort) {
	u64 sum = 0;
	for (u32 r = 0; r < n; r++) {
		for (u32 i = 0; i < 1 << 14; i++) words[i] = next();
		sort(words, 0, (1 << 14) - 1);
		sum += words[r & 16383];
	}
	return sum;
}

static u32 fibonacci(u32 n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

EXPORT(fib) { return fibonacci(n); }

EXPORT(wordcount) {
	u64 count = 0;
	static u32 buckets[256];
	for (u32 i = 0; i < sizeof bytes; i++) bytes[i] = "etaoin shrdlu,\n"[next() % 15];
	for (u32 r = 0; r < n; r++) {
		u32 hash = 0, in = 0;
		for (u32 i = 0; i < sizeof bytes; i++) {
			u8 c = bytes[i];
			if (c == ' ' || c == '\n' || c == ',') {
				if (in) buckets[hash & 255]++, count++;
				in = hash = 0;
			} else {
				hash = hash * 31 + c;
				in = 1;
			}
		}
	}
	return count + buckets[17];
}

static u32 op_add(u32 a) { return a + 1; }
static u32 op_xor(u32 a) { return a ^ 0x55; }
static u32 op_mul(u32 a) { return a * 3; }
static u32 (*volatile const ops[])(u32) = {op_add, op_xor, op_mul, op_add};

EXPORT(indirect) {
	u32 a = 1;
	for (u32 i = 0; i < n; i++) a = ops[a & 3](a);
	return a;
}

EXPORT(matmul) {
	double *a = reals[0], *b = reals[1], *c = reals[2], sum = 0;
	for (int i = 0; i < 64 * 64; i++) a[i] = next() % 100, b[i] = next() % 100;
	for (u32 r = 0; r < n; r++) {
		for (int i = 0; i < 64; i++)
			for (int j = 0; j < 64; j++) {
				double s = 0;
				for (int k = 0; k < 64; k++) s += a[i * 64 + k] * b[k * 64 + j];
				c[i * 64 + j] = s;
			}
		sum += c[r & 4095];
	}
	return sum;
}

struct body { double x[3], v[3], m; };

EXPORT(nbody) {
	static struct body all[5];
	for (int i = 0; i < 5; i++) {
		for (int k = 0; k < 3; k++) all[i].x[k] = next() % 100 / 10., all[i].v[k] = next() % 100 / 100.;
		all[i].m = 1 + i;
	}
	for (u32 r = 0; r < n; r++) {
		for (int i = 0; i < 5; i++)
			for (int j = i + 1; j < 5; j++) {
				double d[3], d2 = 0.01;
				for (int k = 0; k < 3; k++) d[k] = all[i].x[k] - all[j].x[k], d2 += d[k] * d[k];
				double mag = 0.001 / (d2 * __builtin_sqrt(d2));
				for (int k = 0; k < 3; k++) {
					all[i].v[k] -= d[k] * all[j].m * mag;
					all[j].v[k] += d[k] * all[i].m * mag;
				}
			}
		for (int i = 0; i < 5; i++)
			for (int k = 0; k < 3; k++) all[i].x[k] += 0.001 * all[i].v[k];
	}
	return all[0].x[0] * 1e6;
}

EXPORT(mandelbrot) {
	u64 sum = 0;
	for (u32 r = 0; r < n; r++)
		for (int py = 0; py < 64; py++)
			for (int px = 0; px < 64; px++) {
				double x0 = px / 32. - 1.5, y0 = py / 32. - 1, x = 0, y = 0;
				int i = 0;
				for (; i < 100 && x * x + y * y < 4; i++) {
					double t = x * x - y * y + x0;
					y = 2 * x * y + y0;
					x = t;
				}
				sum += i;
			}
	return sum;
}

EXPORT(montecarlo) {
	u64 hits = 0;
	for (u32 i = 0; i < n; i++) {
		double x = next() / 2147483648., y = next() / 2147483648.;
		hits += x * x + y * y < 1;
	}
	return hits;
}
