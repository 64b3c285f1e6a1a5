/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An event channel of the local bus: one end of a SOCK_SEQPACKET pair. A signal is one message; a full queue means
 * that a signal is already pending. Flags are given with every call because a peer shares nothing with our end:
 * unlike an eventfd, whose O_NONBLOCK the peer could clear. The message's byte says on which CPU the sender runs: a
 * hint, worth no trust, that tells a spinning receiver when it stands in the sender's way (spin.h).
 */
#ifndef VSCSI_EVENT_H
#define VSCSI_EVENT_H

#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <sys/socket.h>

/*
 * 0 sent or already pending; -EPIPE the peer is gone; other negative errno. Never blocks, never raises SIGPIPE.
 * ENOBUFS is not "pending": the kernel had no memory for the message, and without it the peer would sleep on.
 */
static inline int vscsi_event_send(int fd)
{
    const uint8_t cpu = (uint8_t)sched_getcpu();
    for (int tries = 0;; tries++) {
        if (send(fd, &cpu, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
            return 0;
        if (errno == EAGAIN)
            return 0;
        if (errno == EINTR || (errno == ENOBUFS && tries < 1000))
            continue;
        return errno == ECONNRESET ? -EPIPE : -errno;
    }
}

enum { VSCSI_EVENT_DRAIN_MAX = 64 };

/*
 * Takes what is pending: the number of signals, 0 for none, -EPIPE when the peer is gone (signals may have come before).
 * Bounded, so that a peer that kicks in a storm cannot hold us here: VSCSI_EVENT_DRAIN_MAX means that more may be left.
 * `hint` becomes the last signal's byte: the sender's CPU, modulo 256.
 */
static inline int vscsi_event_drain_hint(int fd, uint8_t *hint)
{
    uint8_t buf[8];
    for (int n = 0; n < VSCSI_EVENT_DRAIN_MAX; n++) {
        ssize_t got = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
        if (got > 0) {
            *hint = buf[0];
            continue;
        }
        if (got == 0)
            return -EPIPE;
        if (errno == EAGAIN)
            return n;
        if (errno == EINTR)
            continue;
        return errno == ECONNRESET ? -EPIPE : -errno;
    }
    return VSCSI_EVENT_DRAIN_MAX;
}

static inline int vscsi_event_drain(int fd)
{
    uint8_t ignored;
    return vscsi_event_drain_hint(fd, &ignored);
}

#endif
