/* A mount that refuses calls, for tests: preloaded, these functions end with an errno for files under one folder.
 *
 *   REFUSED_UNDER=/tmp/mount REFUSED_CALLS=flock=ENOLCK,fsync_folder=EINVAL,rename=EBUSY:2 LD_PRELOAD=refuse_calls.so
 *
 * A number behind a colon: only the first so many times. Calls: flock, fcntl_lock, fsync (of a file), fsync_folder,
 * rename, rename_folder, link, symlink, ftruncate, fallocate, chmod, utimes, mmap, copy_range (copy_file_range,
 * sendfile), open_folder, open_read, open_write, open_new (O_EXCL), open_tmpfile, open_direct. Built with cc -shared
 * -fPIC.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int number_of(const char* name, size_t length) {
    static const struct {
        const char* name;
        int number;
    } known[] = {
        {"EACCES", EACCES},        {"EBADF", EBADF}, {"EBUSY", EBUSY},   {"EEXIST", EEXIST},   {"EINTR", EINTR},
        {"EINVAL", EINVAL},        {"EIO", EIO},     {"ENOLCK", ENOLCK}, {"ENOSPC", ENOSPC},   {"ENOSYS", ENOSYS},
        {"ENODEV", ENODEV},        {"EPERM", EPERM}, {"EROFS", EROFS},   {"ETXTBSY", ETXTBSY}, {"ENOTSUP", EOPNOTSUPP},
        {"EOPNOTSUPP", EOPNOTSUPP}};
    for (size_t i = 0; i < sizeof known / sizeof *known; ++i) {
        if (strlen(known[i].name) == length && strncmp(known[i].name, name, length) == 0) return known[i].number;
    }
    const int number = atoi(name);
    if (number > 0) return number;
    fprintf(stderr, "refuse_calls: %.*s is no errno\n", (int)length, name);
    _exit(99);
}

/* The errno that `call` ends with, 0 when it is not refused. */
static int refusal_of(const char* call) {
    static struct {
        const char* entry;
        int times;
    } seen[32];
    const char* entry = getenv("REFUSED_CALLS");
    const size_t length = strlen(call);
    for (int i = 0; entry != NULL && *entry != '\0' && i < 32; ++i) {
        const char* const end = strchrnul(entry, ',');
        if (strncmp(entry, call, length) == 0 && entry[length] == '=') {
            const char* const name = entry + length + 1;
            const size_t name_length = strcspn(name, ",:");
            const int limit = name[name_length] == ':' ? atoi(name + name_length + 1) : INT_MAX;
            if (__atomic_fetch_add(&seen[i].times, 1, __ATOMIC_RELAXED) < limit) return number_of(name, name_length);
            return 0;
        }
        entry = *end == ',' ? end + 1 : end;
    }
    return 0;
}

static int is_under(const char* path) {
    const char* const folder = getenv("REFUSED_UNDER");
    char resolved[PATH_MAX], parent[PATH_MAX];
    if (folder == NULL || path == NULL) return 0;
    if (realpath(path, resolved) == NULL) { /* to be made: its folder decides */
        snprintf(parent, sizeof parent, "%s", path);
        char* const slash = strrchr(parent, '/');
        if (slash == NULL)
            snprintf(parent, sizeof parent, ".");
        else
            slash[1] = '\0';
        if (realpath(parent, resolved) == NULL) return 0;
    }
    return strncmp(resolved, folder, strlen(folder)) == 0;
}

static int is_open_under(int descriptor) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = '\0';
    const char* const folder = getenv("REFUSED_UNDER");
    return folder != NULL && strncmp(path, folder, strlen(folder)) == 0;
}

static int is_folder(int descriptor) {
    struct stat status;
    return fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define REFUSE_IF(under, call, failure)                    \
    do {                                                   \
        const int number = (under) ? refusal_of(call) : 0; \
        if (number != 0) {                                 \
            errno = number;                                \
            return failure;                                \
        }                                                  \
    } while (0)

int flock(int descriptor, int operation) {
    REFUSE_IF(is_open_under(descriptor), "flock", -1);
    return (int)syscall(SYS_flock, descriptor, operation);
}
static int locks(int command) {
    return command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW;
}
#define FCNTL(name)                                                               \
    int name(int descriptor, int command, ...) {                                  \
        va_list arguments;                                                        \
        va_start(arguments, command);                                             \
        void* const argument = va_arg(arguments, void*);                          \
        va_end(arguments);                                                        \
        REFUSE_IF(locks(command) && is_open_under(descriptor), "fcntl_lock", -1); \
        return REAL(name)(descriptor, command, argument);                         \
    }
FCNTL(fcntl)
FCNTL(fcntl64)
#define FSYNC(name)                                                                                 \
    int name(int descriptor) {                                                                      \
        REFUSE_IF(is_open_under(descriptor), is_folder(descriptor) ? "fsync_folder" : "fsync", -1); \
        return REAL(name)(descriptor);                                                              \
    }
FSYNC(fsync)
FSYNC(fdatasync)
static int names_folder(const char* path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}
int rename(const char* from, const char* to) {
    REFUSE_IF(is_under(to), names_folder(from) ? "rename_folder" : "rename", -1);
    return REAL(rename)(from, to);
}
int renameat(int from_folder, const char* from, int to_folder, const char* to) {
    REFUSE_IF(is_under(to), "rename", -1);
    return REAL(renameat)(from_folder, from, to_folder, to);
}
int link(const char* from, const char* to) {
    REFUSE_IF(is_under(to), "link", -1);
    return REAL(link)(from, to);
}
int symlink(const char* target, const char* path) {
    REFUSE_IF(is_under(path), "symlink", -1);
    return REAL(symlink)(target, path);
}
#define FTRUNCATE(name, offset)                                \
    int name(int descriptor, offset length) {                  \
        REFUSE_IF(is_open_under(descriptor), "ftruncate", -1); \
        return REAL(name)(descriptor, length);                 \
    }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)
#define FALLOCATE(name, offset)                                       \
    int name(int descriptor, int mode, offset begin, offset length) { \
        REFUSE_IF(is_open_under(descriptor), "fallocate", -1);        \
        return REAL(name)(descriptor, mode, begin, length);           \
    }
FALLOCATE(fallocate, off_t)
FALLOCATE(fallocate64, off64_t)
int posix_fallocate(int descriptor, off_t begin, off_t length) {
    const int number = is_open_under(descriptor) ? refusal_of("fallocate") : 0;
    return number != 0 ? number : REAL(posix_fallocate)(descriptor, begin, length);
}
int chmod(const char* path, mode_t mode) {
    REFUSE_IF(is_under(path), "chmod", -1);
    return REAL(chmod)(path, mode);
}
int fchmod(int descriptor, mode_t mode) {
    REFUSE_IF(is_open_under(descriptor), "chmod", -1);
    return REAL(fchmod)(descriptor, mode);
}
int utimensat(int folder, const char* path, const struct timespec times[2], int flags) {
    REFUSE_IF(is_under(path), "utimes", -1);
    return REAL(utimensat)(folder, path, times, flags);
}
int futimens(int descriptor, const struct timespec times[2]) {
    REFUSE_IF(is_open_under(descriptor), "utimes", -1);
    return REAL(futimens)(descriptor, times);
}
void* mmap(void* address, size_t length, int protection, int flags, int descriptor, off_t offset) {
    REFUSE_IF(descriptor >= 0 && is_open_under(descriptor), "mmap", MAP_FAILED);
    return (void*)syscall(SYS_mmap, address, length, protection, flags, descriptor, offset);
}
ssize_t copy_file_range(int from, off64_t* from_offset, int to, off64_t* to_offset, size_t length, unsigned flags) {
    REFUSE_IF(is_open_under(to), "copy_range", -1);
    return REAL(copy_file_range)(from, from_offset, to, to_offset, length, flags);
}
ssize_t sendfile(int to, int from, off_t* offset, size_t count);
ssize_t sendfile(int to, int from, off_t* offset, size_t count) {
    REFUSE_IF(is_open_under(to), "copy_range", -1);
    return REAL(sendfile)(to, from, offset, count);
}

static const char* kind_of_open(const char* path, int flags) {
    if ((flags & O_TMPFILE) == O_TMPFILE) return "open_tmpfile";
    if (flags & O_DIRECT) return "open_direct";
    if (flags & O_EXCL) return "open_new";
    if ((flags & O_ACCMODE) != O_RDONLY) return "open_write";
    return names_folder(path) ? "open_folder" : "open_read";
}
#define OPEN(name)                                                                         \
    int name(const char* path, int flags, ...) {                                           \
        va_list arguments;                                                                 \
        va_start(arguments, flags);                                                        \
        const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0; \
        va_end(arguments);                                                                 \
        REFUSE_IF(is_under(path), kind_of_open(path, flags), -1);                          \
        return REAL(name)(path, flags, mode);                                              \
    }
OPEN(open)
OPEN(open64)
