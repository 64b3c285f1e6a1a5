/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the stress programs share: random numbers, time, failing, waiting for an event with a bound.
 * A stress program exits 0 (passed), 1 (failed, one line on stderr) or 77 (cannot run here).
 */
#ifndef STRESS_H
#define STRESS_H

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "event.h"
#include "grant.h"
#include "ring.h"

/* Long enough for a machine that runs ten other things; a lost wake-up waits for ever. */
#ifndef PATIENCE_MS
#define PATIENCE_MS 10000
#endif

__attribute__((format(printf, 1, 2), noreturn)) static inline void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    fflush(stderr);
    _exit(1);
}

static inline uint64_t mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* 0 <= result < below */
static inline uint32_t chance(uint64_t *state, uint32_t below)
{
    *state = mix(*state);
    return (uint32_t)((*state >> 32) * below >> 32);
}

static inline double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* While any of these bits is set in the count of calls, dawdle() does nothing. */
#ifndef FULL_SPEED
#define FULL_SPEED 0x6000
#endif

/*
 * Rarely sleep, sometimes give the processor away, mostly go on: the other side must be met at every point. Every so
 * often a stretch at full speed, where the two sides run into each other most.
 */
static inline void dawdle(uint64_t *state)
{
    static _Thread_local uint32_t calls;
    if (++calls & FULL_SPEED)
        return;
    uint32_t what = chance(state, 4096);
    if (what == 0)
        usleep(chance(state, 200));
    else if (what < 64)
        usleep(0);
    else if (what < 512)
        for (uint32_t i = chance(state, 400); i > 0; i--)
            vscsi_cpu_relax();
}

/*
 * Waits for an event and takes it. False if none came in time. The last event of a peer that then goes may come
 * together with the news of its going; after that there is nothing to wait for.
 */
static inline bool wait_event(int fd)
{
    static _Thread_local bool gone;
    struct pollfd p = { .fd = fd, .events = POLLIN };
    int rc;
    if (gone)
        fail("the other side is gone");
    do
        rc = poll(&p, 1, PATIENCE_MS);
    while (rc < 0 && errno == EINTR);
    if (rc <= 0)
        return false;
    int n = vscsi_event_drain(fd);
    gone = n == -EPIPE;
    if (n < 0 && !gone)
        fail("drain: %s", strerror(-n));
    return true;
}

#endif
