// The machine that a C guest sees through wasi-libc. cguest.wasm is made with
//
//	clang-19 --target=wasm32-wasi --sysroot=/usr -O2 -Wl,--strip-all -o cguest.wasm cguest.c
//
// with Debian's clang-19, lld-19, wasi-libc and libclang-rt-19-dev-wasm32.
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void show_clocks(void) {
	clockid_t ids[] = {CLOCK_REALTIME, CLOCK_MONOTONIC};
	for (int i = 0; i < 2; i++) {
		struct timespec now, resolution;
		int r = clock_gettime(ids[i], &now) | clock_getres(ids[i], &resolution);
		printf("clock %d: %d %lld.%09ld %ld\n", i, r, (long long)now.tv_sec, now.tv_nsec, resolution.tv_nsec);
	}
}

static void show_sleeping(void) {
	struct timespec day = {86400, 5}, until;
	printf("nanosleep %d\n", nanosleep(&day, NULL));
	show_clocks();
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 3600;
	printf("until %d\n", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, NULL));
	show_clocks();
	printf("usleep %d time %lld\n", usleep(10), (long long)time(NULL));
}

static void show_streams(void) {
	for (int fd = 0; fd < 4; fd++) {
		struct stat st;
		memset(&st, 0, sizeof st);
		errno = 0;
		int tty = isatty(fd), tty_errno = errno;
		int stated = fstat(fd, &st);
		errno = 0;
		long long at = (long long)lseek(fd, 0, SEEK_CUR);
		printf("fd %d: tty %d %d stat %d mode %o size %lld seek %lld %d\n", fd, tty, tty_errno, stated,
		       (unsigned)st.st_mode, (long long)st.st_size, at, errno);
	}
	struct pollfd fds[] = {{0, POLLIN, 0}, {1, POLLOUT, 0}};
	int n = poll(fds, 2, 1000);
	printf("poll %d %x %x\n", n, fds[0].revents, fds[1].revents);
}

int main(int argc, char **argv) {
	for (int i = 0; i < argc; i++)
		printf("arg %d: %s\n", i, argv[i]);
	printf("HOME=%s A=%s\n", getenv("HOME"), getenv("A"));
	show_clocks();
	show_sleeping();
	show_streams();

	unsigned char secret[32];
	printf("getentropy %d ", getentropy(secret, sizeof secret));
	for (int i = 0; i < 32; i++)
		printf("%02x", secret[i]);
	printf("\n");

	FILE *f = fopen("/etc/passwd", "r");
	printf("fopen %d %d\n", f != NULL, errno);

	char line[64];
	while (fgets(line, sizeof line, stdin))
		printf("line %s", line);
	printf("eof %d\n", feof(stdin));
	fprintf(stderr, "the end\n");
	return 7;
}
