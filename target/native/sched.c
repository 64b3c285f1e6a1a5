/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device's scheduler between task sets and media access. A task comes here once its task set has enabled it and the
 * checks are passed, so that the order of task sets cannot be violated here, and waits until its turn at the device has
 * come; then it begins anew in its loop, but for unit attentions and reservations: is the unit ready, is the medium the
 * same? Knows who waits for which device; the choice is sched_queue.c's.
 *
 * What waits holds no grant and no scratch, and whoever wants a range lock does not wait for it (EXTENT_LOOK), unless it
 * has got its blocks already. The lock comes after the LU's and before the mailboxes'.
 */
#include <errno.h>
#include <stdlib.h>

#include "core.h"
#include "load.h"
#include "sched_queue.h"

struct vt_sched {
    struct vt_target *target;
    pthread_mutex_t lock;
    struct sched_queue queue;
};

static struct vt_task *task_of(struct sq_item *item)
{
    return (struct vt_task *)((uint8_t *)item - offsetof(struct vt_task, turn));
}

/* ---- waking by time: limits ---- */

static void wake_at(struct vt_loop *here, struct vt_target *t, uint64_t at_ns)
{
    struct vt_loop *loop = here ? here : &t->loops[0];
    uint64_t before = atomic_load(&loop->sched_ns);
    while (at_ns < before && !atomic_compare_exchange_weak(&loop->sched_ns, &before, at_ns))
        ;
    if (at_ns < before && !here)
        vt_loop_wake(loop);
}

/*
 * Under the scheduler's lock: lets at the device what may. `here`: the loop whose thread this is, or NULL; `self`: a
 * task whose caller finds out by himself.
 */
static void dispatch(struct vt_sched *s, struct vt_loop *here, const struct vt_task *self, uint64_t now_ns)
{
    uint64_t again_ns;
    for (struct sq_item *item; (item = sq_next(&s->queue, now_ns, &again_ns));) {
        struct vt_task *task = task_of(item);
        task->sched = s;
        if (task == self)
            continue;
        atomic_store(&task->state, TASK_READY);
        if (task->channel->loop == here)
            vt_loop_ready(here, task);
        else
            vt_loop_mail(task->channel->loop, task, MAIL_START);
    }
    if (again_ns != UINT64_MAX)
        wake_at(here, s->target, again_ns);
}

/* In a loop: a limit may have ended. */
void vt_sched_tick(struct vt_target *t, uint64_t now_ns)
{
    uint32_t count = atomic_load(&t->nr_scheds);
    for (uint32_t i = 0; i < count; i++) {
        struct vt_sched *s = atomic_load(&t->scheds[i]);
        pthread_mutex_lock(&s->lock);
        dispatch(s, NULL, NULL, now_ns);
        pthread_mutex_unlock(&s->lock);
    }
}

/* ---- tasks: in their loop, unless it says otherwise ---- */

/* The slow half of vt_sched_pass: false if the task has to wait. */
bool vt_sched_enter(struct vt_task *task)
{
    struct vt_lu *lu = task->lu;
    struct vt_sched *s = task->sched;
    if (s) {
        /* A second look at memory of the initiator may have found more than was let at the device. */
        pthread_mutex_lock(&s->lock);
        sq_recharge(&s->queue, &task->turn, task->nbytes);
        pthread_mutex_unlock(&s->lock);
        return true;
    }
    if (task->nbytes == 0)
        return true;
    s = atomic_load_explicit(&lu->sched, memory_order_acquire);
    uint64_t now_ns = vscsi_now_ns();
    task->turn.at = lu->sched_base + task->offset;
    task->turn.nbytes = task->nbytes;
    task->turn.flow = task->nexus;
    task->turn.urgent = task->attribute == SRP_TSK_HEAD_OF_QUEUE;
    task->turn.write = (task->row ? task->row->facts.op : task->op) == VT_OP_WRITE;
    pthread_mutex_lock(&s->lock);
    if (vt_is_aborted(task)) {
        pthread_mutex_unlock(&s->lock);
        return true;
    }
    sq_add(&s->queue, &task->turn, now_ns);
    dispatch(s, task->channel->loop, task, now_ns);
    bool passes = task->sched != NULL;
    if (!passes) {
        if (atomic_load(&task->extent) == EXTENT_UNKNOWN)
            atomic_store(&task->extent, EXTENT_LOOK);
        atomic_store(&task->state, TASK_WAITING);
    }
    pthread_mutex_unlock(&s->lock);
    if (!passes) {
        /* Nobody else begins it: mail from other threads is opened here. */
        vt_buffer_unmap(task, &task->buf[BUF_OUT]);
        vt_buffer_unmap(task, &task->buf[BUF_IN]);
    }
    return passes;
}

/* The task is done with the device, or waits for something else before it begins anew. */
void vt_sched_leave(struct vt_task *task)
{
    struct vt_sched *s = task->sched;
    uint64_t now_ns = vscsi_now_ns();
    pthread_mutex_lock(&s->lock);
    task->sched = NULL;
    sq_done(&s->queue, &task->turn, now_ns);
    dispatch(s, task->channel->loop, NULL, now_ns);
    pthread_mutex_unlock(&s->lock);
}

/* From any thread, under the LU's lock: an aborted task waits for nothing. False: it does not wait here. */
bool vt_sched_abort(struct vt_task *task)
{
    struct vt_sched *s = atomic_load_explicit(&task->lu->sched, memory_order_acquire);
    if (!s)
        return false;
    pthread_mutex_lock(&s->lock);
    bool waits = atomic_load(&task->state) == TASK_WAITING;
    if (waits) {
        sq_remove(&s->queue, &task->turn);
        atomic_store(&task->state, TASK_READY);
        vt_loop_mail(task->channel->loop, task, MAIL_START);
    }
    pthread_mutex_unlock(&s->lock);
    return waits;
}

/* ---- from Python ---- */

static struct vt_sched *sched_of(struct vt_target *t, uint32_t index)
{
    return index < VT_MAX_LUS ? atomic_load(&t->scheds[index]) : NULL;
}

static bool plausible(const struct vt_sched_config *c)
{
    return c->depth > 0 && c->depth <= VT_SCHED_MAX_DEPTH && (!c->rotational || c->quantum_us > 0) &&
           c->idle_us <= VT_SCHED_MAX_IDLE_US;
}

int vt_sched_add(struct vt_target *t, const struct vt_sched_config *config)
{
    if (!plausible(config))
        return -EINVAL;
    struct vt_sched *s = calloc(1, sizeof *s);
    if (!s || sq_init(&s->queue, config, VT_MAX_NEXUSES) < 0) {
        free(s);
        return -ENOMEM;
    }
    s->target = t;
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_lock(&t->control);
    uint32_t count = atomic_load(&t->nr_scheds);
    if (count < VT_MAX_LUS) {
        atomic_store(&t->scheds[count], s);
        atomic_store(&t->nr_scheds, count + 1);
    }
    pthread_mutex_unlock(&t->control);
    if (count < VT_MAX_LUS)
        return (int)count;
    vt_sched_free(s);
    return -ENOSPC;
}

void vt_sched_free(struct vt_sched *s)
{
    if (!s)
        return;
    sq_free(&s->queue);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* No loop runs any more, and channels will be freed. */
void vt_sched_stop(struct vt_target *t)
{
    for (uint32_t i = 0; i < atomic_load(&t->nr_scheds); i++) {
        struct vt_sched *s = atomic_load(&t->scheds[i]);
        pthread_mutex_lock(&s->lock);
        s->queue.busy = NULL;
        pthread_mutex_unlock(&s->lock);
    }
}

int vt_sched_update(struct vt_target *t, uint32_t index, const struct vt_sched_config *config)
{
    struct vt_sched *s = sched_of(t, index);
    if (!s || !plausible(config))
        return s ? -EINVAL : -ENOENT;
    pthread_mutex_lock(&s->lock);
    sq_configure(&s->queue, config);
    dispatch(s, NULL, NULL, vscsi_now_ns());
    pthread_mutex_unlock(&s->lock);
    return 0;
}

int vt_sched_share(struct vt_target *t, uint32_t index, uint32_t nexus, const struct vt_sched_share *share)
{
    struct vt_sched *s = sched_of(t, index);
    if (!s || (nexus != VT_ALL && nexus >= VT_MAX_NEXUSES))
        return s ? -EINVAL : -ENOENT;
    int rc = 0;
    pthread_mutex_lock(&s->lock);
    for (uint32_t n = 0; n < VT_MAX_NEXUSES && rc == 0; n++)
        if (nexus == VT_ALL || nexus == n)
            rc = sq_share(&s->queue, n, share);
    dispatch(s, NULL, NULL, vscsi_now_ns());
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int vt_sched_forget(struct vt_target *t, uint32_t index, uint32_t nexus)
{
    struct vt_sched *s = sched_of(t, index);
    if (!s || nexus >= VT_MAX_NEXUSES)
        return s ? -EINVAL : -ENOENT;
    pthread_mutex_lock(&s->lock);
    sq_reset_flow(&s->queue, nexus);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

int vt_sched_stats(struct vt_target *t, uint32_t index, uint32_t nexus, struct vt_sched_stats *stats)
{
    struct vt_sched *s = sched_of(t, index);
    if (!s || nexus >= VT_MAX_NEXUSES)
        return s ? -EINVAL : -ENOENT;
    pthread_mutex_lock(&s->lock);
    *stats = s->queue.flows[nexus].stats;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

int vt_lu_schedule(struct vt_target *t, uint32_t index, uint32_t sched, uint64_t base)
{
    struct vt_lu *lu = index < VT_MAX_LUS ? atomic_load(&t->lus[index]) : NULL;
    struct vt_sched *s = sched_of(t, sched);
    if (!lu || !s)
        return -ENOENT;
    vt_lock_take(&lu->lock);
    int rc = atomic_load(&lu->sched) ? -EEXIST : 0;
    if (rc == 0) {
        lu->sched_base = base;
        atomic_store_explicit(&lu->sched, s, memory_order_release);
    }
    vt_lock_give(&lu->lock);
    return rc;
}
