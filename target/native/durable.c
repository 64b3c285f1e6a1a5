/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Operations of an LU that make data durable and run at the same time: syncs, and writes that are durable by themselves.
 * The kernel tells an open file of lost data once, so one of them may be handed the error that another one ought to
 * have had. A success counts once everything that was running when it came has ended, and none of it had failed.
 * Knows who runs and who waits, under the LU's lock; knows no I/O and no command.
 */
#include <errno.h>
#include <stdlib.h>

#include "core.h"

static bool in_the_way(const struct vt_durable *running, uint64_t ended, bool all)
{
    return running->started < ended && (all || running->sync);
}

static bool must_wait(const struct vt_lu *lu, uint64_t ended, bool all)
{
    for (const struct vt_durable *d = lu->durables; d; d = d->next)
        if (in_the_way(d, ended, all))
            return true;
    return false;
}

static void begin(struct vt_lu *lu, struct vt_durable *d, bool sync)
{
    d->started = ++lu->durable_clock;
    d->sync = sync;
    d->next = lu->durables;
    lu->durables = d;
}

static void unlink_settling(struct vt_lu *lu, struct vt_task *task)
{
    if (task->q_prev)
        task->q_prev->q_next = task->q_next;
    else
        lu->settling = task->q_next;
    if (task->q_next)
        task->q_next->q_prev = task->q_prev;
}

/* From any thread, under the LU's lock: it waits no more. */
void vt_durable_release(struct vt_lu *lu, struct vt_task *task)
{
    unlink_settling(lu, task);
    atomic_store(&task->state, TASK_READY);
    vt_loop_mail(task->channel->loop, task, MAIL_SETTLED);
}

static void end(struct vt_lu *lu, struct vt_durable *d)
{
    struct vt_durable **link = &lu->durables;
    while (*link != d)
        link = &(*link)->next;
    *link = d->next;
    struct vt_task *next;
    for (struct vt_task *task = lu->settling; task; task = next) {
        next = task->q_next;
        if (!must_wait(lu, task->durable.ended, task->durable.all))
            vt_durable_release(lu, task);
    }
    if (lu->durable_waiters)
        pthread_cond_broadcast(&lu->idle);
}

/* ---- in a loop ---- */

void vt_durable_begin(struct vt_lu *lu, struct vt_durable *d, bool sync, const struct vt_loop *loop)
{
    bool gate = vt_lock_enter(&lu->lock, loop);
    begin(lu, d, sync);
    vt_lock_leave(&lu->lock, gate);
}

bool vt_durable_end(struct vt_lu *lu, struct vt_durable *d, const struct vt_loop *loop)
{
    bool gate = vt_lock_enter(&lu->lock, loop);
    end(lu, d);
    bool alone = !lu->durables;
    vt_lock_leave(&lu->lock, gate);
    return alone;
}

/* False: the task comes back with MAIL_SETTLED. `all`: it answers for what others have written, too. */
bool vt_durable_settle(struct vt_task *task, bool all)
{
    struct vt_lu *lu = task->lu;
    bool gate = vt_lock_enter(&lu->lock, task->channel->loop);
    end(lu, &task->durable);
    uint64_t now = ++lu->durable_clock;
    bool wait = must_wait(lu, now, all) && !vt_is_aborted(task);
    if (wait) {
        task->durable.ended = now;
        task->durable.all = all;
        task->q_prev = NULL;
        task->q_next = lu->settling;
        if (lu->settling)
            lu->settling->q_prev = task;
        lu->settling = task;
        atomic_store(&task->state, TASK_SETTLING);
    }
    vt_lock_leave(&lu->lock, gate);
    return !wait;
}

/* ---- from Python ---- */

int64_t vt_lu_sync_begin(struct vt_target *t, uint32_t index)
{
    struct vt_lu *lu = index < VT_MAX_LUS ? atomic_load(&t->lus[index]) : NULL;
    struct vt_durable *d = lu ? calloc(1, sizeof *d) : NULL;
    if (!d)
        return lu ? -ENOMEM : -ENOENT;
    vt_lock_take(&lu->lock);
    begin(lu, d, true);
    int64_t id = (int64_t)d->started;
    vt_lock_give(&lu->lock);
    return id;
}

int vt_lu_sync_end(struct vt_target *t, uint32_t index, int64_t id, int failed)
{
    struct vt_lu *lu = index < VT_MAX_LUS ? atomic_load(&t->lus[index]) : NULL;
    if (!lu)
        return -ENOENT;
    vt_lock_take(&lu->lock);
    struct vt_durable *d = lu->durables;
    while (d && d->started != (uint64_t)id)
        d = d->next;
    if (d) {
        if (failed)
            vscsi_store_relaxed(&lu->sync_failed, 1);
        end(lu, d);
        free(d);
        uint64_t now = ++lu->durable_clock;
        lu->durable_waiters++;
        while (!failed && must_wait(lu, now, true))
            pthread_cond_wait(&lu->idle, &lu->lock.mutex);
        lu->durable_waiters--;
    }
    int rc = !d ? -ENOENT : vscsi_load_relaxed(&lu->sync_failed) ? -EIO : 0;
    vt_lock_give(&lu->lock);
    return rc;
}
