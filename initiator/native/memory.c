/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Buffers of a request: are they in our memory, and which grants name them. Where memory is not granted for good, every
 * page is granted for one request and revoked with its response; a page belongs to one request at a time.
 */
#include <stdlib.h>

#include "grant.h"
#include "segments.h"

static struct vi_run *new_run(struct vi_slot *slot)
{
    if (slot->run_count == slot->run_room) {
        uint32_t room = slot->run_room ? slot->run_room * 2 : 16;
        struct vi_run *runs = realloc(slot->runs, room * sizeof *runs);
        if (!runs)
            return NULL;
        slot->runs = runs;
        slot->run_room = room;
    }
    return &slot->runs[slot->run_count++];
}

int vi_grant_pages(struct vi_channel *c, struct vi_slot *slot, uint64_t offset, uint64_t nbytes, bool readonly)
{
    uint32_t frame = (uint32_t)(offset >> VSCSI_PAGE_SHIFT);
    uint32_t end = (uint32_t)((offset + nbytes - 1) >> VSCSI_PAGE_SHIFT) + 1;
    if (slot->run_count) {
        /* Two segments may meet in one page. */
        const struct vi_run *last = &slot->runs[slot->run_count - 1];
        if (last->frame + last->count - 1 == frame && last->readonly == readonly)
            frame++;
    }
    if (frame == end)
        return 0;
    struct vi_run *run = new_run(slot);
    if (!run)
        return -ENOMEM;
    *run = (struct vi_run){ frame, 0, readonly };
    for (; frame < end; frame++, run->count++) {
        int rc = vscsi_grant_access(c->config.granter, c->config.gref_base + frame, VSCSI_TARGET_DOMID, frame, readonly);
        if (rc) {
            if (run->count == 0)
                slot->run_count--;
            return rc;
        }
    }
    return 0;
}

int vi_revoke_runs(struct vi_channel *c, struct vi_slot *slot)
{
    int rc = 0;
    for (uint32_t i = 0; i < slot->run_count; i++) {
        const struct vi_run *run = &slot->runs[i];
        for (uint32_t k = 0; k < run->count; k++)
            if (vscsi_grant_end(c->config.granter, c->config.gref_base + run->frame + k))
                rc = -EBUSY;
    }
    slot->run_count = 0;
    return rc;
}

int vi_slot_table(const struct vi_channel *c, const struct vi_slot *slot, uint64_t nbytes, uint64_t *offset)
{
    uint64_t room = (uint64_t)c->config.indirect_per_slot * VSCSI_PAGE_SIZE;
    if (nbytes > room)
        return -EMSGSIZE;
    *offset = c->config.indirect_offset + vi_slot_number(slot) * room;
    return 0;
}
