// A WASI command for tests. Its arguments, or else the words in the first line of
// its input, say what it does; then it reads the rest of the input. command.wasm
// is made with
//
//	clang-19 --target=wasm32-wasi --sysroot=/usr -O2 -Wall -Wextra -Werror \
//		-Wl,--strip-debug,--compress-relocations -o command.wasm command.c
//
// with Debian's clang-19, lld-19, wasi-libc and libclang-rt-19-dev-wasm32.
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int calls; // 0 before each run if the state is fresh

// count prints lines, words and bytes of the input, as wc does.
static int count(void) {
	long lines = 0, words = 0, bytes = 0;
	int c, inside = 0;
	while ((c = getchar()) != EOF) {
		bytes++;
		lines += c == '\n';
		words += !isspace(c) && !inside;
		inside = !isspace(c);
	}
	printf("%ld %ld %ld\n", lines, words, bytes);
	return 0;
}

static int upper(void) {
	int c;
	while ((c = getchar()) != EOF)
		putchar(toupper(c));
	return 0;
}

static int cat(const char *path) {
	char buffer[512];
	size_t n;
	FILE *f = fopen(path, "r");
	if (!f) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return 1;
	}
	while ((n = fread(buffer, 1, sizeof buffer, f)) > 0)
		fwrite(buffer, 1, n, stdout);
	if (ferror(f)) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return 1;
	}
	fclose(f);
	return 0;
}

static int list(const char *path) {
	struct dirent *e;
	DIR *d = opendir(path);
	if (!d) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return 1;
	}
	while ((e = readdir(d))) {
		char full[1024], target[256];
		struct stat s;
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(full, sizeof full, "%s/%s", path, e->d_name);
		if (lstat(full, &s)) {
			printf("%s %s\n", e->d_name, strerror(errno));
			continue;
		}
		printf("%s %s %lld %lld", e->d_name, S_ISDIR(s.st_mode) ? "dir" : S_ISLNK(s.st_mode) ? "link" : "file",
			(long long)s.st_size, (long long)s.st_mtime);
		ssize_t n = readlink(full, target, sizeof target);
		if (n >= 0)
			printf(" -> %.*s", (int)n, target);
		printf("\n");
	}
	closedir(d);
	return 0;
}

static void tell(const char *what, int result) { printf("%s: %s\n", what, result < 0 ? strerror(errno) : "done"); }

// change tries all calls that would change a directory, and prints the errors.
static int change(const char *path) {
	char file[1024], made[1024];
	snprintf(file, sizeof file, "%s/a.txt", path);
	snprintf(made, sizeof made, "%s/made", path);
	tell("write", open(file, O_WRONLY));
	tell("append", open(file, O_WRONLY | O_APPEND));
	tell("create", open(made, O_WRONLY | O_CREAT, 0600));
	tell("truncate", open(file, O_RDONLY | O_TRUNC));
	tell("mkdir", mkdir(made, 0700));
	tell("unlink", unlink(file));
	tell("rename", rename(file, made));
	tell("symlink", symlink("a.txt", made));
	tell("rmdir", rmdir(path));
	return 0;
}

static int fill(FILE *to, long n) {
	for (long i = 0; i < n; i++)
		putc(i % 64 == 63 ? '\n' : 'a' + i % 26, to);
	return 0;
}

static int entropy(void) {
	unsigned char b[8];
	struct timespec now;
	getentropy(b, sizeof b);
	clock_gettime(CLOCK_REALTIME, &now);
	for (int i = 0; i < (int)sizeof b; i++)
		printf("%02x", b[i]);
	printf(" %lld.%09ld\n", (long long)now.tv_sec, now.tv_nsec);
	return 0;
}

static int grow(long bytes) {
	char *p = malloc(bytes);
	if (!p) {
		fputs("no memory\n", stderr);
		__builtin_trap();
	}
	memset(p, 1, bytes);
	printf("%d\n", p[bytes / 2]);
	return 0;
}

static int run(int n, char **words) {
	const char *what = n > 0 ? words[0] : "count", *with = n > 1 ? words[1] : "";
	if (!strcmp(what, "count"))
		return count();
	if (!strcmp(what, "upper"))
		return upper();
	if (!strcmp(what, "args")) {
		for (int i = 0; i < n; i++)
			printf("[%s]", words[i]);
		printf("\n");
		return 0;
	}
	if (!strcmp(what, "env")) {
		for (char **e = environ; *e; e++)
			printf("[%s]", *e);
		printf("\n");
		return 0;
	}
	if (!strcmp(what, "cat"))
		return cat(with);
	if (!strcmp(what, "list"))
		return list(with);
	if (!strcmp(what, "change"))
		return change(with);
	if (!strcmp(what, "exit")) {
		printf("not an output\n");
		fprintf(stderr, "first line\nthe end of %s\n", with);
		return atoi(with);
	}
	if (!strcmp(what, "out"))
		return fill(stdout, atol(with));
	if (!strcmp(what, "err"))
		return fill(stderr, atol(with)) + 1;
	if (!strcmp(what, "entropy"))
		return entropy();
	if (!strcmp(what, "calls")) {
		printf("%d\n", calls++);
		return 0;
	}
	if (!strcmp(what, "grow"))
		return grow(atol(with));
	if (!strcmp(what, "abort")) {
		fputs("about to abort\n", stderr);
		abort();
	}
	if (!strcmp(what, "loop"))
		for (volatile int i = 0;; i++) {}
	fprintf(stderr, "unknown: %s\n", what);
	return 64;
}

int main(int argc, char **argv) {
	static char line[4096];
	char *words[16];
	int n = 0;
	if (argc > 1)
		return run(argc - 1, argv + 1);
	if (fgets(line, sizeof line, stdin))
		for (char *w = strtok(line, " \n"); w && n < 16; w = strtok(NULL, " \n"))
			words[n++] = w;
	return run(n, words);
}
