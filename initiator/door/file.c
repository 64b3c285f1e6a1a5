/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which paths and descriptors are ours. A path is by its beginning, and the parent says whether it exists; a descriptor
 * is by the name of its memfd: vscsi-door:TOKEN:KIND:NODE:NUMBER. Knows no ioctl and no message of SCSI.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "door.h"

#define MEMFD "vscsi-door:"
#define LINK "/memfd:" MEMFD

NEXT(int, fstat, int, struct stat *);
NEXT(ssize_t, readlink, const char *, char *, size_t);
NEXT(int, open, const char *, int, ...);

/* Slashes that follow a slash, and "." between slashes, mean nothing. */
static int plain_form(const char *path, char plain[DOOR_TEXT_MAX])
{
    size_t n = 0;

    while (*path != '\0') {
        if (*path == '/') {
            while (path[1] == '/' || (path[1] == '.' && path[2] == '/')) {
                path += path[1] == '/' ? 1 : 2;
            }
        }
        if (n + 1 >= DOOR_TEXT_MAX) {
            return -1;
        }
        plain[n++] = *path++;
    }
    plain[n] = '\0';
    return (int)n;
}

int door_path(const char *path, char plain[DOOR_TEXT_MAX])
{
    int n;

    if (!door_is_open() || path == NULL || path[0] != '/') {
        return -1;
    }
    n = plain_form(path, plain);
    if (n < 0 || strncmp(plain, DOOR_PREFIX, sizeof(DOOR_PREFIX) - 1) != 0) {
        return -1;
    }
    return n;
}

static bool number(char **at, unsigned long *value)
{
    char *end;

    if (**at < '0' || **at > '9') {
        return false;
    }
    *value = strtoul(*at, &end, 10);
    *at = end + (*end == ':');
    return *value <= UINT32_MAX;
}

bool door_file(int fd, struct door_file *file)
{
    char name[128], path[32], *at = name + sizeof(LINK) - 1;
    size_t token_nbytes = strlen(door_token());
    unsigned long kind, node, file_number;
    struct stat found;
    int kept = errno;
    ssize_t n;

    /* Almost everything that a program has is not an empty file without a name. */
    if (!door_is_open() || fd < 0 || CALL(fstat)(fd, &found) != 0 || !S_ISREG(found.st_mode) || found.st_nlink != 0 ||
        found.st_size != 0) {
        errno = kept;
        return false;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    n = CALL(readlink)(path, name, sizeof(name) - 1);
    errno = kept;
    if (n < (ssize_t)(sizeof(LINK) - 1) || memcmp(name, LINK, sizeof(LINK) - 1) != 0) {
        return false;
    }
    name[n] = '\0';
    if (strncmp(at, door_token(), token_nbytes) != 0 || at[token_nbytes] != ':') {
        return false; /* of another `vscsi-initiator run` */
    }
    at += token_nbytes + 1;
    if (!number(&at, &kind) || !number(&at, &node) || !number(&at, &file_number)) {
        return false;
    }
    file->kind = (enum door_kind)kind;
    file->node = (uint32_t)node;
    file->number = (uint32_t)file_number;
    return true;
}

static int with_path(enum door_op op, const char *plain, struct door_answer *answer)
{
    struct door_request request = {.op = op, .text_nbytes = (uint32_t)strlen(plain)};

    memcpy(request.text, plain, request.text_nbytes);
    return door_ask(&request, answer);
}

int door_find(const char *plain, struct door_file *file)
{
    struct door_answer answer;
    int rc = with_path(DOOR_FIND, plain, &answer);

    if (rc != 0) {
        return (int)door_result(rc);
    }
    file->kind = (enum door_kind)answer.values[0];
    file->node = (uint32_t)answer.values[1];
    file->number = 0;
    return 0;
}

int door_open(const char *plain, int flags)
{
    char name[128], path[32];
    struct door_answer answer;
    int fd, again, rc;

    if (flags & O_DIRECTORY) {
        errno = ENOTDIR;
        return -1;
    }
    if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL)) {
        errno = EEXIST;
        return -1;
    }
    rc = with_path(DOOR_OPEN, plain, &answer);
    if (rc != 0) {
        return (int)door_result(rc);
    }
    if (answer.values[0] == DOOR_BLOCK && answer.values[3] && (flags & O_ACCMODE) != O_RDONLY) {
        errno = EROFS;
        return -1;
    }
    snprintf(name, sizeof(name), MEMFD "%s:%u:%u:%u", door_token(), (unsigned)answer.values[0],
             (unsigned)answer.values[1], (unsigned)answer.values[2]);
    fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return -1;
    }
    fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
    /* Opened anew for the access mode and flags that were asked for. */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    flags &= ~(O_CREAT | O_EXCL | O_TRUNC | O_DIRECT | O_APPEND | O_NOFOLLOW | O_TMPFILE);
    again = CALL(open)(path, flags | O_NOCTTY);
    rc = errno;
    close(fd);
    errno = rc;
    return again;
}

int door_setting(const struct door_file *file, enum door_setting setting, uint64_t value, uint64_t *before)
{
    struct door_request request = {.op = DOOR_SETTING, .file = file->number, .offset = setting, .nbytes = value};
    struct door_answer answer;
    int rc = door_ask(&request, &answer);

    if (rc == 0 && before != NULL) {
        *before = answer.values[0];
    }
    return rc;
}
