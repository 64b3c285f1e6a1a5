/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The task set of a logical unit (SAM-5 clause 8): which command may run when, overlapped tags, aborting.
 * Knows order and attributes; knows no CDB, no ring, no I/O. Sequence numbers are given at dequeue, so order is the
 * order in which requests left their rings. While only SIMPLE tasks are about, entering and leaving is a few stores.
 */
#include "path.h"

struct vt_task *vt_set_find(struct vt_lu *lu, uint32_t nexus, uint64_t tag)
{
    for (struct vt_task *task = *vt_tag_bucket(lu, nexus, tag); task; task = task->tag_next)
        if (task->tag == tag && task->nexus == nexus && atomic_load(&task->channel->state) < CHANNEL_STOPPING)
            return task;    /* tags of a channel that stops are free: its initiator may log in before they have ended */
    return NULL;
}

/* Of what an order other than SIMPLE depends on. */
static void count_attribute(struct vt_lu *lu, const struct vt_task *task, uint32_t by)
{
    if (task->attribute == SRP_TSK_ORDERED)
        lu->nr_ordered += by;
    else if (task->attribute == SRP_TSK_HEAD_OF_QUEUE)
        lu->nr_hoq += by;
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

enum vt_enter vt_set_enter_slowly(struct vt_lu *lu, struct vt_task *task)
{
    const struct vt_protocol_ops *ops = task->channel->ops;
    uint8_t refusal;
    if (lu->removing)
        return ENTER_GONE;
    if (vt_has_tag(ops) && vt_set_find(lu, task->nexus, task->tag)) {
        for (struct vt_task *other = lu->first; other; other = other->set_next)
            if (other->nexus == task->nexus)
                vt_set_abort(lu, other);
        return ENTER_OVERLAPPED;
    }
    if (lu->rules && vt_has_tag(ops) && (refusal = vt_aca_refusal(lu, task))) {
        task->result.status = refusal;
        return ENTER_REFUSED;
    }
    settle_attribute(lu, task);
    bool enabled = vt_order_on_arrival(lu, task);
    if (!enabled) {
        lu->nr_dormant++;
        atomic_store(&task->state, TASK_DORMANT);
    }
    set_extent(lu, task, !enabled);
    vt_set_link(lu, task, vt_has_tag(ops) ? vt_tag_bucket(lu, task->nexus, task->tag) : NULL);
    count_attribute(lu, task, 1);
    return enabled ? ENTER_ENABLED : ENTER_DORMANT;
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

void vt_set_count_oddly(struct vt_lu *lu, struct vt_task *task, bool writes)
{
    if (vt_is_aborted(task))
        return;
    if (medium_error(task))
        lu->stats.errors[writes]++;
    else if (task->result.status == VT_GOOD && task->response_code < 0 && task->blkif_status == BLKIF_RSP_OKAY)
        lu->stats.blocks[writes] += task->blocks;   /* with sense all the same */
}

void vt_set_left(struct vt_lu *lu, struct vt_task *task)
{
    count_attribute(lu, task, -1u);
    vt_set_enable(lu);
    if (lu->tmfs || lu->fenced)
        vt_tmf_check(lu);
    if (lu->range_waiting)
        vt_range_left(lu, task);
    if (lu->preempting || (lu->nr_tasks == 0 && lu->removing))
        pthread_cond_broadcast(&lu->idle);
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
        task->tell_aborted = lu->policy.tas && vt_has_tag(task->channel->ops);
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
    vt_task_start_as(task, task->channel->ops);
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

void vt_task_tell_aborted(struct vt_task *task)
{
    give_attention_back(task);
    task->channel->ops->abort_reply(task);
}

void vt_task_end(struct vt_task *task)
{
    vt_task_end_as(task, task->channel->ops);
}

void vt_task_end_slow(struct vt_task *task)
{
    vt_task_end_by(task, task->channel->ops, true);
}
