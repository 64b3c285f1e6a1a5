/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * read, write, lseek and their kin. On a block node they are bytes of the disk, and the file offset is the memfd's own,
 * so that it is shared by dup and fork as it must be. On a generic node they are sg's asynchronous interface.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#include "door.h"

enum { PIECE_NBYTES = 4194304 };

NEXT(off_t, lseek, int, off_t, int);

/* ---- bytes of a disk ---- */

static ssize_t piece(const struct door_file *file, uint8_t *data, size_t nbytes, uint64_t offset, bool writing)
{
    struct door_request request = {.op = writing ? DOOR_WRITE : DOOR_READ, .file = file->number, .offset = offset};
    struct door_link *link = door_link_take();
    struct door_answer answer;
    size_t out = writing ? nbytes : 0, in = writing ? 0 : nbytes;
    ssize_t done;
    int rc;

    if (link == NULL) {
        return -errno;
    }
    request.out_nbytes = (uint32_t)out;
    request.in_nbytes = (uint32_t)in;
    rc = door_link_room(link, out, in);
    if (rc == 0) {
        if (writing) {
            memcpy(link->window, data, nbytes);
        }
        rc = door_link_send(link, &request);
        if (rc == 0) {
            rc = door_link_receive(link, &answer);
        }
    }
    if (rc != 0) {
        door_link_drop(link);
        return rc;
    }
    done = answer.error ? -answer.error : (ssize_t)(answer.values[0] < nbytes ? answer.values[0] : nbytes);
    if (done > 0 && !writing) {
        memcpy(data, door_link_in(link, 0), (size_t)done);
    }
    door_link_give(link);
    return done;
}

ssize_t door_transfer(const struct door_file *file, void *data, size_t nbytes, uint64_t offset, bool writing)
{
    size_t done = 0;

    if (nbytes > SSIZE_MAX) {
        return -EINVAL;
    }
    while (done < nbytes) {
        size_t want = nbytes - done < PIECE_NBYTES ? nbytes - done : PIECE_NBYTES;
        ssize_t n = piece(file, (uint8_t *)data + done, want, offset + done, writing);

        if (n < 0 && done == 0) {
            return n;
        }
        if (n <= 0) {
            break;
        }
        done += (size_t)n;
        if ((size_t)n < want) {
            break;
        }
    }
    return (ssize_t)done;
}

int door_flush(const struct door_file *file)
{
    struct door_request request = {.op = DOOR_FLUSH, .file = file->number};
    struct door_answer answer;

    return door_ask(&request, &answer);
}

static bool allowed(int fd, bool writing)
{
    int mode = fcntl(fd, F_GETFL) & O_ACCMODE;

    return mode == O_RDWR || mode == (writing ? O_WRONLY : O_RDONLY);
}

/* At `offset`, or at the file offset (-1), which moves on. */
static ssize_t transfer(int fd, const struct door_file *file, void *data, size_t nbytes, off_t offset, bool writing)
{
    off_t at = offset;
    ssize_t done;

    if (!allowed(fd, writing)) {
        return -EBADF;
    }
    if (file->kind == DOOR_GENERIC) {
        if (offset != -1) {
            return -ESPIPE;
        }
        return writing ? door_sg_write(file, data, nbytes)
                       : door_sg_read(file, data, nbytes, !(fcntl(fd, F_GETFL) & O_NONBLOCK));
    }
    if (offset == -1) {
        at = CALL(lseek)(fd, 0, SEEK_CUR);
    }
    if (at < 0) {
        return -EINVAL;
    }
    done = door_transfer(file, data, nbytes, (uint64_t)at, writing);
    if (offset == -1 && done > 0) {
        CALL(lseek)(fd, at + done, SEEK_SET);
    }
    return done;
}

static ssize_t vector(int fd, const struct door_file *file, const struct iovec *parts, int count, off_t offset,
                      bool writing)
{
    ssize_t total = 0;

    if (count < 0 || count > IOV_MAX) {
        return -EINVAL;
    }
    for (int i = 0; i < count; i++) {
        off_t at = offset == -1 ? -1 : offset + total;
        ssize_t n = transfer(fd, file, parts[i].iov_base, parts[i].iov_len, at, writing);

        if (n < 0) {
            return total > 0 ? total : n;
        }
        total += n;
        if ((size_t)n < parts[i].iov_len) {
            break;
        }
    }
    return total;
}

/* ---- the functions ---- */

NEXT(ssize_t, read, int, void *, size_t);
DOOR_EXPORT ssize_t read(int fd, void *data, size_t nbytes)
{
    struct door_file file;

    return door_file(fd, &file) ? door_result(transfer(fd, &file, data, nbytes, -1, false))
                                : CALL(read)(fd, data, nbytes);
}

ssize_t __read_chk(int fd, void *data, size_t nbytes, size_t room);
NEXT(ssize_t, __read_chk, int, void *, size_t, size_t);
DOOR_EXPORT ssize_t __read_chk(int fd, void *data, size_t nbytes, size_t room)
{
    struct door_file file;

    return door_file(fd, &file) && nbytes <= room ? door_result(transfer(fd, &file, data, nbytes, -1, false))
                                                  : CALL(__read_chk)(fd, data, nbytes, room);
}

NEXT(ssize_t, write, int, const void *, size_t);
DOOR_EXPORT ssize_t write(int fd, const void *data, size_t nbytes)
{
    struct door_file file;

    return door_file(fd, &file) ? door_result(transfer(fd, &file, (void *)(uintptr_t)data, nbytes, -1, true))
                                : CALL(write)(fd, data, nbytes);
}

#define PREAD(name, offset_type)                                                                                      \
    NEXT(ssize_t, name, int, void *, size_t, offset_type);                                                            \
    DOOR_EXPORT ssize_t name(int fd, void *data, size_t nbytes, offset_type offset)                                   \
    {                                                                                                                 \
        struct door_file file;                                                                                        \
                                                                                                                      \
        return door_file(fd, &file)                                                                                   \
                   ? door_result(offset < 0 ? -EINVAL : transfer(fd, &file, data, nbytes, offset, false))             \
                   : CALL(name)(fd, data, nbytes, offset);                                                            \
    }
PREAD(pread, off_t)
PREAD(pread64, off64_t)

#define PREAD_CHK(name, offset_type)                                                                                  \
    ssize_t name(int fd, void *data, size_t nbytes, offset_type offset, size_t room);                                 \
    NEXT(ssize_t, name, int, void *, size_t, offset_type, size_t);                                                    \
    DOOR_EXPORT ssize_t name(int fd, void *data, size_t nbytes, offset_type offset, size_t room)                      \
    {                                                                                                                 \
        struct door_file file;                                                                                        \
                                                                                                                      \
        return door_file(fd, &file) && nbytes <= room                                                                 \
                   ? door_result(offset < 0 ? -EINVAL : transfer(fd, &file, data, nbytes, offset, false))             \
                   : CALL(name)(fd, data, nbytes, offset, room);                                                      \
    }
PREAD_CHK(__pread_chk, off_t)
PREAD_CHK(__pread64_chk, off64_t)

#define PWRITE(name, offset_type)                                                                                     \
    NEXT(ssize_t, name, int, const void *, size_t, offset_type);                                                      \
    DOOR_EXPORT ssize_t name(int fd, const void *data, size_t nbytes, offset_type offset)                             \
    {                                                                                                                 \
        struct door_file file;                                                                                        \
        void *from = (void *)(uintptr_t)data;                                                                         \
                                                                                                                      \
        return door_file(fd, &file)                                                                                   \
                   ? door_result(offset < 0 ? -EINVAL : transfer(fd, &file, from, nbytes, offset, true))              \
                   : CALL(name)(fd, data, nbytes, offset);                                                            \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define VECTOR(name, writing)                                                                                         \
    NEXT(ssize_t, name, int, const struct iovec *, int);                                                              \
    DOOR_EXPORT ssize_t name(int fd, const struct iovec *parts, int count)                                            \
    {                                                                                                                 \
        struct door_file file;                                                                                        \
                                                                                                                      \
        return door_file(fd, &file) ? door_result(vector(fd, &file, parts, count, -1, writing))                       \
                                    : CALL(name)(fd, parts, count);                                                   \
    }
VECTOR(readv, false)
VECTOR(writev, true)

#define PVECTOR(name, offset_type, writing)                                                                           \
    NEXT(ssize_t, name, int, const struct iovec *, int, offset_type);                                                 \
    DOOR_EXPORT ssize_t name(int fd, const struct iovec *parts, int count, offset_type offset)                        \
    {                                                                                                                 \
        struct door_file file;                                                                                        \
                                                                                                                      \
        return door_file(fd, &file)                                                                                   \
                   ? door_result(offset < 0 ? -EINVAL : vector(fd, &file, parts, count, offset, writing))             \
                   : CALL(name)(fd, parts, count, offset);                                                            \
    }
PVECTOR(preadv, off_t, false)
PVECTOR(preadv64, off64_t, false)
PVECTOR(pwritev, off_t, true)
PVECTOR(pwritev64, off64_t, true)

/* Flags are hints (RWF_HIPRI, RWF_NOWAIT) but for those that ask for durability. -1: at the file offset. */
#define PVECTOR2(name, offset_type, writing)                                                                          \
    NEXT(ssize_t, name, int, const struct iovec *, int, offset_type, int);                                            \
    DOOR_EXPORT ssize_t name(int fd, const struct iovec *parts, int count, offset_type offset, int flags)             \
    {                                                                                                                 \
        struct door_file file;                                                                                        \
        ssize_t done;                                                                                                 \
                                                                                                                      \
        if (!door_file(fd, &file)) {                                                                                  \
            return CALL(name)(fd, parts, count, offset, flags);                                                       \
        }                                                                                                             \
        done = offset < -1 ? -EINVAL : vector(fd, &file, parts, count, offset, writing);                              \
        if ((writing) && done > 0 && (flags & (RWF_DSYNC | RWF_SYNC))) {                                              \
            int rc = door_flush(&file);                                                                               \
                                                                                                                      \
            done = rc != 0 ? rc : done;                                                                               \
        }                                                                                                             \
        return door_result(done);                                                                                     \
    }
PVECTOR2(preadv2, off_t, false)
PVECTOR2(preadv64v2, off64_t, false)
PVECTOR2(pwritev2, off_t, true)
PVECTOR2(pwritev64v2, off64_t, true)

/* Of a block node the end is the disk's; the rest is the memfd's own business. */
static off_t seek(int fd, const struct door_file *file, off_t offset, int whence)
{
    struct door_request request = {.op = DOOR_FACT, .file = file->number};
    struct door_answer answer;
    int rc;

    if (file->kind == DOOR_GENERIC) {
        return 0; /* sg does not care */
    }
    if (whence == SEEK_SET || whence == SEEK_CUR) {
        return CALL(lseek)(fd, offset, whence);
    }
    rc = door_ask(&request, &answer);
    if (rc == 0 && whence != SEEK_END && (offset < 0 || (uint64_t)offset >= answer.values[0])) {
        rc = -ENXIO;
    }
    if (rc != 0) {
        return door_result(rc);
    }
    if (whence == SEEK_DATA) { /* all of it is data */
        return CALL(lseek)(fd, offset, SEEK_SET);
    }
    return CALL(lseek)(fd, (off_t)answer.values[0] + (whence == SEEK_END ? offset : 0), SEEK_SET);
}

DOOR_EXPORT off_t lseek(int fd, off_t offset, int whence)
{
    struct door_file file;

    return door_file(fd, &file) ? seek(fd, &file, offset, whence) : CALL(lseek)(fd, offset, whence);
}

NEXT(off64_t, lseek64, int, off64_t, int);
DOOR_EXPORT off64_t lseek64(int fd, off64_t offset, int whence)
{
    struct door_file file;

    return door_file(fd, &file) ? seek(fd, &file, offset, whence) : CALL(lseek64)(fd, offset, whence);
}

#define SYNC(name)                                                                                                    \
    NEXT(int, name, int);                                                                                             \
    DOOR_EXPORT int name(int fd)                                                                                      \
    {                                                                                                                 \
        struct door_file file;                                                                                        \
                                                                                                                      \
        return !door_file(fd, &file)          ? CALL(name)(fd)                                                        \
               : file.kind == DOOR_BLOCK ? (int)door_result(door_flush(&file))                                        \
                                              : (int)door_result(-EINVAL);                                            \
    }
SYNC(fsync)
SYNC(fdatasync)

/* ---- what is not for devices: refused, so that callers fall back to reading and writing ---- */

#define FTRUNCATE(name, offset_type)                                                                                  \
    NEXT(int, name, int, offset_type);                                                                                \
    DOOR_EXPORT int name(int fd, offset_type nbytes)                                                                  \
    {                                                                                                                 \
        struct door_file file;                                                                                        \
                                                                                                                      \
        return door_file(fd, &file) ? (int)door_result(-EINVAL) : CALL(name)(fd, nbytes);                             \
    }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

NEXT(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned int);
DOOR_EXPORT ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t nbytes, unsigned int flags)
{
    struct door_file file;

    return door_file(in, &file) || door_file(out, &file) ? door_result(-EINVAL)
                                                         : CALL(copy_file_range)(in, in_at, out, out_at, nbytes, flags);
}

#define SENDFILE(name, offset_type)                                                                                   \
    NEXT(ssize_t, name, int, int, offset_type *, size_t);                                                             \
    DOOR_EXPORT ssize_t name(int out, int in, offset_type *at, size_t nbytes)                                         \
    {                                                                                                                 \
        struct door_file file;                                                                                        \
                                                                                                                      \
        return door_file(in, &file) || door_file(out, &file) ? door_result(-EINVAL)                                   \
                                                             : CALL(name)(out, in, at, nbytes);                       \
    }
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)

NEXT(ssize_t, splice, int, off64_t *, int, off64_t *, size_t, unsigned int);
DOOR_EXPORT ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t nbytes, unsigned int flags)
{
    struct door_file file;

    return door_file(in, &file) || door_file(out, &file) ? door_result(-EINVAL)
                                                         : CALL(splice)(in, in_at, out, out_at, nbytes, flags);
}

NEXT(int, posix_fadvise, int, off_t, off_t, int);
DOOR_EXPORT int posix_fadvise(int fd, off_t offset, off_t nbytes, int advice)
{
    struct door_file file;

    return door_file(fd, &file) ? 0 : CALL(posix_fadvise)(fd, offset, nbytes, advice);
}
