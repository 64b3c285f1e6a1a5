/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * FILE streams on block nodes. The C library reads and writes its streams with calls of its own, which do not pass
 * here; so a stream of ours is a cookie stream over our own read, write and lseek, and standard streams that are block
 * nodes when a program starts become such too. Knows stdio; knows no message.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "door.h"

static int number(void *cookie)
{
    return (int)(intptr_t)cookie - 1;
}

static ssize_t stream_read(void *cookie, char *to, size_t nbytes)
{
    return read(number(cookie), to, nbytes);
}

static ssize_t stream_write(void *cookie, const char *from, size_t nbytes)
{
    ssize_t n = write(number(cookie), from, nbytes);

    return n < 0 ? 0 : n; /* so says fopencookie: 0 is the error */
}

static int stream_seek(void *cookie, off64_t *offset, int whence)
{
    off64_t found = lseek64(number(cookie), *offset, whence);

    if (found < 0) {
        return -1;
    }
    *offset = found;
    return 0;
}

static int stream_close(void *cookie)
{
    return close(number(cookie));
}

/* A stream over a descriptor of ours; fileno() finds the descriptor. */
static FILE *stream(int fd, const char *mode)
{
    static const cookie_io_functions_t functions = {stream_read, stream_write, stream_seek, stream_close};
    FILE *made = fopencookie((void *)(intptr_t)(fd + 1), mode, functions);

    if (made != NULL) {
        made->_fileno = fd;
    }
    return made;
}

/* -1 with EINVAL for a mode that fopen does not know. */
static int flags_of(const char *mode)
{
    bool plus = strchr(mode, '+') != NULL;
    int flags = plus ? O_RDWR : mode[0] == 'r' ? O_RDONLY : O_WRONLY;

    if (strchr("rwa", mode[0]) == NULL || mode[0] == '\0') {
        errno = EINVAL;
        return -1;
    }
    return flags | (strchr(mode, 'e') != NULL ? O_CLOEXEC : 0) | (strchr(mode, 'x') != NULL ? O_CREAT | O_EXCL : 0);
}

NEXT(FILE *, fdopen, int, const char *);

static FILE *open_stream(const char *plain, const char *mode)
{
    struct door_file file;
    int fd, flags = flags_of(mode);
    FILE *made;

    if (flags < 0) {
        return NULL;
    }
    fd = door_open(plain, flags);
    if (fd < 0) {
        return NULL;
    }
    made = door_file(fd, &file) && file.kind == DOOR_BLOCK ? stream(fd, mode) : CALL(fdopen)(fd, mode);
    if (made == NULL) {
        int kept = errno;

        close(fd);
        errno = kept;
    }
    return made;
}

#define FOPEN(name)                                                                                                   \
    NEXT(FILE *, name, const char *, const char *);                                                                   \
    DOOR_EXPORT FILE *name(const char *restrict path, const char *restrict mode)                                      \
    {                                                                                                                 \
        char plain[DOOR_TEXT_MAX];                                                                                    \
                                                                                                                      \
        return door_path(path, plain) < 0 ? CALL(name)(path, mode) : open_stream(plain, mode);                        \
    }
FOPEN(fopen)
FOPEN(fopen64)

DOOR_EXPORT FILE *fdopen(int fd, const char *mode)
{
    struct door_file file;

    return door_file(fd, &file) && file.kind == DOOR_BLOCK ? stream(fd, mode) : CALL(fdopen)(fd, mode);
}

void door_streams_start(void)
{
    struct door_file file;
    FILE *made;

    if (door_file(STDIN_FILENO, &file) && file.kind == DOOR_BLOCK && (made = stream(STDIN_FILENO, "r")) != NULL) {
        stdin = made;
    }
    if (door_file(STDOUT_FILENO, &file) && file.kind == DOOR_BLOCK && (made = stream(STDOUT_FILENO, "w")) != NULL) {
        stdout = made;
    }
}
