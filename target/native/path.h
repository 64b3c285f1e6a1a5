/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The usual way of a READ or WRITE through what the protocols share, as inline functions: each protocol compiles a copy
 * of its own, in which its operations are calls by name. The general functions of taskset.c and media.c are made of the
 * same pieces; what is not usual lies there, out of line, behind one branch. Knows what they know, and nothing else.
 */
#ifndef VSCSI_PATH_H
#define VSCSI_PATH_H

#include "core.h"
#include "tap.h"

#define VT_INLINE static inline __attribute__((always_inline))

/* Likelier than __builtin_expect has it: of fifty such in a row the compiler would take the last ones for a cold corner. */
VT_INLINE bool vt_usual(bool condition)
{
    return __builtin_expect_with_probability(condition, 1, 0.9999);
}

/* ---- out of line: what is not usual ---- */

enum vt_enter vt_set_enter_slowly(struct vt_lu *lu, struct vt_task *task);
void vt_set_count_oddly(struct vt_lu *lu, struct vt_task *task, bool writes);
/* It has left: who waited for that? */
void vt_set_left(struct vt_lu *lu, struct vt_task *task);
void vt_task_tell_aborted(struct vt_task *task);
/* How a step began, if not with an error. */
enum vt_begun { BEGUN_NOTHING, BEGUN_ENDED, BEGUN_RUNS };
enum { VT_MEDIA_WAITS = 1 };
/* A durable write, or nothing to move at all. BEGUN_RUNS: it is to be submitted. */
int vt_media_begin_rest(struct vt_task *task, bool durable);
int vt_media_settle_rest(struct vt_task *task);
void vt_media_start_rest(struct vt_task *task);
/* After a step that has ended so, or VT_MEDIA_WAITS. */
void vt_media_go_on(struct vt_task *task, int error);

/* ---- the task set: under the LU's lock, but for entering and leaving ---- */

VT_INLINE bool vt_has_tag(const struct vt_protocol_ops *ops)
{
    return ops == &vt_srp_ops;
}

VT_INLINE struct vt_task **vt_tag_bucket(struct vt_lu *lu, uint32_t nexus, uint64_t tag)
{
    uint64_t h = (tag ^ (uint64_t)nexus << 48) * 0x9e3779b97f4a7c15u;
    return &lu->tags[h >> 56];
}

/* `bucket`: of its tag; NULL: it has none. */
VT_INLINE void vt_set_link(struct vt_lu *lu, struct vt_task *task, struct vt_task **bucket)
{
    task->seq = lu->next_seq++;
    task->set_prev = lu->last;
    task->set_next = NULL;
    *(lu->last ? &lu->last->set_next : &lu->first) = task;
    lu->last = task;
    lu->nr_tasks++;
    if (bucket) {
        task->tag_next = *bucket;
        task->tag_link = bucket;
        if (*bucket)
            (*bucket)->tag_link = &task->tag_next;
        *bucket = task;
    }
    task->in_set = true;
}

VT_INLINE void vt_set_unlink(struct vt_lu *lu, struct vt_task *task, const struct vt_protocol_ops *ops)
{
    *(task->set_prev ? &task->set_prev->set_next : &lu->first) = task->set_next;
    *(task->set_next ? &task->set_next->set_prev : &lu->last) = task->set_prev;
    lu->nr_tasks--;
    if (vt_has_tag(ops)) {
        *task->tag_link = task->tag_next;
        if (task->tag_next)
            task->tag_next->tag_link = task->tag_link;
    }
    task->in_set = false;
}

/* Nobody has this tag; false: perhaps somebody has. */
VT_INLINE bool vt_tag_is_free(struct vt_task *const *bucket, const struct vt_task *task)
{
    const struct vt_task *other = bucket ? *bucket : NULL;
    while (other && other->tag != task->tag)
        other = other->tag_next;
    return !other;
}

/* Only SIMPLE tasks are about, nobody wants ranges, and nothing else is to be thought of. */
VT_INLINE enum vt_enter vt_set_enter_as(struct vt_task *task, const struct vt_protocol_ops *ops)
{
    struct vt_lu *lu = task->lu;
    enum vt_enter how = ENTER_ENABLED;
    bool gate = vt_lock_enter(&lu->lock, task->channel->loop);
    uint32_t odd = lu->rules | lu->nr_ordered | lu->nr_hoq | lu->range_looks | task->attribute | vt_is_removing(lu);
    struct vt_task **bucket = vt_has_tag(ops) ? vt_tag_bucket(lu, task->nexus, task->tag) : NULL;
    if (vt_usual(!odd && vt_tag_is_free(bucket, task))) {
        atomic_store_explicit(&task->extent, EXTENT_UNKNOWN, memory_order_relaxed);
        vt_set_link(lu, task, bucket);
    } else {
        how = vt_set_enter_slowly(lu, task);
    }
    vt_lock_leave(&lu->lock, gate);
    return how;
}

/* For the statistics. A READ that Python runs is a READ all the same. */
VT_INLINE void vt_set_count(struct vt_lu *lu, struct vt_task *task)
{
    const uint8_t op = task->row ? task->row->facts.op : task->op;
    const uint8_t writes = op == VT_OP_WRITE;
    if ((op != VT_OP_READ && !writes) || task->discard)
        return;
    lu->stats.commands[writes]++;
    const int bad = task->result.status | task->result.sense_nbytes | task->blkif_status;
    if (vt_usual(!bad && task->response_code < 0 && !vt_is_aborted(task)))
        lu->stats.blocks[writes] += task->blocks;
    else
        vt_set_count_oddly(lu, task, writes);
}

VT_INLINE void vt_set_leave_as(struct vt_task *task, const struct vt_protocol_ops *ops)
{
    struct vt_lu *lu = task->lu;
    bool gate = vt_lock_enter(&lu->lock, task->channel->loop);
    vt_set_count(lu, task);
    vt_set_unlink(lu, task, ops);
    uint32_t odd = lu->nr_dormant | vscsi_load_relaxed(&lu->fenced) | lu->range_waiting | lu->preempting |
                   task->attribute | vt_is_removing(lu);
    if (!vt_usual(!odd && !lu->tmfs))
        vt_set_left(lu, task);
    vt_lock_leave(&lu->lock, gate);
}

/* ---- data ---- */

/* The whole buffer of a small command, in a page that was mapped before. False: nothing done; see vt_buffer_add. */
VT_INLINE bool vt_buffer_add_pinned(struct vt_task *task, uint32_t direction, uint32_t gref, uint64_t offset,
                                    uint64_t nbytes)
{
    struct vt_channel *channel = task->channel;
    struct vt_buffer *b = &task->buf[direction];
    if (!vt_usual(channel->persistent && b->iovcnt == 0 && offset < VSCSI_PAGE_SIZE &&
                  nbytes - 1 < VSCSI_PAGE_SIZE - offset))
        return false;
    uint8_t *page = vscsi_mapper_pinned(channel->mapper, gref, direction == BUF_IN);
    if (!vt_usual(page != NULL))
        return false;
    b->iov = task->iov[direction];
    b->iov[0] = (struct iovec){ page + offset, nbytes };
    b->iovcnt = b->pages = 1;
    b->mapped = nbytes;
    return true;
}

/* ---- start and end ---- */

VT_INLINE void vt_task_start_as(struct vt_task *task, const struct vt_protocol_ops *ops)
{
    atomic_store_explicit(&task->state, TASK_RUNNING, memory_order_relaxed);
    if (vt_usual(!vt_is_aborted(task)))
        ops->start(task);
    else
        vt_task_end(task);
}

/* `slow`: Python has run it. */
VT_INLINE void vt_task_end_by(struct vt_task *task, const struct vt_protocol_ops *ops, bool slow)
{
    vt_tap_data_in(task);
    if (!vt_usual(!task->sched))
        vt_sched_leave(task);
    /* Grants first: with the response in hand the initiator may take its pages back. */
    if (!vt_usual(!task->holds))
        vt_buffers_release(task);
    if (vt_usual(!vt_is_aborted(task))) {
        if (slow && !task->result.status && task->result.clears)
            vt_ua_told(task);
        ops->finish(task);
    } else {
        vt_task_tell_aborted(task);
    }
    if (vt_usual(task->in_set))
        vt_set_leave_as(task, ops);
    vt_task_release(task);
}

VT_INLINE void vt_task_end_as(struct vt_task *task, const struct vt_protocol_ops *ops)
{
    vt_task_end_by(task, ops, false);
}

VT_INLINE void vt_channel_put(struct vt_channel *channel, const void *response, uint32_t nbytes)
{
    if (!vt_usual(!channel->ring_broken))
        return;
    void *slot = vscsi_back_next_response(&channel->ring);
    if (!slot)
        return;
    vt_tap_response(channel, response, nbytes);
    vscsi_slot_write(slot, response, nbytes);
    vt_bump(&channel->stats.responses, 1);
    if (!channel->dirty)
        vt_channel_mark_dirty(channel);
}

/* ---- media access ---- */

static inline bool vt_media_write_is_durable(const struct vt_task *task)
{
    return task->fua || !(vscsi_load_relaxed(&task->lu->flags) & VT_LU_WRITE_CACHE);
}

/* Counts a write that a later sync must cover: when it begins, and again when it ends. */
VT_INLINE void vt_media_count_write(struct vt_lu *lu)
{
    atomic_fetch_add_explicit((_Atomic uint64_t *)&lu->written, 1, memory_order_acq_rel);
}

VT_INLINE struct bio *vt_media_prepare(struct vt_task *task, uint8_t kind, uint8_t flags)
{
    struct vt_lu *lu = task->lu;
    struct bio *bio = &task->bio;
    bio->owner = task;
    bio->kind = kind;
    bio->flags = lu->bio_flags | flags;
    bio->fd = lu->fd;
    bio->direct_align = lu->direct_align;
    bio->offset = task->offset;
    bio->nbytes = 0;
    bio->iovcnt = 0;
    return bio;
}

VT_INLINE int vt_media_submit(struct vt_task *task)
{
    const bool ended = bio_submit(task->channel->loop->engine, &task->bio);
    task->in_flight = !ended;
    return ended ? BEGUN_ENDED : BEGUN_RUNS;
}

VT_INLINE int vt_media_begin_io(struct vt_task *task)
{
    const bool reads = task->op == VT_OP_READ;
    const struct vt_buffer *b = &task->buf[reads ? BUF_IN : BUF_OUT];
    const bool durable = !reads && vt_media_write_is_durable(task);
    struct bio *bio = vt_media_prepare(task, reads ? BIO_READ : BIO_WRITE, durable ? BIO_DURABLE : 0);
    bio->iov = b->iov;
    bio->iovcnt = b->iovcnt;
    bio->nbytes = b->mapped;
    if (!vt_usual(!durable && b->mapped)) {
        int rc = vt_media_begin_rest(task, durable);
        if (rc != BEGUN_RUNS)
            return rc;
    } else if (!reads) {
        vt_media_count_write(task->lu);
    }
    return vt_media_submit(task);
}

/* What the end of a step's bio means for the LU: 0, an error, or VT_MEDIA_WAITS for what else is being made durable. */
VT_INLINE int vt_media_settle(struct vt_task *task)
{
    struct bio *bio = &task->bio;
    if (vt_usual(bio->kind == BIO_READ)) {
        vt_bump(&task->channel->stats.bytes_read, bio->done);
        return bio->error;
    }
    if (!vt_usual(bio->kind == BIO_WRITE && !(bio->flags & BIO_DURABLE)))
        return vt_media_settle_rest(task);
    vt_media_count_write(task->lu);
    vt_bump(&task->channel->stats.bytes_written, bio->done);
    /* The write cache was switched off while it ran: whoever did that may have flushed already. */
    if (!vt_usual(!vt_media_write_is_durable(task)))
        task->steps |= STEP_SYNC_AFTER;
    return bio->error;
}

VT_INLINE void vt_media_conclude_as(struct vt_task *task, int error, const struct vt_protocol_ops *ops)
{
    ops->media_done(task, error, task->step);
    vt_task_end_as(task, ops);
}

/* op, offset, nbytes, lba, blocks, fua and steps are set, and the buffer is mapped. */
VT_INLINE void vt_media_start_as(struct vt_task *task, const struct vt_protocol_ops *ops)
{
    struct vt_lu *lu = task->lu;
    const uint32_t python = VT_LU_SLOW_STORE | VT_LU_PROTECTED | VT_LU_FAULTS;
    task->by_python = vscsi_load_relaxed(&lu->flags) & (task->discard ? VT_LU_FAULTS : python);
    if (!vt_range_pass(task))
        return;
    const bool simulated = atomic_load_explicit(&lu->disk, memory_order_relaxed) != NULL;
    if (!vt_usual(task->steps == STEP_IO && !(task->by_python | task->discard | simulated))) {
        vt_media_start_rest(task);
        return;
    }
    /* Nothing has been waited for since it started: it has not been aborted, or will be found so at its end. */
    task->steps = 0;
    task->step = STEP_IO;
    int error = vt_media_begin_io(task);
    if (error == BEGUN_RUNS)
        return;
    if (error == BEGUN_ENDED)
        error = vt_media_settle(task);
    if (vt_usual(!error && !task->steps))
        vt_media_conclude_as(task, 0, ops);
    else
        vt_media_go_on(task, error);
}

/* The engine has ended what a step was waiting for. */
VT_INLINE void vt_media_ended_as(struct vt_task *task, const struct vt_protocol_ops *ops)
{
    task->in_flight = false;
    const int error = vt_media_settle(task);
    if (vt_usual(!error && !task->steps))
        vt_media_conclude_as(task, 0, ops);
    else
        vt_media_go_on(task, error);
}

#endif
