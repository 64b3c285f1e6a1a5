/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What follows from a status (SAM-5 5.9, 5.14; SPC-4 7.5.8): auto contingent allegiance and who may enter a task set
 * meanwhile, the end of other tasks by QERR, unit attentions by UA_INTLCK_CTRL; and the limit of a task set.
 * Knows statuses and NACA; knows no order among tasks (order.c) and no ring.
 */
#include "core.h"

enum { CHECK_CONDITION = 0x02, VARIABLE_LENGTH = 0x7f, PERSISTENT_RESERVE_OUT = 0x5f, PREEMPT_AND_ABORT = 0x05,
       NACA = 0x04, UA_INTLCK_ESTABLISH = 3, QERR_ALL = 1, QERR_NEXUS = 3,
       PREVIOUS_BUSY = 0x2c07, PREVIOUS_TASK_SET_FULL = 0x2c08, PREVIOUS_RESERVATION_CONFLICT = 0x2c09 };

/* NACA in CONTROL: the last byte of a CDB, whose length an unknown operation code still tells by its group. */
static bool naca(const struct vt_task *task)
{
    static const uint8_t group_nbytes[8] = { 6, 10, 10, 0, 16, 12, 0, 0 };
    const uint8_t *cdb = vt_cdb(task);
    uint32_t nbytes = task->row ? task->row->facts.cdb_nbytes : group_nbytes[cdb[0] >> 5];
    if (cdb[0] == VARIABLE_LENGTH)
        return cdb[1] & NACA;
    return nbytes && cdb[nbytes - 1] & NACA;
}

static bool is_scsi(const struct vt_task *task)
{
    return task->channel->ops == &vt_srp_ops;
}

static bool preempts_and_aborts(const struct vt_task *task)
{
    const uint8_t *cdb = vt_cdb(task);
    return is_scsi(task) && cdb[0] == PERSISTENT_RESERVE_OUT && (cdb[1] & 0x1f) == PREEMPT_AND_ABORT;
}

/* ---- the ACA condition ---- */

/* Is there one in this nexus' task set? */
static bool in_force(const struct vt_lu *lu, uint32_t nexus)
{
    return lu->policy.separate_sets ? lu->it[nexus].aca : lu->nr_aca > 0;
}

static void set_aca(struct vt_lu *lu, uint32_t nexus, bool on)
{
    if (lu->it[nexus].aca == on)
        return;
    lu->it[nexus].aca = on;
    lu->nr_aca += on ? 1u : -1u;
    vscsi_store_relaxed(&lu->rules, (lu->rules & ~(uint32_t)RULE_ACA) | (lu->nr_aca ? RULE_ACA : 0u));
}

bool vt_aca_passes(const struct vt_lu *lu, const struct vt_task *task)
{
    return task->attribute == SRP_TSK_ACA ||
           (lu->nr_aca && in_force(lu, task->nexus) && !lu->it[task->nexus].aca && preempts_and_aborts(task));
}

bool vt_aca_blocks(const struct vt_lu *lu, const struct vt_task *task)
{
    return lu->nr_aca && in_force(lu, task->nexus) && !vt_aca_passes(lu, task);
}

void vt_aca_clear(struct vt_lu *lu, uint32_t nexus)
{
    if (!lu->it[nexus].aca)
        return;
    set_aca(lu, nexus, false);
    vt_set_enable(lu);
}

void vt_aca_clear_all(struct vt_lu *lu)
{
    for (uint32_t n = 0; n < VT_MAX_NEXUSES && lu->nr_aca; n++)
        vt_aca_clear(lu, n);
}

void vt_aca_nexus_lost(struct vt_target *t, uint32_t nexus)
{
    for (uint32_t i = 0; i < VT_MAX_LUS; i++) {
        struct vt_lu *lu = atomic_load(&t->lus[i]);
        if (!lu)
            continue;
        vt_lock_take(&lu->lock);
        vt_aca_clear(lu, nexus);
        vt_lock_give(&lu->lock);
    }
}

/* ---- entering ---- */

static bool has_aca_task(const struct vt_lu *lu, uint32_t nexus)
{
    for (const struct vt_task *task = lu->first; task; task = task->set_next)
        if (task->nexus == nexus && task->attribute == SRP_TSK_ACA)
            return true;
    return false;
}

/* The limit counts what SCSI has queued: blkif knows no such status, and its rings are its limit. */
static uint8_t full(const struct vt_lu *lu, uint32_t nexus)
{
    uint32_t mine = 0, others = 0;
    for (const struct vt_task *task = lu->first; task; task = task->set_next)
        if (is_scsi(task))
            *(task->nexus == nexus ? &mine : &others) += 1;
    if ((lu->policy.separate_sets ? mine : mine + others) < lu->policy.limit)
        return 0;
    return mine ? VT_TASK_SET_FULL : VT_BUSY;
}

uint8_t vt_aca_refusal(struct vt_lu *lu, const struct vt_task *task)
{
    uint32_t nexus = task->nexus;
    if (lu->it[nexus].aca)
        return task->attribute == SRP_TSK_ACA && !has_aca_task(lu, nexus) ? 0 : VT_ACA_ACTIVE;
    if (in_force(lu, nexus)) {
        if (preempts_and_aborts(task))
            return 0;
        return naca(task) ? VT_ACA_ACTIVE : VT_BUSY;
    }
    return lu->policy.limit ? full(lu, nexus) : 0;
}

uint8_t vt_aca_refuses_early(struct vt_task *task)
{
    struct vt_lu *lu = task->lu;
    if (!vscsi_load_relaxed(&lu->rules))
        return 0;
    vt_lock_take(&lu->lock);
    uint8_t status = vt_aca_refusal(lu, task);
    vt_lock_give(&lu->lock);
    return status;
}

/* ---- ending ---- */

/*
 * The ACA task's error ends the ACA condition or, with NACA, begins another; of others only the first counts. Nobody
 * would be left to clear one that a command of a lost channel began.
 */
static void allegiance(struct vt_lu *lu, const struct vt_task *task)
{
    if (task->attribute == SRP_TSK_ACA && lu->it[task->nexus].aca) {
        if (!naca(task))
            vt_aca_clear(lu, task->nexus);
    } else if (naca(task) && !in_force(lu, task->nexus) && atomic_load(&task->channel->state) < CHANNEL_STOPPING) {
        set_aca(lu, task->nexus, true);
    }
}

static void abort_others(struct vt_lu *lu, const struct vt_task *task)
{
    bool all = lu->policy.qerr == QERR_ALL && !lu->policy.separate_sets;
    for (struct vt_task *other = lu->first; other; other = other->set_next)
        if (other != task && (all || other->nexus == task->nexus))
            vt_set_abort_by(lu, other, task->nexus, false);
}

static uint32_t attention_of(uint8_t status)
{
    switch (status) {
    case VT_BUSY:
        return PREVIOUS_BUSY;
    case VT_TASK_SET_FULL:
        return PREVIOUS_TASK_SET_FULL;
    case VT_RESERVATION_CONFLICT:
        return PREVIOUS_RESERVATION_CONFLICT;
    default:
        return 0;
    }
}

void vt_aca_ended(struct vt_task *task)
{
    struct vt_lu *lu = task->lu;
    uint8_t status = task->result.status;
    if (!lu)
        return;
    vt_lock_take(&lu->lock);
    if (status == CHECK_CONDITION) {
        if (lu->policy.qerr == QERR_ALL || lu->policy.qerr == QERR_NEXUS)
            abort_others(lu, task);
        allegiance(lu, task);
    } else if (lu->policy.ua_intlck == UA_INTLCK_ESTABLISH && attention_of(status)) {
        vt_ua_put(lu, task->nexus, attention_of(status));
    }
    vt_lock_give(&lu->lock);
}
