/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which command a worker of Python takes next. Each owner (a connection) has its own queues, one for each room (what a
 * logical unit may occupy workers with), so that a long queue makes only its owner wait. The algorithm alone.
 * Knows owners, rooms and numbers of workers; knows no task, no lock and no thread: one caller at a time.
 */
#ifndef VSCSI_SLOW_QUEUE_H
#define VSCSI_SLOW_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

enum { WQ_LEVELS = 64 };    /* an owner of more workers counts as one of so many */

struct wq_lane;
struct wq_owner;

/* A command that waits for a worker or occupies one. The caller's memory. */
struct wq_item {
    struct wq_item *older;  /* of its lane */
    struct wq_item *newer;
    struct wq_lane *lane;
};

/* Workers that a unit may occupy with commands of one kind. The caller's memory; zeros to begin with. */
struct wq_room {
    uint32_t taken;
    struct wq_lane *shut_first;     /* lanes that wait for it */
    struct wq_lane *shut_last;
};

/* What waits of one owner for one room. In its owner's list of open lanes, in its room's of shut ones, or empty. */
struct wq_lane {
    struct wq_owner *owner;
    struct wq_room *room;   /* NULL: one without bounds */
    struct wq_item *first;
    struct wq_item *last;
    struct wq_lane *next;
    struct wq_lane *prev;
    bool shut;
};

struct wq_owner {
    uint32_t users;         /* the caller's: who may still put something here */
    uint32_t running;       /* workers it occupies */
    struct wq_lane *open_first;
    struct wq_lane *open_last;
    struct wq_owner *next;  /* of those with an open lane, at its level */
    struct wq_owner *prev;
    uint32_t nr_lanes;
    struct wq_lane lanes[];
};

struct wq_list {
    struct wq_owner *first;
    struct wq_owner *last;
};

struct slow_queue {
    struct wq_list levels[WQ_LEVELS + 1];   /* owners with an open lane, by the workers they occupy; whose turn it is first */
    uint32_t limit;         /* of every room; 0: none */
    uint32_t waiting;
    uint64_t steps;         /* lanes and levels looked at so far */
};

/* NULL: no memory. `nr_lanes`: rooms it may have commands for, by number; those it never meets take no memory. */
struct wq_owner *wq_owner_new(uint32_t nr_lanes);
/* Nothing of it waits. */
void wq_owner_free(struct wq_owner *owner);

void wq_put(struct slow_queue *q, struct wq_owner *owner, uint32_t lane, struct wq_room *room, struct wq_item *item);
/* It waits no longer: the caller has it back. */
void wq_remove(struct slow_queue *q, struct wq_item *item);
/*
 * Takes the next one for a worker, or NULL: nothing waits for which there is room. The owner that occupies the fewest
 * workers comes first, among equals the one that has waited longest for a turn; of its lanes, one after the other.
 */
struct wq_item *wq_next(struct slow_queue *q);
/* The worker that had it is free. */
void wq_done(struct slow_queue *q, struct wq_owner *owner, struct wq_room *room);

#endif
