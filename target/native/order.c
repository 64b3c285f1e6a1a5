/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which task of a task set may run (SAM-5 clause 8): task attributes, one task set or one for each nexus (TST),
 * restricted reordering (QUEUE ALGORITHM MODIFIER), blocking by ACA. All decisions on order are here.
 * Knows order only; starts nothing, and knows no status. Everything is called under the LU's lock.
 */
#include "core.h"

/* ---- restricted reordering ---- */

struct extent {
    uint64_t lba;
    uint64_t blocks;
    bool writes;
    bool known;
};

/* As the CDB says; nothing has checked it yet. */
static struct extent extent_of(const struct vt_task *task)
{
    const struct vt_command *f = &task->row->facts;
    const uint8_t *cdb = vt_cdb(task);
    struct extent e = { .known = f->op == VT_OP_READ || f->op == VT_OP_WRITE, .writes = f->op == VT_OP_WRITE };
    if (!e.known)
        return e;
    e.lba = vt_row_lba(task->row, cdb);
    e.blocks = vt_row_blocks(task->row, cdb);
    return e;
}

/* Could their order be seen in data? Of commands other than READ and WRITE nothing is known: it could. */
static bool order_shows(const struct vt_task *older, const struct vt_task *newer)
{
    if (!older->row || !newer->row)
        return false;   /* blkif: requests between barriers have no order */
    struct extent a = extent_of(older), b = extent_of(newer);
    if (!a.known || !b.known)
        return true;
    if (!a.writes && !b.writes)
        return false;
    return a.lba <= b.lba ? b.lba - a.lba < a.blocks : a.lba - b.lba < b.blocks;
}

static bool restrained(const struct vt_lu *lu, const struct vt_task *task)
{
    if (!(lu->rules & RULE_RESTRICTED) || task->attribute != SRP_TSK_SIMPLE)
        return false;
    for (struct vt_task *older = lu->first; older && older != task; older = older->set_next)
        if (older->nexus == task->nexus && older->attribute == SRP_TSK_SIMPLE && order_shows(older, task))
            return true;
    return false;
}

/* ---- a pass over all tasks, oldest first ---- */

static struct vt_older *set_of(struct vt_lu *lu, const struct vt_task *task)
{
    struct vt_older *o = lu->rules & RULE_SETS ? &lu->it[task->nexus].older : &lu->older;
    if (o->pass != lu->pass)
        *o = (struct vt_older){ .pass = lu->pass };
    return o;
}

static void begin_pass(struct vt_lu *lu)
{
    lu->pass++;
    if (lu->nr_hoq)
        for (struct vt_task *task = lu->first; task; task = task->set_next)
            set_of(lu, task)->hoq += task->attribute == SRP_TSK_HEAD_OF_QUEUE;
}

/*
 * HEAD OF QUEUE runs at once; ORDERED after all older tasks and every HEAD OF QUEUE; SIMPLE after all older ORDERED and
 * every HEAD OF QUEUE; ACA at once, as it is the only one.
 */
static bool may_run(const struct vt_lu *lu, const struct vt_task *task, const struct vt_older *o)
{
    if (vt_aca_passes(lu, task))
        return true;
    if (vt_aca_blocks(lu, task))
        return false;
    switch (task->attribute) {
    case SRP_TSK_HEAD_OF_QUEUE:
    case SRP_TSK_ACA:
        return true;
    case SRP_TSK_ORDERED:
        return o->tasks == 0 && o->hoq == 0;
    default:
        return o->ordered == 0 && o->hoq == 0 && !restrained(lu, task);
    }
}

static void count(struct vt_older *o, const struct vt_task *task)
{
    o->tasks++;
    o->ordered += task->attribute == SRP_TSK_ORDERED;
}

/* Of a task that is not in the task set yet. */
bool vt_order_on_arrival(struct vt_lu *lu, const struct vt_task *task)
{
    if (__builtin_expect(lu->rules != 0, 0)) {
        begin_pass(lu);
        for (struct vt_task *older = lu->first; older; older = older->set_next)
            count(set_of(lu, older), older);
        return may_run(lu, task, set_of(lu, task));
    }
    switch (task->attribute) {
    case SRP_TSK_HEAD_OF_QUEUE:
        return true;
    case SRP_TSK_ORDERED:
        return lu->nr_tasks == 0;
    default:
        return lu->nr_ordered == 0 && lu->nr_hoq == 0;
    }
}

void vt_order_pass(struct vt_lu *lu, void (*enable)(struct vt_lu *, struct vt_task *))
{
    begin_pass(lu);
    for (struct vt_task *task = lu->first; task && lu->nr_dormant; task = task->set_next) {
        struct vt_older *o = set_of(lu, task);
        if (atomic_load(&task->state) == TASK_DORMANT && may_run(lu, task, o))
            enable(lu, task);
        count(o, task);
        /* The usual: one task set, and nobody behind this one may pass it. */
        if (!lu->rules && !lu->nr_hoq && o->ordered)
            return;
    }
}
