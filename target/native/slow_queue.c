/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Turns at the workers. A choice costs the same whatever waits behind it: owners stand in lists by the workers that they
 * occupy, a lane whose room is full leaves its owner's list when it is met, and comes back when the room has a place.
 * So the end of a command costs at most a step for each owner that waits for the same room.
 * Knows owners, rooms and numbers of workers; knows no task, no lock and no thread.
 */
#include <stddef.h>
#include <sys/mman.h>

#include "slow_queue.h"

static size_t owner_nbytes(uint32_t nr_lanes)
{
    return sizeof(struct wq_owner) + nr_lanes * sizeof(struct wq_lane);
}

struct wq_owner *wq_owner_new(uint32_t nr_lanes)
{
    size_t nbytes = owner_nbytes(nr_lanes);
    struct wq_owner *owner = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (owner == MAP_FAILED)
        return NULL;
    owner->nr_lanes = nr_lanes;
    owner->users = 1;
    return owner;
}

void wq_owner_free(struct wq_owner *owner)
{
    munmap(owner, owner_nbytes(owner->nr_lanes));
}

/* ---- owners that have something for which there may be room ---- */

static struct wq_list *level_of(struct slow_queue *q, const struct wq_owner *owner)
{
    return &q->levels[owner->running < WQ_LEVELS ? owner->running : WQ_LEVELS];
}

static void link_owner(struct slow_queue *q, struct wq_owner *owner)
{
    struct wq_list *list = level_of(q, owner);
    owner->next = NULL;
    owner->prev = list->last;
    *(list->last ? &list->last->next : &list->first) = owner;
    list->last = owner;
}

static void unlink_owner(struct slow_queue *q, struct wq_owner *owner)
{
    struct wq_list *list = level_of(q, owner);
    *(owner->prev ? &owner->prev->next : &list->first) = owner->next;
    *(owner->next ? &owner->next->prev : &list->last) = owner->prev;
}

static void occupy(struct slow_queue *q, struct wq_owner *owner, int more)
{
    if (owner->open_first)
        unlink_owner(q, owner);
    owner->running += (uint32_t)more;
    if (owner->open_first)
        link_owner(q, owner);
}

/* ---- lanes ---- */

static void open_lane(struct slow_queue *q, struct wq_lane *lane)
{
    struct wq_owner *owner = lane->owner;
    bool first = !owner->open_first;
    lane->next = NULL;
    lane->prev = owner->open_last;
    *(owner->open_last ? &owner->open_last->next : &owner->open_first) = lane;
    owner->open_last = lane;
    if (first)
        link_owner(q, owner);
}

static void close_lane(struct slow_queue *q, struct wq_lane *lane)
{
    struct wq_owner *owner = lane->owner;
    if (owner->open_first == owner->open_last)
        unlink_owner(q, owner);
    *(lane->prev ? &lane->prev->next : &owner->open_first) = lane->next;
    *(lane->next ? &lane->next->prev : &owner->open_last) = lane->prev;
}

static void shut_lane(struct slow_queue *q, struct wq_lane *lane)
{
    struct wq_room *room = lane->room;
    close_lane(q, lane);
    lane->shut = true;
    lane->next = NULL;
    lane->prev = room->shut_last;
    *(room->shut_last ? &room->shut_last->next : &room->shut_first) = lane;
    room->shut_last = lane;
}

static void unshut_lane(struct wq_lane *lane)
{
    *(lane->prev ? &lane->prev->next : &lane->room->shut_first) = lane->next;
    *(lane->next ? &lane->next->prev : &lane->room->shut_last) = lane->prev;
    lane->shut = false;
}

static bool is_full(const struct slow_queue *q, const struct wq_room *room)
{
    return room && q->limit && room->taken >= q->limit;
}

/* ---- commands ---- */

void wq_put(struct slow_queue *q, struct wq_owner *owner, uint32_t lane_number, struct wq_room *room, struct wq_item *item)
{
    struct wq_lane *lane = &owner->lanes[lane_number];
    item->lane = lane;
    item->newer = NULL;
    item->older = lane->last;
    if (lane->last) {
        lane->last->newer = item;
    } else {
        lane->owner = owner;
        lane->room = room;
        lane->first = item;
        open_lane(q, lane);
    }
    lane->last = item;
    q->waiting++;
}

void wq_remove(struct slow_queue *q, struct wq_item *item)
{
    struct wq_lane *lane = item->lane;
    *(item->older ? &item->older->newer : &lane->first) = item->newer;
    *(item->newer ? &item->newer->older : &lane->last) = item->older;
    if (!lane->first && lane->shut)
        unshut_lane(lane);
    else if (!lane->first)
        close_lane(q, lane);
    q->waiting--;
}

struct wq_item *wq_next(struct slow_queue *q)
{
    for (uint32_t level = 0; q->waiting && level <= WQ_LEVELS; level++) {
        q->steps++;
        for (struct wq_owner *owner; (owner = q->levels[level].first);) {
            struct wq_lane *lane = owner->open_first;
            q->steps++;
            if (is_full(q, lane->room)) {
                shut_lane(q, lane);
                continue;
            }
            struct wq_item *item = lane->first;
            wq_remove(q, item);
            if (lane->first && lane->next) {
                close_lane(q, lane);
                open_lane(q, lane);
            }
            if (lane->room)
                lane->room->taken++;
            occupy(q, owner, 1);
            return item;
        }
    }
    return NULL;
}

void wq_done(struct slow_queue *q, struct wq_owner *owner, struct wq_room *room)
{
    occupy(q, owner, -1);
    if (!room)
        return;
    room->taken--;
    for (struct wq_lane *lane; !is_full(q, room) && (lane = room->shut_first);) {
        q->steps++;
        unshut_lane(lane);
        open_lane(q, lane);
    }
}
