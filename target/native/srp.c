/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SRP r16a on the ring: takes SRP_CMD and SRP_TSK_MGMT, writes SRP_RSP; every other IU is
 * Python's. A slot is copied once and only the copy is looked at. Knows IUs; knows no image and no order of commands.
 */
#include <errno.h>

#include "core.h"
#include "tap.h"

/* HEAD: what is copied of every IU at once; a command with one direct descriptor ends there. */
enum { SLOT = VSCSI_SRP_SLOT, HEAD = sizeof(struct srp_cmd) + sizeof(struct srp_direct_buf) };
enum { GOOD = 0x00, CHECK_CONDITION = 0x02 };

/* ---- responses ---- */

static uint8_t *begin_response(union vt_iu *r, const struct vt_task *task, uint32_t nbytes, uint8_t flags)
{
    memset(r->words, 0, (nbytes + 7) & ~7u);
    struct srp_rsp *rsp = &r->rsp;
    rsp->opcode = SRP_RSP;
    rsp->req_lim_delta = put_be32(1);
    memcpy(&rsp->tag, &task->iu.cmd.tag, sizeof rsp->tag);
    rsp->flags = flags;
    return r->bytes + sizeof *rsp;
}

/* SOLNT, if the initiator asked to be told of this outcome. */
static void notify(union vt_iu *r, const struct vt_task *task, bool success)
{
    uint8_t asked = task->iu.cmd.sol_not;
    r->rsp.sol_not = asked & (success ? SRP_SCSOLNT : SRP_UCSOLNT) ? SRP_SOLNT : 0;
}

static void write_code(struct vt_task *task, uint8_t code)
{
    union vt_iu r;
    const uint32_t nbytes = sizeof(struct srp_rsp) + 4;
    uint8_t *data = begin_response(&r, task, nbytes, SRP_RSP_RSPVALID);
    r.rsp.resp_data_len = put_be32(4);
    data[3] = code;
    notify(&r, task, code == SRP_RESP_COMPLETE);
    vt_channel_write(task->channel, r.words, nbytes);
}

void vt_srp_respond_code(struct vt_task *task, uint8_t code)
{
    write_code(task, code);
    vt_task_release(task);
}

/* Bytes of the buffer left over (UNDER), or bytes that did not fit (OVER). */
static uint8_t residual(be32_t *field, uint64_t described, uint64_t wanted, uint8_t over, uint8_t under)
{
    if (described == wanted)
        return 0;
    uint64_t count = described > wanted ? described - wanted : wanted - described;
    *field = put_be32(count > UINT32_MAX ? UINT32_MAX : (uint32_t)count);
    return described > wanted ? under : over;
}

static void srp_finish(struct vt_task *task)
{
    if (task->response_code >= 0) {
        write_code(task, (uint8_t)task->response_code);
        return;
    }
    const struct vt_result *result = &task->result;
    if (__builtin_expect(result->status != GOOD, 0))
        vt_aca_ended(task);
    uint32_t sense_nbytes = result->sense_nbytes;
    uint32_t nbytes = sizeof(struct srp_rsp) + sense_nbytes;
    union vt_iu r;
    uint8_t *data = begin_response(&r, task, nbytes, sense_nbytes ? SRP_RSP_SNSVALID : 0);
    struct srp_rsp *rsp = &r.rsp;
    rsp->status = result->status;
    rsp->flags |= residual(&rsp->data_out_res_cnt, task->buf[BUF_OUT].described, result->data_out_nbytes,
                           SRP_RSP_DOOVER, SRP_RSP_DOUNDER);
    rsp->flags |= residual(&rsp->data_in_res_cnt, task->buf[BUF_IN].described, result->data_in_nbytes,
                           SRP_RSP_DIOVER, SRP_RSP_DIUNDER);
    if (sense_nbytes) {
        rsp->sense_data_len = put_be32(sense_nbytes);
        memcpy(data, result->sense, sense_nbytes);
    }
    notify(&r, task, result->status == GOOD);
    vt_channel_write(task->channel, r.words, nbytes);
}

/* Ended by another nexus and TAS, or by a task management function: no status, response code 0. */
static void srp_abort_reply(struct vt_task *task)
{
    if (!task->tell_aborted) {
        write_code(task, SRP_RESP_COMPLETE);
        return;
    }
    union vt_iu r;
    begin_response(&r, task, sizeof r.rsp, 0);
    r.rsp.status = VT_TASK_ABORTED;
    notify(&r, task, false);
    vt_channel_write(task->channel, r.words, sizeof r.rsp);
}

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

static void start_transfer(struct vt_task *task)
{
    if (!vt_sched_pass(task))
        return;
    bool read = task->op == VT_OP_READ;
    int rc = vt_srp_map(task, read ? BUF_IN : BUF_OUT, task->nbytes);
    if (rc < 0) {
        map_failed(task, rc);
        return;
    }
    /* A FUA read is synced afterwards: what it returned is then on the medium, a racing write included. */
    task->steps = STEP_IO | (read && task->fua ? STEP_SYNC_AFTER : 0);
    vt_media_start(task);
}

static void srp_start(struct vt_task *task)
{
    struct vt_cause cause;
    uint8_t status;
    if (!vt_checks(task, &cause, &status)) {
        task->result.status = status;
        if (status == CHECK_CONDITION)
            vt_result_sense(task, &cause);
        vt_task_end(task);
        return;
    }
    if (task->op == VT_OP_WRITE && task->buf[BUF_OUT].described < task->nbytes) {
        /* Nothing is written of a command whose data did not come whole. */
        task->result.data_out_nbytes = task->nbytes;
        vt_result_code(task, VT_SENSE_INVALID_FIELD_IN_COMMAND_IU);
        vt_task_end(task);
        return;
    }
    if (task->op == VT_OP_SLOW || vscsi_load_relaxed(&task->lu->flags) & VT_LU_SLOW_STORE) {
        uint32_t cached = task->lu ? vscsi_load_relaxed(&task->lu->flags) & VT_LU_WRITE_CACHE : 0;
        task->fua |= task->op == VT_OP_WRITE && !cached;
        start_slow(task);
    } else if (task->op == VT_OP_SYNC) {
        start_sync(task);
    } else {
        start_transfer(task);
    }
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

static void srp_media_done(struct vt_task *task, int error, uint8_t step)
{
    struct vt_result *result = &task->result;
    uint64_t *moved = task->op == VT_OP_READ ? &result->data_in_nbytes : &result->data_out_nbytes;
    *moved = task->nbytes;
    if (error == 0)
        return;
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

/* ---- requests ---- */

static void end_early(struct vt_task *task, uint32_t code)
{
    vt_result_code(task, code);
    vt_task_end(task);
}

static void enter(struct vt_task *task)
{
    switch (vt_set_enter(task)) {
    case ENTER_ENABLED:
        vt_task_start(task);
        break;
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

static void drop(struct vt_task *task, enum vt_error error)
{
    vt_channel_error(task->channel, error);
    vt_task_release(task);
}

static void take_cmd(struct vt_task *task, const uint8_t *slot)
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
    if (nbytes > HEAD)
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
    task->lu = vt_lun_find(t, task->nexus, cmd->lun);
    task->row = vt_row_find(t, cmd->cdb, &opcode_known);
    if (!task->lu) {
        if (task->row && task->row->facts.flags & VT_CMD_ANY_LUN)
            vt_task_start(task);
        else
            end_early(task, VT_SENSE_LOGICAL_UNIT_NOT_SUPPORTED);
    } else if (!task->row && (task->result.status = vt_aca_refuses_early(task))) {
        vt_task_end(task);
    } else if (!opcode_known) {
        end_early(task, VT_SENSE_INVALID_COMMAND_OPERATION_CODE);
    } else if (!task->row) {
        bool variable = cmd->cdb[0] == 0x7f;
        struct vt_cause cause = { .code = VT_SENSE_INVALID_FIELD_IN_CDB, .has_field = true,
                                  .byte = variable ? 8 : 1, .bit = variable ? 7 : 4 };
        vt_result_sense(task, &cause);
        vt_task_end(task);
    } else {
        enter(task);
    }
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

static void srp_take(struct vt_task *task, const void *slot)
{
    struct vt_channel *channel = task->channel;
    vscsi_slot_read(task->iu.words, slot, HEAD);
    if (atomic_load_explicit(&channel->state, memory_order_relaxed) == CHANNEL_COLD) {
        take_cold(task, slot);
        return;
    }
    uint8_t opcode = task->iu.cmd.opcode;
    for (size_t i = 0; i < sizeof iu_rows / sizeof *iu_rows; i++) {
        if (iu_rows[i].opcode != opcode)
            continue;
        if (iu_rows[i].counted && channel->in_flight > channel->request_limit)
            drop(task, VT_ERROR_REQUEST_LIMIT);
        else
            iu_rows[i].take(task, slot);
        return;
    }
    drop(task, VT_ERROR_IU_TYPE);
}

const struct vt_protocol_ops vt_srp_ops = {
    .slot_nbytes = VSCSI_SRP_SLOT,
    .take = srp_take,
    .start = srp_start,
    .finish = srp_finish,
    .abort_reply = srp_abort_reply,
    .media_done = srp_media_done,
};
