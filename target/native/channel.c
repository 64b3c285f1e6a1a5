/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The loop's side of a channel: takes requests from the ring, publishes responses, suppresses kicks, calms a peer that
 * kicks without work, and carries out what Python asked by letter. Knows rings and states of channels; what stands in
 * a slot is the protocol's business (struct vt_protocol_ops). Everything here runs in the channel's loop.
 */
#include <stdlib.h>
#include <unistd.h>

#include "event.h"
#include "load.h"
#include "path.h"
#include "spin.h"

enum { PUBLISH_NBYTES = 131072 };   /* copied in a pass: the initiator need not wait for its end */
enum { SPURIOUS_FREE = 16, QUIET_FIRST_NS = 20000, QUIET_LAST_SHIFT = 10 };

static int state_of(struct vt_channel *channel)
{
    return atomic_load_explicit(&channel->state, memory_order_relaxed);
}

void vt_channel_activate(struct vt_channel *channel)
{
    if (channel->active || state_of(channel) > CHANNEL_LIVE)
        return;
    channel->active = true;
    channel->next_active = channel->loop->active;
    channel->loop->active = channel;
}

void vt_channel_mark_dirty(struct vt_channel *channel)
{
    if (channel->dirty)
        return;
    channel->dirty = true;
    channel->next_dirty = channel->loop->dirty;
    channel->loop->dirty = channel;
}

static void unwatch(struct vt_channel *channel)
{
    if (channel->watched)
        bio_unwatch(channel->loop->engine, channel->event_fd);
    channel->watched = false;
    if (channel->quiet_until_ns)
        channel->loop->quiet_channels--;
    channel->quiet_until_ns = 0;
}

static void watch(struct vt_channel *channel)
{
    if (!channel->watched && bio_watch(channel->loop->engine, channel->event_fd, channel) == 0)
        channel->watched = true;
}

void vt_channel_error(struct vt_channel *channel, enum vt_error error)
{
    if (state_of(channel) > CHANNEL_LIVE)
        return;
    atomic_store(&channel->state, CHANNEL_QUIET);
    unwatch(channel);
    channel->error_event = (struct vt_event_node){ .type = VT_EVENT_ERROR, .channel = channel->id, .error = error };
    vt_event_post(channel->target, &channel->error_event);
}

/* The event channel is closed. What stands in the ring was sent before, a logout perhaps: it is served first. */
static void hang_up(struct vt_channel *channel)
{
    if (state_of(channel) > CHANNEL_LIVE)
        return;
    channel->hung_up = true;
    unwatch(channel);
    vt_channel_activate(channel);
}

/* ---- requests ---- */

typedef uint64_t __attribute__((vector_size(16), may_alias)) zeros;

/* Two words a store: what the compiler makes of memset here takes longer to begin than all of it. */
static inline void make_new(struct vt_task *task)
{
    zeros *at = (zeros *)(void *)&task->lu;
    _Static_assert(offsetof(struct vt_task, lu) % sizeof *at == 0, "whole stores");
#pragma GCC unroll 16
    for (size_t offset = offsetof(struct vt_task, lu); offset < offsetof(struct vt_task, result.sense);)
        *at++ = (zeros){ 0 }, offset += sizeof *at;
}

static struct vt_task *new_task(struct vt_channel *channel)
{
    struct vt_task *task = channel->free_tasks;
    if (__builtin_expect(!task, 0)) {
        if (channel->tasks_begun == channel->nr_tasks)
            return NULL;
        task = &channel->tasks[channel->tasks_begun++];
        task->channel = channel;
    }
    channel->free_tasks = task->q_next;
    channel->in_flight++;
    task->q_next = NULL;
    task->nexus = channel->nexus;
    task->response_code = -1;
    make_new(task);
    atomic_store_explicit(&task->aborted, false, memory_order_relaxed);
    atomic_store_explicit(&task->state, TASK_RUNNING, memory_order_relaxed);
    return task;
}

/* A kick without a request behind it costs us two system calls: take fewer of them, the more there were. */
static void look_was_empty(struct vt_channel *channel)
{
    if (!channel->kicked)
        return;
    channel->kicked = false;
    if (++channel->spurious <= SPURIOUS_FREE)
        return;
    uint32_t shift = channel->spurious - SPURIOUS_FREE;
    if (shift > QUIET_LAST_SHIFT)
        shift = QUIET_LAST_SHIFT;
    unwatch(channel);
    channel->quiet_until_ns = vscsi_now_ns() + ((uint64_t)QUIET_FIRST_NS << shift);
    channel->loop->quiet_channels++;
}

void vt_channel_unquiet(struct vt_channel *channel)
{
    channel->quiet_until_ns = 0;
    channel->loop->quiet_channels--;
    watch(channel);
    vt_channel_activate(channel);
}

static uint64_t bytes_moved(const struct vt_channel *channel)
{
    return vscsi_load64_relaxed(&channel->stats.bytes_read) + vscsi_load64_relaxed(&channel->stats.bytes_written);
}

bool vt_channel_pass(struct vt_channel *channel)
{
    if (state_of(channel) > CHANNEL_LIVE)
        return false;
    int waiting = vscsi_back_unconsumed(&channel->ring);
    if (waiting == 0) {
        if (channel->hung_up)
            vt_channel_error(channel, VT_ERROR_EVENT_CHANNEL);
        else
            look_was_empty(channel);
        return false;
    }
    if (waiting < 0) {
        channel->ring_broken = true;
        vt_channel_error(channel, VT_ERROR_RING);
        return true;
    }
    channel->kicked = false;
    channel->spurious = 0;
    uint32_t count = (uint32_t)waiting;
    if (count > channel->target->config.batch)
        count = channel->target->config.batch;
    uint32_t taken = 0;
    bio_expect(channel->loop->engine, count + channel->loop->taken_before);
    uint64_t published = bytes_moved(channel);
    while (taken < count && state_of(channel) <= CHANNEL_LIVE) {
        struct vt_task *task = new_task(channel);
        if (!task)
            break;
        const void *slot = vscsi_back_request(&channel->ring);
        vscsi_back_consume(&channel->ring);
        /* The next one comes from another CPU's cache: let it come while this one is served. */
        if (++taken < count)
            vscsi_slot_prefetch(vscsi_back_request(&channel->ring));
        channel->ops->take(task, slot);
        if (bytes_moved(channel) - published >= PUBLISH_NBYTES) {
            vt_channel_publish(channel);
            published = bytes_moved(channel);
        }
    }
    channel->loop->taken += taken;
    vt_bump(&channel->stats.requests, taken);
    vscsi_store_relaxed(&channel->stats.outstanding, channel->in_flight);
    return taken > 0;
}

/* Before the loop sleeps: true if there is nothing and the next request will kick. */
bool vt_channel_rest(struct vt_channel *channel, uint32_t advice)
{
    if (state_of(channel) > CHANNEL_LIVE)
        return true;
    vscsi_back_advise(&channel->ring, advice);
    return vscsi_back_final_check(&channel->ring) == 0 && !channel->hung_up;
}

void vt_channel_event(struct vt_channel *channel)
{
    uint8_t hint = 0;
    int kicks = vscsi_event_drain_hint(channel->event_fd, &hint);
    if (kicks < 0) {
        hang_up(channel);
        unwatch(channel);
        return;
    }
    if (kicks == VSCSI_EVENT_DRAIN_MAX)
        bio_again(channel->loop->engine, channel->event_fd);
    vt_bump(&channel->stats.kicks_received, (uint64_t)kicks);
    if (kicks) {
        channel->kicked = true;
        /* While I/O is under way nobody spins for long, and on the other CPU may be the kernel's thread that does it. */
        if (channel->target->config.spin_ns && !bio_in_flight(channel->loop->engine))
            vscsi_spin_make_room(&channel->loop->moved_ns, hint);
    }
    vt_channel_activate(channel);
}

/* ---- responses ---- */

void vt_channel_write(struct vt_channel *channel, const void *response, uint32_t nbytes)
{
    vt_channel_put(channel, response, nbytes);
}

static void leave_loop(struct vt_channel *channel)
{
    struct vt_loop *loop = channel->loop;
    unwatch(channel);
    for (struct vt_channel **link = &loop->active; *link; link = &(*link)->next_active)
        if (*link == channel) {
            *link = channel->next_active;
            break;
        }
    for (uint32_t i = 0; i < loop->nr_channels; i++)
        if (loop->channels[i] == channel) {
            loop->channels[i] = loop->channels[--loop->nr_channels];
            break;
        }
    vscsi_store64_relaxed(&loop->stats.channels, loop->nr_channels);
}

/* One push and at most one kick for everything written in this pass. */
void vt_channel_publish(struct vt_channel *channel)
{
    if (channel->in_flight == 0 && !channel->ring_broken)
        vscsi_back_advise(&channel->ring, 0);
    if (!channel->ring_broken && vscsi_back_push(&channel->ring)) {
        vt_bump(&channel->stats.kicks_sent, 1);
        if (vscsi_event_send(channel->event_fd) < 0)
            hang_up(channel);
    }
    if (state_of(channel) != CHANNEL_STOPPING || channel->in_flight)
        return;
    leave_loop(channel);
    atomic_fetch_add(&channel->letters, 1);
    atomic_store(&channel->state, CHANNEL_STOPPED);
    channel->stopped_event = (struct vt_event_node){ .type = VT_EVENT_STOPPED, .channel = channel->id };
    vt_event_post(channel->target, &channel->stopped_event);
    atomic_fetch_sub(&channel->letters, 1);
}

/* ---- letters from Python ---- */

static void adopt(struct vt_channel *channel, const struct vt_letter *letter)
{
    (void)letter;
    struct vt_loop *loop = channel->loop;
    loop->channels[loop->nr_channels++] = channel;
    vscsi_store64_relaxed(&loop->stats.channels, loop->nr_channels);
    watch(channel);
    vt_channel_activate(channel);
}

static void login(struct vt_channel *channel, const struct vt_letter *letter)
{
    channel->nexus = letter->nexus;
    channel->seen_lu = NULL;
    channel->request_limit = (uint32_t)letter->value;
    int cold = CHANNEL_COLD;
    channel->counted = atomic_compare_exchange_strong(&channel->state, &cold, CHANNEL_LIVE);
    if (channel->counted)
        atomic_fetch_add(&channel->target->nexuses[channel->nexus].logged_in, 1);
    vscsi_store_relaxed(&channel->stats.request_limit, channel->request_limit);
}

static void respond(struct vt_channel *channel, const struct vt_letter *letter)
{
    struct vt_task *task = channel->cold_first;
    if (!task)
        return;
    channel->cold_first = task->q_next;
    if (!channel->cold_first)
        channel->cold_last = NULL;
    vt_event_forget(channel->target, &task->event);
    vt_channel_write(channel, letter->iu, letter->nbytes);
    channel->in_flight++;
    vt_task_release(task);
}

static void credit(struct vt_channel *channel, const struct vt_letter *letter)
{
    int64_t limit = (int64_t)channel->request_limit + letter->value;
    channel->request_limit = limit < 0 ? 0 : (uint32_t)limit;
    vscsi_store_relaxed(&channel->stats.request_limit, channel->request_limit);
}

/* The last channel to go takes the ACA conditions of its nexus along, however long its commands take to end. */
static void leave_nexus(struct vt_channel *channel)
{
    struct vt_target *t = channel->target;
    if (channel->counted && atomic_fetch_sub(&t->nexuses[channel->nexus].logged_in, 1) == 1)
        vt_aca_nexus_lost(t, channel->nexus);
    channel->counted = false;
}

static void stop(struct vt_channel *channel, const struct vt_letter *letter)
{
    (void)letter;
    if (state_of(channel) >= CHANNEL_STOPPING)
        return;
    atomic_store(&channel->state, CHANNEL_STOPPING);
    unwatch(channel);
    for (uint32_t i = 0; i < channel->nr_tasks; i++) {
        struct vt_task *task = &channel->tasks[i];
        int state = atomic_load(&task->state);
        if (task->in_flight) {
            vt_range_orphan(task);
            continue;   /* running media access ends by itself, and is answered */
        }
        if (state == TASK_FREE || state == TASK_COLD)
            continue;
        if (task->in_set) {
            vt_lock_take(&task->lu->lock);
            vt_set_abort(task->lu, task);
            vt_lock_give(&task->lu->lock);
        } else {
            atomic_store(&task->aborted, true);
            vt_slow_abort(task);
        }
    }
    leave_nexus(channel);
    vt_channel_mark_dirty(channel);
}

static void (*const open_letter[])(struct vt_channel *, const struct vt_letter *) = {
    [MAIL_ADD] = adopt, [MAIL_LOGIN] = login, [MAIL_RESPOND] = respond, [MAIL_CREDIT] = credit, [MAIL_STOP] = stop,
};

void vt_channel_letter(struct vt_letter *letter)
{
    struct vt_channel *channel = letter->channel;
    /* Nothing of a stopped channel may come back into the loop's lists. */
    if (state_of(channel) != CHANNEL_STOPPED)
        open_letter[letter->kind](channel, letter);
    /* The last touch: it may be freed now. */
    atomic_fetch_sub(&channel->letters, 1);
}
