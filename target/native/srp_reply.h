/* SPDX-License-Identifier: BSD-2-Clause */
/* What stands inline of srp_reply.c: the SRP_RSP of a command that ended well. Knows the same things. */
#ifndef VSCSI_SRP_REPLY_H
#define VSCSI_SRP_REPLY_H

#include "path.h"

/* Of a command that has sense, or has moved other than what its buffers hold. */
void vt_srp_finish_oddly(struct vt_task *task);
void vt_srp_write_code(struct vt_task *task, uint8_t code);
void vt_srp_abort_reply(struct vt_task *task);

VT_INLINE uint8_t *vt_srp_begin_response(union vt_iu *r, const struct vt_task *task, uint32_t nbytes, uint8_t flags)
{
    _Static_assert(sizeof(struct srp_rsp) > 32 && sizeof(struct srp_rsp) <= 40, "five words");
    /* One by one: what the compiler makes of memset here takes longer than all the rest. */
    r->words[0] = r->words[1] = r->words[2] = r->words[3] = r->words[4] = 0;
    r->words[(nbytes - 1) / 8] = 0;
    r->rsp.opcode = SRP_RSP;
    r->rsp.req_lim_delta = put_be32(1);
    r->rsp.tag = task->iu.cmd.tag;
    r->rsp.flags = flags;
    return r->bytes + sizeof r->rsp;
}

/* SOLNT, if the initiator asked to be told of this outcome. */
VT_INLINE void vt_srp_notify(union vt_iu *r, const struct vt_task *task, bool success)
{
    if (task->iu.cmd.sol_not & (success ? SRP_SCSOLNT : SRP_UCSOLNT))
        r->rsp.sol_not = SRP_SOLNT;
}

VT_INLINE void vt_srp_finish(struct vt_task *task)
{
    const struct vt_result *result = &task->result;
    if (!vt_usual(task->response_code < 0)) {
        vt_srp_write_code(task, (uint8_t)task->response_code);
        return;
    }
    if (!vt_usual(result->status == VT_GOOD))
        vt_aca_ended(task);
    const uint64_t left = (task->buf[BUF_OUT].described ^ result->data_out_nbytes) |
                          (task->buf[BUF_IN].described ^ result->data_in_nbytes);
    if (!vt_usual(!(left | result->status | result->sense_nbytes))) {
        vt_srp_finish_oddly(task);
        return;
    }
    union vt_iu r;
    vt_srp_begin_response(&r, task, sizeof r.rsp, 0);
    vt_srp_notify(&r, task, true);
    vt_channel_put(task->channel, r.words, sizeof r.rsp);
}

#endif
