/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of watched descriptors and the queue of those that have input. Knows slots, cookies and generations;
 * how a descriptor is watched is the engine's matter. Slots are found by number and used again; a number with its
 * generation names one watch for good, so that the kernel's late word about an old one is recognised.
 */
#include <errno.h>
#include <stdlib.h>

#include "blockio_engine.h"

void bio_watches_init(struct bio_watches *w)
{
    *w = (struct bio_watches){.first = -1, .last = -1};
}

void bio_watches_free(struct bio_watches *w)
{
    free(w->slots);
    bio_watches_init(w);
}

int bio_watches_find(const struct bio_watches *w, int fd)
{
    for (uint32_t i = 0; i < w->count; i++)
        if (w->slots[i].fd == fd)
            return (int)i;
    return -1;
}

int bio_watches_add(struct bio_watches *w, int fd, void *cookie)
{
    if (fd < 0)
        return -EBADF;
    if (bio_watches_find(w, fd) >= 0)
        return -EEXIST;
    int slot = bio_watches_find(w, -1);
    if (slot < 0) {
        uint32_t count = w->count ? w->count * 2 : 16;
        struct bio_watch_slot *slots = realloc(w->slots, count * sizeof *slots);
        if (slots == NULL)
            return -ENOMEM;
        for (uint32_t i = w->count; i < count; i++)
            slots[i] = (struct bio_watch_slot){.fd = -1, .next = -1};
        slot = (int)w->count;
        w->slots = slots;
        w->count = count;
    }
    w->slots[slot].fd = fd;
    w->slots[slot].cookie = cookie;
    return slot;
}

void bio_watches_mark(struct bio_watches *w, uint32_t slot)
{
    struct bio_watch_slot *s = &w->slots[slot];
    if (s->queued)
        return;
    s->queued = true;
    s->next = -1;
    if (w->last >= 0)
        w->slots[w->last].next = (int32_t)slot;
    else
        w->first = (int32_t)slot;
    w->last = (int32_t)slot;
}

static uint32_t unqueue_first(struct bio_watches *w)
{
    uint32_t slot = (uint32_t)w->first;
    w->first = w->slots[slot].next;
    if (w->first < 0)
        w->last = -1;
    w->slots[slot].queued = false;
    return slot;
}

void *bio_watches_take(struct bio_watches *w)
{
    return w->first < 0 ? NULL : w->slots[unqueue_first(w)].cookie;
}

void bio_watches_remove(struct bio_watches *w, uint32_t slot)
{
    struct bio_watch_slot *s = &w->slots[slot];
    if (s->queued && w->first == (int32_t)slot) {
        unqueue_first(w);
    } else if (s->queued) {
        int32_t before = w->first;
        while (w->slots[before].next != (int32_t)slot)
            before = w->slots[before].next;
        w->slots[before].next = s->next;
        if (w->last == (int32_t)slot)
            w->last = before;
        s->queued = false;
    }
    s->fd = -1;
    s->cookie = NULL;
    s->generation++;
}
