/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Media access: READ, WRITE, SYNCHRONIZE CACHE and what blkif makes of them, as steps over the block I/O engine.
 * Knows offsets, buffers, durability and errno; knows no CDB and no wire format. A command's result is put into words
 * by its protocol (media_done). A failed sync is never followed by a success: data may be lost.
 */
#include <errno.h>

#include "path.h"

void vt_media_wrote(struct vt_lu *lu)
{
    vt_media_count_write(lu);
}

/* Something of a durable write that failed may be there. */
static void count_failed(struct vt_lu *lu)
{
    atomic_fetch_add_explicit((_Atomic uint64_t *)&lu->failed, 1, memory_order_acq_rel);
    atomic_fetch_add_explicit((_Atomic uint64_t *)&lu->written, 1, memory_order_acq_rel);
}

static void count_durable(struct vt_lu *lu, uint64_t by)
{
    atomic_fetch_add_explicit((_Atomic uint64_t *)&lu->durable_running, by, memory_order_acq_rel);
}

static uint64_t losable(struct vt_lu *lu)
{
    return vscsi_load64_relaxed(&lu->written) - vscsi_load64_relaxed(&lu->failed);
}

/* Is there data that an initiator believes written, and that only a sync makes durable? */
static bool has_losable(struct vt_lu *lu)
{
    return vscsi_load_relaxed(&lu->flags) & VT_LU_WRITE_CACHE &&
           losable(lu) != vscsi_load64_relaxed(&lu->losable_synced);
}

/* May what a READ has just returned be lost? Not asked in one instant: a write that ends in between is on the medium. */
static bool is_dirty(struct vt_lu *lu)
{
    return atomic_load_explicit((_Atomic uint64_t *)&lu->durable_running, memory_order_acquire) ||
           vscsi_load64_relaxed(&lu->written) != vscsi_load64_relaxed(&lu->synced);
}

static bool no_space(int error)
{
    return error == -ENOSPC || error == -EDQUOT || error == -EFBIG;
}

/*
 * Errors that say a durable write was refused, not that data was lost on its way to the medium. No space can be either:
 * the write's own, or that of what was written before, which found none when it was written back. Only where there is
 * nothing of the kind the write has had it for itself.
 */
static bool harmless(int error, struct vt_lu *lu)
{
    if (no_space(error))
        return !has_losable(lu);
    return error == -EROFS || error == -EPERM || error == -EACCES || error == -ECANCELED || error == -EINVAL ||
           error == -EOPNOTSUPP || error == -EFAULT || error == -EAGAIN || error == -EINTR;
}

static void note_error(struct vt_lu *lu, int error)
{
    if (error < 0 && error != -ECANCELED)
        vscsi_store_relaxed(&lu->sync_failed, 1);
}

static void conclude(struct vt_task *task, int error)
{
    vt_media_conclude_as(task, error, task->channel->ops);
}

/* Begins `task->step`, as all begin_*: enum vt_begun, or an error. */
static int begin_sync(struct vt_task *task)
{
    struct vt_lu *lu = task->lu;
    if (vscsi_load_relaxed(&lu->sync_failed))
        return -EIO;
    if (task->step == STEP_SYNC_AFTER && !is_dirty(lu))
        return BEGUN_NOTHING;
    task->dirty_seen = vscsi_load64_relaxed(&lu->written);
    task->losable_seen = losable(lu);
    vt_media_prepare(task, BIO_SYNC, 0);
    vt_durable_begin(lu, &task->durable, true, task->channel->loop);
    return vt_media_submit(task);
}

int vt_media_begin_rest(struct vt_task *task, bool durable)
{
    struct vt_lu *lu = task->lu;
    task->bio.done = 0;
    if (durable && vscsi_load_relaxed(&lu->sync_failed))
        return -EIO;
    if (task->bio.nbytes == 0)
        return BEGUN_NOTHING;
    count_durable(lu, 1);
    vt_durable_begin(lu, &task->durable, false, task->channel->loop);
    return BEGUN_RUNS;
}

static int begin_io(struct vt_task *task)
{
    return vt_media_begin_io(task);
}

static int begin_discard(struct vt_task *task)
{
    struct bio *bio = vt_media_prepare(task, BIO_DISCARD, 0);
    bio->nbytes = task->nbytes;
    vt_media_count_write(task->lu);
    return vt_media_submit(task);
}

/* The kernel tells of lost data once: whoever synced at the same time was told of a success. */
static int believe(struct vt_task *task)
{
    if (vscsi_load_relaxed(&task->lu->sync_failed)) {
        task->bio.done = 0;
        return -EIO;
    }
    if (task->bio.kind == BIO_SYNC) {
        vscsi_store64_relaxed(&task->lu->synced, task->dirty_seen);
        vscsi_store64_relaxed(&task->lu->losable_synced, task->losable_seen);
    }
    return 0;
}

/* The error of the write after all. */
static int judged(struct vt_task *task)
{
    int error = task->refused;
    task->refused = 0;
    if (task->bio.error < 0)
        vscsi_store_relaxed(&task->lu->sync_failed, 1);
    vt_durable_end(task->lu, &task->durable, task->channel->loop);
    return error;
}

/*
 * A durable write has found no space, and earlier data may be what was lost: the witness is told of that in its own
 * right, so if all can be synced there, nothing is. Until then the write runs, and who syncs beside it waits.
 */
static int ask_witness(struct vt_task *task)
{
    struct vt_lu *lu = task->lu;
    task->refused = task->bio.error;
    struct bio *bio = vt_media_prepare(task, BIO_SYNC, 0);
    bio->fd = (int)vscsi_load_relaxed((uint32_t *)&lu->witness);
    task->cancelled = true;     /* it is not to be cancelled: that would tell nothing */
    return vt_media_submit(task) == BEGUN_ENDED ? judged(task) : VT_MEDIA_WAITS;
}

int vt_media_settle_rest(struct vt_task *task)
{
    struct vt_lu *lu = task->lu;
    struct bio *bio = &task->bio;
    const bool synced = bio->kind == BIO_SYNC;
    if (task->refused)
        return judged(task);
    if (bio->kind == BIO_DISCARD) {
        vt_media_count_write(lu);
        return bio->error;
    }
    if (synced) {
        note_error(lu, bio->error);
    } else {
        if (bio->error < 0)
            count_failed(lu);
        count_durable(lu, -1);
        vt_bump(&task->channel->stats.bytes_written, bio->done);
        if (bio->error < 0 && !harmless(bio->error, lu)) {
            if (no_space(bio->error) && vscsi_load_relaxed((uint32_t *)&lu->witness) != UINT32_MAX)
                return ask_witness(task);
            vscsi_store_relaxed(&lu->sync_failed, 1);
        }
    }
    if (bio->error == 0)
        return vt_durable_settle(task, synced || has_losable(lu)) ? believe(task) : VT_MEDIA_WAITS;
    vt_durable_end(lu, &task->durable, task->channel->loop);
    return bio->error;
}

/* Python's store: the same steps, each of them a slow command. */
static bool begin_slow(struct vt_task *task)
{
    task->ask = task->step != STEP_IO ? VT_OP_SYNC : task->discard ? VT_OP_DISCARD : task->op;
    if (task->step == STEP_IO && task->op == VT_OP_WRITE)
        task->fua = vt_media_write_is_durable(task);
    return vt_slow_queue(task);
}

static void next_step(struct vt_task *task)
{
    static int (*const begin[])(struct vt_task *) = {
        [STEP_SYNC_BEFORE] = begin_sync, [STEP_IO] = begin_io, [STEP_SYNC_AFTER] = begin_sync,
    };
    while (task->steps) {
        task->step = task->steps & -task->steps;
        task->steps &= (uint8_t)~task->step;
        if (vt_is_aborted(task)) {
            vt_task_end(task);
            return;
        }
        if (task->by_python) {
            if (!begin_slow(task))
                vt_task_end(task);
            return;
        }
        int error = task->discard && task->step == STEP_IO ? begin_discard(task) : begin[task->step](task);
        if (error == BEGUN_RUNS)
            return;
        if (error == BEGUN_ENDED)
            error = vt_media_settle(task);
        if (error == VT_MEDIA_WAITS)
            return;
        if (error < 0) {
            conclude(task, error);
            return;
        }
    }
    conclude(task, 0);
}

void vt_media_start(struct vt_task *task)
{
    vt_media_start_as(task, task->channel->ops);
}

void vt_media_start_rest(struct vt_task *task)
{
    bool simulated = atomic_load_explicit(&task->lu->disk, memory_order_relaxed) && !task->by_python;
    if (simulated && task->steps & STEP_IO)
        vt_disk_wait(task);
    else
        next_step(task);
}

/* Nothing is left to wait for. */
void vt_media_go(struct vt_task *task)
{
    next_step(task);
}

void vt_media_go_on(struct vt_task *task, int error)
{
    if (error < 0)
        conclude(task, error);
    else if (error != VT_MEDIA_WAITS)
        next_step(task);
}

/* By mail: what ran beside it has ended, or it has been aborted. */
void vt_media_settled(struct vt_task *task)
{
    atomic_store(&task->state, TASK_RUNNING);
    int error = believe(task);
    if (error < 0)
        conclude(task, error);
    else
        next_step(task);
}

void vt_media_slow_done(struct vt_task *task)
{
    if (task->ask == VT_OP_LU_RESET) {
        vt_tmf_reset_done(task);
        return;
    }
    atomic_store(&task->state, TASK_RUNNING);
    bool wrote = task->row ? task->row->facts.flags & VT_CMD_WRITES : task->op == VT_OP_WRITE;
    if (task->lu && wrote)
        vt_media_wrote(task->lu);
    if (vt_is_aborted(task) || task->result.status || !task->steps)
        vt_task_end_slow(task);
    else
        next_step(task);
}

/* ---- SYNCHRONIZE CACHE with IMMED: answered at once, run on behalf of nobody ---- */

static void immed_submit(struct vt_lu *lu, struct vt_loop *loop)
{
    lu->immed_dirty = vscsi_load64_relaxed(&lu->written);
    lu->immed_losable = losable(lu);
    lu->immed.fd = lu->fd;
    lu->immed.kind = BIO_SYNC;
    lu->immed.flags = lu->bio_flags;
    lu->immed.error = 0;
    vt_durable_begin(lu, &lu->immed_durable, true, loop);
    if (bio_submit(loop->engine, &lu->immed))
        vt_media_immed_done(lu, loop);
}

void vt_media_immed(struct vt_lu *lu, struct vt_loop *loop)
{
    vt_lock_take(&lu->lock);
    bool mine = !lu->immed_running;
    lu->immed_again = !mine;
    lu->immed_running = true;
    vt_lock_give(&lu->lock);
    if (mine)
        immed_submit(lu, loop);
}

void vt_media_immed_done(struct vt_lu *lu, struct vt_loop *loop)
{
    note_error(lu, lu->immed.error);
    bool alone = vt_durable_end(lu, &lu->immed_durable, loop);
    if (alone && lu->immed.error == 0 && !vscsi_load_relaxed(&lu->sync_failed)) {
        vscsi_store64_relaxed(&lu->synced, lu->immed_dirty);
        vscsi_store64_relaxed(&lu->losable_synced, lu->immed_losable);
    }
    vt_lock_take(&lu->lock);
    bool again = lu->immed_again;
    lu->immed_again = false;
    lu->immed_running = again;
    if (!again && lu->removing)
        pthread_cond_broadcast(&lu->idle);
    vt_lock_give(&lu->lock);
    if (again)
        immed_submit(lu, loop);
}
