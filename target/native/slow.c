/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands that Python runs: the queue to its workers, access to the initiator's buffers from there, and the way back
 * to the loop. Knows tasks and their buffers; knows no command. Worker threads call in without the GIL.
 */
#include <errno.h>
#include <time.h>

#include "core.h"

/* A task's name for Python: where it is, and a number that is never used again. */
enum { ID_TASK_BITS = 10, ID_CHANNEL_BITS = 12 };

static void unlink_slow(struct vt_target *t, struct vt_task *task)
{
    if (task->q_prev)
        task->q_prev->q_next = task->q_next;
    else
        t->slow_first = task->q_next;
    if (task->q_next)
        task->q_next->q_prev = task->q_prev;
    else
        t->slow_last = task->q_prev;
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
    task->q_next = NULL;
    task->q_prev = t->slow_last;
    if (t->slow_last)
        t->slow_last->q_next = task;
    else
        t->slow_first = task;
    t->slow_last = task;
    pthread_cond_signal(&t->slow_cond);
    pthread_mutex_unlock(&t->slow_lock);
    return true;
}

void vt_slow_abort(struct vt_task *task)
{
    struct vt_target *t = task->channel->target;
    pthread_mutex_lock(&t->slow_lock);
    if (atomic_load(&task->state) == TASK_SLOW_QUEUED) {
        unlink_slow(t, task);
        atomic_store(&task->state, TASK_READY);
        atomic_store(&task->id, 0);
        vt_loop_mail(task->channel->loop, task, MAIL_SLOW_DONE);
    }
    pthread_mutex_unlock(&t->slow_lock);
    vt_range_wake(t);
}

void vt_slow_stop(struct vt_target *t)
{
    pthread_mutex_lock(&t->slow_lock);
    t->slow_stop = true;
    pthread_cond_broadcast(&t->slow_cond);
    pthread_mutex_unlock(&t->slow_lock);
}

/* ---- whose turn it is: under the slow lock ---- */

/* Workers that a connection occupies, or is to occupy `more` of. */
static uint32_t occupied(struct vt_target *t, const struct vt_task *task, int more)
{
    const struct vscsi_mapper *mapper = task->channel->mapper;
    int slot = -1;
    for (int i = 0; i < VT_SLOW_BUSY; i++) {
        if (t->slow_busy[i].running && t->slow_busy[i].mapper == mapper)
            return t->slow_busy[i].running += (uint32_t)more;
        if (!t->slow_busy[i].running)
            slot = i;
    }
    if (more <= 0 || slot < 0)
        return 0;
    t->slow_busy[slot].mapper = mapper;
    return t->slow_busy[slot].running = (uint32_t)more;
}

/*
 * Workers that an LU occupies with requests of this kind: what touches its blocks may all be stuck while INQUIRY and its
 * like, or a reset, still get through.
 */
static uint32_t *of_lu(const struct vt_task *task)
{
    if (!task->lu)
        return NULL;
    bool blocks = !task->row || task->row->facts.flags & VT_CMD_NEEDS_READY;
    return &task->lu->workers[task->ask == VT_OP_LU_RESET ? 2 : blocks ? 0 : 1];
}

static bool lu_has_room(const struct vt_target *t, const struct vt_task *task)
{
    const uint32_t *workers = of_lu(task);
    return !workers || !t->config.workers_per_lu || *workers < t->config.workers_per_lu;
}

/* The oldest command of the connection that occupies the fewest workers: a long queue makes only its owner wait. */
static struct vt_task *choose(struct vt_target *t)
{
    struct vt_task *best = NULL;
    uint32_t least = UINT32_MAX;
    for (struct vt_task *task = t->slow_first; task && least; task = task->q_next) {
        if ((best && task->channel->mapper == best->channel->mapper) || !lu_has_room(t, task))
            continue;
        uint32_t now = occupied(t, task, 0);
        if (now < least) {
            least = now;
            best = task;
        }
    }
    return best;
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
    r->data_out_nbytes = task->buf[BUF_OUT].described;
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
    struct vt_task *task;
    pthread_mutex_lock(&t->slow_lock);
    while (!(task = choose(t)) && !t->slow_stop && rc == 0) {
        if (timeout_ms < 0)
            pthread_cond_wait(&t->slow_cond, &t->slow_lock);
        else
            rc = pthread_cond_timedwait(&t->slow_cond, &t->slow_lock, &until);
    }
    int found = 0;
    if (t->slow_stop) {
        found = -ESHUTDOWN;
    } else if (task) {
        unlink_slow(t, task);
        occupied(t, task, 1);
        if (task->lu)
            ++*of_lu(task);
        task->detached = false;
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
        occupied(t, task, -1);
        if (task->lu)
            --*of_lu(task);
        if (t->slow_first)
            pthread_cond_signal(&t->slow_cond);     /* one may wait for just this room */
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
    if (!found || !atomic_compare_exchange_strong(&found->state, &running, TASK_READY))
        return -ENOENT;
    leave_worker(t, found);
    found->result = *result;
    atomic_store(&found->id, 0);
    vt_loop_mail(found->channel->loop, found, MAIL_SLOW_DONE);
    return 0;
}
