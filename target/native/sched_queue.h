/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whose request comes next at one device: fair shares by weight, limits, the elevator, the depth. The algorithm alone.
 * Knows positions on the device, bytes and nexuses; knows no task, no lock, no thread and no clock: who calls says what
 * time it is. docs/scheduling.md says what is promised.
 */
#ifndef VSCSI_SCHED_QUEUE_H
#define VSCSI_SCHED_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "target.h"

enum { SQ_SCALE_BITS = 8 };     /* virtual time per cost, before it is divided by the weight */

/* A request while it waits for the device and while the device has it. The caller's memory. */
struct sq_item {
    uint64_t at;                /* position: where it begins on the device, in bytes */
    uint64_t nbytes;
    uint32_t flow;              /* nexus */
    bool urgent;                /* HEAD OF QUEUE */
    bool write;
    /* the queue's */
    bool rides;                 /* goes with the one before it, which it continues: takes no place of its own */
    uint32_t priority;          /* in the tree */
    uint64_t number;            /* of its flow, by arrival */
    uint64_t since_ns;          /* waits since; once it is taken: at the device since */
    uint64_t charged;           /* cost */
    struct sq_item *left;       /* of its flow's tree, by position */
    struct sq_item *right;
    struct sq_item *older;      /* of its flow, by arrival */
    struct sq_item *newer;
};

struct sq_list {
    struct sq_item *first;
    struct sq_item *last;
};

/* What one nexus has, and has had, of the device. */
struct sq_flow {
    struct vt_sched_share share;
    uint64_t virtual_time;      /* cost so far by weight; not less than the queue's when it became busy */
    uint64_t iops_ns;           /* when the next request is due by the limit of IOPS; likewise bandwidth */
    uint64_t bytes_ns;
    struct sq_item *tree;
    struct sq_list waiting;     /* not the urgent ones */
    struct sq_list urgent;
    uint64_t numbers;
    uint32_t running;
    uint32_t streak;            /* requests in a row that began where the one before had ended (sched_idle.c) */
    uint64_t end;               /* where its last one ends */
    uint64_t done_ns;           /* when it last had nothing left here */
    uint64_t think_ns;          /* how long its next one takes to come then, on average */
    bool held;                  /* by a limit, when last looked at */
    bool fresh;                 /* what waits came when it had nothing here: an interactive one */
    struct vt_sched_stats stats;
    struct sq_flow *next;       /* of those with something waiting */
};

struct sched_queue {
    struct vt_sched_config config;
    struct sq_flow *flows;
    uint32_t nr_flows;
    struct sq_flow *busy;
    uint64_t virtual_time;
    uint64_t head;              /* where the last request taken ends */
    uint64_t last_end_ns;
    uint64_t random;
    uint32_t running;           /* places taken at the device */
    uint32_t waiting;
    uint32_t riders;            /* since a request that took a place */
    uint64_t ridden_nbytes;
    bool head_write;
    struct sq_flow *expected;   /* whose next request the device waits for, and since when */
    uint64_t expected_ns;
    uint64_t idle_ns;           /* since when others are kept waiting for it; 0: nobody is */
};

/* -ENOMEM. The shares start as `vt_sched_share` {100, 0, 0}. */
int sq_init(struct sched_queue *q, const struct vt_sched_config *config, uint32_t nr_flows);
void sq_free(struct sched_queue *q);
void sq_configure(struct sched_queue *q, const struct vt_sched_config *config);
/* -EINVAL: weight 0 or too large. */
int sq_share(struct sched_queue *q, uint32_t flow, const struct vt_sched_share *share);
/* Another initiator has the flow from now on. */
void sq_reset_flow(struct sched_queue *q, uint32_t flow);
/* at, nbytes, flow, urgent and write are set. */
void sq_add(struct sched_queue *q, struct sq_item *item, uint64_t now_ns);
/* It waits no longer: the caller has it back. */
void sq_remove(struct sched_queue *q, struct sq_item *item);
/*
 * The next request for the device, or NULL: the device is full, nothing waits, or limits hold back all that waits;
 * then *again_ns is when to ask again (UINT64_MAX: when something has changed).
 */
struct sq_item *sq_next(struct sched_queue *q, uint64_t now_ns, uint64_t *again_ns);
/* What it was said to transfer was wrong. */
void sq_recharge(struct sched_queue *q, struct sq_item *item, uint64_t nbytes);
/* The device is done with it. */
void sq_done(struct sched_queue *q, struct sq_item *item, uint64_t now_ns);

/* sched_idle.c: a flow whose next request is worth waiting for. All of them do nothing without idle_us. */
bool sq_streams(const struct sched_queue *q, const struct sq_flow *f);
void sq_idle_came(struct sched_queue *q, struct sq_flow *f, uint64_t now_ns);
void sq_idle_took(struct sq_flow *f, const struct sq_item *item);
void sq_idle_left(struct sched_queue *q, struct sq_flow *f, uint64_t now_ns);
/* Whether nothing goes to the device now, and until when; `wanted`: as far as others are concerned it may wait. */
bool sq_idle_waits(struct sched_queue *q, bool wanted, uint64_t now_ns, uint64_t *again_ns);

/* sched_tree.c: a treap by position, then arrival. */
void sq_tree_insert(struct sq_item **root, struct sq_item *item);
void sq_tree_remove(struct sq_item **root, struct sq_item *item);
/* The first at or behind a position, or NULL. */
struct sq_item *sq_tree_from(struct sq_item *root, uint64_t at);

#endif
