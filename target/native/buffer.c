/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A command's data buffer: runs of consecutive grant references, mapped page by page, adjacent host pages merged into
 * one iovec. Knows grants and addresses; knows no descriptor format. Small buffers live in the task; big ones borrow
 * scratch from the loop's bounded pool, so nothing here allocates on the path of a small command.
 */
#include <errno.h>
#include <stdlib.h>

#include "path.h"

/* Data-in: the target writes into it. */
static bool is_written(const struct vt_task *task, const struct vt_buffer *b)
{
    return b == &task->buf[BUF_IN];
}

static struct vt_run *runs_of(struct vt_task *task, struct vt_buffer *b)
{
    return b->scratch ? b->scratch->runs : task->runs[b - task->buf];
}

static int borrow_scratch(struct vt_task *task, struct vt_buffer *b)
{
    struct vt_loop *loop = task->channel->loop;
    struct vt_scratch *s = loop->scratch;
    if (s) {
        loop->scratch = s->next;
    } else {
        if (loop->scratch_made == VT_SCRATCH_PER_LOOP)
            return -EAGAIN;
        s = malloc(sizeof *s);
        if (!s)
            return loop->scratch_made ? -EAGAIN : -ENOMEM;
        loop->scratch_made++;
    }
    memcpy(s->iov, b->iov, b->iovcnt * sizeof *s->iov);
    memcpy(s->runs, runs_of(task, b), b->nruns * sizeof *s->runs);
    b->iov = s->iov;
    b->scratch = s;
    return 0;
}

/* Room for one more iovec and one more run. */
static int make_room(struct vt_task *task, struct vt_buffer *b)
{
    if (!b->scratch)
        return b->iovcnt < VT_INLINE_IOV && b->nruns < VT_INLINE_IOV ? 0 : borrow_scratch(task, b);
    return b->iovcnt < VT_MAX_PAGES && b->nruns < VT_MAX_DESCRIPTORS ? 0 : -EINVAL;
}

static void append(struct vt_buffer *b, uint8_t *address, size_t nbytes)
{
    b->mapped += nbytes;
    if (b->iovcnt) {
        struct iovec *last = &b->iov[b->iovcnt - 1];
        if ((uint8_t *)last->iov_base + last->iov_len == address) {
            last->iov_len += nbytes;
            return;
        }
    }
    b->iov[b->iovcnt++] = (struct iovec){ address, nbytes };
}

/*
 * Adds `nbytes` from byte `offset` of the run that begins at `gref`. -EAGAIN: no scratch now; -EINVAL: malformed or too
 * scattered; -ENOMEM; anything else is the grant's error. What was mapped stays mapped until vt_buffer_unmap.
 */
int vt_buffer_add(struct vt_task *task, struct vt_buffer *b, uint32_t gref, uint64_t offset, uint64_t nbytes)
{
    struct vt_channel *channel = task->channel;
    if (vt_buffer_add_pinned(task, (uint32_t)(b - task->buf), gref, offset, nbytes))
        return 0;
    if (!b->scratch)
        b->iov = task->iov[b - task->buf];
    if (nbytes == 0)
        return 0;
    task->holds = true;
    if (offset + nbytes < offset || nbytes > VSCSI_MAX_TRANSFER || b->mapped + nbytes > VSCSI_MAX_TRANSFER)
        return -EINVAL;
    uint64_t page = offset >> VSCSI_PAGE_SHIFT;
    uint64_t last = (offset + nbytes - 1) >> VSCSI_PAGE_SHIFT;
    if (gref + last > UINT32_MAX)
        return -ERANGE;
    int rc = make_room(task, b);
    if (rc < 0)
        return rc;
    uint32_t run = b->nruns;
    if (!channel->persistent)
        runs_of(task, b)[b->nruns++] = (struct vt_run){ gref + (uint32_t)page, 0 };
    size_t start = offset & (VSCSI_PAGE_SIZE - 1);
    for (; page <= last; page++) {
        uint8_t *address;
        rc = b->iovcnt < VT_INLINE_IOV || b->scratch ? 0 : borrow_scratch(task, b);
        if (rc == 0 && b->iovcnt == VT_MAX_PAGES)
            rc = -EINVAL;
        if (rc < 0)
            return rc;
        rc = vscsi_mapper_map(channel->mapper, gref + (uint32_t)page, is_written(task, b), channel->persistent,
                              &address);
        if (rc < 0)
            return rc;
        if (!channel->persistent)
            runs_of(task, b)[run].pages++;
        b->pages++;
        size_t take = VSCSI_PAGE_SIZE - start;
        if (take > nbytes)
            take = nbytes;
        append(b, address + start, take);
        nbytes -= take;
        start = 0;
    }
    return 0;
}

void vt_buffer_unmap(struct vt_task *task, struct vt_buffer *b)
{
    struct vt_channel *channel = task->channel;
    const struct vt_run *runs = runs_of(task, b);
    for (uint32_t i = 0; i < b->nruns; i++)
        for (uint32_t k = 0; k < runs[i].pages; k++)
            vscsi_mapper_unmap(channel->mapper, runs[i].gref + k, is_written(task, b), channel->persistent);
    if (b->scratch) {
        struct vt_loop *loop = channel->loop;
        b->scratch->next = loop->scratch;
        loop->scratch = b->scratch;
        loop->retry |= loop->scratch_wait != NULL;
        b->scratch = NULL;
    }
    b->iovcnt = b->nruns = b->pages = 0;
    b->mapped = 0;
}

void vt_buffers_release(struct vt_task *task)
{
    for (int direction = BUF_OUT; direction <= BUF_IN; direction++)
        if (task->buf[direction].nruns || task->buf[direction].scratch)
            vt_buffer_unmap(task, &task->buf[direction]);
}

int vt_copy_granted(struct vt_channel *channel, uint32_t gref, uint64_t offset, void *to, uint64_t nbytes)
{
    uint8_t *dst = to;
    if (offset + nbytes < offset || gref + ((offset + nbytes) >> VSCSI_PAGE_SHIFT) > UINT32_MAX)
        return -ERANGE;
    while (nbytes) {
        uint8_t *address;
        uint32_t page = gref + (uint32_t)(offset >> VSCSI_PAGE_SHIFT);
        size_t start = offset & (VSCSI_PAGE_SIZE - 1);
        size_t take = VSCSI_PAGE_SIZE - start < nbytes ? VSCSI_PAGE_SIZE - start : nbytes;
        int rc = vscsi_mapper_map(channel->mapper, page, false, channel->persistent, &address);
        if (rc < 0)
            return rc;
        memcpy(dst, address + start, take);
        vscsi_mapper_unmap(channel->mapper, page, false, channel->persistent);
        dst += take;
        offset += take;
        nbytes -= take;
    }
    return 0;
}
