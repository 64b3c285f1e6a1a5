/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands that Python runs: the queue to its workers, access to the initiator's buffers from there, and the way back
 * to the loop. Whose turn it is, is slow_queue.c's. Knows tasks and their buffers; knows no command. Worker threads call
 * in without the GIL.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "core.h"

/* A task's name for Python: where it is, and a number that is never used again. */
enum { ID_TASK_BITS = 10, ID_CHANNEL_BITS = 12 };

/* A worker that is busy with a request which has been answered without it. Under the slow lock. */
struct vt_leftover {
    struct vt_leftover *next;
    uint64_t id;
    struct wq_owner *owner;
    struct wq_room *room;
};

/* ---- who waits for a worker, and for whose ---- */

/* What an LU occupies workers with: what touches its blocks may all be stuck while INQUIRY and its like still get through. */
enum { ROOM_BLOCKS, ROOM_REST, ROOM_RESET, ROOMS };

static uint32_t kind_of(const struct vt_task *task)
{
    bool blocks = !task->row || task->row->facts.flags & VT_CMD_NEEDS_READY;
    return task->ask == VT_OP_LU_RESET ? ROOM_RESET : blocks ? ROOM_BLOCKS : ROOM_REST;
}

static struct wq_room *room_of(const struct vt_task *task)
{
    return task->lu ? &task->lu->workers[kind_of(task)] : NULL;
}

static uint32_t lane_of(const struct vt_task *task)
{
    return task->lu ? 1 + task->lu->index * ROOMS + kind_of(task) : 0;
}

/* Under the control lock: the channels of one connection have their turns together. */
int vt_slow_join(struct vt_channel *channel)
{
    struct vt_target *t = channel->target;
    struct wq_owner *owner = NULL;
    for (uint32_t i = 0; i < VT_MAX_CHANNELS && !owner; i++)
        if (t->channels[i] && t->channels[i]->mapper == channel->mapper)
            owner = t->channels[i]->slow;
    if (!owner) {
        channel->slow = wq_owner_new(1 + VT_MAX_LUS * ROOMS);
        return channel->slow ? 0 : -ENOMEM;
    }
    pthread_mutex_lock(&t->slow_lock);
    owner->users++;
    pthread_mutex_unlock(&t->slow_lock);
    channel->slow = owner;
    return 0;
}

/* A worker is free, and one may wait for just this room. At the end nobody has a turn, and lanes may be gone already. */
static void give_place(struct vt_target *t, struct wq_owner *owner, struct wq_room *room)
{
    if (t->slow_stop)
        return;
    wq_done(&t->slow, owner, room);
    if (t->slow.waiting)
        pthread_cond_signal(&t->slow_cond);
}

static void give_owner(struct wq_owner *owner)
{
    if (--owner->users == 0)
        wq_owner_free(owner);
}

void vt_slow_part(struct vt_channel *channel)
{
    if (!channel->slow)
        return;
    pthread_mutex_lock(&channel->target->slow_lock);
    give_owner(channel->slow);
    pthread_mutex_unlock(&channel->target->slow_lock);
}

void vt_slow_free(struct vt_target *t)
{
    while (t->leftovers) {
        struct vt_leftover *l = t->leftovers;
        t->leftovers = l->next;
        give_owner(l->owner);
        free(l);
    }
}

/* False if the task has been aborted meanwhile: the caller ends it. */
bool vt_slow_queue(struct vt_task *task)
{
    struct vt_channel *channel = task->channel;
    struct vt_target *t = channel->target;
    if (task->in_set)
        vt_range_drop(task, EXTENT_NONE);
    pthread_mutex_lock(&t->slow_lock);
    if (vt_is_aborted(task)) {
        pthread_mutex_unlock(&t->slow_lock);
        return false;
    }
    uint64_t number = atomic_fetch_add(&t->next_task_id, 1);
    atomic_store(&task->id, number << (ID_TASK_BITS + ID_CHANNEL_BITS) | (uint64_t)channel->id << ID_TASK_BITS |
                                (uint64_t)(task - channel->tasks));
    atomic_store(&task->state, TASK_SLOW_QUEUED);
    wq_put(&t->slow, channel->slow, lane_of(task), room_of(task), &task->slow);
    pthread_cond_signal(&t->slow_cond);
    pthread_mutex_unlock(&t->slow_lock);
    return true;
}

void vt_slow_abort(struct vt_task *task)
{
    struct vt_target *t = task->channel->target;
    pthread_mutex_lock(&t->slow_lock);
    if (atomic_load(&task->state) == TASK_SLOW_QUEUED) {
        wq_remove(&t->slow, &task->slow);
        atomic_store(&task->state, TASK_READY);
        atomic_store(&task->id, 0);
        vt_loop_mail(task->channel->loop, task, MAIL_SLOW_DONE);
    }
    pthread_mutex_unlock(&t->slow_lock);
    vt_range_wake(t);
}

/*
 * The caller answers the request now: no worker's answer is wanted any more. The worker that may be busy with it is
 * counted until it comes back. False: it has just been answered, or memory is short.
 */
bool vt_slow_abandon(struct vt_task *task)
{
    struct vt_target *t = task->channel->target;
    struct vt_leftover *l = malloc(sizeof *l);
    if (!l)
        return false;
    int running = TASK_SLOW_RUNNING;
    pthread_mutex_lock(&t->slow_lock);
    bool queued = atomic_load(&task->state) == TASK_SLOW_QUEUED;
    bool mine = queued;
    if (queued) {
        wq_remove(&t->slow, &task->slow);
        atomic_store(&task->state, TASK_RUNNING);
    } else {
        *l = (struct vt_leftover){ t->leftovers, atomic_load(&task->id), task->channel->slow, room_of(task) };
        mine = atomic_compare_exchange_strong(&task->state, &running, TASK_RUNNING);
        if (mine) {
            t->leftovers = l;
            l->owner->users++;
        }
    }
    if (mine)
        atomic_store(&task->id, 0);
    pthread_mutex_unlock(&t->slow_lock);
    if (queued || !mine)
        free(l);
    return mine;
}

/* The worker of an abandoned request has come back, perhaps. */
static void settle_leftover(struct vt_target *t, uint64_t id)
{
    struct vt_leftover *found = NULL;
    pthread_mutex_lock(&t->slow_lock);
    for (struct vt_leftover **link = &t->leftovers; *link && !found; )
        if ((*link)->id == id) {
            found = *link;
            *link = found->next;
        } else {
            link = &(*link)->next;
        }
    if (found) {
        give_place(t, found->owner, found->room);
        give_owner(found->owner);
    }
    pthread_mutex_unlock(&t->slow_lock);
    free(found);
}

void vt_slow_stop(struct vt_target *t)
{
    pthread_mutex_lock(&t->slow_lock);
    t->slow_stop = true;
    pthread_cond_broadcast(&t->slow_cond);
    pthread_mutex_unlock(&t->slow_lock);
}

/* ---- from Python's workers ---- */

static void describe(const struct vt_task *task, struct vt_request *r)
{
    const struct vt_channel *channel = task->channel;
    memset(r, 0, sizeof *r);
    r->task = atomic_load(&task->id);
    r->nexus = task->nexus;
    r->lu = task->lu ? (int32_t)task->lu->index : VT_NO_LU;
    r->channel = channel->id;
    r->op = task->ask;
    r->attribute = task->attribute;
    r->lba = task->lba;
    r->blocks = task->blocks;
    r->fua = task->fua;
    r->data_out_nbytes = task->ask == VT_OP_DISCARD ? task->nbytes : task->buf[BUF_OUT].described;
    r->data_in_nbytes = task->buf[BUF_IN].described;
    if (channel->ops != &vt_srp_ops)
        return;
    memcpy(r->lun, task->iu.cmd.lun, sizeof r->lun);
    r->cdb_nbytes = (uint16_t)task->cdb_nbytes;
    memcpy(r->cdb, vt_cdb(task), task->cdb_nbytes);
}

int vt_request_next(struct vt_target *t, struct vt_request *request, int timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    if (timeout_ms > 0) {
        int64_t ns = until.tv_nsec + (int64_t)(timeout_ms % 1000) * 1000000;
        until.tv_sec += timeout_ms / 1000 + ns / 1000000000;
        until.tv_nsec = ns % 1000000000;
    }
    int rc = 0;
    struct wq_item *item = NULL;
    pthread_mutex_lock(&t->slow_lock);
    while (!t->slow_stop && !(item = wq_next(&t->slow)) && rc == 0) {
        if (timeout_ms < 0)
            pthread_cond_wait(&t->slow_cond, &t->slow_lock);
        else
            rc = pthread_cond_timedwait(&t->slow_cond, &t->slow_lock, &until);
    }
    int found = 0;
    if (t->slow_stop) {
        found = -ESHUTDOWN;
    } else if (item) {
        struct vt_task *task = (struct vt_task *)((uint8_t *)item - offsetof(struct vt_task, slow));
        task->detached = false;
        task->ua_seen = atomic_load(&t->ua_changes);
        atomic_store(&task->state, TASK_SLOW_RUNNING);
        describe(task, request);
        found = 1;
    }
    pthread_mutex_unlock(&t->slow_lock);
    return found;
}

/* The running slow task of that name; a stale name finds nothing. */
static struct vt_task *find(struct vt_target *t, uint64_t id)
{
    uint32_t channel_id = id >> ID_TASK_BITS & ((1u << ID_CHANNEL_BITS) - 1);
    uint32_t index = id & ((1u << ID_TASK_BITS) - 1);
    struct vt_task *task = NULL;
    pthread_mutex_lock(&t->control);
    struct vt_channel *channel = t->channels[channel_id];
    if (id && channel && index < channel->nr_tasks)
        task = &channel->tasks[index];
    if (task && (atomic_load(&task->id) != id || atomic_load(&task->state) != TASK_SLOW_RUNNING))
        task = NULL;
    pthread_mutex_unlock(&t->control);
    return task;
}

static int64_t copy(struct vt_target *t, uint64_t id, uint32_t direction, uint64_t offset, uint8_t *ours,
                    uint64_t nbytes)
{
    struct vt_task *task = find(t, id);
    if (!task)
        return -ENOENT;
    if (vt_is_aborted(task))
        return -ECANCELED;
    const struct vt_buffer *b = &task->buf[direction];
    uint64_t done = 0;
    for (uint32_t i = 0; i < b->iovcnt && done < nbytes; i++) {
        const struct iovec *v = &b->iov[i];
        if (offset >= v->iov_len) {
            offset -= v->iov_len;
            continue;
        }
        uint64_t take = v->iov_len - offset;
        if (take > nbytes - done)
            take = nbytes - done;
        uint8_t *theirs = (uint8_t *)v->iov_base + offset;
        if (direction == BUF_OUT)
            memcpy(ours + done, theirs, take);
        else
            memcpy(theirs, ours + done, take);
        done += take;
        offset = 0;
    }
    return (int64_t)done;
}

int64_t vt_request_fetch(struct vt_target *t, uint64_t task, uint64_t offset, void *to, uint64_t nbytes)
{
    return copy(t, task, BUF_OUT, offset, to, nbytes);
}

int64_t vt_request_store(struct vt_target *t, uint64_t task, uint64_t offset, const void *from, uint64_t nbytes)
{
    return copy(t, task, BUF_IN, offset, (uint8_t *)(uintptr_t)from, nbytes);
}

int vt_request_aborted(struct vt_target *t, uint64_t task)
{
    struct vt_task *found = find(t, task);
    return found ? vt_is_aborted(found) : -ENOENT;
}

int vt_request_attention(struct vt_target *t, uint64_t task)
{
    struct vt_task *found = find(t, task);
    if (!found || !found->lu || found->attention)
        return -ENOENT;
    vt_lock_take(&found->lu->lock);
    found->attention = vt_ua_pop(found->lu, found->nexus);
    vt_lock_give(&found->lu->lock);
    return (int)found->attention;
}

static void leave_worker(struct vt_target *t, struct vt_task *task)
{
    pthread_mutex_lock(&t->slow_lock);
    if (!task->detached) {
        give_place(t, task->channel->slow, room_of(task));
    }
    task->detached = true;
    pthread_mutex_unlock(&t->slow_lock);
}

int vt_request_detach(struct vt_target *t, uint64_t task)
{
    struct vt_task *found = find(t, task);
    if (found)
        leave_worker(t, found);
    return found ? 0 : -ENOENT;
}

int vt_request_complete(struct vt_target *t, uint64_t task, const struct vt_result *result)
{
    if (result->sense_nbytes > VSCSI_SENSE_MAX)
        return -EINVAL;
    struct vt_task *found = find(t, task);
    int running = TASK_SLOW_RUNNING;
    if (!found || !atomic_compare_exchange_strong(&found->state, &running, TASK_READY)) {
        settle_leftover(t, task);
        return -ENOENT;
    }
    leave_worker(t, found);
    found->result = *result;
    atomic_store(&found->id, 0);
    vt_loop_mail(found->channel->loop, found, MAIL_SLOW_DONE);
    return 0;
}
