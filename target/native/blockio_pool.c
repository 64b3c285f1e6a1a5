/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pool engine, where io_uring is refused: every I/O is one blocking job for a few threads, and the loop sleeps in
 * ppoll on their eventfd and the watched descriptors. Knows no steps of an I/O and no locks: blockio_workers.c does.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "blockio_engine.h"
#include "target.h"

enum { POLL_INPUT = POLLIN | POLLRDHUP };

struct pool {
    struct bio_engine base;
    struct bio_workers *workers;
    struct bio_list queued;      /* until the next flush */
    struct pollfd *fds;          /* [0] the workers', [1 + slot] a watch's, -1 where none is */
    uint32_t count;
};

static struct pool *from(struct bio_engine *e)
{
    return (struct pool *)e;
}

static int grow(struct pool *p, uint32_t count)
{
    struct pollfd *fds = realloc(p->fds, count * sizeof *fds);
    if (fds == NULL)
        return -ENOMEM;
    for (uint32_t i = p->count; i < count; i++)
        fds[i] = (struct pollfd){.fd = -1, .events = POLL_INPUT};
    p->fds = fds;
    p->count = count;
    return 0;
}

static void pool_destroy(struct bio_engine *e)
{
    struct pool *p = from(e);
    bio_workers_free(p->workers);
    free(p->fds);
    free(p);
}

static struct bio_engine *pool_create(const struct bio_config *config, int *error)
{
    struct pool *p = calloc(1, sizeof *p);
    if (p == NULL) {
        *error = -ENOMEM;
        return NULL;
    }
    bio_engine_init(&p->base, &bio_pool_ops);
    bio_list_init(&p->queued);
    *error = grow(p, 1);
    if (*error == 0)
        p->workers = bio_workers_new(config->pool_threads, error);
    if (p->workers == NULL) {
        pool_destroy(&p->base);
        return NULL;
    }
    p->fds[0].fd = bio_workers_fd(p->workers);
    return &p->base;
}

static void pool_start(struct bio_engine *e, struct bio *bio)
{
    bio_list_push(&from(e)->queued, bio);
}

static void pool_flush(struct bio_engine *e)
{
    bio_workers_give(from(e)->workers, &from(e)->queued);
}

static void pool_collect(struct bio_engine *e)
{
    struct bio_list list;
    bio_list_init(&list);
    if (!bio_workers_take(from(e)->workers, &list))
        return;
    for (struct bio *bio; (bio = bio_list_pop(&list)) != NULL;)
        bio_ended(e, bio);
}

/* What a thread has begun runs to its end. */
static void pool_cancel(struct bio_engine *e, struct bio *bio)
{
    if (bio_list_remove(&from(e)->queued, bio)) {
        bio->error = -ECANCELED;
        bio_ended(e, bio);
    } else {
        bio_workers_cancel(from(e)->workers, bio);
    }
}

static int pool_watch(struct bio_engine *e, uint32_t slot)
{
    struct pool *p = from(e);
    if (slot + 1 >= p->count && grow(p, e->watches.count + 1) < 0)
        return -ENOMEM;
    p->fds[slot + 1].fd = e->watches.slots[slot].fd;
    return 0;
}

static void pool_unwatch(struct bio_engine *e, uint32_t slot)
{
    from(e)->fds[slot + 1].fd = -1;
}

static void pool_wait(struct bio_engine *e, uint64_t timeout_ns)
{
    struct pool *p = from(e);
    pool_flush(e);
    pool_collect(e);
    timeout_ns = bio_workers_look(p->workers, timeout_ns);
    bool may_sleep = timeout_ns > 0 && !bio_has_news(e) && bio_workers_sleep(p->workers);
    if (!may_sleep)
        timeout_ns = 0;
    struct timespec ts = {.tv_sec = (time_t)(timeout_ns / 1000000000u), .tv_nsec = (long)(timeout_ns % 1000000000u)};
    int n = ppoll(p->fds, p->count, timeout_ns == UINT64_MAX ? NULL : &ts, NULL);
    if (may_sleep)
        bio_workers_awake(p->workers);
    for (uint32_t i = 1; n > 0 && i < p->count; i++)
        if (p->fds[i].fd >= 0 && p->fds[i].revents != 0)
            bio_watches_mark(&e->watches, i - 1);
    pool_collect(e);
}

const struct bio_engine_ops bio_pool_ops = {
    .kind = VT_ENGINE_POOL,
    .inline_turn = UINT32_MAX,
    .create = pool_create,
    .destroy = pool_destroy,
    .start = pool_start,
    .flush = pool_flush,
    .collect = pool_collect,
    .cancel = pool_cancel,
    .watch = pool_watch,
    .unwatch = pool_unwatch,
    .wait = pool_wait,
};
