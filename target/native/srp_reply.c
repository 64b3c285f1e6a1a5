/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SRP_RSP: sense, residuals, response codes. Built whole in private memory, at its exact length. Knows a command's
 * result; knows nothing of how it came about.
 */
#include "srp_reply.h"

void vt_srp_write_code(struct vt_task *task, uint8_t code)
{
    union vt_iu r;
    const uint32_t nbytes = sizeof(struct srp_rsp) + 4;
    uint8_t *data = vt_srp_begin_response(&r, task, nbytes, SRP_RSP_RSPVALID);
    r.rsp.resp_data_len = put_be32(4);
    data[3] = code;
    vt_srp_notify(&r, task, code == SRP_RESP_COMPLETE);
    vt_channel_write(task->channel, r.words, nbytes);
}

void vt_srp_respond_code(struct vt_task *task, uint8_t code)
{
    vt_srp_write_code(task, code);
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

void vt_srp_finish_oddly(struct vt_task *task)
{
    const struct vt_result *result = &task->result;
    uint32_t sense_nbytes = result->sense_nbytes;
    uint32_t nbytes = sizeof(struct srp_rsp) + sense_nbytes;
    union vt_iu r;
    uint8_t *data = vt_srp_begin_response(&r, task, nbytes, sense_nbytes ? SRP_RSP_SNSVALID : 0);
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
    vt_srp_notify(&r, task, result->status == VT_GOOD);
    vt_channel_write(task->channel, r.words, nbytes);
}

/* Ended by another nexus and TAS, or by a task management function: no status, response code 0. */
void vt_srp_abort_reply(struct vt_task *task)
{
    if (!task->tell_aborted) {
        vt_srp_write_code(task, SRP_RESP_COMPLETE);
        return;
    }
    union vt_iu r;
    vt_srp_begin_response(&r, task, sizeof r.rsp, 0);
    r.rsp.status = VT_TASK_ABORTED;
    vt_srp_notify(&r, task, false);
    vt_channel_write(task->channel, r.words, sizeof r.rsp);
}
