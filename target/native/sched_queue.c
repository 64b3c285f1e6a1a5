/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Start-time fair queueing between nexuses, and below it, where the device has a head to move, one elevator over all.
 * Knows costs, shares and positions; knows no task, no lock and no clock.
 *
 * A flow's virtual time is the cost of what it has had, divided by its weight; the flow with the least is next. On a
 * rotational device cost is the time that the device took, and those who lead by less than a quantum may go on while
 * the head is near: so runs are not cut to pieces, and the head sweeps over the requests of all. A flow that had nothing
 * here when its request came goes first while it leads by less than a quantum: it waits for one request, not for a run.
 * So does HEAD OF QUEUE, on any device: it passes what waits, but nobody gets more of the device by it.
 */
#include <errno.h>
#include <stdlib.h>

#include "sched_queue.h"

enum {
    SCALE_BITS = SQ_SCALE_BITS,
    OVERTAKERS = 128,               /* later requests of the same flow that may pass one */
    RIDERS = 16,
    RIDDEN_NBYTES = 262144,
    REQUEST_NBYTES = 16384,         /* what a request costs besides its bytes where positions do not matter */
    MOVE_NS = 2000000,              /* first guesses for a rotational device; its own times correct them */
    BYTE_NS = 8,
    ADMIT_NS = 50000000,            /* so much of a limit may be used up at once */
    LONG_QUANTA = 4                 /* no request costs more: a stuck device is nobody's fault */
};

static const struct vt_sched_share equal_share = { .weight = 100 };

int sq_init(struct sched_queue *q, const struct vt_sched_config *config, uint32_t nr_flows)
{
    *q = (struct sched_queue){ .config = *config, .nr_flows = nr_flows, .random = config->seed | 1 };
    q->flows = calloc(nr_flows, sizeof *q->flows);
    if (!q->flows)
        return -ENOMEM;
    for (uint32_t i = 0; i < nr_flows; i++)
        q->flows[i].share = equal_share;
    return 0;
}

void sq_free(struct sched_queue *q)
{
    free(q->flows);
}

void sq_configure(struct sched_queue *q, const struct vt_sched_config *config)
{
    q->config.depth = config->depth;
    q->config.quantum_us = config->quantum_us;
    q->config.idle_us = config->idle_us;
}

int sq_share(struct sched_queue *q, uint32_t flow, const struct vt_sched_share *share)
{
    struct sq_flow *f = &q->flows[flow];
    if (share->weight == 0 || share->weight > VT_SCHED_MAX_WEIGHT)
        return -EINVAL;
    if (share->iops != f->share.iops)
        f->iops_ns = 0;
    if (share->bytes_per_s != f->share.bytes_per_s)
        f->bytes_ns = 0;
    f->share = *share;
    return 0;
}

void sq_reset_flow(struct sched_queue *q, uint32_t flow)
{
    struct sq_flow *f = &q->flows[flow];
    f->virtual_time = f->iops_ns = f->bytes_ns = 0;
    f->streak = 0;
    f->end = f->done_ns = f->think_ns = 0;
    if (q->expected == f)
        q->expected = NULL;
    f->stats = (struct vt_sched_stats){ 0 };
}

/* ---- what waits ---- */

static void append(struct sq_list *list, struct sq_item *item)
{
    item->newer = NULL;
    item->older = list->last;
    *(list->last ? &list->last->newer : &list->first) = item;
    list->last = item;
}

static void unlink_item(struct sq_list *list, struct sq_item *item)
{
    *(item->older ? &item->older->newer : &list->first) = item->newer;
    *(item->newer ? &item->newer->older : &list->last) = item->older;
}

static bool empty(const struct sq_flow *f)
{
    return !f->waiting.first && !f->urgent.first;
}

static uint32_t next_random(struct sched_queue *q)
{
    q->random ^= q->random << 13;
    q->random ^= q->random >> 7;
    q->random ^= q->random << 17;
    return (uint32_t)(q->random >> 16);
}

void sq_add(struct sched_queue *q, struct sq_item *item, uint64_t now_ns)
{
    struct sq_flow *f = &q->flows[item->flow];
    if (empty(f)) {
        f->fresh = f->running == 0;
        if (f->fresh)
            sq_idle_came(q, f, now_ns);
        if (f->fresh && f->virtual_time < q->virtual_time)
            f->virtual_time = q->virtual_time;
        f->next = q->busy;
        q->busy = f;
    }
    item->rides = false;
    item->since_ns = now_ns;
    item->number = f->numbers++;
    if (item->urgent) {
        append(&f->urgent, item);
    } else {
        append(&f->waiting, item);
        item->priority = next_random(q);
        if (q->config.rotational)
            sq_tree_insert(&f->tree, item);
    }
    f->stats.waiting++;
    q->waiting++;
}

void sq_remove(struct sched_queue *q, struct sq_item *item)
{
    struct sq_flow *f = &q->flows[item->flow];
    if (item->urgent) {
        unlink_item(&f->urgent, item);
    } else {
        unlink_item(&f->waiting, item);
        if (q->config.rotational)
            sq_tree_remove(&f->tree, item);
    }
    if (empty(f)) {
        struct sq_flow **link = &q->busy;
        while (*link != f)
            link = &(*link)->next;
        *link = f->next;
    }
    f->stats.waiting--;
    q->waiting--;
}

/* ---- costs and limits ---- */

static uint64_t quantum(const struct sched_queue *q)
{
    return (uint64_t)q->config.quantum_us * 1000;
}

static uint64_t cost(const struct sched_queue *q, const struct sq_item *item)
{
    if (!q->config.rotational)
        return item->nbytes + REQUEST_NBYTES;
    return item->nbytes * BYTE_NS + (item->at == q->head ? 0 : MOVE_NS);
}

static void charge(struct sq_flow *f, struct sq_item *item, uint64_t amount)
{
    uint64_t before = (item->charged << SCALE_BITS) / f->share.weight;
    uint64_t after = (amount << SCALE_BITS) / f->share.weight;
    f->virtual_time += after;
    f->virtual_time -= before < f->virtual_time ? before : f->virtual_time;
    item->charged = amount;
}

static void use_limits(struct sq_flow *f, uint64_t requests, uint64_t nbytes, uint64_t now_ns)
{
    if (f->share.iops)
        f->iops_ns = (f->iops_ns > now_ns ? f->iops_ns : now_ns) + requests * 1000000000u / f->share.iops;
    if (f->share.bytes_per_s)
        f->bytes_ns = (f->bytes_ns > now_ns ? f->bytes_ns : now_ns) +
                      (uint64_t)((unsigned __int128)nbytes * 1000000000u / f->share.bytes_per_s);
}

/* Whether its limits let it have a request now. */
static bool is_ready(struct sched_queue *q, struct sq_flow *f, uint64_t now_ns, uint64_t *again_ns)
{
    uint64_t due = f->iops_ns > f->bytes_ns ? f->iops_ns : f->bytes_ns;
    if (due > now_ns + ADMIT_NS) {
        if (due - ADMIT_NS < *again_ns)
            *again_ns = due - ADMIT_NS;
        f->held = true;
        return false;
    }
    /* What a limit has kept from it, it does not get from the others later. */
    if (f->held && f->virtual_time < q->virtual_time)
        f->virtual_time = q->virtual_time;
    f->held = false;
    return true;
}

/* ---- the choice ---- */

static struct sq_item *take(struct sched_queue *q, struct sq_item *item, uint64_t now_ns)
{
    struct sq_flow *f = &q->flows[item->flow];
    sq_remove(q, item);
    item->charged = 0;
    charge(f, item, cost(q, item));
    use_limits(f, 1, item->nbytes, now_ns);
    f->fresh = false;
    sq_idle_took(f, item);
    f->running++;
    f->stats.running++;
    f->stats.requests++;
    f->stats.bytes += item->nbytes;
    f->stats.waited_ns += now_ns - item->since_ns;
    item->since_ns = now_ns;
    if (item->rides) {
        q->riders++;
        q->ridden_nbytes += item->nbytes;
    } else {
        q->riders = 0;
        q->ridden_nbytes = item->nbytes;
        q->running++;
    }
    q->head = item->at + item->nbytes;
    q->head_write = item->write;
    return item;
}

/* Where the elevator, which goes up only, would stop for a flow; but nothing is passed by too many later ones. */
static struct sq_item *stop_of(const struct sched_queue *q, const struct sq_flow *f)
{
    struct sq_item *oldest = f->waiting.first;
    if (f->urgent.first)
        return f->urgent.first;
    if (!q->config.rotational)
        return oldest;
    struct sq_item *item = sq_tree_from(f->tree, q->head);
    if (!item)
        item = sq_tree_from(f->tree, 0);
    return item->number > oldest->number + OVERTAKERS ? oldest : item;
}

/* How far up; what lies below comes after everything above. */
static uint64_t distance(const struct sched_queue *q, const struct sq_item *item)
{
    return item->at >= q->head ? (item->at - q->head) >> 1 : UINT64_MAX / 2 + (item->at >> 1);
}

struct look {
    struct sq_item *urgent;         /* the oldest */
    struct sq_flow *fresh;          /* the one that has had least */
    struct sq_flow *least;
};

/* Over the flows that limits do not hold back. */
static struct look look_at_flows(struct sched_queue *q, uint64_t now_ns, uint64_t *again_ns)
{
    struct look l = { 0 };
    for (struct sq_flow *f = q->busy; f; f = f->next) {
        if (!is_ready(q, f, now_ns, again_ns))
            continue;
        struct sq_item *urgent = f->urgent.first;
        if (urgent && (!l.urgent || urgent->since_ns < l.urgent->since_ns))
            l.urgent = urgent;
        if (!l.least || f->virtual_time < l.least->virtual_time)
            l.least = f;
        if (f->fresh && f->waiting.first && !sq_streams(q, f) && (!l.fresh || f->virtual_time < l.fresh->virtual_time))
            l.fresh = f;
    }
    return l;
}

/* Whether a flow may be served although another has had less: while it leads by at most a quantum of cost. */
static bool may_lead(const struct sched_queue *q, const struct sq_flow *f, const struct sq_flow *least)
{
    return f->virtual_time - least->virtual_time <= (quantum(q) << SCALE_BITS) / f->share.weight;
}

/* Of all that may be served now, what the head comes to first. */
static struct sq_item *nearest(struct sched_queue *q, const struct sq_flow *least)
{
    struct sq_item *best = stop_of(q, least);
    for (struct sq_flow *f = q->busy; f; f = f->next) {
        if (f->held || f == least || !may_lead(q, f, least))
            continue;
        struct sq_item *item = stop_of(q, f);
        if (distance(q, item) < distance(q, best))
            best = item;
    }
    return best;
}

/* With every place taken: what continues the last request, read or write as that, goes with it. */
static struct sq_item *rider(struct sched_queue *q, const struct look *l)
{
    if (!q->config.rotational || q->riders == RIDERS || l->urgent || l->fresh || !l->least)
        return NULL;
    struct sq_item *item = nearest(q, l->least);
    if (item->at != q->head || item->write != q->head_write || q->ridden_nbytes + item->nbytes > RIDDEN_NBYTES)
        return NULL;
    item->rides = true;
    return item;
}

/* May the device stay idle for the flow that is expected, as far as the others are concerned? */
static bool may_idle(const struct sched_queue *q, const struct look *l)
{
    const struct sq_flow *f = q->expected;
    return f && !q->running && !l->urgent && !l->fresh && l->least &&
           (f->virtual_time <= l->least->virtual_time || may_lead(q, f, l->least));
}

struct sq_item *sq_next(struct sched_queue *q, uint64_t now_ns, uint64_t *again_ns)
{
    *again_ns = UINT64_MAX;
    if (!q->busy || (q->running >= q->config.depth && !q->config.rotational))
        return NULL;
    struct look l = look_at_flows(q, now_ns, again_ns);
    struct sq_item *item = NULL;
    if (sq_idle_waits(q, may_idle(q, &l), now_ns, again_ns))
        return NULL;
    if (q->running >= q->config.depth)
        item = rider(q, &l);
    else if (l.urgent && may_lead(q, &q->flows[l.urgent->flow], l.least))
        item = l.urgent;
    else if (l.least && !q->config.rotational)
        item = stop_of(q, l.least);
    else if (l.fresh && may_lead(q, l.fresh, l.least))
        item = l.fresh->waiting.first;
    else if (l.least)
        item = nearest(q, l.least);
    if (q->running >= q->config.depth)
        *again_ns = UINT64_MAX;
    if (l.least && q->virtual_time < l.least->virtual_time)
        q->virtual_time = l.least->virtual_time;
    return item ? take(q, item, now_ns) : NULL;
}

/* ---- at the device ---- */

void sq_recharge(struct sched_queue *q, struct sq_item *item, uint64_t nbytes)
{
    if (nbytes <= item->nbytes)
        return;
    struct sq_flow *f = &q->flows[item->flow];
    use_limits(f, 0, nbytes - item->nbytes, item->since_ns);
    item->nbytes = nbytes;
    charge(f, item, cost(q, item));
}

void sq_done(struct sched_queue *q, struct sq_item *item, uint64_t now_ns)
{
    struct sq_flow *f = &q->flows[item->flow];
    if (q->config.rotational) {
        /* What the device did meanwhile for those before it is not its cost. */
        uint64_t from = item->since_ns > q->last_end_ns ? item->since_ns : q->last_end_ns;
        uint64_t took = now_ns > from ? now_ns - from : 0;
        uint64_t most = LONG_QUANTA * quantum(q);
        charge(f, item, took < most ? took : most);
    }
    q->last_end_ns = now_ns;
    if (!item->rides)
        q->running--;
    f->running--;
    f->stats.running--;
    if (!f->running && empty(f))
        sq_idle_left(q, f, now_ns);
}
