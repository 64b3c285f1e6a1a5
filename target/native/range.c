/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Range locks: blocks of an LU that one command (or a background operation) has for itself, against fast-path commands
 * and other locks alike. Knows extents and who came first; knows no command, and no I/O.
 *
 * A fast command that is enabled while the LU has no range, waited for or held, never looks here: it only says where
 * it goes (vt_range_pass), and whoever wants a lock finds it in the task set and waits for it. One that is enabled
 * later looks under the LU's lock, and is parked if its blocks are taken or waited for. Both kinds of waiters stand in
 * one order, by ticket. What waits holds nothing, except that a task may take several locks in the order of their
 * LBAs: from its second on it waits only for those who hold blocks, or it could wait for somebody who waits for it.
 *
 * A write whose channel has stopped is an orphan: nobody is told of its end any more, and its initiator may come back
 * and write the same blocks anew. It has its blocks for itself, as a lock would, until it has left the task set.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core.h"
#include "load.h"

enum { LOOK_AGAIN_NS = 100000 };

static bool meet(uint64_t lba, uint64_t blocks, uint64_t other_lba, uint64_t other_blocks)
{
    return other_blocks && blocks && lba < other_lba + other_blocks && other_lba < lba + blocks;
}

static bool overlap(const struct vt_range *r, uint64_t lba, uint64_t blocks)
{
    return meet(lba, blocks, r->lba, r->blocks);
}

/* Orphans are among the oldest commands of the set. */
static bool has_orphan(const struct vt_lu *lu, uint64_t lba, uint64_t blocks)
{
    uint32_t left = lu->orphans;
    for (const struct vt_task *task = lu->first; task && left; task = task->set_next) {
        if (task->orphan && meet(lba, blocks, task->lba, task->blocks))
            return true;
        left -= task->orphan;
    }
    return false;
}

/* ---- waiting: one condition for the whole target, because a task of one LU may wait for blocks of another ---- */

void vt_range_wake(struct vt_target *t)
{
    pthread_mutex_lock(&t->range_lock);
    t->range_changes++;
    pthread_cond_broadcast(&t->range_cond);
    pthread_mutex_unlock(&t->range_lock);
}

static uint64_t changes(struct vt_target *t)
{
    pthread_mutex_lock(&t->range_lock);
    uint64_t count = t->range_changes;
    pthread_mutex_unlock(&t->range_lock);
    return count;
}

/* Sleeps until something has changed since `seen`, or until then. */
static void sleep_until(struct vt_target *t, uint64_t seen, uint64_t until_ns)
{
    struct timespec until = { .tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u) };
    int rc = 0;
    pthread_mutex_lock(&t->range_lock);
    while (t->range_changes == seen && rc == 0) {
        if (until_ns == UINT64_MAX)
            pthread_cond_wait(&t->range_cond, &t->range_lock);
        else
            rc = pthread_cond_timedwait(&t->range_cond, &t->range_lock, &until);
    }
    pthread_mutex_unlock(&t->range_lock);
}

/* ---- fast commands: in their loop, unless it says otherwise ---- */

static void unpark(struct vt_lu *lu, struct vt_task *task, enum vt_extent extent)
{
    if (task->q_prev)
        task->q_prev->q_next = task->q_next;
    else
        lu->parked_first = task->q_next;
    if (task->q_next)
        task->q_next->q_prev = task->q_prev;
    else
        lu->parked_last = task->q_prev;
    atomic_store(&task->extent, extent);
    atomic_store(&task->state, TASK_READY);
    vt_loop_mail(task->channel->loop, task, MAIL_START);
}

static void park(struct vt_lu *lu, struct vt_task *task)
{
    task->claim_lba = task->lba;
    task->claim_blocks = task->blocks;
    task->ticket = atomic_fetch_add(&lu->target->next_ticket, 1);
    task->q_next = NULL;
    task->q_prev = lu->parked_last;
    if (lu->parked_last)
        lu->parked_last->q_next = task;
    else
        lu->parked_first = task;
    lu->parked_last = task;
    atomic_store(&task->extent, EXTENT_PARKED);
    atomic_store(&task->state, TASK_PARKED);
}

/* The slow half of vt_range_pass: false if the task has been parked. */
bool vt_range_claim(struct vt_task *task)
{
    struct vt_lu *lu = task->lu;
    bool taken = false;
    vt_lock_take(&lu->lock);
    /* A second look at memory of the initiator may have found other blocks than were granted. */
    bool granted = atomic_load(&task->extent) == EXTENT_GRANTED && task->lba == task->claim_lba &&
                   task->blocks == task->claim_blocks;
    bool ends = vt_is_aborted(task);
    for (struct vt_range *r = lu->ranges; r && !granted && !ends && !taken; r = r->next)
        taken = overlap(r, task->lba, task->blocks);
    if (!granted && !ends && !taken)
        taken = has_orphan(lu, task->lba, task->blocks);
    bool other = !granted && atomic_load(&task->extent) == EXTENT_GRANTED;
    if (taken)
        park(lu, task);
    else
        atomic_store(&task->extent, EXTENT_KNOWN);
    if (other && lu->range_waiting)
        vt_range_wake(lu->target);
    vt_lock_give(&lu->lock);
    if (!taken)
        return true;
    /* It begins anew when its turn comes, so it need not keep what others may want. */
    vt_buffer_unmap(task, &task->buf[BUF_OUT]);
    vt_buffer_unmap(task, &task->buf[BUF_IN]);
    if (task->sched)
        vt_sched_leave(task);
    return false;
}

/* The task will not touch the medium as things are: Python runs it (NONE), or it begins anew later (LOOK). */
void vt_range_drop(struct vt_task *task, enum vt_extent extent)
{
    struct vt_lu *lu = task->lu;
    if (atomic_load_explicit(&task->extent, memory_order_relaxed) != EXTENT_GRANTED) {
        atomic_store_explicit(&task->extent, extent, memory_order_release);
        return;
    }
    vt_lock_take(&lu->lock);
    atomic_store(&task->extent, extent);
    if (lu->range_waiting)
        vt_range_wake(lu->target);
    vt_lock_give(&lu->lock);
}

/* From any thread, under the LU's lock: an aborted task waits for nothing. */
void vt_range_abort(struct vt_lu *lu, struct vt_task *task)
{
    unpark(lu, task, EXTENT_LOOK);
    if (lu->range_waiting)
        vt_range_wake(lu->target);
}

/* ---- locks: under the LU's lock ---- */

static void unpark_what_may(struct vt_lu *lu)
{
    struct vt_task *next;
    for (struct vt_task *task = lu->parked_first; task; task = next) {
        next = task->q_next;
        bool taken = has_orphan(lu, task->claim_lba, task->claim_blocks);
        for (struct vt_range *r = lu->ranges; r && !taken; r = r->next)
            taken = (r->held || r->id < task->ticket) && overlap(r, task->claim_lba, task->claim_blocks);
        if (!taken)
            unpark(lu, task, EXTENT_GRANTED);
    }
}

/* Under the LU's lock, while somebody waits: a task has left the set. */
void vt_range_left(struct vt_lu *lu, struct vt_task *task)
{
    int extent = atomic_load_explicit(&task->extent, memory_order_relaxed);
    bool wake = extent == EXTENT_UNKNOWN || extent == EXTENT_GRANTED;
    for (struct vt_range *r = lu->ranges; r && !wake && extent == EXTENT_KNOWN; r = r->next)
        wake = !r->held && overlap(r, task->lba, task->blocks);
    if (task->orphan) {
        task->orphan = false;
        lu->orphans--;
        lu->range_looks--;
        lu->range_waiting--;
        unpark_what_may(lu);
    }
    if (wake)
        vt_range_wake(lu->target);
}

/* In its loop, when its channel stops: the task's bio is with the engine. What is not a write needs no orphanage. */
void vt_range_orphan(struct vt_task *task)
{
    struct vt_lu *lu = task->lu;
    if (!task->in_set || task->op != VT_OP_WRITE || atomic_load(&task->extent) != EXTENT_KNOWN)
        return;
    vt_lock_take(&lu->lock);
    if (!task->orphan) {
        task->orphan = true;
        lu->orphans++;
        lu->range_looks++;
        lu->range_waiting++;
    }
    vt_lock_give(&lu->lock);
}

static bool is_holder(const struct vt_lu *lu, uint64_t owner)
{
    for (const struct vt_range *r = lu->ranges; r; r = r->next)
        if (r->held && r->owner == owner)
            return true;
    return false;
}

/* Does a command of the fast path stand in the way? *unknown: one of them has not said yet where it goes. */
static bool in_use(const struct vt_lu *lu, const struct vt_range *range, bool *unknown)
{
    bool used = false;
    for (struct vt_task *task = lu->first; task; task = task->set_next) {
        switch (atomic_load_explicit(&task->extent, memory_order_acquire)) {
        case EXTENT_UNKNOWN:
            *unknown = true;
            break;
        case EXTENT_KNOWN:
            used |= overlap(range, task->lba, task->blocks);
            break;
        case EXTENT_GRANTED:
            used |= overlap(range, task->claim_lba, task->claim_blocks);
            break;
        default:
            break;
        }
    }
    return used || *unknown;
}

static bool may_hold(const struct vt_lu *lu, const struct vt_range *range, bool *unknown)
{
    bool holder = is_holder(lu, range->owner);
    for (const struct vt_range *r = lu->ranges; r; r = r->next)
        if (r->owner != range->owner && overlap(r, range->lba, range->blocks) &&
            (r->held || (!holder && r->id < range->id)))
            return false;
    for (const struct vt_task *task = lu->parked_first; task && !holder; task = task->q_next)
        if (task->ticket < range->id && overlap(range, task->claim_lba, task->claim_blocks))
            return false;
    return !in_use(lu, range, unknown);
}

static void append(struct vt_lu *lu, struct vt_range *range)
{
    struct vt_range **link = &lu->ranges;
    while (*link)
        link = &(*link)->next;
    *link = range;
    range->id = atomic_fetch_add(&lu->target->next_ticket, 1);
    lu->range_looks++;
    lu->range_waiting++;
}

/* Takes the range away and lets everybody go on who waited for it. */
static void give_back(struct vt_lu *lu, struct vt_range **link)
{
    struct vt_range *range = *link;
    *link = range->next;
    lu->range_looks--;
    if (!range->held)
        lu->range_waiting--;
    free(range);
    unpark_what_may(lu);
    if (lu->range_waiting)
        vt_range_wake(lu->target);
    if (!lu->ranges && lu->removing)
        pthread_cond_broadcast(&lu->idle);
}

static struct vt_range **find(struct vt_lu *lu, uint64_t id)
{
    struct vt_range **link = &lu->ranges;
    while (*link && (*link)->id != id)
        link = &(*link)->next;
    return link;
}

/* ---- from Python ---- */

/* 1: held; 0: not yet; or why it never will be. */
static int try_hold(struct vt_target *t, struct vt_lu *lu, struct vt_range *range, uint64_t task, bool *unknown)
{
    if (atomic_load(&t->stopping))
        return -ESHUTDOWN;
    if (task && vt_request_aborted(t, task) != 0)
        return -ECANCELED;
    int rc = 0;
    vt_lock_take(&lu->lock);
    if (lu->removing) {
        rc = -ECANCELED;
    } else if (may_hold(lu, range, unknown)) {
        range->held = true;
        lu->range_waiting--;
        rc = 1;
    }
    vt_lock_give(&lu->lock);
    return rc;
}

static int wait_for(struct vt_target *t, struct vt_lu *lu, struct vt_range *range, uint64_t task, uint64_t deadline_ns)
{
    for (;;) {
        bool unknown = false;
        uint64_t seen = changes(t), now = vscsi_now_ns(), until = deadline_ns;
        int rc = try_hold(t, lu, range, task, &unknown);
        if (rc == 0 && now >= deadline_ns)
            rc = -ETIMEDOUT;
        if (rc != 0)
            return rc;
        /* To say where it goes is one store for a command, and no call: that it has done so must be looked for. */
        if (unknown && now + LOOK_AGAIN_NS < until)
            until = now + LOOK_AGAIN_NS;
        sleep_until(t, seen, until);
    }
}

int64_t vt_range_lock(struct vt_target *t, uint64_t task, uint32_t index, uint64_t lba, uint64_t blocks, int timeout_ms)
{
    uint64_t deadline_ns = timeout_ms < 0 ? UINT64_MAX : vscsi_now_ns() + (uint64_t)timeout_ms * 1000000u;
    struct vt_lu *lu = index < VT_MAX_LUS ? atomic_load(&t->lus[index]) : NULL;
    if (!lu || lba + blocks < lba)
        return lu ? -EINVAL : -ENOENT;
    struct vt_range *range = calloc(1, sizeof *range);
    if (!range)
        return -ENOMEM;
    range->lba = lba;
    range->blocks = blocks;
    range->owner = task ? task : (uint64_t)1 << 63 | (uint64_t)syscall(SYS_gettid);
    vt_lock_take(&lu->lock);
    append(lu, range);
    uint64_t id = range->id;
    vt_lock_give(&lu->lock);
    int rc = wait_for(t, lu, range, task, deadline_ns);
    if (rc > 0)
        return (int64_t)id;
    vt_lock_take(&lu->lock);
    give_back(lu, find(lu, id));
    vt_lock_give(&lu->lock);
    return rc;
}

int vt_range_unlock(struct vt_target *t, uint32_t index, int64_t id)
{
    struct vt_lu *lu = index < VT_MAX_LUS ? atomic_load(&t->lus[index]) : NULL;
    if (!lu)
        return -ENOENT;
    vt_lock_take(&lu->lock);
    struct vt_range **link = find(lu, (uint64_t)id);
    int rc = *link && (*link)->held ? 0 : -ENOENT;
    if (rc == 0)
        give_back(lu, link);
    vt_lock_give(&lu->lock);
    return rc;
}

/* No loop runs any more: a lock may be given back later than its channels are freed. */
void vt_range_forget(struct vt_lu *lu)
{
    if (!lu)
        return;
    vt_lock_take(&lu->lock);
    lu->parked_first = lu->parked_last = NULL;
    vt_lock_give(&lu->lock);
}

void vt_range_free(struct vt_lu *lu)
{
    while (lu->ranges) {
        struct vt_range *range = lu->ranges;
        lu->ranges = range->next;
        free(range);
    }
}
