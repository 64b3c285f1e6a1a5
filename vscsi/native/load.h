/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every load generator shares, so that `srp`, `blkif` and `direct` run the same pattern and count the same way:
 * the offsets, the read/write mix, the clock and the histogram. Knows nothing of how an I/O is done.
 */
#ifndef VSCSI_LOAD_H
#define VSCSI_LOAD_H

#include <stdbool.h>
#include <sys/prctl.h>
#include <time.h>

#include "abi.h"
#include "native.h"

static inline uint64_t vscsi_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t vscsi_thread_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Log-linear: exact below 64 ns, then 64 buckets a power of two (error below 1.6 %). */
static inline uint32_t vscsi_hist_bucket(uint64_t ns)
{
    const uint32_t sub = 1u << VSCSI_HIST_SUB_BITS;
    if (ns < sub)
        return (uint32_t)ns;
    uint32_t shift = 63 - (uint32_t)__builtin_clzll(ns) - VSCSI_HIST_SUB_BITS;
    uint32_t b = (shift + 1) * sub + (uint32_t)((ns >> shift) - sub);
    return b < VSCSI_HIST_BUCKETS ? b : VSCSI_HIST_BUCKETS - 1;
}

static inline void vscsi_hist_add(struct vscsi_load_result *r, uint64_t ns)
{
    r->histogram[vscsi_hist_bucket(ns)]++;
    if (ns > r->max_ns)
        r->max_ns = ns;
}

/*
 * When I/Os are due. With a rate the k-th is due k/rate after the start, whatever has become of the others: what waits
 * for a buffer, a credit or a CPU has been due all the while, and its latency says so. Without one each is due when it
 * is sent.
 */
static inline uint64_t vscsi_due_ns(const struct vscsi_load_spec *spec, uint64_t start_ns, uint64_t k, uint64_t now_ns)
{
    if (spec->rate_per_s == 0)
        return now_ns;
    return start_ns + (uint64_t)((unsigned __int128)k * 1000000000u / spec->rate_per_s);
}

/* How many were due in [start, end) and have not been sent. */
static inline uint64_t vscsi_unsent(const struct vscsi_load_spec *spec, uint64_t elapsed_ns, uint64_t sent)
{
    if (spec->rate_per_s == 0)
        return 0;
    uint64_t due = (uint64_t)((unsigned __int128)elapsed_ns * spec->rate_per_s / 1000000000u);
    if (spec->max_ios && due > spec->max_ios)
        due = spec->max_ios;
    return due > sent ? due - sent : 0;
}

/* A sleep until something is due should end then, not when the kernel finds it convenient: the slack before. */
static inline int vscsi_slack(int ns)
{
    int before = prctl(PR_GET_TIMERSLACK);
    prctl(PR_SET_TIMERSLACK, (unsigned long)ns);
    return before;
}

struct vscsi_pattern {
    uint64_t state;
    uint64_t blocks;
    uint64_t next;
};

static inline void vscsi_pattern_init(struct vscsi_pattern *p, const struct vscsi_load_spec *spec)
{
    p->state = spec->seed * 2 + 1;
    p->blocks = spec->span_nbytes / spec->block_nbytes;
    p->next = 0;
}

static inline uint64_t vscsi_pattern_random(struct vscsi_pattern *p)
{
    /* splitmix64 */
    uint64_t z = (p->state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Byte offset and direction of the next I/O. */
static inline uint64_t vscsi_pattern_next(struct vscsi_pattern *p, const struct vscsi_load_spec *spec, bool *read)
{
    uint64_t block;
    if (spec->random) {
        block = (uint64_t)((unsigned __int128)vscsi_pattern_random(p) * p->blocks >> 64);
    } else {
        block = p->next;
        p->next = p->next + 1 == p->blocks ? 0 : p->next + 1;
    }
    if (spec->read_percent == 0 || spec->read_percent >= 100)
        *read = spec->read_percent != 0;
    else
        *read = vscsi_pattern_random(p) % 100 < spec->read_percent;
    return block * spec->block_nbytes;
}

#endif
