/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The io_uring engine: block I/O, multishot polls on watched descriptors and the one place to sleep, all on one ring
 * that belongs to the thread that made it. Knows liburing; what an answer means for an I/O is blockio_step.c's matter.
 * Some things go to a few threads instead, started when first needed: BLKDISCARD, which would block even here; durable
 * buffered writes, because io_uring runs the buffered writes of one file one after the other, each with its own commit:
 * at depth 32 on ext4 300 to 5,000 a second, against 10,000 and more where threads share commits; and fdatasync and all
 * that may block (bio_may_block), which could occupy each of the kernel's few threads: ours are shared out fairly.
 */
#include <errno.h>
#include <limits.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <poll.h>
#include <stdlib.h>

#include "blockio_engine.h"
#include "target.h"

/* user_data: a struct bio's address, or one of these in the low three bits. */
enum tag { TAG_BIO = 0, TAG_WATCH = 1, TAG_WORKERS = 2, TAG_IGNORED = 3, TAG_MASK = 7 };

enum { POLL_INPUT = POLLIN | POLLRDHUP };
/*
 * So many I/Os past the page cache are handed on at once: the device begins while the rest is prepared. Of depth 32, 0.83
 * of fio's IOPS instead of 0.75; with 4, 0.82.
 */
enum { DIRECT_BATCH = 8 };

struct uring {
    struct bio_engine base;
    struct io_uring ring;
    struct bio_list pending;     /* what the kernel has no room for */
    struct bio_list for_workers; /* until the next flush */
    uint32_t in_kernel;
    uint32_t limit;
    struct bio_workers *workers;
    uint32_t threads;
    bool workers_armed;
    bool unarmed;                /* some poll found no room */
};

static struct uring *from(struct bio_engine *e)
{
    return (struct uring *)e;
}

static struct bio_engine *uring_create(const struct bio_config *config, int *error)
{
    struct uring *u = calloc(1, sizeof *u);
    *error = u == NULL ? -ENOMEM : bio_uring_open(&u->ring, config->depth);
    if (*error < 0) {
        free(u);
        return NULL;
    }
    bio_engine_init(&u->base, &bio_uring_ops);
    bio_list_init(&u->pending);
    bio_list_init(&u->for_workers);
    u->threads = config->pool_threads;
    u->limit = *u->ring.cq.kring_entries;
    return &u->base;
}

static void uring_destroy(struct bio_engine *e)
{
    struct uring *u = from(e);
    bio_workers_free(u->workers);
    io_uring_queue_exit(&u->ring);
    free(u);
}

/* ---- submission ---- */

/* NULL only while the kernel refuses to take anything (no memory, completions waiting). */
static struct io_uring_sqe *get_sqe(struct uring *u)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    for (int i = 0; sqe == NULL && i < 2; i++) {
        if (i > 0)
            io_uring_get_events(&u->ring);
        io_uring_submit(&u->ring);
        sqe = io_uring_get_sqe(&u->ring);
    }
    return sqe;
}

static void prep_rw(struct io_uring_sqe *sqe, struct bio *bio, int one, int many, int rw_flags)
{
    struct bio_chunk c = bio_next_chunk(bio);
    if (c.count == 1 && c.iov->iov_len <= INT_MAX)
        io_uring_prep_rw(one, sqe, bio->fd, c.iov->iov_base, (unsigned)c.iov->iov_len, c.offset);
    else
        io_uring_prep_rw(many, sqe, bio->fd, c.iov, c.count, c.offset);
    sqe->rw_flags = rw_flags;
}

static void prep_read(struct io_uring_sqe *sqe, struct bio *bio)
{
    prep_rw(sqe, bio, IORING_OP_READ, IORING_OP_READV, 0);
}

static void prep_write(struct io_uring_sqe *sqe, struct bio *bio)
{
    prep_rw(sqe, bio, IORING_OP_WRITE, IORING_OP_WRITEV, bio->flags & BIO_DURABLE ? RWF_DSYNC : 0);
}

static void prep_sync(struct io_uring_sqe *sqe, struct bio *bio)
{
    io_uring_prep_fsync(sqe, bio->fd, IORING_FSYNC_DATASYNC);
}

static void prep_discard(struct io_uring_sqe *sqe, struct bio *bio)
{
    io_uring_prep_fallocate(sqe, bio->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)bio->offset,
                            (off_t)bio->nbytes);
}

static void (*const prepare[])(struct io_uring_sqe *, struct bio *) = {
    [BIO_READ] = prep_read, [BIO_WRITE] = prep_write, [BIO_SYNC] = prep_sync, [BIO_DISCARD] = prep_discard};

/* False: no room in the kernel now. */
static bool to_kernel(struct uring *u, struct bio *bio)
{
    struct io_uring_sqe *sqe = u->in_kernel < u->limit ? get_sqe(u) : NULL;
    if (sqe == NULL)
        return false;
    prepare[bio->kind](sqe, bio);
    /* What gave EAGAIN once would again: let a kernel thread wait. */
    if (bio->retries > 0)
        io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
    io_uring_sqe_set_data(sqe, bio);
    u->in_kernel++;
    return true;
}

/* False: no room; refill() tries again. */
static bool poll_add(struct uring *u, int fd, uint64_t user_data)
{
    struct io_uring_sqe *sqe = get_sqe(u);
    if (sqe != NULL) {
        io_uring_prep_poll_multishot(sqe, fd, POLL_INPUT);
        io_uring_sqe_set_data64(sqe, user_data);
    }
    u->unarmed |= sqe == NULL;
    return sqe != NULL;
}

static uint64_t watch_data(const struct uring *u, uint32_t slot)
{
    return (uint64_t)u->base.watches.slots[slot].generation << 32 | slot << 3 | TAG_WATCH;
}

static void arm(struct uring *u, uint32_t slot)
{
    struct bio_watch_slot *s = &u->base.watches.slots[slot];
    s->armed = poll_add(u, s->fd, watch_data(u, slot));
}

static void arm_workers(struct uring *u)
{
    u->workers_armed = poll_add(u, bio_workers_fd(u->workers), TAG_WORKERS);
}

static bool is_for_workers(const struct bio *bio)
{
    if (bio->kind == BIO_SYNC || bio->flags & BIO_MAY_BLOCK)
        return true;
    if (bio->kind == BIO_DISCARD)
        return bio->flags & BIO_BLOCK_DEVICE;
    return bio->kind == BIO_WRITE && (bio->flags & (BIO_DURABLE | BIO_DIRECT)) == BIO_DURABLE;
}

static void to_workers(struct uring *u, struct bio *bio)
{
    if (u->workers == NULL) {
        u->workers = bio_workers_new(u->threads, &bio->error);
        if (u->workers == NULL) {
            bio_ended(&u->base, bio);
            return;
        }
        arm_workers(u);
    }
    bio->state |= BIO_STATE_WORKER;
    bio_list_push(&u->for_workers, bio);
}

static void uring_start(struct bio_engine *e, struct bio *bio)
{
    struct uring *u = from(e);
    if (is_for_workers(bio))
        to_workers(u, bio);
    else if (u->pending.head != NULL || !to_kernel(u, bio))
        bio_list_push(&u->pending, bio);
    else if (bio->flags & BIO_DIRECT && io_uring_sq_ready(&u->ring) >= DIRECT_BATCH)
        io_uring_submit(&u->ring);
}

/* Hands on what is queued here, as far as there is room; the ring is not yet submitted. */
static void refill(struct uring *u)
{
    if (u->for_workers.head != NULL)
        bio_workers_give(u->workers, &u->for_workers);
    if (u->unarmed) {
        u->unarmed = false;
        if (u->workers != NULL && !u->workers_armed)
            arm_workers(u);
        for (uint32_t i = 0; i < u->base.watches.count && !u->unarmed; i++)
            if (u->base.watches.slots[i].fd >= 0 && !u->base.watches.slots[i].armed)
                arm(u, i);
    }
    while (u->pending.head != NULL && to_kernel(u, u->pending.head))
        bio_list_pop(&u->pending);
}

static void uring_flush(struct bio_engine *e)
{
    struct uring *u = from(e);
    refill(u);
    if (io_uring_sq_ready(&u->ring) > 0)
        io_uring_submit(&u->ring);
}

/* ---- completion ---- */

static void on_bio(struct uring *u, const struct io_uring_cqe *cqe)
{
    struct bio *bio = io_uring_cqe_get_data(cqe);
    u->in_kernel--;
    if (bio_account(bio, cqe->res))
        bio_ended(&u->base, bio);
    else if (!to_kernel(u, bio))
        bio_list_push(&u->pending, bio);
}

static void on_watch(struct uring *u, const struct io_uring_cqe *cqe)
{
    uint32_t slot = (uint32_t)cqe->user_data >> 3;
    if (slot >= u->base.watches.count || watch_data(u, slot) != cqe->user_data)
        return;
    bio_watches_mark(&u->base.watches, slot);
    /* After an error the owner finds out by reading; polling on would give the same error for ever. */
    if (!(cqe->flags & IORING_CQE_F_MORE) && cqe->res >= 0)
        arm(u, slot);
}

static void on_workers(struct uring *u, const struct io_uring_cqe *cqe)
{
    if (!(cqe->flags & IORING_CQE_F_MORE))
        arm_workers(u);
}

static void on_ignored(struct uring *u, const struct io_uring_cqe *cqe)
{
    (void)u;
    (void)cqe;
}

static void (*const on_tag[TAG_MASK + 1])(struct uring *, const struct io_uring_cqe *) = {
    on_bio, on_watch, on_workers, on_ignored, on_bio, on_bio, on_bio, on_bio};

/* Takes what lies in the completion ring: no system call. */
static void harvest(struct uring *u)
{
    struct io_uring_cqe *cqe;
    unsigned head;
    unsigned n;
    do {
        n = 0;
        io_uring_for_each_cqe(&u->ring, head, cqe) {
            on_tag[cqe->user_data & TAG_MASK](u, cqe);
            if (++n == 64)
                break;
        }
        io_uring_cq_advance(&u->ring, n);
    } while (n == 64);
}

static void take_from_workers(struct uring *u)
{
    struct bio_list list;
    bio_list_init(&list);
    if (u->workers == NULL || !bio_workers_take(u->workers, &list))
        return;
    for (struct bio *bio; (bio = bio_list_pop(&list)) != NULL;)
        bio_ended(&u->base, bio);
}

/* With DEFER_TASKRUN completions appear only when we enter the kernel; it says when that is worth it. */
static bool kernel_has_more(const struct uring *u)
{
    return IO_URING_READ_ONCE(*u->ring.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

static void uring_collect(struct bio_engine *e)
{
    struct uring *u = from(e);
    take_from_workers(u);
    harvest(u);
    if (e->done.head == NULL && kernel_has_more(u)) {
        io_uring_get_events(&u->ring);
        harvest(u);
    }
}

static void uring_cancel(struct bio_engine *e, struct bio *bio)
{
    struct uring *u = from(e);
    if (bio_list_remove(bio->state & BIO_STATE_WORKER ? &u->for_workers : &u->pending, bio)) {
        bio->error = -ECANCELED;
        bio_ended(e, bio);
        return;
    }
    if (bio->state & BIO_STATE_WORKER) {
        bio_workers_cancel(u->workers, bio);
        return;
    }
    bio->state |= BIO_STATE_CANCEL;
    struct io_uring_sqe *sqe = get_sqe(u);
    if (sqe == NULL)
        return;
    io_uring_prep_cancel(sqe, bio, 0);
    io_uring_sqe_set_data64(sqe, TAG_IGNORED);
    /* At once: later this address may be another I/O's. */
    io_uring_submit(&u->ring);
}

/* ---- watching and waiting ---- */

static int uring_watch(struct bio_engine *e, uint32_t slot)
{
    arm(from(e), slot);
    return 0;
}

static void uring_unwatch(struct bio_engine *e, uint32_t slot)
{
    struct uring *u = from(e);
    struct io_uring_sqe *sqe = get_sqe(u);
    if (sqe == NULL)
        return;
    /* Not POLL_REMOVE: that gives up (EALREADY) on a poll that has just fired, and it would stay armed. */
    io_uring_prep_cancel64(sqe, watch_data(u, slot), 0);
    io_uring_sqe_set_data64(sqe, TAG_IGNORED);
    /* At once, deferred work and all: until then the kernel holds the file open, and its other end sees no close. */
    io_uring_submit(&u->ring);
    io_uring_get_events(&u->ring);
}

static void uring_wait(struct bio_engine *e, uint64_t timeout_ns)
{
    struct uring *u = from(e);
    uring_collect(e);
    if (u->workers != NULL)
        timeout_ns = bio_workers_look(u->workers, timeout_ns);
    if (bio_has_news(e))
        timeout_ns = 0;
    if (timeout_ns == 0) {
        uring_flush(e);
        /* The submission may have ended some at once. */
        harvest(u);
        return;
    }
    refill(u);
    if (u->workers != NULL && !bio_workers_sleep(u->workers)) {
        take_from_workers(u);
        return;
    }
    struct io_uring_cqe *cqe;
    struct __kernel_timespec ts = {.tv_sec = (long long)(timeout_ns / 1000000000u),
                                   .tv_nsec = (long long)(timeout_ns % 1000000000u)};
    io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, timeout_ns == UINT64_MAX ? NULL : &ts, NULL);
    if (u->workers != NULL) {
        bio_workers_awake(u->workers);
        take_from_workers(u);
    }
    harvest(u);
}

const struct bio_engine_ops bio_uring_ops = {
    .kind = VT_ENGINE_URING,
    .inline_turn = 4,
    .inline_nbytes = 16384,
    .create = uring_create,
    .destroy = uring_destroy,
    .start = uring_start,
    .flush = uring_flush,
    .collect = uring_collect,
    .cancel = uring_cancel,
    .watch = uring_watch,
    .unwatch = uring_unwatch,
    .wait = uring_wait,
};
