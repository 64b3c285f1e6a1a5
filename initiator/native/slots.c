/* SPDX-License-Identifier: BSD-2-Clause */
/* Slots: one for each request that may be outstanding; their tags, and the lists of those that are done. */
#include "channel.h"

uint32_t vi_slot_number(const struct vi_channel *c, const struct vi_slot *slot)
{
    return (uint32_t)(slot - c->slots);
}

struct vi_slot *vi_slot_get(struct vi_channel *c, enum vi_owner owner)
{
    if (c->free_count == 0)
        return NULL;
    uint32_t n = c->free_head;
    struct vi_slot *slot = &c->slots[n];
    c->free_head = slot->next;
    c->free_count--;
    c->busy_count++;
    slot->generation++;
    slot->state = VI_SLOT_BUSY;
    slot->owner = (uint8_t)owner;
    slot->management = false;
    slot->out_nbytes = slot->in_nbytes = 0;
    uint64_t ring_frame = (uint64_t)(c->config.ring - c->config.memory) >> VSCSI_PAGE_SHIFT;
    struct vi_completion *done = &slot->completion;
    done->tag = ring_frame << VI_TAG_RING_SHIFT | (uint64_t)slot->generation << VI_TAG_SLOT_BITS | n;
    done->error = 0;
    done->status = done->response_code = done->responded = done->sense_nbytes = 0;
    done->blkif_status = 0;
    done->out_residual = done->in_residual = 0;
    return slot;
}

void vi_slot_put(struct vi_channel *c, struct vi_slot *slot)
{
    if (slot->state == VI_SLOT_BUSY)
        c->busy_count--;
    slot->state = VI_SLOT_FREE;
    slot->next = c->free_head;
    c->free_head = vi_slot_number(c, slot);
    c->free_count++;
}

struct vi_slot *vi_slot_of_tag(struct vi_channel *c, uint64_t tag)
{
    uint64_t n = tag & ((1u << VI_TAG_SLOT_BITS) - 1);
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

int vi_slot_complete(struct vi_channel *c, struct vi_slot *slot)
{
    int rc = vi_revoke(c, slot);
    if (rc && !slot->completion.error)
        slot->completion.error = rc;
    c->busy_count--;
    slot->state = VI_SLOT_DONE;
    slot->next = VI_NO_SLOT;
    if (slot->owner == VI_OWNER_WAITER)
        return rc;
    struct vi_list *list = &c->done[slot->owner];
    uint32_t n = vi_slot_number(c, slot);
    if (list->count++)
        c->slots[list->tail].next = n;
    else
        list->head = n;
    list->tail = n;
    return rc;
}

struct vi_slot *vi_list_pop(struct vi_channel *c, struct vi_list *list)
{
    if (list->count == 0)
        return NULL;
    struct vi_slot *slot = &c->slots[list->head];
    list->head = slot->next;
    list->count--;
    return slot;
}
