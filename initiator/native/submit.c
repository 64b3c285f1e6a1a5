/* SPDX-License-Identifier: BSD-2-Clause */
/* Sending and collecting: vi_submit, vi_flush, vi_reap, vi_execute, vi_wait, vi_task_management. */
#include "channel.h"

/* Ring slots that commands leave free: one for task management, one for I_LOGOUT. */
enum { RING_KEPT = 2 };

bool vi_may_send(const struct vi_channel *c, bool management)
{
    uint32_t free = vscsi_front_free(&c->ring);
    if (!c->codec->credits)
        return free > 0 && c->free_count > 0;
    if (management)
        return c->request_limit > 0 && free > 1 && c->free_count > 0;
    return c->request_limit > c->kept_credits && free > RING_KEPT && c->free_count > 1;
}

/* Where the next request will stand: the target does not look there before it is published. */
static uint64_t *next_request(const struct vi_channel *c)
{
    return vscsi_ring_slot(c->ring.sring, c->ring.req_prod_pvt, c->ring.nr_ents, c->ring.slot_nbytes);
}

/* It stands there. */
static void sent(struct vi_channel *c, struct vi_slot *slot)
{
    slot->ring_index = c->ring.req_prod_pvt++;
    c->request_limit -= c->codec->credits;
}

int vi_enqueue(struct vi_channel *c, const struct vi_request *q, enum vi_owner owner, struct vi_slot **out)
{
    if (c->error)
        return c->error;
    if (!c->live)
        return -ENOTCONN;
    if (!vi_may_send(c, false))
        return -EAGAIN;
    struct vi_slot *slot = vi_slot_get(c, owner);
    slot->completion.cookie = q->cookie;
    int rc = c->codec->build(c, slot, q, next_request(c));
    if (rc) {
        vi_revoke(c, slot);
        vi_slot_unget(c, slot);
        return rc;
    }
    sent(c, slot);
    *out = slot;
    return 0;
}

int vi_submit(struct vi_channel *c, const struct vi_request *request, uint64_t *tag)
{
    struct vi_slot *slot;
    pthread_mutex_lock(&c->mutex);
    int rc = vi_enqueue(c, request, VI_OWNER_REAP, &slot);
    if (rc == 0 && tag)
        *tag = slot->completion.tag;
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

/* Locked; lets go of the mutex for the time of the kick. */
static void publish(struct vi_channel *c)
{
    if (!c->error && vi_push(c)) {
        vi_enter(c);
        vi_kick(c);
        vi_leave(c);
    }
}

int vi_flush(struct vi_channel *c)
{
    pthread_mutex_lock(&c->mutex);
    publish(c);
    int rc = c->error;
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

/* Locked: copies what is worth copying, frees the slot. */
static void collect(struct vi_channel *c, struct vi_slot *slot, struct vi_completion *to)
{
    memcpy(to, &slot->completion, VI_COMPLETION_HEAD);
    if (slot->completion.sense_nbytes)
        memcpy(to->sense, slot->completion.sense, slot->completion.sense_nbytes);
    vi_slot_put(c, slot);
}

static bool ready_reap(const struct vi_channel *c, const struct vi_waiter *w)
{
    return c->error || c->done[VI_OWNER_REAP].count >= w->wanted;
}

int vi_reap(struct vi_channel *c, struct vi_completion *completions, uint32_t max, uint32_t min, int timeout_ms)
{
    struct vi_waiter w = { .ready = ready_reap, .wanted = min < max ? min : max };
    uint64_t deadline = vi_deadline(timeout_ms);
    pthread_mutex_lock(&c->mutex);
    publish(c);
    vi_pump(c);
    vi_wait_for(c, &w, deadline);
    struct vi_list *done = &c->done[VI_OWNER_REAP];
    uint32_t n = 0;
    while (n < max && done->count)
        collect(c, vi_list_pop(c, done), &completions[n++]);
    int rc = n ? (int)n : c->error;
    if (n)
        vi_notify(c);
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

static bool ready_slot(const struct vi_channel *c, const struct vi_waiter *w)
{
    return c->slots[w->wanted].state == VI_SLOT_DONE;
}

/* Locked: waits for a slot of VI_OWNER_WAITER and collects it. */
static int finish(struct vi_channel *c, struct vi_slot *slot, struct vi_completion *completion, uint64_t deadline)
{
    struct vi_waiter w = { .ready = ready_slot, .wanted = vi_slot_number(slot) };
    completion->tag = slot->completion.tag;
    completion->cookie = slot->completion.cookie;
    int rc = vi_wait_for(c, &w, deadline);
    if (rc == 0) {
        collect(c, slot, completion);
        vi_notify(c);
    }
    return rc;
}

static bool ready_command(const struct vi_channel *c, const struct vi_waiter *w)
{
    (void)w;
    return c->error || !c->live || vi_may_send(c, false);
}

static bool ready_management(const struct vi_channel *c, const struct vi_waiter *w)
{
    (void)w;
    return c->error || !c->live || vi_may_send(c, true);
}

static uint64_t default_deadline(const struct vi_channel *c, int timeout_ms)
{
    if (timeout_ms == 0)
        timeout_ms = c->config.timeout_ms ? (int)c->config.timeout_ms : -1;
    return vi_deadline(timeout_ms);
}

int vi_execute(struct vi_channel *c, const struct vi_request *request, struct vi_completion *completion,
               int timeout_ms)
{
    struct vi_slot *slot;
    uint64_t deadline = default_deadline(c, timeout_ms);
    completion->tag = 0;
    pthread_mutex_lock(&c->mutex);
    int rc = vi_enqueue(c, request, VI_OWNER_WAITER, &slot);
    while (rc == -EAGAIN) {
        struct vi_waiter w = { .ready = ready_command };
        publish(c);
        rc = vi_wait_for(c, &w, deadline);
        if (rc == 0)
            rc = vi_enqueue(c, request, VI_OWNER_WAITER, &slot);
    }
    if (rc == 0) {
        publish(c);
        rc = finish(c, slot, completion, deadline);
    }
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

int vi_wait(struct vi_channel *c, uint64_t tag, struct vi_completion *completion, int timeout_ms)
{
    uint64_t n = tag & ((1u << VI_TAG_SLOT_BITS) - 1), deadline = vi_deadline(timeout_ms);
    pthread_mutex_lock(&c->mutex);
    struct vi_slot *slot = n < c->ring.nr_ents ? &c->slots[n] : NULL;
    int rc = -ENOENT;
    if (slot && slot->state != VI_SLOT_FREE && slot->owner == VI_OWNER_WAITER && slot->completion.tag == tag) {
        if (slot->state != VI_SLOT_DONE)
            vi_pump(c);
        rc = finish(c, slot, completion, deadline);
    }
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

int vi_task_management(struct vi_channel *c, uint8_t function, const uint8_t lun[8], uint64_t task_tag,
                       struct vi_completion *completion, int timeout_ms)
{
    struct vi_waiter w = { .ready = ready_management };
    uint64_t deadline = default_deadline(c, timeout_ms);
    completion->tag = 0;
    if (!c->codec->credits)
        return -EOPNOTSUPP;
    pthread_mutex_lock(&c->mutex);
    int rc = 0;
    while (!ready_management(c, &w) && rc == 0) {
        publish(c);
        rc = vi_wait_for(c, &w, deadline);
    }
    if (rc == 0)
        rc = c->error ? c->error : c->live ? 0 : -ENOTCONN;
    if (rc == 0) {
        vscsi_word iu[sizeof(struct srp_tsk_mgmt) / 8] = { 0 };
        struct vi_slot *slot = vi_slot_get(c, VI_OWNER_WAITER);
        slot->completion.cookie = 0;
        vi_build_management(slot, function, lun, task_tag, (struct srp_tsk_mgmt *)(void *)iu);
        vscsi_slot_write(next_request(c), iu, sizeof iu);
        sent(c, slot);
        publish(c);
        rc = finish(c, slot, completion, deadline);
    }
    pthread_mutex_unlock(&c->mutex);
    return rc;
}
