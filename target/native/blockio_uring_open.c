/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Opens an io_uring with the best set of flags that this kernel takes, and proves that it works. Knows what kernels and
 * sandboxes refuse; knows nothing of what the ring is for.
 */
#include <errno.h>
#include <liburing.h>

#include "blockio_engine.h"

/* What the kernel may refuse, best first. All else is in 6.1. */
static const unsigned flag_sets[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
    0,
};

static uint32_t between(uint32_t value, uint32_t low, uint32_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* A sandbox may allow the ring and refuse its use: one round trip tells. */
static int round_trip(struct io_uring *ring)
{
    struct io_uring_cqe *cqe;
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    io_uring_prep_nop(sqe);
    int r = io_uring_submit_and_wait(ring, 1);
    if (r < 0)
        return r;
    if ((r = io_uring_peek_cqe(ring, &cqe)) < 0)
        return r;
    r = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return r;
}

int bio_uring_open(struct io_uring *ring, uint32_t depth)
{
    int r = -EINVAL;
    for (size_t i = 0; i < sizeof flag_sets / sizeof flag_sets[0] && r == -EINVAL; i++) {
        uint32_t entries = between(depth, 8, 4096);
        struct io_uring_params p = {
            .flags = flag_sets[i] | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
            .cq_entries = entries * 4,
        };
        r = io_uring_queue_init_params(entries, ring, &p);
        if (r < 0)
            continue;
        const unsigned needed = IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE;
        r = (p.features & needed) == needed ? round_trip(ring) : -ENOSYS;
        if (r < 0)
            io_uring_queue_exit(ring);
        else
            io_uring_ring_dontfork(ring);
    }
    return r;
}
