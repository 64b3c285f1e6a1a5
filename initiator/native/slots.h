/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Slots: one for each request that may be outstanding; their tags, and the queues of those that are done. Every command
 * goes through all of these functions, so they are inline; included by channel.h. All locked.
 * Knows no CDB and no ring, except which of its requests have been published.
 */
#ifndef VSCSI_INITIATOR_SLOTS_H
#define VSCSI_INITIATOR_SLOTS_H

#include <string.h>

#include "channel.h"

static inline uint32_t vi_slot_number(const struct vi_slot *slot)
{
    return (uint32_t)slot->completion.tag & (VI_SLOTS_MAX - 1);
}

/* What a slot's tags begin with: the generation grows before the first use. */
static inline uint64_t vi_first_tag(const struct vi_channel *c, uint32_t number)
{
    return (uint64_t)(c->config.ring - c->config.memory) >> VSCSI_PAGE_SHIFT << VI_TAG_RING_SHIFT | number;
}

/* The same slot's tag of the next generation, which wraps within its bits. */
static inline uint64_t vi_next_tag(uint64_t tag)
{
    const uint64_t mask = (1ull << VI_TAG_RING_SHIFT) - (1ull << VI_TAG_SLOT_BITS);
    return (tag & ~mask) | ((tag + (1ull << VI_TAG_SLOT_BITS)) & mask);
}

/* Only while c->free_count is not 0. */
static inline struct vi_slot *vi_slot_get(struct vi_channel *c, enum vi_owner owner)
{
    struct vi_slot *slot = &c->slots[c->free[--c->free_count]];
    struct vi_completion *done = &slot->completion;
    c->busy_count++;
    slot->state = VI_SLOT_BUSY;
    slot->owner = (uint8_t)owner;
    slot->management = false;
    done->tag = vi_next_tag(done->tag);
    const size_t kept = offsetof(struct vi_completion, error);
    memset((uint8_t *)done + kept, 0, VI_COMPLETION_HEAD - kept);
    return slot;
}

/* Of a slot that is done. */
static inline void vi_slot_put(struct vi_channel *c, struct vi_slot *slot)
{
    slot->state = VI_SLOT_FREE;
    c->free[c->free_count++] = (uint16_t)vi_slot_number(slot);
}

/* Of one that nothing was sent with. */
static inline void vi_slot_unget(struct vi_channel *c, struct vi_slot *slot)
{
    c->busy_count--;
    vi_slot_put(c, slot);
}

/* The busy slot, already published, that this tag names; NULL if there is none. */
static inline struct vi_slot *vi_slot_of_tag(struct vi_channel *c, uint64_t tag)
{
    uint32_t n = (uint32_t)tag & (VI_SLOTS_MAX - 1);
    if (n >= c->ring.nr_ents)
        return NULL;
    struct vi_slot *slot = &c->slots[n];
    if (slot->state != VI_SLOT_BUSY || slot->completion.tag != tag)
        return NULL;
    /* Not published yet: its index lies from req_published on. How far behind it lies says nothing: others overtake. */
    if (slot->ring_index - c->ring.req_published < c->ring.req_prod_pvt - c->ring.req_published)
        return NULL;
    return slot;
}

static inline int vi_revoke(struct vi_channel *c, struct vi_slot *slot)
{
    return c->config.persistent ? 0 : vi_revoke_runs(c, slot);
}

/* The slot is done: takes it off the busy ones, ends its grants. completion.error is set by the caller. */
static inline int vi_slot_complete(struct vi_channel *c, struct vi_slot *slot)
{
    int rc = vi_revoke(c, slot);
    if (rc && !slot->completion.error)
        slot->completion.error = rc;
    c->busy_count--;
    slot->state = VI_SLOT_DONE;
    if (slot->owner == VI_OWNER_WAITER)
        return rc;
    struct vi_list *list = &c->done[slot->owner];
    list->slots[(list->head + list->count++) % VI_SLOTS_MAX] = (uint16_t)vi_slot_number(slot);
    return rc;
}

static inline struct vi_slot *vi_list_pop(struct vi_channel *c, struct vi_list *list)
{
    if (list->count == 0)
        return NULL;
    list->count--;
    return &c->slots[list->slots[list->head++ % VI_SLOTS_MAX]];
}

#endif
