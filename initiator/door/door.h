/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The library that `vscsi-initiator run` preloads: what its files know of each other. A descriptor of ours is an empty,
 * sealed memfd whose name says which open file of the parent it stands for: dup, fork, exec, file offsets and access
 * modes are then the kernel's, and there is no table here that could go stale. Nothing is answered in this library.
 */
#ifndef VSCSI_DOOR_H
#define VSCSI_DOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "door.cdef.h"

#define DOOR_EXPORT __attribute__((visibility("default")))
#define DOOR_PREFIX "/dev/vscsi"
#define DOOR_ENVIRONMENT "VSCSI_DOOR" /* TOKEN:PATH of the parent's socket */

/* ---- real.c: the functions that ours stand before ---- */

/* The next definition of a symbol, found once. NEXT declares one, CALL(name)(...) calls it. */
void *door_next_cached(const char *name, void *_Atomic *cache);
#define NEXT(ret, name, ...)                                                                                          \
    static void *_Atomic static_next_##name;                                                                          \
    typedef ret (*type_##name)(__VA_ARGS__)
#define CALL(name) ((type_##name)door_next_cached(#name, &static_next_##name))

/* ---- link.c: connections to the parent ---- */

struct door_link {
    _Atomic int busy;
    int fd;               /* -1: none */
    uint64_t ino;         /* of fd: a program may close what it does not know */
    uint8_t *window;
    size_t window_nbytes;
};

/* A link for one conversation, connected; NULL with errno ENODEV, EMFILE... */
struct door_link *door_link_take(void);
void door_link_give(struct door_link *link);
/* After an error, or with an answer outstanding that nobody will fetch. */
void door_link_drop(struct door_link *link);
/* Room for these many bytes each way: 0 or -errno. */
int door_link_room(struct door_link *link, size_t out_nbytes, size_t in_nbytes);
int door_link_send(struct door_link *link, const struct door_request *request);
/* 0, or -errno: -ENODEV when the parent is gone. */
int door_link_receive(struct door_link *link, struct door_answer *answer);
int door_link_fd(struct door_link *link);
uint8_t *door_link_in(struct door_link *link, size_t out_nbytes);
/* A conversation without data: 0 or -errno, the answer's error included. */
int door_ask(const struct door_request *request, struct door_answer *answer);
const char *door_token(void);
bool door_is_open(void);

/* ---- file.c: which paths and descriptors are ours ---- */

struct door_file {
    uint32_t number;
    uint32_t node;
    enum door_kind kind;
};

/* Whether this path may be one of ours: -1 no; else bytes of its plain form in `plain`. */
int door_path(const char *path, char plain[DOOR_TEXT_MAX]);
bool door_file(int fd, struct door_file *file);
/* The descriptor, or -1 with errno. */
int door_open(const char *plain, int flags);
/* 0, or -1 with errno. */
int door_find(const char *plain, struct door_file *file);
int door_setting(const struct door_file *file, enum door_setting setting, uint64_t value, uint64_t *before);

/* ---- sgio.c, async.c, ioctl.c, bytes.c ---- */

int door_sg_io(const struct door_file *file, void *argument);
ssize_t door_sg_write(const struct door_file *file, const void *data, size_t nbytes);
ssize_t door_sg_read(const struct door_file *file, void *data, size_t nbytes, bool wait);
int door_sg_waiting(const struct door_file *file);
bool door_sg_ready(const struct door_file *file, int timeout_ms);
void door_sg_forget(void);
ssize_t door_transfer(const struct door_file *file, void *data, size_t nbytes, uint64_t offset, bool writing);
int door_flush(const struct door_file *file);
/* Standard streams that are block nodes. */
void door_streams_start(void);
/* Positive values only as they are; negative errno becomes -1 with errno. */
long door_result(long value);

#endif
