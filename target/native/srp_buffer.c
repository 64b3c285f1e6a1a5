/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SRP r16a memory descriptors: direct, and indirect with the list in the IU or in granted pages. A descriptor's handle
 * names the first of a run of consecutive grant references, its address is the byte offset in that run. Knows formats
 * and counts; knows nothing of the command whose buffer it is.
 */
#include <errno.h>

#include "srp_buffer.h"

enum { DESCRIPTOR = sizeof(struct srp_direct_buf) };

bool vt_srp_describe_indirect(struct vt_task *task, uint32_t direction, uint32_t count)
{
    const uint8_t *at = task->iu.bytes + task->desc_offset[direction];
    uint64_t table_nbytes = vscsi_get_be(at + offsetof(struct srp_direct_buf, len), 4);
    if (table_nbytes % DESCRIPTOR || table_nbytes / DESCRIPTOR < count)
        return false;
    task->buf[direction].described = vscsi_get_be(at + offsetof(struct srp_indirect_buf, len), 4);
    return true;
}

static int add_descriptor(struct vt_task *task, struct vt_buffer *b, const uint8_t *at, uint64_t *left)
{
    struct srp_direct_buf d;
    memcpy(&d, at, sizeof d);
    uint64_t va = get_be64(d.va);
    uint32_t nbytes = get_be32(d.len);
    if (va + nbytes < va)
        return -EINVAL;
    if (nbytes > *left)
        nbytes = (uint32_t)*left;
    *left -= nbytes;
    return vt_buffer_add(task, b, get_be32(d.key), va, nbytes);
}

static int map_indirect(struct vt_task *task, struct vt_buffer *b, const uint8_t *at, uint32_t inline_count,
                        uint64_t left)
{
    struct srp_indirect_buf head;
    memcpy(&head, at, sizeof head);
    uint32_t count = get_be32(head.table_desc.len) / DESCRIPTOR;
    const uint8_t *list = at + sizeof head;
    int rc = 0;
    for (uint32_t i = 0; i < inline_count && left && rc == 0; i++)
        rc = add_descriptor(task, b, list + i * DESCRIPTOR, &left);
    if (left == 0 || rc < 0)
        return rc;
    if (count == inline_count || count > VT_MAX_DESCRIPTORS)
        return -EINVAL;
    /* The rest of the list stands in granted pages: copied once, like everything that is looked at. */
    uint8_t *table = task->channel->loop->table;
    uint64_t va = get_be64(head.table_desc.va), skip = (uint64_t)inline_count * DESCRIPTOR;
    if (va + skip < va)
        return -EINVAL;
    rc = vt_copy_granted(task->channel, get_be32(head.table_desc.key), va + skip, table,
                         (uint64_t)(count - inline_count) * DESCRIPTOR);
    for (uint32_t i = 0; i < count - inline_count && left && rc == 0; i++)
        rc = add_descriptor(task, b, table + i * DESCRIPTOR, &left);
    return rc == 0 && left ? -EINVAL : rc;
}

int vt_srp_map(struct vt_task *task, uint32_t direction, uint64_t nbytes)
{
    const struct srp_cmd *cmd = &task->iu.cmd;
    struct vt_buffer *b = &task->buf[direction];
    const uint8_t *at = task->iu.bytes + task->desc_offset[direction];
    uint32_t format = direction == BUF_OUT ? cmd->buf_fmt >> 4 : cmd->buf_fmt & 0xf;
    if (nbytes > b->described)
        nbytes = b->described;
    if (nbytes == 0)
        return 0;
    if (nbytes > VSCSI_MAX_TRANSFER)
        return -EINVAL;
    int rc;
    if (format == SRP_FMT_DIRECT)
        rc = add_descriptor(task, b, at, &nbytes);
    else
        rc = map_indirect(task, b, at, direction == BUF_OUT ? cmd->data_out_desc_cnt : cmd->data_in_desc_cnt, nbytes);
    if (rc < 0)
        vt_buffer_unmap(task, b);
    else if (direction == BUF_OUT)
        vt_tap_data_out(task);
    return rc;
}
