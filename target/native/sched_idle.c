/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Waiting at a device for the next request of a stream: who reads one piece after the other, each when the one before
 * has come, has nothing here when the device is free, and would pay a seek each time that another is served meanwhile.
 * Off unless `idle_us` is set: a device that waits is idle. Knows flows and times; knows no task, no lock and no clock.
 */
#include "sched_queue.h"

enum { STREAM = 2, LAZY = 16 };     /* requests in a row that make a stream; longest thinking that is told apart, in windows */

static uint64_t window_ns(const struct sched_queue *q)
{
    return q->config.rotational ? (uint64_t)q->config.idle_us * 1000 : 0;
}

bool sq_streams(const struct sched_queue *q, const struct sq_flow *f)
{
    return window_ns(q) && f->streak >= STREAM;
}

/* It has had nothing here since `done_ns`. */
void sq_idle_came(struct sched_queue *q, struct sq_flow *f, uint64_t now_ns)
{
    uint64_t most = LAZY * window_ns(q), thought = now_ns > f->done_ns ? now_ns - f->done_ns : 0;
    f->think_ns = (3 * f->think_ns + (thought < most ? thought : most)) / 4;
}

void sq_idle_took(struct sq_flow *f, const struct sq_item *item)
{
    f->streak = item->at == f->end ? f->streak + 1 : 0;
    f->end = item->at + item->nbytes;
}

void sq_idle_left(struct sched_queue *q, struct sq_flow *f, uint64_t now_ns)
{
    f->done_ns = now_ns;
    if (!sq_streams(q, f) || f->think_ns > window_ns(q) || q->running)
        return;
    q->expected = f;
    q->expected_ns = now_ns;
    q->idle_ns = 0;
}

/* The time that others have waited for it is its own. Whoever lets them wait in vain is not trusted for a while. */
static void stop(struct sched_queue *q, uint64_t now_ns)
{
    struct sq_flow *f = q->expected;
    q->expected = NULL;
    if (!q->idle_ns)
        return;
    uint64_t waited = now_ns - q->idle_ns, most = window_ns(q);
    f->virtual_time += ((waited < most ? waited : most) << SQ_SCALE_BITS) / f->share.weight;
    if (now_ns >= q->expected_ns + most && !f->waiting.first)
        f->think_ns = LAZY * most;
}

bool sq_idle_waits(struct sched_queue *q, bool wanted, uint64_t now_ns, uint64_t *again_ns)
{
    struct sq_flow *f = q->expected;
    if (!f)
        return false;
    uint64_t until_ns = q->expected_ns + window_ns(q);
    if (!wanted || now_ns >= until_ns || f->waiting.first || f->urgent.first) {
        stop(q, now_ns);
        return false;
    }
    if (!q->idle_ns)
        q->idle_ns = now_ns;
    if (until_ns < *again_ns)
        *again_ns = until_ns;
    return true;
}
