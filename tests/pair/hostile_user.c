/* A user without rights, at random: changes files of one directory under the backup that reads them.
   argv: the directory, a directory that is not this user's (links lead there), a seed. Runs until it is killed. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#define NAMES 40
#define LEASES 3

static uint64_t state;
static int leased[LEASES], next_lease;

static uint64_t roll(void) {
    uint64_t z = (state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint64_t below(uint64_t limit) { return roll() % limit; }

/* Some of the names are deceptive, in parts of a path as well. */
static const char *name(void) {
    static char made[4][400];
    static int slot;
    static const char *odd[] = {"\x1b[2Jesc", "line\nbreak", "\xe2\x80\xaertl", "-rf", "*", "\xff\xfe", "..a", "CACHEDIR.TAG"};
    char *at = made[slot++ % 4];
    uint64_t n = below(NAMES);
    if (n < sizeof odd / sizeof *odd) snprintf(at, 400, "%s", odd[n]);
    else if (n == 20) { memset(at, 'n', 255); at[255] = 0; }
    else snprintf(at, 400, "%s%02u", below(6) == 0 ? "d00/n" : "n", (unsigned)n);
    return at;
}

static void clear(const char *at) {
    if (unlink(at) == 0 || errno != EISDIR) { rmdir(at); return; }
    rmdir(at);
}

/* A file with holes that claims to be as long as can be. */
static void sparse(const char *at) {
    int fd = open(at, O_RDWR | O_CREAT | O_NONBLOCK | O_NOFOLLOW, 0644);
    if (fd < 0) return;
    for (int n = 0; n < 200; n++) (void)!pwrite(fd, "x", 1, (off_t)below(1ull << 33));
    (void)!ftruncate(fd, (off_t)(below(2) ? 1ull << 42 : 1ull << 30));
    if (below(2)) (void)!ftruncate(fd, 4096);
    close(fd);
}

static void lease(const char *at) {
    int fd = open(at, O_RDWR | O_CREAT | O_NONBLOCK | O_NOFOLLOW, 0644);
    if (fd < 0) return;
    fcntl(fd, F_SETLEASE, F_WRLCK);
    int *slot = &leased[next_lease++ % LEASES];
    if (*slot > 0) close(*slot);
    *slot = fd;
}

static void deep(void) {
    char here[8192] = "deep";
    mkdir(here, 0755);
    for (int n = 0; n < 60 && strlen(here) < 4000; n++) {
        strcat(here, "/d");
        mkdir(here, 0755);
    }
}

static void write_some(const char *at) {
    static char bytes[1 << 16];
    int fd = open(at, O_WRONLY | O_CREAT | O_NONBLOCK | O_NOFOLLOW | (below(2) ? O_TRUNC : 0), 0644);
    if (fd < 0) return;
    for (size_t n = 0; n + 8 <= sizeof bytes; n += 8) *(uint64_t *)(bytes + n) = roll();
    (void)!write(fd, bytes, below(sizeof bytes));
    close(fd);
}

static void mapped(const char *at) {
    int fd = open(at, O_RDWR | O_CREAT | O_NONBLOCK | O_NOFOLLOW, 0644);
    struct stat meta;
    if (fd < 0 || fstat(fd, &meta) != 0 || !S_ISREG(meta.st_mode)) { if (fd >= 0) close(fd); return; }
    if (ftruncate(fd, 8192) == 0) {
        uint64_t *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (page != MAP_FAILED) {
            page[below(1024)] = roll();
            munmap(page, 8192);
        }
    }
    close(fd);
}

static void listen_at(const char *at) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%.100s", at);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    (void)!bind(fd, (struct sockaddr *)&address, sizeof address);
    close(fd);
}

int main(int argc, char **argv) {
    if (argc != 4 || chdir(argv[1]) != 0) return 2;
    const char *outside = argv[2];
    char target[4096], inside[4200];
    state = strtoull(argv[3], 0, 10);
    signal(SIGIO, SIG_IGN);
    mkdir("d00", 0755);
    fprintf(stderr, "ready\n");
    for (;;) {
        const char *at = name(), *other = name();
        snprintf(target, sizeof target, "%s/%s", outside, below(2) ? "secret" : "shared");
        switch (below(24)) {
        case 0: clear(at); mkfifo(at, 0644); break;
        case 1: clear(at); (void)!symlink(target, at); break;
        case 2: clear(at); (void)!symlink(outside, at); break;
        /* Refused where the system protects hard links. */
        case 3: clear(at); (void)!link(target, at); break;
        case 4: sparse(at); break;
        case 5: case 6: lease(at); break;
        case 7: clear(at); mkdir(at, 0755); break;
        case 8: chmod(at, (mode_t)below(010000)); break;
        case 9: truncate(at, (off_t)below(100000)); break;
        case 10: deep(); break;
        case 11: mapped(at); break;
        case 12: clear(at); listen_at(at); break;
        case 13: setxattr(at, "user.note", target, below(200), 0); break;
        /* A directory becomes a link while it is walked. */
        case 14:
            if (syscall(SYS_renameat2, AT_FDCWD, "d00", AT_FDCWD, "d01", 0) == 0) {
                (void)!symlink(outside, "d00");
                usleep(below(3000));
                unlink("d00");
                rename("d01", "d00");
            } else mkdir("d00", 0755);
            break;
        case 15: link(at, other); break;
        case 16: {
            struct timespec odd[2] = {{(time_t)(roll() >> 30), 0}, {-(time_t)(roll() >> 30), 999999999}};
            utimensat(AT_FDCWD, at, odd, AT_SYMLINK_NOFOLLOW);
            break;
        }
        case 17: snprintf(inside, sizeof inside, "d00/%.200s", other); rename(at, inside); break;
        case 18: case 19: case 20: syscall(SYS_renameat2, AT_FDCWD, at, AT_FDCWD, other, 2); break;
        default: write_some(at);
        }
        if (below(8) == 0) usleep(below(2000));
    }
}
