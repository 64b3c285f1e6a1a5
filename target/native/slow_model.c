/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The queue of commands for Python's workers by itself, for tests: owners, rooms and commands by number. Knows numbers;
 * decides nothing.
 */
#include <errno.h>
#include <stdlib.h>

#include "slow_queue.h"
#include "target.h"

enum state { WAITING, RUNNING, GONE };

struct numbered {
    struct wq_item item;
    struct wq_owner *owner;
    struct wq_room *room;
    int64_t number;
    enum state state;
};

struct vt_slow_model {
    struct slow_queue queue;
    struct wq_owner **owners;
    uint32_t nr_owners;
    struct wq_room *rooms;
    uint32_t nr_rooms;
    struct numbered **all;
    int64_t count;
    int64_t space;
};

void vt_slow_model_free(struct vt_slow_model *m)
{
    for (int64_t i = 0; i < m->count; i++)
        free(m->all[i]);
    for (uint32_t i = 0; i < m->nr_owners; i++)
        wq_owner_free(m->owners[i]);
    free(m->all);
    free(m->owners);
    free(m->rooms);
    free(m);
}

struct vt_slow_model *vt_slow_model_new(uint32_t owners, uint32_t rooms, uint32_t limit)
{
    struct vt_slow_model *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->queue.limit = limit;
    m->nr_rooms = rooms;
    m->rooms = calloc(rooms + 1, sizeof *m->rooms);
    m->owners = calloc(owners, sizeof(struct wq_owner *));
    while (m->rooms && m->owners && m->nr_owners < owners &&
           (m->owners[m->nr_owners] = wq_owner_new(rooms + 1)))
        m->nr_owners++;
    if (m->nr_owners == owners)
        return m;
    vt_slow_model_free(m);
    return NULL;
}

int64_t vt_slow_model_put(struct vt_slow_model *m, uint32_t owner, uint32_t room)
{
    if (owner >= m->nr_owners || room > m->nr_rooms)
        return -EINVAL;
    if (m->count == m->space) {
        int64_t space = m->space ? 2 * m->space : 64;
        struct numbered **all = realloc(m->all, (size_t)space * sizeof(struct numbered *));
        if (!all)
            return -ENOMEM;
        m->all = all;
        m->space = space;
    }
    struct numbered *one = calloc(1, sizeof *one);
    if (!one)
        return -ENOMEM;
    one->number = m->count;
    one->owner = m->owners[owner];
    one->room = room < m->nr_rooms ? &m->rooms[room] : NULL;
    m->all[m->count++] = one;
    wq_put(&m->queue, one->owner, room, one->room, &one->item);
    return one->number;
}

int64_t vt_slow_model_next(struct vt_slow_model *m)
{
    struct numbered *one = (struct numbered *)wq_next(&m->queue);
    if (!one)
        return -EAGAIN;
    one->state = RUNNING;
    return one->number;
}

static struct numbered *find(struct vt_slow_model *m, int64_t number, enum state state)
{
    return number >= 0 && number < m->count && m->all[number]->state == state ? m->all[number] : NULL;
}

int vt_slow_model_drop(struct vt_slow_model *m, int64_t number)
{
    struct numbered *one = find(m, number, WAITING);
    if (!one)
        return -ENOENT;
    wq_remove(&m->queue, &one->item);
    one->state = GONE;
    return 0;
}

int vt_slow_model_done(struct vt_slow_model *m, int64_t number)
{
    struct numbered *one = find(m, number, RUNNING);
    if (!one)
        return -ENOENT;
    wq_done(&m->queue, one->owner, one->room);
    one->state = GONE;
    return 0;
}

uint64_t vt_slow_model_steps(const struct vt_slow_model *m)
{
    return m->queue.steps;
}
