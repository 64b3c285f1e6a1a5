/* SPDX-License-Identifier: BSD-2-Clause */
/* The ring's two directions: publish requests and kick, take responses and complete their slots; and failing it all. */
#include <sys/eventfd.h>
#include <unistd.h>

#include "channel.h"
#include "event.h"

void vi_wake_leader(struct vi_channel *c)
{
    if (c->polling)
        eventfd_write(c->wake_fd, 1);
}

void vi_notify(struct vi_channel *c)
{
    for (struct vi_waiter *w = c->waiters; w; w = w->next) {
        if (!w->ready(c, w))
            continue;
        if (w == c->leader)
            vi_wake_leader(c);
        else
            pthread_cond_signal(&w->cond);
    }
}

void vi_fail_locked(struct vi_channel *c, int error)
{
    if (!c->error) {
        c->error = error;
        for (uint32_t n = 0; n < c->ring.nr_ents; n++) {
            struct vi_slot *slot = &c->slots[n];
            if (slot->state != VI_SLOT_BUSY)
                continue;
            slot->completion.error = error;
            vi_slot_complete(c, slot);
        }
    }
    vi_wake_leader(c);
    vi_notify(c);
}

bool vi_push(struct vi_channel *c)
{
    uint32_t requests = c->ring.req_prod_pvt - c->ring.req_published;
    c->stats.requests += requests;
    bool kick = vscsi_front_push(&c->ring);
    if (c->eager_events)
        kick = requests != 0;
    c->stats.kicks_sent += kick;
    return kick;
}

void vi_kick(struct vi_channel *c)
{
    /* A peer that is gone shows on the receiving side, where its last responses are taken first. */
    vscsi_event_send(c->event_fd);
}

/* Before the channel is live the conversation is Python's: one IU at a time. */
static int take_raw(struct vi_channel *c)
{
    if (c->inbox_full)
        return -EPROTO;
    vscsi_slot_read(c->inbox, vscsi_front_response(&c->ring), c->ring.slot_nbytes);
    c->ring.rsp_cons++;
    c->inbox_full = true;
    return 0;
}

static int take(struct vi_channel *c)
{
    struct vi_slot *slot = NULL;
    int rc = c->codec->take(c, vscsi_front_response(&c->ring), &slot);
    if (rc)
        return rc;
    c->ring.rsp_cons++;
    c->stats.responses++;
    return vi_slot_complete(c, slot);
}

int vi_pump(struct vi_channel *c)
{
    return vi_pump_some(c, c->ring.nr_ents);
}

int vi_pump_some(struct vi_channel *c, uint32_t most)
{
    if (c->error)
        return c->error;
    int total = 0;
    for (;;) {
        int n = vscsi_front_unconsumed(&c->ring);
        int rc = n < 0 ? n : 0;
        if (n > (int)most - total)
            n = (int)most - total;
        for (int i = 0; i < n && rc == 0; i++)
            rc = c->live ? take(c) : take_raw(c);
        if (rc) {
            vi_fail_locked(c, rc);
            return rc;
        }
        total += n;
        /* One look is enough for a batch: what comes later is found by the next look or by the final check. */
        if (n == 0 || total >= (int)most)
            break;
    }
    if (c->eager_events)
        vscsi_front_final_check(&c->ring, 1); /* for its request for an event; what it finds is found again */
    if (total) {
        /* The leader's rsp_event may lie behind us now: it must look again before it sleeps on. */
        vi_wake_leader(c);
        vi_notify(c);
    }
    return total;
}

bool vi_ask(struct vi_channel *c)
{
    if (c->error || vscsi_front_final_check(&c->ring, 1) == 0)
        return c->error;
    /* Nobody else has taken any: an index that says so now has run backwards, and might do so for ever. */
    if (vi_pump(c) == 0)
        vi_fail_locked(c, -EPROTO);
    return true;
}

void vi_drain_event(struct vi_channel *c)
{
    int n = vscsi_event_drain(c->event_fd);
    if (n >= 0) {
        c->stats.kicks_received += (uint64_t)n;
        return;
    }
    vi_pump(c); /* what was published before the peer went */
    vi_fail_locked(c, n);
}
