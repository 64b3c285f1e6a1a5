/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * blkif on the ring: decodes the six operations, checks what blkback checks, writes responses. Joins the same task set
 * and media access as SCSI; pays for one look at the LU's state and for the order of barriers. Knows requests and
 * segments; knows no CDB, sense or unit attention. Sectors are 512 bytes, whatever the LU's block size.
 */
#include <errno.h>

#include "path.h"

enum { HEAD = offsetof(struct blkif_request, seg), ONE_OP = 16 };

/* What an operation is made of. */
struct op_row {
    bool known;
    uint8_t op;             /* enum vt_op of its data */
    uint8_t attribute;
    uint8_t steps;
    uint8_t conflict;
    bool writes;
    bool data_optional;
    uint8_t iu_nbytes;      /* 0: HEAD and nr_segments */
    size_t feature;         /* offset of the flag in vt_channel_config that says it was advertised; 0: always */
};

static const struct op_row ops[ONE_OP] = {
    [BLKIF_OP_READ] = { .known = true, .op = VT_OP_READ, .steps = STEP_IO, .conflict = VT_CONFLICT_READ },
    [BLKIF_OP_WRITE] = { .known = true, .op = VT_OP_WRITE, .steps = STEP_IO, .conflict = VT_CONFLICT_WRITE,
        .writes = true },
    [BLKIF_OP_WRITE_BARRIER] = { .known = true, .op = VT_OP_WRITE, .attribute = SRP_TSK_ORDERED,
        .steps = STEP_SYNC_BEFORE | STEP_IO, .conflict = VT_CONFLICT_WRITE, .writes = true, .data_optional = true,
        .feature = offsetof(struct vt_channel_config, barrier) },
    [BLKIF_OP_FLUSH_DISKCACHE] = { .known = true, .op = VT_OP_WRITE, .steps = STEP_SYNC_BEFORE | STEP_IO,
        .conflict = VT_CONFLICT_WRITE, .data_optional = true, .feature = offsetof(struct vt_channel_config, flush) },
    [BLKIF_OP_DISCARD] = { .known = true, .op = VT_OP_WRITE, .steps = STEP_IO, .conflict = VT_CONFLICT_WRITE,
        .writes = true, .iu_nbytes = sizeof(struct blkif_request_discard),
        .feature = offsetof(struct vt_channel_config, discard) },
    [BLKIF_OP_INDIRECT] = { .known = true, .steps = STEP_IO, .iu_nbytes = sizeof(struct blkif_request_indirect),
        .feature = offsetof(struct vt_channel_config, max_indirect_segments) },
};

static bool advertised(const struct vt_channel *channel, const struct op_row *row)
{
    return !row->feature || *(const uint32_t *)(const void *)((const uint8_t *)&channel->config + row->feature);
}

/* The row that decides what happens to the data: an indirect request is the READ or WRITE it names. */
static const struct op_row *data_row(const struct vt_task *task)
{
    const struct blkif_request_indirect *r = &task->iu.indirect;
    if (task->operation != BLKIF_OP_INDIRECT)
        return &ops[task->operation];
    return r->indirect_op <= BLKIF_OP_WRITE ? &ops[r->indirect_op] : NULL;
}

/* ---- responses ---- */

VT_INLINE void write_response(struct vt_task *task, int16_t status)
{
    /* To an indirect request Xen's back ends echo the READ or WRITE in it, and its front ends insist. */
    uint8_t operation = task->operation == BLKIF_OP_INDIRECT ? task->iu.indirect.indirect_op : task->operation;
    _Alignas(8) struct blkif_response response = { .id = task->iu.blkif.id, .operation = operation,
                                                   .status = status };
    vt_channel_put(task->channel, &response, sizeof response);
}

VT_INLINE void blkif_finish(struct vt_task *task)
{
    bool failed = task->blkif_status == BLKIF_RSP_OKAY && task->result.status;
    write_response(task, failed ? BLKIF_RSP_ERROR : task->blkif_status);
}

static void blkif_abort_reply(struct vt_task *task)
{
    write_response(task, BLKIF_RSP_ERROR);
}

static void end_with(struct vt_task *task, int16_t status)
{
    task->blkif_status = status;
    vt_task_end(task);
}

VT_INLINE void blkif_media_done(struct vt_task *task, int error, uint8_t step)
{
    (void)step;
    if (error < 0)
        task->blkif_status = error == -EOPNOTSUPP ? BLKIF_RSP_EOPNOTSUPP : BLKIF_RSP_ERROR;
}

/* ---- segments ---- */

VT_INLINE uint32_t segment_nbytes(const struct blkif_segment *s)
{
    return (uint32_t)(s->last_sect - s->first_sect + 1) * VSCSI_SECTOR_SIZE;
}

/* Copies the segment list of an indirect request once; the number of segments, or an error. */
static int fetch_indirect(struct vt_task *task, struct blkif_segment *list)
{
    const struct blkif_request_indirect *r = &task->iu.indirect;
    uint32_t left = r->nr_segments, most = task->channel->config.max_indirect_segments;
    if (left == 0 || left > most || left > BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST * BLKIF_SEGS_PER_INDIRECT_PAGE)
        return -EINVAL;
    for (uint32_t page = 0; left; page++) {
        uint32_t take = left < BLKIF_SEGS_PER_INDIRECT_PAGE ? left : BLKIF_SEGS_PER_INDIRECT_PAGE;
        int rc = vt_copy_granted(task->channel, r->indirect_grefs[page], 0, list, take * sizeof *list);
        if (rc < 0)
            return rc;
        list += take;
        left -= take;
    }
    return r->nr_segments;
}

VT_INLINE int add_segment(struct vt_task *task, struct vt_buffer *b, const struct blkif_segment *s)
{
    const uint64_t offset = (uint64_t)s->first_sect * VSCSI_SECTOR_SIZE;
    if (vt_usual(vt_buffer_add_pinned(task, (uint32_t)(b - task->buf), s->gref, offset, segment_nbytes(s))))
        return 0;
    return vt_buffer_add(task, b, s->gref, offset, segment_nbytes(s));
}

/* Maps the request's data buffer: 0, -EAGAIN (no scratch), or an error. Sets nbytes and the buffer. */
static int map_segments(struct vt_task *task, struct vt_buffer *b, uint32_t block_nbytes)
{
    const struct blkif_request *r = &task->iu.blkif;
    const struct blkif_segment *list = r->seg;
    int count = r->nr_segments;
    if (task->operation == BLKIF_OP_INDIRECT) {
        struct blkif_segment *table = (struct blkif_segment *)(void *)task->channel->loop->table;
        count = fetch_indirect(task, table);
        list = table;
    }
    int rc = count < 0 ? count : 0;
    for (int i = 0; i < count && rc == 0; i++) {
        const struct blkif_segment *s = &list[i];
        if (s->last_sect >= BLKIF_SECTORS_PER_PAGE || s->first_sect > s->last_sect || segment_nbytes(s) % block_nbytes)
            rc = -EINVAL;
        else
            rc = add_segment(task, b, s);
    }
    task->nbytes = b->described = b->mapped;
    if (rc < 0)
        vt_buffer_unmap(task, b);
    return rc;
}

/* ---- requests ---- */

static bool in_range(const struct vt_lu *lu, uint64_t sector, uint64_t nbytes)
{
    uint64_t capacity = vscsi_load64_relaxed(&lu->blocks) * lu->block_nbytes;
    return sector <= capacity / VSCSI_SECTOR_SIZE && nbytes <= capacity - sector * VSCSI_SECTOR_SIZE &&
           sector * VSCSI_SECTOR_SIZE % lu->block_nbytes == 0;
}

VT_INLINE bool permitted(const struct vt_task *task, const struct op_row *row)
{
    struct vt_lu *lu = task->lu;
    bool readonly = task->channel->config.readonly || vscsi_load_relaxed(&lu->write_protect);
    bool has_data = task->operation == BLKIF_OP_FLUSH_DISKCACHE && task->iu.blkif.nr_segments;
    bool ready = !vscsi_load_relaxed(&lu->operation) && !vscsi_load_relaxed(&lu->state_sense) &&
                 !vscsi_load_relaxed(&lu->fenced);
    return ready && !(vscsi_load_relaxed(&lu->it[task->nexus].deny) & row->conflict) && !(readonly && (row->writes || has_data));
}

static void start_discard(struct vt_task *task)
{
    const struct blkif_request_discard *r = &task->iu.discard;
    uint32_t flags = vscsi_load_relaxed(&task->lu->flags);
    if (r->flag & BLKIF_DISCARD_SECURE || !(flags & VT_LU_DISCARD) || flags & (VT_LU_SLOW_STORE | VT_LU_PROTECTED)) {
        end_with(task, BLKIF_RSP_EOPNOTSUPP);
        return;
    }
    if (r->nr_sectors > UINT64_MAX / VSCSI_SECTOR_SIZE ||
        !in_range(task->lu, r->sector_number, r->nr_sectors * VSCSI_SECTOR_SIZE)) {
        end_with(task, BLKIF_RSP_ERROR);
        return;
    }
    task->offset = r->sector_number * VSCSI_SECTOR_SIZE;
    task->nbytes = r->nr_sectors * VSCSI_SECTOR_SIZE;
    task->lba = task->offset / task->lu->block_nbytes;
    task->blocks = (task->nbytes + task->lu->block_nbytes - 1) / task->lu->block_nbytes;
    task->discard = true;
    task->steps = task->nbytes ? STEP_IO : 0;
    vt_media_start(task);
}

VT_INLINE void blkif_start(struct vt_task *task)
{
    const struct op_row *row = data_row(task);
    struct vt_lu *lu = task->lu;
    if (!permitted(task, row)) {
        end_with(task, BLKIF_RSP_ERROR);
        return;
    }
    task->op = row->op;
    if (task->operation == BLKIF_OP_DISCARD) {
        start_discard(task);
        return;
    }
    struct vt_buffer *b = &task->buf[task->op == VT_OP_READ ? BUF_IN : BUF_OUT];
    int rc = map_segments(task, b, lu->block_nbytes);
    if (rc == -EAGAIN) {
        vt_loop_wait_scratch(task->channel->loop, task);
        return;
    }
    uint64_t sector = task->iu.blkif.sector_number;
    if (rc < 0 || (task->nbytes && !in_range(lu, sector, task->nbytes)) || (!task->nbytes && !row->data_optional)) {
        end_with(task, BLKIF_RSP_ERROR);
        return;
    }
    task->offset = sector * VSCSI_SECTOR_SIZE;
    task->lba = task->offset / lu->block_nbytes;
    task->blocks = task->nbytes / lu->block_nbytes;
    task->fua = task->operation == BLKIF_OP_WRITE_BARRIER;
    task->steps = task->nbytes ? row->steps : row->steps & (uint8_t)~STEP_IO;
    if (vt_sched_pass(task))
        vt_media_start_as(task, &vt_blkif_ops);
}

static void blkif_take(struct vt_task *task, const void *slot)
{
    const struct blkif_request *r = &task->iu.blkif;
    struct vt_channel *channel = task->channel;
    vscsi_slot_read(task->iu.words, slot, HEAD);
    task->operation = r->operation;
    const struct op_row *row = r->operation < ONE_OP ? &ops[r->operation] : NULL;
    if (!row || !row->known || !advertised(channel, row)) {
        end_with(task, row && row->known ? BLKIF_RSP_EOPNOTSUPP : BLKIF_RSP_ERROR);
        return;
    }
    uint32_t nbytes = row->iu_nbytes;
    if (!nbytes) {
        if (r->nr_segments > BLKIF_MAX_SEGMENTS_PER_REQUEST) {
            end_with(task, BLKIF_RSP_ERROR);
            return;
        }
        nbytes = HEAD + r->nr_segments * (uint32_t)sizeof r->seg[0];
    }
    if (nbytes > HEAD)
        vscsi_slot_read(task->iu.bytes + HEAD, (const uint8_t *)slot + HEAD, nbytes - HEAD);
    if (!data_row(task)) {
        end_with(task, BLKIF_RSP_ERROR);
        return;
    }
    task->lu = channel->lu;
    task->attribute = row->attribute;
    switch (vt_set_enter_as(task, &vt_blkif_ops)) {
    case ENTER_ENABLED:
        vt_task_start_as(task, &vt_blkif_ops);
        break;
    case ENTER_DORMANT:
        break;
    default:
        end_with(task, BLKIF_RSP_ERROR);
        break;
    }
}

static void blkif_io_ended(struct vt_task *task)
{
    vt_media_ended_as(task, &vt_blkif_ops);
}

const struct vt_protocol_ops vt_blkif_ops = {
    .slot_nbytes = VSCSI_BLKIF_SLOT,
    .take = blkif_take,
    .start = blkif_start,
    .finish = blkif_finish,
    .abort_reply = blkif_abort_reply,
    .media_done = blkif_media_done,
    .io_ended = blkif_io_ended,
};
