/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The functions of the C library that take a path, or tell about a descriptor, standing before the real ones. Each asks
 * first whether the path or descriptor is ours. Knows their signatures, old and new; knows no message.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "door.h"

_Static_assert(sizeof(struct stat) == sizeof(struct stat64), "one structure serves both names");

enum { GENERIC_MAJOR = 21, BLOCK_MAJOR = 240, MINOR = 0x80000 };

/* ---- what a node looks like ---- */

static mode_t node_mode(const struct door_file *file)
{
    return (file->kind == DOOR_BLOCK ? S_IFBLK : S_IFCHR) | 0660;
}

/* sg's major number, which tools look at; a minor that no real sg device has. For block nodes an experimental major. */
static dev_t node_rdev(const struct door_file *file)
{
    return makedev(file->kind == DOOR_BLOCK ? BLOCK_MAJOR : GENERIC_MAJOR, MINOR | file->node);
}

static int describe(const struct door_file *file, struct stat *found)
{
    memset(found, 0, sizeof(*found));
    found->st_dev = makedev(0, 5);
    found->st_ino = MINOR | (file->node << 2) | file->kind;
    found->st_mode = node_mode(file);
    found->st_nlink = 1;
    found->st_uid = geteuid();
    found->st_gid = getegid();
    found->st_rdev = node_rdev(file);
    found->st_blksize = DOOR_PAGE;
    return 0;
}

static int describe_x(const struct door_file *file, struct statx *found)
{
    struct stat plain;

    describe(file, &plain);
    memset(found, 0, sizeof(*found));
    found->stx_mask = STATX_BASIC_STATS;
    found->stx_blksize = DOOR_PAGE;
    found->stx_nlink = 1;
    found->stx_uid = plain.st_uid;
    found->stx_gid = plain.st_gid;
    found->stx_mode = (uint16_t)plain.st_mode;
    found->stx_ino = plain.st_ino;
    found->stx_rdev_major = major(plain.st_rdev);
    found->stx_rdev_minor = minor(plain.st_rdev);
    found->stx_dev_major = major(plain.st_dev);
    found->stx_dev_minor = minor(plain.st_dev);
    return 0;
}

static int describe_path(const char *plain, struct stat *found)
{
    struct door_file file;

    return door_find(plain, &file) == 0 ? describe(&file, found) : -1;
}

/* ---- open ---- */

static bool wants_mode(int flags)
{
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
}

/* The mode that follows `flags` where a file may be made; 0 where there is none to be taken. */
#define MODE_AFTER(flags, mode)                                                                                       \
    do {                                                                                                              \
        if (wants_mode(flags)) {                                                                                      \
            va_list more;                                                                                             \
                                                                                                                      \
            va_start(more, flags);                                                                                    \
            (mode) = va_arg(more, mode_t);                                                                            \
            va_end(more);                                                                                             \
        }                                                                                                             \
    } while (0)

#define OPEN(name)                                                                                                    \
    NEXT(int, name, const char *, int, ...);                                                                          \
    DOOR_EXPORT int name(const char *path, int flags, ...)                                                            \
    {                                                                                                                 \
        char plain[DOOR_TEXT_MAX];                                                                                    \
        mode_t mode = 0;                                                                                              \
                                                                                                                      \
        MODE_AFTER(flags, mode);                                                                                      \
        return door_path(path, plain) < 0 ? CALL(name)(path, flags, mode) : door_open(plain, flags);                  \
    }
OPEN(open)
OPEN(open64)
OPEN(__open)
OPEN(__open64)

#define OPENAT(name)                                                                                                  \
    NEXT(int, name, int, const char *, int, ...);                                                                     \
    DOOR_EXPORT int name(int folder, const char *path, int flags, ...)                                                \
    {                                                                                                                 \
        char plain[DOOR_TEXT_MAX];                                                                                    \
        mode_t mode = 0;                                                                                              \
                                                                                                                      \
        MODE_AFTER(flags, mode);                                                                                      \
        return door_path(path, plain) < 0 ? CALL(name)(folder, path, flags, mode) : door_open(plain, flags);          \
    }
OPENAT(openat)
OPENAT(openat64)

/* What fortified programs call when the flags need no mode. */
#define OPEN_2(name)                                                                                                  \
    NEXT(int, name, const char *, int);                                                                               \
    DOOR_EXPORT int name(const char *path, int flags)                                                                 \
    {                                                                                                                 \
        char plain[DOOR_TEXT_MAX];                                                                                    \
                                                                                                                      \
        return door_path(path, plain) < 0 ? CALL(name)(path, flags) : door_open(plain, flags);                        \
    }                                                                                                                 \
    int name(const char *path, int flags)
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int folder, const char *path, int flags);
int __openat64_2(int folder, const char *path, int flags);
OPEN_2(__open_2);
OPEN_2(__open64_2);

#define OPENAT_2(name)                                                                                                \
    NEXT(int, name, int, const char *, int);                                                                          \
    DOOR_EXPORT int name(int folder, const char *path, int flags)                                                     \
    {                                                                                                                 \
        char plain[DOOR_TEXT_MAX];                                                                                    \
                                                                                                                      \
        return door_path(path, plain) < 0 ? CALL(name)(folder, path, flags) : door_open(plain, flags);                \
    }
OPENAT_2(__openat_2)
OPENAT_2(__openat64_2)

#define CREAT(name)                                                                                                   \
    NEXT(int, name, const char *, mode_t);                                                                            \
    DOOR_EXPORT int name(const char *path, mode_t mode)                                                               \
    {                                                                                                                 \
        char plain[DOOR_TEXT_MAX];                                                                                    \
                                                                                                                      \
        return door_path(path, plain) < 0 ? CALL(name)(path, mode) : door_open(plain, O_CREAT | O_WRONLY | O_TRUNC);  \
    }
CREAT(creat)
CREAT(creat64)

/* ---- stat ---- */

#define STAT(name, type)                                                                                              \
    NEXT(int, name, const char *, struct type *);                                                                     \
    DOOR_EXPORT int name(const char *path, struct type *found)                                                        \
    {                                                                                                                 \
        char plain[DOOR_TEXT_MAX];                                                                                    \
                                                                                                                      \
        return door_path(path, plain) < 0 ? CALL(name)(path, found) : describe_path(plain, (struct stat *)found);     \
    }
STAT(stat, stat)
STAT(lstat, stat)
STAT(stat64, stat64)
STAT(lstat64, stat64)

#define FSTAT(name, type)                                                                                             \
    NEXT(int, name, int, struct type *);                                                                              \
    DOOR_EXPORT int name(int fd, struct type *found)                                                                  \
    {                                                                                                                 \
        struct door_file file;                                                                                        \
                                                                                                                      \
        return door_file(fd, &file) ? describe(&file, (struct stat *)found) : CALL(name)(fd, found);                  \
    }
FSTAT(fstat, stat)
FSTAT(fstat64, stat64)

#define FSTATAT(name, type)                                                                                           \
    NEXT(int, name, int, const char *, struct type *, int);                                                           \
    DOOR_EXPORT int name(int folder, const char *path, struct type *found, int flags)                                 \
    {                                                                                                                 \
        char plain[DOOR_TEXT_MAX];                                                                                    \
        struct door_file file;                                                                                        \
                                                                                                                      \
        if (door_path(path, plain) >= 0) {                                                                            \
            return describe_path(plain, (struct stat *)found);                                                        \
        }                                                                                                             \
        if ((flags & AT_EMPTY_PATH) && path[0] == '\0' && door_file(folder, &file)) {                                 \
            return describe(&file, (struct stat *)found);                                                             \
        }                                                                                                             \
        return CALL(name)(folder, path, found, flags);                                                                \
    }
FSTATAT(fstatat, stat)
FSTATAT(fstatat64, stat64)

NEXT(int, statx, int, const char *, int, unsigned int, struct statx *);
DOOR_EXPORT int statx(int folder, const char *restrict path, int flags, unsigned int mask, struct statx *restrict found)
{
    char plain[DOOR_TEXT_MAX];
    struct door_file file;

    if (door_path(path, plain) >= 0) {
        return door_find(plain, &file) == 0 ? describe_x(&file, found) : -1;
    }
    if ((flags & AT_EMPTY_PATH) && path[0] == '\0' && door_file(folder, &file)) {
        return describe_x(&file, found);
    }
    return CALL(statx)(folder, path, flags, mask, found);
}

/* What programs built before glibc 2.33 call. */
#define XSTAT(name, type)                                                                                             \
    NEXT(int, name, int, const char *, struct type *);                                                                \
    int name(int version, const char *path, struct type *found);                                                      \
    DOOR_EXPORT int name(int version, const char *path, struct type *found)                                           \
    {                                                                                                                 \
        char plain[DOOR_TEXT_MAX];                                                                                    \
                                                                                                                      \
        return door_path(path, plain) < 0 ? CALL(name)(version, path, found)                                          \
                                          : describe_path(plain, (struct stat *)found);                               \
    }
XSTAT(__xstat, stat)
XSTAT(__lxstat, stat)
XSTAT(__xstat64, stat64)
XSTAT(__lxstat64, stat64)

#define FXSTAT(name, type)                                                                                            \
    NEXT(int, name, int, int, struct type *);                                                                         \
    int name(int version, int fd, struct type *found);                                                                \
    DOOR_EXPORT int name(int version, int fd, struct type *found)                                                     \
    {                                                                                                                 \
        struct door_file file;                                                                                        \
                                                                                                                      \
        return door_file(fd, &file) ? describe(&file, (struct stat *)found) : CALL(name)(version, fd, found);         \
    }
FXSTAT(__fxstat, stat)
FXSTAT(__fxstat64, stat64)

#define FXSTATAT(name, type)                                                                                          \
    NEXT(int, name, int, int, const char *, struct type *, int);                                                      \
    int name(int version, int folder, const char *path, struct type *found, int flags);                               \
    DOOR_EXPORT int name(int version, int folder, const char *path, struct type *found, int flags)                    \
    {                                                                                                                 \
        char plain[DOOR_TEXT_MAX];                                                                                    \
                                                                                                                      \
        return door_path(path, plain) < 0 ? CALL(name)(version, folder, path, found, flags)                           \
                                          : describe_path(plain, (struct stat *)found);                               \
    }
FXSTATAT(__fxstatat, stat)
FXSTATAT(__fxstatat64, stat64)

/* ---- access, links, sizes ---- */

static int accessible(const char *plain, int mode)
{
    struct door_file file;

    if (door_find(plain, &file) != 0) {
        return -1;
    }
    if (mode & X_OK) {
        errno = EACCES;
        return -1;
    }
    return 0;
}

#define ACCESS(name)                                                                                                  \
    NEXT(int, name, const char *, int);                                                                               \
    DOOR_EXPORT int name(const char *path, int mode)                                                                  \
    {                                                                                                                 \
        char plain[DOOR_TEXT_MAX];                                                                                    \
                                                                                                                      \
        return door_path(path, plain) < 0 ? CALL(name)(path, mode) : accessible(plain, mode);                         \
    }
ACCESS(access)
ACCESS(euidaccess)
ACCESS(eaccess)

NEXT(int, faccessat, int, const char *, int, int);
DOOR_EXPORT int faccessat(int folder, const char *path, int mode, int flags)
{
    char plain[DOOR_TEXT_MAX];

    return door_path(path, plain) < 0 ? CALL(faccessat)(folder, path, mode, flags) : accessible(plain, mode);
}

/* A node is no symbolic link. */
static int no_link(const char *plain)
{
    struct door_file file;

    if (door_find(plain, &file) == 0) {
        errno = EINVAL;
    }
    return -1;
}

NEXT(ssize_t, readlink, const char *, char *, size_t);
DOOR_EXPORT ssize_t readlink(const char *restrict path, char *restrict to, size_t nbytes)
{
    char plain[DOOR_TEXT_MAX];

    return door_path(path, plain) < 0 ? CALL(readlink)(path, to, nbytes) : no_link(plain);
}

NEXT(ssize_t, readlinkat, int, const char *, char *, size_t);
DOOR_EXPORT ssize_t readlinkat(int folder, const char *restrict path, char *restrict to, size_t nbytes)
{
    char plain[DOOR_TEXT_MAX];

    return door_path(path, plain) < 0 ? CALL(readlinkat)(folder, path, to, nbytes) : no_link(plain);
}

/* The plain form is the real path. `to` NULL: allocated. */
static char *resolved(const char *plain, char *to)
{
    struct door_file file;

    if (door_find(plain, &file) != 0) {
        return NULL;
    }
    return to != NULL ? strcpy(to, plain) : strdup(plain);
}

NEXT(char *, realpath, const char *, char *);
DOOR_EXPORT char *realpath(const char *restrict path, char *restrict to)
{
    char plain[DOOR_TEXT_MAX];

    return door_path(path, plain) < 0 ? CALL(realpath)(path, to) : resolved(plain, to);
}

char *__realpath_chk(const char *path, char *to, size_t nbytes);
NEXT(char *, __realpath_chk, const char *, char *, size_t);
DOOR_EXPORT char *__realpath_chk(const char *path, char *to, size_t nbytes)
{
    char plain[DOOR_TEXT_MAX];

    return door_path(path, plain) < 0 ? CALL(__realpath_chk)(path, to, nbytes) : resolved(plain, to);
}

NEXT(char *, canonicalize_file_name, const char *);
DOOR_EXPORT char *canonicalize_file_name(const char *path)
{
    char plain[DOOR_TEXT_MAX];

    return door_path(path, plain) < 0 ? CALL(canonicalize_file_name)(path) : resolved(plain, NULL);
}

/* ls and cp ask for access control lists and labels; nodes have none. */
#define GETXATTR(name)                                                                                                \
    NEXT(ssize_t, name, const char *, const char *, void *, size_t);                                                  \
    DOOR_EXPORT ssize_t name(const char *path, const char *attribute, void *value, size_t nbytes)                     \
    {                                                                                                                 \
        char plain[DOOR_TEXT_MAX];                                                                                    \
                                                                                                                      \
        return door_path(path, plain) < 0 ? CALL(name)(path, attribute, value, nbytes) : door_result(-ENOTSUP);       \
    }
GETXATTR(getxattr)
GETXATTR(lgetxattr)
