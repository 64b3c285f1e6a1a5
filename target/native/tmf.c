/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Task management functions (SAM-5 clause 7, SRP r16a TSK_MGMT). A function is acted on at once and answered when no
 * byte of the commands it aborted can move any more; if that takes too long, FUNCTION FAILED, and the LU refuses media
 * access until the stuck I/O returns. Knows the task set; knows no CDB.
 */
#include "checks.h"
#include "load.h"

static bool in_scope_task(const struct vt_task *tmf, const struct vt_task *task)
{
    return task->nexus == tmf->nexus && task->tag == tmf->target_tag && task->channel->ops == &vt_srp_ops;
}

static bool in_scope_nexus(const struct vt_task *tmf, const struct vt_task *task)
{
    return task->nexus == tmf->nexus;
}

static bool in_scope_aca(const struct vt_task *tmf, const struct vt_task *task)
{
    return task->nexus == tmf->nexus && task->attribute == SRP_TSK_ACA;
}

static bool in_scope_all(const struct vt_task *tmf, const struct vt_task *task)
{
    (void)tmf;
    (void)task;
    return true;
}

struct tmf_row {
    uint8_t function;
    bool (*in_scope)(const struct vt_task *tmf, const struct vt_task *task);
    uint32_t ua_all;        /* for every nexus; those that had a task aborted then get no 2F/00 */
    void (*besides)(struct vt_lu *lu, uint32_t nexus);
};

static void clear_every_aca(struct vt_lu *lu, uint32_t nexus)
{
    (void)nexus;
    vt_aca_clear_all(lu);
}

static const struct tmf_row rows[] = {
    { SRP_TMF_ABORT_TASK, in_scope_task, 0, NULL },
    { SRP_TMF_ABORT_TASK_SET, in_scope_nexus, 0, NULL },
    { SRP_TMF_CLEAR_TASK_SET, in_scope_all, 0, NULL },
    { SRP_TMF_LUN_RESET, in_scope_all, 0x2903, clear_every_aca },
    { SRP_TMF_CLEAR_ACA, in_scope_aca, 0, vt_aca_clear },
};

static const struct tmf_row *row_of(uint8_t function)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].function == function)
            return &rows[i];
    return NULL;
}

static bool must_wait(const struct vt_lu *lu, const struct vt_task *tmf)
{
    const struct tmf_row *row = row_of(tmf->function);
    for (struct vt_task *task = lu->first; task && task->seq < tmf->seq; task = task->set_next)
        if (vt_is_aborted(task) && row->in_scope(tmf, task))
            return true;
    return false;
}

/* A channel that stops may belong to an earlier login, and the tag to another command by now. */
static bool is_meant(const struct tmf_row *row, const struct vt_task *tmf, const struct vt_task *task)
{
    bool old = row->function == SRP_TMF_ABORT_TASK && atomic_load(&task->channel->state) >= CHANNEL_STOPPING;
    return row->in_scope(tmf, task) && !old;
}

static void act(struct vt_lu *lu, struct vt_task *tmf, const struct tmf_row *row)
{
    struct vt_target *t = lu->target;
    for (struct vt_task *task = lu->first; task; task = task->set_next) {
        if (!is_meant(row, tmf, task))
            continue;
        vt_set_abort_by(lu, task, tmf->nexus, row->ua_all);
    }
    if (row->besides)
        row->besides(lu, tmf->nexus);
    for (uint32_t n = 0; row->ua_all && n < VT_MAX_NEXUSES; n++)
        if (atomic_load(&t->nexuses[n].used))
            vt_ua_put(lu, n, row->ua_all);
}

/* Starts the clock of a function that waits. */
static void wait_until_late(struct vt_task *task)
{
    task->deadline_ns = vscsi_now_ns() + (uint64_t)task->channel->target->config.abort_limit_ms * 1000000u;
    task->channel->loop->tmfs_waiting++;
}

static void wait_no_more(struct vt_task *task)
{
    if (task->deadline_ns)
        task->channel->loop->tmfs_waiting--;
    task->deadline_ns = 0;
}

void vt_tmf_take(struct vt_task *task)
{
    const struct srp_tsk_mgmt *iu = &task->iu.tsk_mgmt;
    const struct tmf_row *row = row_of(iu->tsk_mgmt_func);
    struct vt_target *t = task->channel->target;
    struct vt_lu *lu = vt_lun_find(t, task->nexus, iu->lun);
    task->function = iu->tsk_mgmt_func;
    memcpy(&task->target_tag, &iu->task_tag, sizeof task->target_tag);
    if (!row || !lu) {
        vt_srp_respond_code(task, row ? SRP_RESP_FIELDS_INVALID : SRP_RESP_NOT_SUPPORTED);
        return;
    }
    task->lu = lu;
    vt_lock_take(&lu->lock);
    task->seq = lu->next_seq++;
    /* Each nexus has a task set of its own; and that shall not change while the function waits. */
    if (task->function == SRP_TMF_CLEAR_TASK_SET && lu->policy.separate_sets)
        row = row_of(task->function = SRP_TMF_ABORT_TASK_SET);
    act(lu, task, row);
    bool wait = must_wait(lu, task);
    if (wait) {
        atomic_store(&task->state, TASK_TMF);
        wait_until_late(task);
        task->set_next = lu->tmfs;
        lu->tmfs = task;
    }
    vt_lock_give(&lu->lock);
    if (!wait) {
        task->deadline_ns = 0;
        vt_tmf_quiesced(task);
    }
}

/* Under the LU's lock, after a task has left: which functions are done, and may media be accessed again? */
void vt_tmf_check(struct vt_lu *lu)
{
    struct vt_task **link = &lu->tmfs;
    while (*link) {
        struct vt_task *tmf = *link;
        if (must_wait(lu, tmf)) {
            link = &tmf->set_next;
            continue;
        }
        *link = tmf->set_next;
        atomic_store(&tmf->state, TASK_READY);
        vt_loop_mail(tmf->channel->loop, tmf, MAIL_TMF_DONE);
    }
    bool stuck = false;
    for (struct vt_task *task = lu->first; task && !stuck; task = task->set_next)
        stuck = vt_is_aborted(task);
    if (!stuck)
        vscsi_store_relaxed(&lu->fenced, 0);
}

static void answer(struct vt_task *task)
{
    if (task->function == SRP_TMF_LUN_RESET) {
        task->ask = VT_OP_LU_RESET;
        task->cdb_nbytes = 0;
        wait_until_late(task);
        if (vt_slow_queue(task))
            return;
    }
    vt_tmf_reset_done(task);
}

/* In the function's loop: Python has done its part of the reset, or will not be asked. */
void vt_tmf_reset_done(struct vt_task *task)
{
    wait_no_more(task);
    vt_srp_respond_code(task, SRP_RESP_COMPLETE);
}

/*
 * No command's answer may come after that of the function it met (SAM-5 7.2), whatever channels the two are on. Answers
 * are written before their commands leave the task set, but published later; so the function goes round all loops, its
 * own last, and each publishes what it has.
 */
void vt_tmf_visit(struct vt_task *task)
{
    struct vt_target *t = task->channel->target;
    uint32_t home = task->channel->loop->index;
    vt_loop_publish(&t->loops[task->visits]);
    if (task->visits == home) {
        answer(task);
        return;
    }
    task->visits++;
    if (task->visits == home)
        task->visits++;
    if (task->visits == t->nr_loops)
        task->visits = (uint8_t)home;
    vt_loop_mail(&t->loops[task->visits], task, MAIL_TMF_VISIT);
}

/* In the function's loop: everything it aborted is at rest. */
void vt_tmf_quiesced(struct vt_task *task)
{
    struct vt_target *t = task->channel->target;
    uint32_t home = task->channel->loop->index;
    wait_no_more(task);
    task->visits = home == 0 && t->nr_loops > 1;
    if (task->visits == home)
        vt_tmf_visit(task);
    else
        vt_loop_mail(&t->loops[task->visits], task, MAIL_TMF_VISIT);
}

/* It waits for aborted commands. False: they have just ended. */
static bool give_up_waiting(struct vt_task *tmf)
{
    struct vt_lu *lu = tmf->lu;
    bool mine = false;
    vt_lock_take(&lu->lock);
    for (struct vt_task **link = &lu->tmfs; *link; link = &(*link)->set_next)
        if (*link == tmf) {
            *link = tmf->set_next;
            vscsi_store_relaxed(&lu->fenced, 1);
            mine = true;
            break;
        }
    vt_lock_give(&lu->lock);
    return mine;
}

/* Answers the functions of this channel whose time is over: what they aborted does not end, or Python does not. */
void vt_tmf_expire(struct vt_channel *channel, uint64_t now_ns)
{
    for (uint32_t i = 0; i < channel->nr_tasks; i++) {
        struct vt_task *tmf = &channel->tasks[i];
        int state = atomic_load(&tmf->state);
        bool asked = (state == TASK_SLOW_QUEUED || state == TASK_SLOW_RUNNING) && tmf->ask == VT_OP_LU_RESET;
        if ((state != TASK_TMF && !asked) || now_ns < tmf->deadline_ns)
            continue;
        if (!(asked ? vt_slow_abandon(tmf) : give_up_waiting(tmf)))
            continue;
        wait_no_more(tmf);
        vt_srp_respond_code(tmf, SRP_RESP_FAILED);
    }
}
