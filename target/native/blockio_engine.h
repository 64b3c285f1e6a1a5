/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the parts of block I/O share: the engine's common head, its operations, and the steps of one I/O.
 * Nobody outside blockio*.c includes it.
 */
#ifndef VSCSI_BLOCKIO_ENGINE_H
#define VSCSI_BLOCKIO_ENGINE_H

#include <stddef.h>

#include "blockio.h"

enum { BIO_IOV_MAX = 1024, BIO_BOUNCE_NBYTES = 256 * 1024, BIO_SCRATCH_KEPT = 64, BIO_RETRIES = 64 };

enum bio_state { BIO_STATE_CANCEL = 1, BIO_STATE_WORKER = 2 };

struct bio_list {
    struct bio *head;
    struct bio **tail;
};

static inline void bio_list_init(struct bio_list *l)
{
    l->head = NULL;
    l->tail = &l->head;
}

static inline void bio_list_push(struct bio_list *l, struct bio *bio)
{
    bio->next = NULL;
    *l->tail = bio;
    l->tail = &bio->next;
}

static inline struct bio *bio_list_pop(struct bio_list *l)
{
    struct bio *bio = l->head;
    if (bio != NULL) {
        l->head = bio->next;
        if (l->head == NULL)
            l->tail = &l->head;
    }
    return bio;
}

/* Moves everything from `from` to the end of `to`. */
static inline void bio_list_move(struct bio_list *to, struct bio_list *from)
{
    if (from->head == NULL)
        return;
    *to->tail = from->head;
    to->tail = from->tail;
    bio_list_init(from);
}

bool bio_list_remove(struct bio_list *l, const struct bio *bio);

/* ---- watched descriptors: slots that never move, and a queue of those that have input ---- */

struct bio_watch_slot {
    void *cookie;
    int fd;                  /* -1: free */
    uint32_t generation;     /* tells a stale completion from one of the present owner */
    int32_t next;
    bool queued;
    bool armed;              /* engine's */
};

struct bio_watches {
    struct bio_watch_slot *slots;
    uint32_t count;
    int32_t first;           /* of the queue, -1: empty */
    int32_t last;
};

void bio_watches_init(struct bio_watches *w);
void bio_watches_free(struct bio_watches *w);
/* The slot's index, or -EEXIST, -ENOMEM. */
int bio_watches_add(struct bio_watches *w, int fd, void *cookie);
/* The slot's index, or -1. */
int bio_watches_find(const struct bio_watches *w, int fd);
void bio_watches_remove(struct bio_watches *w, uint32_t slot);
void bio_watches_mark(struct bio_watches *w, uint32_t slot);
void *bio_watches_take(struct bio_watches *w);

/* ---- engines ---- */

struct bio_engine_ops;

/* The head of every engine. */
struct bio_engine {
    const struct bio_engine_ops *ops;
    struct bio_list done;
    struct bio_watches watches;
    uint32_t in_flight;
    uint32_t turn;           /* inline attempts since the last flush */
    uint32_t scratch_count;
    uint8_t *scratch[BIO_SCRATCH_KEPT];
};

struct bio_engine_ops {
    int kind;                /* enum vt_engine */
    /* After so many inline attempts since the last flush, an I/O of at most inline_nbytes joins the batch instead. */
    uint32_t inline_turn;
    uint32_t inline_nbytes;
    /* NULL with *error. Calls bio_engine_init. */
    struct bio_engine *(*create)(const struct bio_config *config, int *error);
    void (*destroy)(struct bio_engine *e);
    void (*start)(struct bio_engine *e, struct bio *bio);
    void (*flush)(struct bio_engine *e);
    /* Moves what has ended to `done`; no system call unless the kernel says that one will bring something. */
    void (*collect)(struct bio_engine *e);
    void (*cancel)(struct bio_engine *e, struct bio *bio);
    int (*watch)(struct bio_engine *e, uint32_t slot);
    void (*unwatch)(struct bio_engine *e, uint32_t slot);
    void (*wait)(struct bio_engine *e, uint64_t timeout_ns);
};

void bio_engine_init(struct bio_engine *e, const struct bio_engine_ops *ops);

struct io_uring;
/* 0, or negative errno where io_uring is refused. */
int bio_uring_open(struct io_uring *ring, uint32_t depth);

extern const struct bio_engine_ops bio_uring_ops;
extern const struct bio_engine_ops bio_pool_ops;

/* Puts an I/O that has ended where bio_reap finds it. */
void bio_ended(struct bio_engine *e, struct bio *bio);

static inline bool bio_has_news(const struct bio_engine *e)
{
    return e->done.head != NULL || e->watches.first >= 0;
}

/* ---- the steps of one I/O (blockio_step.c, blockio_bounce.c): no engine, no blocking but in bio_run ---- */

struct bio_chunk {
    const struct iovec *iov;
    uint32_t count;
    uint64_t offset;
};

/* What to ask the kernel for next. The iovecs live in the bio or are the caller's. */
struct bio_chunk bio_next_chunk(struct bio *bio);
/* Accounts for what one call returned (bytes or negative errno). True: the I/O has ended. */
bool bio_account(struct bio *bio, int64_t result);
/* The whole I/O by blocking calls: for threads that may. */
void bio_run(struct bio *bio);
void bio_advance(struct bio *bio, uint64_t nbytes);

bool bio_needs_bounce(const struct bio *bio);
struct bio_chunk bio_bounce_chunk(struct bio *bio);
bool bio_bounce_account(struct bio *bio, uint64_t moved);

/* ---- threads that may block (blockio_workers.c) ---- */

struct bio_workers;

/* 0 threads: the default. */
struct bio_workers *bio_workers_new(uint32_t threads, int *error);
/* Nothing may be in their hands. */
void bio_workers_free(struct bio_workers *w);
void bio_workers_give(struct bio_workers *w, struct bio_list *list);
/* Moves what has ended to `to`; false: nothing. */
bool bio_workers_take(struct bio_workers *w, struct bio_list *to);
/* True: taken back before it began, with -ECANCELED, among what bio_workers_take gives. */
bool bio_workers_cancel(struct bio_workers *w, struct bio *bio);
/* Now and then, and before sleeping: sees to those that wait behind what does not end. How long to sleep at most, ns. */
uint64_t bio_workers_look(struct bio_workers *w, uint64_t timeout_ns);
/* Before sleeping on bio_workers_fd: false if something has ended meanwhile. Each true is followed by _awake. */
bool bio_workers_sleep(struct bio_workers *w);
void bio_workers_awake(struct bio_workers *w);
int bio_workers_fd(const struct bio_workers *w);

#endif
