/* Errors of reading and writing on demand, for a process that is started with this library in LD_PRELOAD.
 *
 * $SPTSKM_FAULTS names a file with a `struct plan`, which is shared by all processes: calls of the chosen kinds on
 * paths below `folder` are counted, and from the `from`-th to the `to`-th they fail with `code`. With `kinds` 0 the
 * library does nothing.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OPEN_READ = 1, OPEN_WRITE = 2, READ = 4, WRITE = 8, SYNC = 16, RENAME = 32, STAT = 64 };

struct plan {
    int64_t kinds, code, from, to, count, hits;
    int64_t seen[7]; /* by kind, chosen or not */
    char folder[4096];
};

static struct plan *plan;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("SPTSKM_FAULTS");
    int file = name ? (int)syscall(SYS_openat, AT_FDCWD, name, O_RDWR) : -1;
    if (file < 0) return;
    void *found = mmap(NULL, sizeof(struct plan), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (found != MAP_FAILED) plan = found;
    syscall(SYS_close, file);
}

static int inside(const char *path) {
    char whole[PATH_MAX];
    if (path[0] != '/') {
        if (syscall(SYS_getcwd, whole, sizeof whole) <= 0) return 0;
        size_t length = strlen(whole);
        if (length + strlen(path) + 2 > sizeof whole) return 0;
        whole[length] = '/';
        strcpy(whole + length + 1, path);
        path = whole;
    }
    return strncmp(path, plan->folder, strlen(plan->folder)) == 0;
}

static int fails(int kind, const char *path) {
    if (!plan || !plan->kinds || !inside(path)) return 0;
    __atomic_add_fetch(&plan->seen[__builtin_ctz(kind)], 1, __ATOMIC_SEQ_CST);
    if (!(plan->kinds & kind)) return 0;
    int64_t number = __atomic_add_fetch(&plan->count, 1, __ATOMIC_SEQ_CST);
    if (number < plan->from || number > plan->to) return 0;
    __atomic_add_fetch(&plan->hits, 1, __ATOMIC_SEQ_CST);
    errno = (int)plan->code;
    return 1;
}

static int file_fails(int kind, int file) {
    char name[64], path[PATH_MAX];
    if (!plan || !plan->kinds) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, name, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return fails(kind, path);
}

static int opening(int flags) { return flags & (O_WRONLY | O_RDWR | O_CREAT) ? OPEN_WRITE : OPEN_READ; }

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define MODE                              \
    mode_t mode = 0;                      \
    if (flags & (O_CREAT | O_TMPFILE)) {  \
        va_list rest;                     \
        va_start(rest, flags);            \
        mode = va_arg(rest, mode_t);      \
        va_end(rest);                     \
    }

int open(const char *path, int flags, ...) {
    MODE
    REAL(open);
    return fails(opening(flags), path) ? -1 : real(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE
    REAL(open64);
    return fails(opening(flags), path) ? -1 : real(path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    MODE
    REAL(openat);
    return fails(opening(flags), path) ? -1 : real(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
    MODE
    REAL(openat64);
    return fails(opening(flags), path) ? -1 : real(folder, path, flags, mode);
}

FILE *fopen(const char *path, const char *mode) {
    REAL(fopen);
    return fails(mode[0] == 'r' ? OPEN_READ : OPEN_WRITE, path) ? NULL : real(path, mode);
}

FILE *fopen64(const char *path, const char *mode) {
    REAL(fopen64);
    return fails(mode[0] == 'r' ? OPEN_READ : OPEN_WRITE, path) ? NULL : real(path, mode);
}

DIR *opendir(const char *path) {
    REAL(opendir);
    return fails(OPEN_READ, path) ? NULL : real(path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    return fails(OPEN_WRITE, path) ? -1 : real(path, mode);
}

ssize_t read(int file, void *buffer, size_t size) {
    REAL(read);
    return file_fails(READ, file) ? -1 : real(file, buffer, size);
}

ssize_t pread(int file, void *buffer, size_t size, off_t offset) {
    REAL(pread);
    return file_fails(READ, file) ? -1 : real(file, buffer, size, offset);
}

ssize_t pread64(int file, void *buffer, size_t size, off64_t offset) {
    REAL(pread64);
    return file_fails(READ, file) ? -1 : real(file, buffer, size, offset);
}

ssize_t write(int file, const void *buffer, size_t size) {
    REAL(write);
    return file_fails(WRITE, file) ? -1 : real(file, buffer, size);
}

ssize_t pwrite(int file, const void *buffer, size_t size, off_t offset) {
    REAL(pwrite);
    return file_fails(WRITE, file) ? -1 : real(file, buffer, size, offset);
}

ssize_t pwrite64(int file, const void *buffer, size_t size, off64_t offset) {
    REAL(pwrite64);
    return file_fails(WRITE, file) ? -1 : real(file, buffer, size, offset);
}

ssize_t sendfile64(int to, int from, off64_t *offset, size_t size) {
    REAL(sendfile64);
    return file_fails(WRITE, to) ? -1 : real(to, from, offset, size);
}

int fsync(int file) {
    REAL(fsync);
    return file_fails(SYNC, file) ? -1 : real(file);
}

int fdatasync(int file) {
    REAL(fdatasync);
    return file_fails(SYNC, file) ? -1 : real(file);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    return fails(RENAME, to) ? -1 : real(from, to);
}

int renameat(int a, const char *from, int b, const char *to) {
    REAL(renameat);
    return fails(RENAME, to) ? -1 : real(a, from, b, to);
}

int stat(const char *path, struct stat *found) {
    REAL(stat);
    return fails(STAT, path) ? -1 : real(path, found);
}

int stat64(const char *path, struct stat64 *found) {
    REAL(stat64);
    return fails(STAT, path) ? -1 : real(path, found);
}

int lstat(const char *path, struct stat *found) {
    REAL(lstat);
    return fails(STAT, path) ? -1 : real(path, found);
}

int lstat64(const char *path, struct stat64 *found) {
    REAL(lstat64);
    return fails(STAT, path) ? -1 : real(path, found);
}
