/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The task set of a logical unit (SAM-5 clause 8): which command may run when, overlapped tags, aborting.
 * Knows order and attributes; knows no CDB, no ring, no I/O. Sequence numbers are given at dequeue, so order is the
 * order in which requests left their rings. While only SIMPLE tasks are about, entering and leaving is a few stores.
 */
#include "core.h"
#include "tap.h"

static struct vt_task **tag_bucket(struct vt_lu *lu, uint32_t nexus, uint64_t tag)
{
    uint64_t h = (tag ^ (uint64_t)nexus << 48) * 0x9e3779b97f4a7c15u;
    return &lu->tags[h >> 56];
}

struct vt_task *vt_set_find(struct vt_lu *lu, uint32_t nexus, uint64_t tag)
{
    for (struct vt_task *task = *tag_bucket(lu, nexus, tag); task; task = task->tag_next)
        if (task->tag == tag && task->nexus == nexus && atomic_load(&task->channel->state) < CHANNEL_STOPPING)
            return task;    /* tags of a channel that stops are free: its initiator may log in before they have ended */
    return NULL;
}

static bool has_tag(const struct vt_task *task)
{
    return task->channel->ops == &vt_srp_ops;
}

static void link_task(struct vt_lu *lu, struct vt_task *task)
{
    task->seq = lu->next_seq++;
    task->set_prev = lu->last;
    task->set_next = NULL;
    if (lu->last)
        lu->last->set_next = task;
    else
        lu->first = task;
    lu->last = task;
    lu->nr_tasks++;
    lu->nr_ordered += task->attribute == SRP_TSK_ORDERED;
    lu->nr_hoq += task->attribute == SRP_TSK_HEAD_OF_QUEUE;
    if (has_tag(task)) {
        struct vt_task **bucket = tag_bucket(lu, task->nexus, task->tag);
        task->tag_next = *bucket;
        *bucket = task;
    }
    task->in_set = true;
}

static void unlink_task(struct vt_lu *lu, struct vt_task *task)
{
    if (task->set_prev)
        task->set_prev->set_next = task->set_next;
    else
        lu->first = task->set_next;
    if (task->set_next)
        task->set_next->set_prev = task->set_prev;
    else
        lu->last = task->set_prev;
    lu->nr_tasks--;
    lu->nr_ordered -= task->attribute == SRP_TSK_ORDERED;
    lu->nr_hoq -= task->attribute == SRP_TSK_HEAD_OF_QUEUE;
    if (has_tag(task)) {
        struct vt_task **link = tag_bucket(lu, task->nexus, task->tag);
        while (*link != task)
            link = &(*link)->tag_next;
        *link = task->tag_next;
    }
    task->in_set = false;
}

/* Ranges that are wanted now are looked for by the task; those wanted later wait for it. */
static void set_extent(const struct vt_lu *lu, struct vt_task *task, bool dormant)
{
    bool looks = dormant || lu->range_looks;
    atomic_store_explicit(&task->extent, looks ? EXTENT_LOOK : EXTENT_UNKNOWN, memory_order_relaxed);
}

/* ACA attribute without an ACA condition: it enters as SIMPLE, and its checks say what is wrong. */
static void settle_attribute(const struct vt_lu *lu, struct vt_task *task)
{
    if (task->attribute == SRP_TSK_ACA && !lu->it[task->nexus].aca)
        task->attribute = SRP_TSK_SIMPLE;
}

enum vt_enter vt_set_enter(struct vt_task *task)
{
    struct vt_lu *lu = task->lu;
    enum vt_enter how = ENTER_ENABLED;
    uint8_t refusal;
    bool gate = vt_lock_enter(&lu->lock, task->channel->loop);
    if (lu->removing) {
        how = ENTER_GONE;
    } else if (has_tag(task) && vt_set_find(lu, task->nexus, task->tag)) {
        how = ENTER_OVERLAPPED;
        for (struct vt_task *other = lu->first; other; other = other->set_next)
            if (other->nexus == task->nexus)
                vt_set_abort(lu, other);
    } else if (lu->rules && has_tag(task) && (refusal = vt_aca_refusal(lu, task))) {
        how = ENTER_REFUSED;
        task->result.status = refusal;
    } else {
        settle_attribute(lu, task);
        if (!vt_order_on_arrival(lu, task)) {
            how = ENTER_DORMANT;
            lu->nr_dormant++;
            atomic_store(&task->state, TASK_DORMANT);
        }
        set_extent(lu, task, how == ENTER_DORMANT);
        link_task(lu, task);
    }
    vt_lock_leave(&lu->lock, gate);
    return how;
}

static void enable(struct vt_lu *lu, struct vt_task *task)
{
    lu->nr_dormant--;
    set_extent(lu, task, false);
    atomic_store(&task->state, TASK_READY);
    vt_loop_mail(task->channel->loop, task, MAIL_START);
}

void vt_set_enable(struct vt_lu *lu)
{
    if (lu->nr_dormant)
        vt_order_pass(lu, enable);
}

enum { MEDIUM_ERROR = 3, COMMANDS_CLEARED = 0x2f00 };

static bool medium_error(const struct vt_task *task)
{
    const uint8_t *sense = task->result.sense;
    uint8_t key = task->result.sense_nbytes < 3 ? 0 : sense[0] & 2 ? sense[1] : sense[2];
    return (key & 0xf) == MEDIUM_ERROR || task->blkif_status == BLKIF_RSP_ERROR;
}

/* Under the LU's lock, which leaving takes anyway. */
static void count(struct vt_lu *lu, struct vt_task *task)
{
    /* A READ that Python runs is a READ all the same. */
    uint8_t op = task->row ? task->row->facts.op : task->op;
    if ((op != VT_OP_READ && op != VT_OP_WRITE) || task->discard)
        return;
    lu->stats.commands[op == VT_OP_WRITE]++;
    if (vt_is_aborted(task))
        return;
    if (medium_error(task))
        lu->stats.errors[op == VT_OP_WRITE]++;
    else if (task->result.status == 0 && task->response_code < 0 && task->blkif_status == BLKIF_RSP_OKAY)
        lu->stats.blocks[op == VT_OP_WRITE] += task->blocks;
}

void vt_set_leave(struct vt_task *task)
{
    struct vt_lu *lu = task->lu;
    bool gate = vt_lock_enter(&lu->lock, task->channel->loop);
    count(lu, task);
    unlink_task(lu, task);
    vt_set_enable(lu);
    if (lu->tmfs || lu->fenced)
        vt_tmf_check(lu);
    if (lu->range_waiting)
        vt_range_left(lu, task);
    if (lu->preempting || (lu->nr_tasks == 0 && lu->removing))
        pthread_cond_broadcast(&lu->idle);
    vt_lock_leave(&lu->lock, gate);
}

/* Marks one task aborted and hurries it; it ends in its own loop. Under the LU's lock. */
void vt_set_abort(struct vt_lu *lu, struct vt_task *task)
{
    if (atomic_exchange(&task->aborted, true))
        return;
    if (atomic_load(&task->state) == TASK_DORMANT) {
        enable(lu, task);
        return;
    }
    if (atomic_load(&task->state) == TASK_PARKED) {
        vt_range_abort(lu, task);
        return;
    }
    if (vt_sched_abort(task))
        return;
    if (atomic_load(&task->state) == TASK_SETTLING) {
        vt_durable_release(lu, task);
        return;
    }
    vt_slow_abort(task);
    atomic_store(&task->channel->loop->cancel_wanted, true);
    vt_loop_wake(task->channel->loop);
}

void vt_set_abort_by(struct vt_lu *lu, struct vt_task *task, uint32_t nexus, bool quiet)
{
    if (task->nexus != nexus && !vt_is_aborted(task)) {
        task->tell_aborted = lu->policy.tas && has_tag(task);
        if (!lu->policy.tas && !quiet)
            vt_ua_put(lu, task->nexus, COMMANDS_CLEARED);
    }
    vt_set_abort(lu, task);
}

/* Not what has waited for a range: others wait for it now. */
static bool block(struct vt_task *task)
{
    struct vt_lu *lu = task->lu;
    if (!task->in_set || !(vscsi_load_relaxed(&lu->rules) & RULE_ACA))
        return false;
    vt_lock_take(&lu->lock);
    bool blocked = vt_aca_blocks(lu, task) && !vt_is_aborted(task) &&
                   atomic_load_explicit(&task->extent, memory_order_relaxed) != EXTENT_GRANTED;
    if (blocked) {
        set_extent(lu, task, true);
        lu->nr_dormant++;
        atomic_store(&task->state, TASK_DORMANT);
    }
    vt_lock_give(&lu->lock);
    return blocked;
}

void vt_task_resume(struct vt_task *task)
{
    if (!block(task))
        vt_task_start(task);
    else if (task->sched)
        vt_sched_leave(task);
}

void vt_task_start(struct vt_task *task)
{
    atomic_store_explicit(&task->state, TASK_RUNNING, memory_order_relaxed);
    if (vt_is_aborted(task))
        vt_task_end(task);
    else
        task->channel->ops->start(task);
}

/* Aborted at the very instant: what it took out of the queue has been told to nobody. */
static void give_attention_back(struct vt_task *task)
{
    if (!task->attention)
        return;
    vt_lock_take(&task->lu->lock);
    vt_ua_return(task->lu, task->nexus, task->attention);
    vt_lock_give(&task->lu->lock);
}

static inline __attribute__((always_inline)) void end(struct vt_task *task, bool slow)
{
    const struct vt_protocol_ops *ops = task->channel->ops;
    vt_tap_data_in(task);
    if (__builtin_expect(task->sched != NULL, 0))
        vt_sched_leave(task);
    /* Grants first: with the response in hand the initiator may take its pages back. */
    vt_buffer_release(task, &task->buf[BUF_OUT]);
    vt_buffer_release(task, &task->buf[BUF_IN]);
    if (vt_is_aborted(task)) {
        give_attention_back(task);
        ops->abort_reply(task);
    } else {
        if (slow && !task->result.status && task->result.clears)
            vt_ua_told(task);
        ops->finish(task);
    }
    if (task->in_set)
        vt_set_leave(task);
    vt_task_release(task);
}

void vt_task_end(struct vt_task *task)
{
    end(task, false);
}

void vt_task_end_slow(struct vt_task *task)
{
    end(task, true);
}
