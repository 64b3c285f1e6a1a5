/* SPDX-License-Identifier: BSD-2-Clause */
/* What stands inline of srp_buffer.c: a command with one direct descriptor. Knows the same things. */
#ifndef VSCSI_SRP_BUFFER_H
#define VSCSI_SRP_BUFFER_H

#include "path.h"

bool vt_srp_describe_indirect(struct vt_task *task, uint32_t direction, uint32_t count);

/* Bytes of a data buffer descriptor in the IU, by its format; -1: a format we do not know. */
static inline int vt_srp_descriptor_nbytes(uint32_t format, uint32_t count)
{
    const int each = sizeof(struct srp_direct_buf);
    if (format <= SRP_FMT_DIRECT)
        return format == SRP_FMT_DIRECT ? each : 0;
    return format == SRP_FMT_INDIRECT ? (int)sizeof(struct srp_indirect_buf) + (int)count * each : -1;
}

/* Takes the length that a descriptor claims. False: its counts do not agree. */
static inline bool vt_srp_describe(struct vt_task *task, uint32_t direction, uint32_t format, uint32_t count)
{
    if (format == SRP_FMT_NONE)
        return true;
    if (format != SRP_FMT_DIRECT)
        return vt_srp_describe_indirect(task, direction, count);
    const uint8_t *at = task->iu.bytes + task->desc_offset[direction];
    task->buf[direction].described = vscsi_get_be(at + offsetof(struct srp_direct_buf, len), 4);
    return true;
}

/* Maps the first `nbytes` of a direction's buffer: 0, -EAGAIN no scratch now, -EINVAL malformed, or a grant's error. */
int vt_srp_map(struct vt_task *task, uint32_t direction, uint64_t nbytes);

/* The data of a small command: one direct descriptor, within a page that was mapped before. False: see vt_srp_map. */
VT_INLINE bool vt_srp_map_small(struct vt_task *task, uint32_t direction)
{
    const uint8_t format = task->iu.cmd.buf_fmt >> (direction == BUF_OUT ? 4 : 0) & 0xf;
    const uint64_t described = task->buf[direction].described;
    if (!vt_usual(format == SRP_FMT_DIRECT))
        return false;
    struct srp_direct_buf d;
    memcpy(&d, task->iu.bytes + task->desc_offset[direction], sizeof d);
    const uint64_t nbytes = task->nbytes < described ? task->nbytes : described;
    if (!vt_usual(vt_buffer_add_pinned(task, direction, get_be32(d.key), get_be64(d.va), nbytes)))
        return false;
    if (direction == BUF_OUT)
        vt_tap_data_out(task);
    return true;
}

#endif
