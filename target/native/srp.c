/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SRP r16a on the ring: takes SRP_CMD and SRP_TSK_MGMT and runs what they ask for; every other IU is
 * Python's. A slot is copied once and only the copy is looked at. Knows IUs; knows no image and no order of commands.
 */
#include <errno.h>

#include "checks.h"
#include "srp_buffer.h"
#include "srp_reply.h"

/* HEAD: what is copied of every IU at once; a command with one direct descriptor ends there. */
enum { SLOT = VSCSI_SRP_SLOT, HEAD = sizeof(struct srp_cmd) + sizeof(struct srp_direct_buf) };
enum { CHECK_CONDITION = 0x02 };

/* ---- commands ---- */

/* Ends or postpones a command whose buffer could not be mapped. */
static void map_failed(struct vt_task *task, int error)
{
    if (error == -EAGAIN) {
        vt_buffer_unmap(task, &task->buf[BUF_OUT]);
        vt_buffer_unmap(task, &task->buf[BUF_IN]);
        vt_loop_wait_scratch(task->channel->loop, task);
        return;
    }
    if (error == -EINVAL)
        task->response_code = SRP_RESP_FIELDS_INVALID;
    else
        vt_result_code(task, error == -ENOMEM ? VT_SENSE_INTERNAL_TARGET_FAILURE : VT_SENSE_DATA_BUFFER_ERROR);
    vt_task_end(task);
}

static uint64_t mappable(const struct vt_buffer *b)
{
    return b->described < VSCSI_MAX_TRANSFER ? b->described : VSCSI_MAX_TRANSFER;
}

static void start_slow(struct vt_task *task)
{
    task->ask = task->op;
    /* READ and WRITE, whoever runs them, take turns: of other commands nobody knows here where they go. */
    if (task->nbytes && !vt_sched_pass(task))
        return;
    /* How much of it the CDB asks for only Python knows; no command moves more than this. */
    int rc = vt_srp_map(task, BUF_OUT, mappable(&task->buf[BUF_OUT]));
    if (rc == 0)
        rc = vt_srp_map(task, BUF_IN, mappable(&task->buf[BUF_IN]));
    if (rc == 0 && task->lu && task->row->facts.flags & VT_CMD_WRITES)
        vt_media_wrote(task->lu);
    if (rc < 0)
        map_failed(task, rc);
    else if (!vt_slow_queue(task))
        vt_task_end(task);
}

static void start_sync(struct vt_task *task)
{
    struct vt_lu *lu = task->lu;
    bool immed = task->row->facts.flags & VT_CMD_IMMED_BIT && vt_cdb(task)[1] & 2;
    if (immed && !vscsi_load_relaxed(&lu->sync_failed)) {
        vt_media_immed(lu, task->channel->loop);
        vt_task_end(task);
        return;
    }
    task->steps = STEP_SYNC_BEFORE;
    vt_media_start(task);
}

VT_INLINE void start_transfer(struct vt_task *task)
{
    if (!vt_sched_pass(task))
        return;
    const bool read = task->op == VT_OP_READ;
    const uint32_t direction = read ? BUF_IN : BUF_OUT;
    if (!vt_usual(vt_srp_map_small(task, direction))) {
        int rc = vt_srp_map(task, direction, task->nbytes);
        if (rc < 0) {
            map_failed(task, rc);
            return;
        }
    }
    /* A FUA read is synced afterwards: what it returned is then on the medium, a racing write included. */
    task->steps = STEP_IO | (read && task->fua ? STEP_SYNC_AFTER : 0);
    vt_media_start_as(task, &vt_srp_ops);
}

/* Nothing is written of a command whose data did not come whole. */
static void end_short(struct vt_task *task)
{
    task->result.data_out_nbytes = task->nbytes;
    vt_result_code(task, VT_SENSE_INVALID_FIELD_IN_COMMAND_IU);
    vt_task_end(task);
}

static void start_rest(struct vt_task *task)
{
    if (task->op == VT_OP_SYNC && !(vscsi_load_relaxed(&task->lu->flags) & VT_LU_SLOW_STORE)) {
        start_sync(task);
        return;
    }
    uint32_t cached = task->lu ? vscsi_load_relaxed(&task->lu->flags) & VT_LU_WRITE_CACHE : 0;
    task->fua |= task->op == VT_OP_WRITE && !cached;
    start_slow(task);
}

static void end_checked(struct vt_task *task, const struct vt_cause *cause, uint8_t status)
{
    task->result.status = status;
    if (status == CHECK_CONDITION)
        vt_result_sense(task, cause);
    vt_task_end(task);
}

VT_INLINE void srp_start(struct vt_task *task)
{
    struct vt_cause cause;
    uint8_t status;
    if (!vt_usual(vt_checks(task, &cause, &status)))
        end_checked(task, &cause, status);
    else if (task->op == VT_OP_WRITE && !vt_usual(task->buf[BUF_OUT].described >= task->nbytes))
        end_short(task);
    else if (vt_usual((task->op == VT_OP_READ || task->op == VT_OP_WRITE) &&
                      !(vscsi_load_relaxed(&task->lu->flags) & VT_LU_SLOW_STORE)))
        start_transfer(task);
    else
        start_rest(task);
}

static uint32_t code_of(int error, uint8_t op)
{
    switch (error) {
    case -ENOSPC:
    case -EDQUOT:
    case -EFBIG:
        return VT_SENSE_SPACE_ALLOCATION_FAILED;
    case -EROFS:
    case -EPERM:
    case -EACCES:
        return VT_SENSE_WRITE_PROTECTED;
    default:
        return op == VT_OP_READ ? VT_SENSE_UNRECOVERED_READ_ERROR : VT_SENSE_WRITE_ERROR;
    }
}

static void media_failed(struct vt_task *task, uint64_t *moved, int error, uint8_t step)
{
    struct vt_cause cause = { .code = code_of(error, task->op) };
    if (step == STEP_IO) {
        *moved = task->bio.done;
        cause.has_information = cause.code >> 16 == 3;
        cause.information = task->lba + task->bio.done / task->lu->block_nbytes;
    } else {
        cause.code = VT_SENSE_WRITE_ERROR;  /* a failed sync */
    }
    vt_result_sense(task, &cause);
}

VT_INLINE void srp_media_done(struct vt_task *task, int error, uint8_t step)
{
    struct vt_result *result = &task->result;
    uint64_t *moved = task->op == VT_OP_READ ? &result->data_in_nbytes : &result->data_out_nbytes;
    *moved = task->nbytes;
    if (!vt_usual(error == 0))
        media_failed(task, moved, error, step);
}

/* ---- requests ---- */

static void end_early(struct vt_task *task, uint32_t code)
{
    vt_result_code(task, code);
    vt_task_end(task);
}

static void not_entered(struct vt_task *task, enum vt_enter how)
{
    switch (how) {
    case ENTER_ENABLED:
    case ENTER_DORMANT:
        break;
    case ENTER_OVERLAPPED:
        end_early(task, VT_SENSE_OVERLAPPED_COMMANDS_ATTEMPTED);
        break;
    case ENTER_REFUSED:
        vt_task_end(task);
        break;
    case ENTER_GONE:
        task->lu = NULL;
        end_early(task, VT_SENSE_LOGICAL_UNIT_NOT_SUPPORTED);
        break;
    }
}

/* A command of no unit, or of none that the unit knows. */
static void take_unknown(struct vt_task *task, bool opcode_known)
{
    const struct srp_cmd *cmd = &task->iu.cmd;
    if (!task->lu) {
        if (task->row && task->row->facts.flags & VT_CMD_ANY_LUN)
            vt_task_start(task);
        else
            end_early(task, VT_SENSE_LOGICAL_UNIT_NOT_SUPPORTED);
    } else if ((task->result.status = vt_aca_refuses_early(task))) {
        vt_task_end(task);
    } else if (!opcode_known) {
        end_early(task, VT_SENSE_INVALID_COMMAND_OPERATION_CODE);
    } else {
        bool variable = cmd->cdb[0] == 0x7f;
        struct vt_cause cause = { .code = VT_SENSE_INVALID_FIELD_IN_CDB, .has_field = true,
                                  .byte = variable ? 8 : 1, .bit = variable ? 7 : 4 };
        vt_result_sense(task, &cause);
        vt_task_end(task);
    }
}

static void drop(struct vt_task *task, enum vt_error error)
{
    vt_channel_error(task->channel, error);
    vt_task_release(task);
}

VT_INLINE void take_cmd(struct vt_task *task, const uint8_t *slot)
{
    const struct srp_cmd *cmd = &task->iu.cmd;
    struct vt_target *t = task->channel->target;
    uint32_t out = cmd->buf_fmt >> 4, in = cmd->buf_fmt & 0xf, add_cdb = cmd->add_cdb_len & 0xfc;
    int out_nbytes = vt_srp_descriptor_nbytes(out, cmd->data_out_desc_cnt);
    int in_nbytes = vt_srp_descriptor_nbytes(in, cmd->data_in_desc_cnt);
    if (out_nbytes < 0 || in_nbytes < 0) {
        drop(task, out_nbytes < 0 ? VT_ERROR_OUT_FORMAT : VT_ERROR_IN_FORMAT);
        return;
    }
    task->desc_offset[BUF_OUT] = (uint32_t)sizeof *cmd + add_cdb;
    task->desc_offset[BUF_IN] = task->desc_offset[BUF_OUT] + (uint32_t)out_nbytes;
    uint32_t nbytes = task->desc_offset[BUF_IN] + (uint32_t)in_nbytes;
    if (nbytes > SLOT || sizeof cmd->cdb + add_cdb > VSCSI_CDB_MAX) {
        drop(task, VT_ERROR_IU_LENGTH);
        return;
    }
    if (!vt_usual(nbytes <= HEAD))
        vscsi_slot_read(task->iu.bytes + HEAD, slot + HEAD, nbytes - HEAD);
    bool out_good = vt_srp_describe(task, BUF_OUT, out, cmd->data_out_desc_cnt);
    if (!out_good || !vt_srp_describe(task, BUF_IN, in, cmd->data_in_desc_cnt)) {
        drop(task, out_good ? VT_ERROR_IN_COUNT : VT_ERROR_OUT_COUNT);
        return;
    }
    memcpy(&task->tag, &cmd->tag, sizeof task->tag);
    vt_tap_request(task);
    task->cdb_nbytes = (uint32_t)sizeof cmd->cdb + add_cdb;
    uint8_t attribute = cmd->task_attr & 7;
    task->attribute = attribute <= SRP_TSK_ORDERED || attribute == SRP_TSK_ACA ? attribute : SRP_TSK_SIMPLE;

    bool opcode_known;
    task->lu = vt_lun_find_again(task, cmd->lun);
    task->row = vt_row_find(t, cmd->cdb, &opcode_known);
    if (!vt_usual(task->lu && task->row)) {
        take_unknown(task, opcode_known);
        return;
    }
    enum vt_enter how = vt_set_enter_as(task, &vt_srp_ops);
    if (vt_usual(how == ENTER_ENABLED))
        vt_task_start_as(task, &vt_srp_ops);
    else
        not_entered(task, how);
}

static void take_tsk_mgmt(struct vt_task *task, const uint8_t *slot)
{
    (void)slot;
    memcpy(&task->tag, &task->iu.tsk_mgmt.tag, sizeof task->tag);
    vt_tap_request(task);
    vt_tmf_take(task);
}

/* An IU for Python; it keeps its slot until answered. */
static void take_cold(struct vt_task *task, const uint8_t *slot)
{
    struct vt_channel *channel = task->channel;
    vscsi_slot_read(task->iu.bytes + HEAD, slot + HEAD, SLOT - HEAD);
    vt_tap_request(task);
    atomic_store(&task->state, TASK_COLD);
    channel->in_flight--;
    task->q_next = NULL;
    if (channel->cold_last)
        channel->cold_last->q_next = task;
    else
        channel->cold_first = task;
    channel->cold_last = task;
    atomic_fetch_add(&channel->cold_count, 1);
    task->event = (struct vt_event_node){ .type = VT_EVENT_IU, .channel = channel->id, .iu_nbytes = SLOT,
                                          .iu = task->iu.bytes };
    vt_event_post(channel->target, &task->event);
}

/* The last IU of a ring. */
static void take_logout(struct vt_task *task, const uint8_t *slot)
{
    struct vt_channel *channel = task->channel;
    take_cold(task, slot);
    atomic_store(&channel->state, CHANNEL_QUIET);
}

static const struct iu_row {
    uint8_t opcode;
    bool counted;           /* costs a credit */
    void (*take)(struct vt_task *task, const uint8_t *slot);
} iu_rows[] = {
    { SRP_CMD, true, take_cmd },
    { SRP_TSK_MGMT, true, take_tsk_mgmt },
    { SRP_I_LOGOUT, false, take_logout },
};

VT_INLINE void take_iu(struct vt_task *task, const uint8_t *slot, const struct iu_row *row)
{
    const struct vt_channel *channel = task->channel;
    if (row->counted && channel->in_flight > channel->request_limit)
        drop(task, VT_ERROR_REQUEST_LIMIT);
    else
        row->take(task, slot);
}

static void srp_take(struct vt_task *task, const void *slot)
{
    struct vt_channel *channel = task->channel;
    vscsi_slot_read(task->iu.words, slot, HEAD);
    if (atomic_load_explicit(&channel->state, memory_order_relaxed) == CHANNEL_COLD) {
        take_cold(task, slot);
        return;
    }
    const uint8_t opcode = task->iu.cmd.opcode;
    /* Nearly all are of the first row, which the compiler then knows. */
    if (vt_usual(opcode == iu_rows[0].opcode)) {
        take_iu(task, slot, &iu_rows[0]);
        return;
    }
    for (size_t i = 1; i < sizeof iu_rows / sizeof *iu_rows; i++) {
        if (iu_rows[i].opcode == opcode) {
            take_iu(task, slot, &iu_rows[i]);
            return;
        }
    }
    drop(task, VT_ERROR_IU_TYPE);
}

static void srp_io_ended(struct vt_task *task)
{
    vt_media_ended_as(task, &vt_srp_ops);
}

const struct vt_protocol_ops vt_srp_ops = {
    .slot_nbytes = VSCSI_SRP_SLOT,
    .take = srp_take,
    .start = srp_start,
    .finish = vt_srp_finish,
    .abort_reply = vt_srp_abort_reply,
    .media_done = srp_media_done,
    .io_ended = srp_io_ended,
};
