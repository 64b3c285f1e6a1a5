/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Buffers of a request, the part that every command goes through and that is therefore inline: are they in our memory,
 * and which grants name them. Granting for one request is memory.c's. All locked.
 */
#ifndef VSCSI_INITIATOR_SEGMENTS_H
#define VSCSI_INITIATOR_SEGMENTS_H

#include "channel.h"

/* Two comparisons a segment: what lies below the arena, is empty or goes beyond the end wraps around. */
static inline int vi_check_segments(const struct vi_channel *c, const struct vi_segment *segments, uint32_t count,
                                    uint32_t *nbytes)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t at = segments[i].offset - c->arena_offset, n = segments[i].nbytes;
        if (at > c->arena_nbytes || n - 1 >= c->arena_nbytes - at)
            return -EINVAL;
        sum += n;
        if (sum > UINT32_MAX)
            return -EMSGSIZE;
    }
    *nbytes = (uint32_t)sum;
    return 0;
}

static inline uint32_t vi_gref(const struct vi_channel *c, uint64_t offset)
{
    return c->config.gref_base + (uint32_t)(offset >> VSCSI_PAGE_SHIFT);
}

/* Grants every page of the run for this request, unless memory is granted for good. */
static inline int vi_grant_run(struct vi_channel *c, struct vi_slot *slot, uint64_t offset, uint64_t nbytes,
                               bool readonly)
{
    return c->config.persistent ? 0 : vi_grant_pages(c, slot, offset, nbytes, readonly);
}

/* The same for all buffers of a request: the target may read those that go out, and write the others. */
static inline int vi_grant_request(struct vi_channel *c, struct vi_slot *slot, const struct vi_request *q)
{
    int rc = 0;
    if (c->config.persistent)
        return 0;
    for (uint32_t i = 0; i < q->out_count && rc == 0; i++)
        rc = vi_grant_pages(c, slot, q->out[i].offset, q->out[i].nbytes, true);
    for (uint32_t i = 0; i < q->in_count && rc == 0; i++)
        rc = vi_grant_pages(c, slot, q->in[i].offset, q->in[i].nbytes, false);
    return rc;
}

#endif
