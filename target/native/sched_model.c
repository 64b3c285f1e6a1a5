/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The queue of a scheduler by itself, for tests: who calls is the device and the clock. Knows numbers; decides nothing.
 */
#include <errno.h>
#include <stdlib.h>

#include "sched_queue.h"

enum state { WAITING, RUNNING, GONE };

struct numbered {
    struct sq_item item;
    int64_t number;
    enum state state;
};

struct vt_sched_model {
    struct sched_queue queue;
    struct numbered **all;
    int64_t count;
    int64_t room;
};

struct vt_sched_model *vt_sched_model_new(const struct vt_sched_config *config, uint32_t nexuses)
{
    struct vt_sched_model *m = calloc(1, sizeof *m);
    if (m && sq_init(&m->queue, config, nexuses) == 0)
        return m;
    free(m);
    return NULL;
}

void vt_sched_model_free(struct vt_sched_model *m)
{
    for (int64_t i = 0; i < m->count; i++)
        free(m->all[i]);
    free(m->all);
    sq_free(&m->queue);
    free(m);
}

int vt_sched_model_share(struct vt_sched_model *m, uint32_t nexus, const struct vt_sched_share *share)
{
    return nexus < m->queue.nr_flows ? sq_share(&m->queue, nexus, share) : -EINVAL;
}

int vt_sched_model_update(struct vt_sched_model *m, const struct vt_sched_config *config)
{
    sq_configure(&m->queue, config);
    return 0;
}

int64_t vt_sched_model_put(struct vt_sched_model *m, uint32_t nexus, uint64_t at, uint64_t nbytes, uint32_t write,
                           uint32_t urgent, uint64_t now_ns)
{
    if (nexus >= m->queue.nr_flows)
        return -EINVAL;
    if (m->count == m->room) {
        int64_t room = m->room ? 2 * m->room : 64;
        struct numbered **all = realloc(m->all, (size_t)room * sizeof *all);
        if (!all)
            return -ENOMEM;
        m->all = all;
        m->room = room;
    }
    struct numbered *one = calloc(1, sizeof *one);
    if (!one)
        return -ENOMEM;
    one->number = m->count;
    one->item = (struct sq_item){ .at = at, .nbytes = nbytes, .flow = nexus, .write = write, .urgent = urgent };
    m->all[m->count++] = one;
    sq_add(&m->queue, &one->item, now_ns);
    return one->number;
}

int64_t vt_sched_model_next(struct vt_sched_model *m, uint64_t now_ns, uint64_t *again_ns)
{
    struct sq_item *item = sq_next(&m->queue, now_ns, again_ns);
    if (!item)
        return -EAGAIN;
    struct numbered *one = (struct numbered *)item;
    one->state = RUNNING;
    return one->number | (item->rides ? (int64_t)1 << 62 : 0);
}

static struct numbered *find(struct vt_sched_model *m, int64_t number, enum state state)
{
    return number >= 0 && number < m->count && m->all[number]->state == state ? m->all[number] : NULL;
}

int vt_sched_model_drop(struct vt_sched_model *m, int64_t number)
{
    struct numbered *one = find(m, number, WAITING);
    if (!one)
        return -ENOENT;
    sq_remove(&m->queue, &one->item);
    one->state = GONE;
    return 0;
}

int vt_sched_model_done(struct vt_sched_model *m, int64_t number, uint64_t now_ns)
{
    struct numbered *one = find(m, number, RUNNING);
    if (!one)
        return -ENOENT;
    sq_done(&m->queue, &one->item, now_ns);
    one->state = GONE;
    return 0;
}
