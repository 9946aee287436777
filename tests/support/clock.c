/* Loaded into a process before its libc: its wall clock is off by the seconds that a file holds, which may change at any time.
   The clocks that nobody sets (monotonic, boot) stay as they are. So do the times of files, unless TEST_CLOCK_FILES is set: then the
   process lives in another time altogether. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *seconds;
static int (*host)(clockid_t, struct timespec *);
static int (*host_statx)(int, const char *, int, unsigned, struct statx *);

__attribute__((constructor)) static void begin(void) {
    host = dlsym(RTLD_NEXT, "clock_gettime");
    host_statx = dlsym(RTLD_NEXT, "statx");
    int file = open(getenv("TEST_CLOCK"), O_RDONLY);
    void *shared = mmap(NULL, sizeof *seconds, PROT_READ, MAP_SHARED, file, 0);
    if (!host || !host_statx || shared == MAP_FAILED) abort();
    close(file);
    seconds = shared;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = host(clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += *seconds;
    return failed;
}

int statx(int dir, const char *path, int flags, unsigned mask, struct statx *found) {
    int failed = host_statx(dir, path, flags, mask, found);
    if (!failed && getenv("TEST_CLOCK_FILES")) found->stx_mtime.tv_sec += *seconds;
    return failed;
}
