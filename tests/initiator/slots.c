/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The initiator's slots where counters and generations wrap, which takes billions of commands otherwise. Knows slots;
 * no ring is behind it. Exit status 0 if all holds.
 */
#include <stdio.h>
#include <stdlib.h>

#include "channel.h"

#define CHECK(condition)                                                     \
    do {                                                                     \
        if (!(condition)) {                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);  \
            exit(1);                                                         \
        }                                                                    \
    } while (0)

enum { SLOTS = 8, RING_FRAME = 0x155555 };

static struct vi_channel c;
static struct vi_slot slots[SLOTS];

static void reset(void)
{
    c = (struct vi_channel){ .slots = slots, .ring.nr_ents = SLOTS, .config.persistent = 1 };
    c.config.ring = (uint8_t *)((uint64_t)RING_FRAME << VSCSI_PAGE_SHIFT);
    for (uint32_t n = SLOTS; n-- > 0;) {
        slots[n] = (struct vi_slot){ .completion.tag = vi_first_tag(&c, n) };
        vi_slot_put(&c, &slots[n]);
    }
    c.ring.req_prod_pvt = c.ring.req_published = 1000; /* all that is sent has been published */
}

/* The last generation is followed by the first, and neither slot nor ring changes. */
static void generations(void)
{
    reset();
    const uint64_t generation = 1ull << VI_TAG_SLOT_BITS, last = UINT32_MAX;
    CHECK(slots[3].completion.tag == ((uint64_t)RING_FRAME << VI_TAG_RING_SHIFT | 3));
    CHECK(vi_next_tag(slots[3].completion.tag) == slots[3].completion.tag + generation);
    slots[0].completion.tag += last * generation;
    uint64_t old = slots[0].completion.tag;
    struct vi_slot *slot = vi_slot_get(&c, VI_OWNER_REAP);
    CHECK(slot == &slots[0] && slot->completion.tag == (uint64_t)RING_FRAME << VI_TAG_RING_SHIFT);
    CHECK(vi_slot_of_tag(&c, slot->completion.tag) == slot && !vi_slot_of_tag(&c, old));
    CHECK(vi_slot_number(slot) == 0);
}

/* First done, first out, also where the free-running head goes round; the last one put is the next one used. */
static void queues(void)
{
    for (uint32_t start = UINT32_MAX - 5; start != 6; start++) {
        reset();
        c.done[VI_OWNER_REAP].head = start;
        for (uint32_t i = 0; i < SLOTS; i++)
            CHECK(vi_slot_get(&c, VI_OWNER_REAP) == &slots[i]);
        CHECK(c.free_count == 0 && c.busy_count == SLOTS);
        for (uint32_t i = 0; i < SLOTS; i++)
            CHECK(vi_slot_complete(&c, &slots[i * 3 % SLOTS]) == 0);
        CHECK(c.busy_count == 0 && c.done[VI_OWNER_REAP].count == SLOTS);
        for (uint32_t i = 0; i < SLOTS; i++) {
            struct vi_slot *slot = vi_list_pop(&c, &c.done[VI_OWNER_REAP]);
            CHECK(slot == &slots[i * 3 % SLOTS] && !vi_slot_of_tag(&c, slot->completion.tag));
            vi_slot_put(&c, slot);
            CHECK(vi_slot_get(&c, VI_OWNER_LOAD) == slot);
        }
        CHECK(!vi_list_pop(&c, &c.done[VI_OWNER_REAP]) && c.busy_count == SLOTS);
    }
}

/* A slot that is used again says nothing of what was there before. */
static void remnants(void)
{
    reset();
    struct vi_slot *slot = vi_slot_get(&c, VI_OWNER_REAP);
    uint64_t tag = slot->completion.tag;
    memset(&slot->completion, 0xff, VI_COMPLETION_HEAD);
    slot->completion.tag = tag;
    slot->management = true;
    vi_slot_unget(&c, slot);
    CHECK(vi_slot_get(&c, VI_OWNER_WAITER) == slot && c.busy_count == 1);
    const struct vi_completion *d = &slot->completion;
    CHECK(!d->error && !d->status && !d->response_code && !d->responded && !d->sense_nbytes && !d->blkif_status);
    CHECK(!d->out_residual && !d->in_residual && !slot->management && slot->state == VI_SLOT_BUSY);
    CHECK(vi_slot_complete(&c, slot) == 0 && c.done[VI_OWNER_WAITER].count == 0);
}

int main(void)
{
    generations();
    queues();
    remnants();
    return 0;
}
