/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * poll on generic nodes, for programs that use sg's asynchronous interface: readable when a command has ended. Knows
 * poll; what is in flight stands in async.c.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <poll.h>
#include <time.h>

#include "door.h"

enum { OURS_MAX = 64, SLICE_MS = 2 };

NEXT(int, poll, struct pollfd *, nfds_t, int);

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* How many of the generic nodes among these have something to say. */
static int ours_ready(struct pollfd *fds, const nfds_t *ours, const struct door_file *files, int count)
{
    int ready = 0;

    for (int i = 0; i < count; i++) {
        struct pollfd *fd = &fds[ours[i]];

        fd->revents = (short)(fd->events & (POLLOUT | POLLWRNORM));
        if ((fd->events & (POLLIN | POLLRDNORM)) && door_sg_ready(&files[i], 0)) {
            fd->revents = (short)(fd->revents | (fd->events & (POLLIN | POLLRDNORM)));
        }
        ready += fd->revents != 0;
    }
    return ready;
}

DOOR_EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
    struct door_file files[OURS_MAX];
    nfds_t ours[OURS_MAX];
    int64_t end;
    int count = 0;

    for (nfds_t i = 0; i < n && count < OURS_MAX; i++) {
        if (door_file(fds[i].fd, &files[count]) && files[count].kind == DOOR_GENERIC) {
            ours[count++] = i;
        }
    }
    if (count == 0) {
        return CALL(poll)(fds, n, timeout_ms);
    }
    end = now_ms() + timeout_ms;
    for (;;) {
        /* The kernel finds our memfds always ready, so it never sleeps: it only tells about the others. */
        int64_t left = timeout_ms < 0 ? SLICE_MS : end - now_ms();
        int others = CALL(poll)(fds, n, 0), ready;

        if (others < 0) {
            return others;
        }
        for (int i = 0; i < count; i++) {
            others -= fds[ours[i]].revents != 0;
        }
        ready = ours_ready(fds, ours, files, count) + others;
        if (ready > 0 || left <= 0) {
            return ready;
        }
        if (door_sg_waiting(&files[0]) > 0) {
            door_sg_ready(&files[0], left < SLICE_MS ? (int)left : SLICE_MS);
        } else if (CALL(poll)(NULL, 0, left < SLICE_MS ? (int)left : SLICE_MS) < 0) {
            return -1;
        }
    }
}
