/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PREEMPT AND ABORT (SPC-4 5.13.11.5): ends the commands of other nexuses on an LU, and waits until none of them can
 * move a byte any more. Knows the task set; knows no reservation: which nexuses are meant is Python's to say.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "core.h"
#include "load.h"

enum { LOOK_AGAIN_NS = 20000000 };  /* for what wakes nobody: the preempting command itself has been aborted */

/* `own`: the preempting command. It is in the task set until its caller, who waits here, completes it. */
static bool in_scope(const struct vt_task *task, const bool *meant, const struct vt_task *own)
{
    return meant[task->nexus] && task != own;
}

static struct vt_task *find(const struct vt_lu *lu, uint64_t id)
{
    struct vt_task *task = lu->first;
    while (task && atomic_load(&task->id) != id)
        task = task->set_next;
    return task;
}

static void abort_all(struct vt_lu *lu, const bool *meant, const struct vt_task *own)
{
    for (struct vt_task *task = lu->first; task; task = task->set_next) {
        if (!in_scope(task, meant, own))
            continue;
        vt_set_abort_by(lu, task, own ? own->nexus : VT_MAX_NEXUSES, false);
    }
    for (uint32_t n = 0; n < VT_MAX_NEXUSES; n++)
        if (meant[n] && !(own && n == own->nexus))
            vt_aca_clear(lu, n);
}

/* What came later than the preemption is not waited for, even if something else has aborted it. */
static bool at_rest(const struct vt_lu *lu, const bool *meant, const struct vt_task *own, uint64_t before)
{
    for (struct vt_task *task = lu->first; task && task->seq < before; task = task->set_next)
        if (in_scope(task, meant, own) && vt_is_aborted(task))
            return false;
    return true;
}

static void sleep_a_little(struct vt_lu *lu, uint64_t until_ns)
{
    struct timespec until = { .tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u) };
    pthread_cond_clockwait(&lu->idle, &lu->lock.mutex, CLOCK_MONOTONIC, &until);
}

int vt_nexus_abort_tasks(struct vt_target *t, uint32_t index, const uint32_t *nexuses, uint32_t count, uint64_t task)
{
    struct vt_lu *lu = index < VT_MAX_LUS ? atomic_load(&t->lus[index]) : NULL;
    bool meant[VT_MAX_NEXUSES] = { false };
    if (!lu)
        return -ENOENT;
    for (uint32_t i = 0; i < count; i++) {
        if (nexuses[i] >= VT_MAX_NEXUSES)
            return -EINVAL;
        meant[nexuses[i]] = true;
    }
    int rc = 0;
    uint64_t deadline = vscsi_now_ns() + (uint64_t)t->config.abort_limit_ms * 1000000u;
    vt_lock_take(&lu->lock);
    lu->preempting++;
    uint64_t before = lu->next_seq;
    struct vt_task *own = task ? find(lu, task) : NULL;
    if (task && !own)
        rc = -ECANCELED;
    else
        abort_all(lu, meant, own);
    while (rc == 0 && !at_rest(lu, meant, own, before)) {
        uint64_t now = vscsi_now_ns();
        if (atomic_load(&t->stopping) || (own && vt_is_aborted(own))) {
            rc = -ECANCELED;
        } else if (now >= deadline) {
            vscsi_store_relaxed(&lu->fenced, 1);
            rc = -ETIMEDOUT;
        } else {
            sleep_a_little(lu, now + LOOK_AGAIN_NS < deadline ? now + LOOK_AGAIN_NS : deadline);
        }
    }
    lu->preempting--;
    vt_lock_give(&lu->lock);
    return rc;
}
