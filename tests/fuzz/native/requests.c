/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The requests of the hostile initiators: well-formed ones from few bytes of the input, and any bytes. Knows the
 * formats of both protocols; knows nothing of what the target makes of them.
 */
#include "requests.h"

#include <string.h>

enum { NO_PUSH = 0x80, NO_KICK = 0x40, NO_RUN = 0x20 };

static void send(struct peer_channel *p, uint8_t how, const void *iu, size_t nbytes)
{
    /* A ring that is plainly full is not worth breaking by accident: OP_INDEX does that. */
    if (p->prod - p->channel->ring.rsp_published >= p->channel->ring.nr_ents)
        return;
    uint8_t *slot = world_slot(p, p->prod++);
    memset(slot, 0, p->slot_nbytes);
    memcpy(slot, iu, nbytes < p->slot_nbytes ? nbytes : p->slot_nbytes);
    if (how & NO_PUSH)
        return;
    world_push(p, !(how & NO_KICK));
    if (!(how & NO_RUN) && !in_hook)
        world_run(1);
}

void op_raw(struct fuzz_in *in)
{
    uint8_t how = in8(in);
    struct peer_channel *p = hostile(how);
    struct fuzz_in iu = in_part(in, in8(in));
    if (p)
        send(p, how, iu.at, iu.left);
}

size_t put_direct(uint8_t *at, struct fuzz_in *in)
{
    uint32_t gref = GREF + DATA_FRAME + in8(in) % (DATA_FRAMES + 4), offset = in16(in), nbytes = in16(in);
    struct srp_direct_buf d = { put_be64(offset & 0x1fff), put_be32(gref), put_be32(nbytes) };
    memcpy(at, &d, sizeof d);
    return sizeof d;
}

static size_t put_indirect(uint8_t *at, struct fuzz_in *in, uint8_t *inline_count)
{
    uint8_t shape = in8(in), count = shape & 7, kept = (shape >> 3 & 0xf) * 2;
    struct srp_indirect_buf head = { { put_be64(in8(in) * 16u), put_be32(GREF + DATA_FRAME + in8(in) % DATA_FRAMES),
                                       put_be32((shape & 0x80 ? kept : count + kept) * 16u) }, put_be32(in16(in)) };
    memcpy(at, &head, sizeof head);
    size_t nbytes = sizeof head;
    for (uint8_t i = 0; i < count; i++)
        nbytes += put_direct(at + nbytes, in);
    *inline_count = count;
    return nbytes;
}

void op_command(struct fuzz_in *in)
{
    static const uint8_t opcodes[] = { 0x28, 0x2a, 0x88, 0x8a, 0x35, 0x08, 0x0a, 0x00, 0x12, 0x41, 0x7f, 0x9e, 0x5e,
                                       0xff };
    static const uint8_t lba_at[] = { 5, 5, 9, 9, 5, 3, 3, 5, 5, 5, 19, 9, 5, 5 };
    static const uint8_t blocks_at[] = { 8, 8, 13, 13, 8, 4, 4, 4, 4, 8, 31, 13, 8, 8 };
    uint8_t iu[VSCSI_SRP_SLOT + 256] = { 0 };
    struct srp_cmd *cmd = (struct srp_cmd *)(void *)iu;
    uint8_t how = in8(in), which = in8(in), what = which % sizeof opcodes, attribute = in8(in), fmt = in8(in);
    cmd->opcode = SRP_CMD;
    cmd->tag = put_be64(in8(in) & 0x1f);
    cmd->sol_not = attribute >> 4;
    cmd->task_attr = attribute & 7;
    cmd->lun[1] = in8(in) % (LUNS + 1);
    cmd->cdb[0] = opcodes[what];
    cmd->cdb[1] = which & 0x80 ? 0x08 : 0;
    cmd->add_cdb_len = opcodes[what] == 0x7f ? 16 : 0;
    static const uint8_t control_at[] = { 5, 9, 9, 0, 15, 11 };     /* by the opcode's group */
    uint8_t control = opcodes[what] == 0x7f ? 1 : control_at[(opcodes[what] >> 5) % sizeof control_at];
    cmd->cdb[control] |= attribute >> 1 & 4;    /* NACA */
    if (opcodes[what] == 0x7f)
        memcpy(cmd->cdb + 7, "\x18\x00\x09", 3);
    iu[32 + lba_at[what]] = in8(in);
    iu[32 + blocks_at[what]] = in8(in);
    cmd->buf_fmt = (uint8_t)((fmt % 3) << 4 | (fmt >> 4) % 3);
    size_t at = sizeof *cmd + cmd->add_cdb_len;
    uint8_t *const counts[2] = { &cmd->data_out_desc_cnt, &cmd->data_in_desc_cnt };
    for (int i = 0; i < 2; i++) {
        uint8_t format = i == 0 ? cmd->buf_fmt >> 4 : cmd->buf_fmt & 0xf;
        if (format == SRP_FMT_DIRECT)
            at += put_direct(iu + at, in);
        else if (format == SRP_FMT_INDIRECT)
            at += put_indirect(iu + at, in, counts[i]);
    }
    struct peer_channel *p = hostile(how);
    if (p)
        send(p, how, iu, at);
}

void op_management(struct fuzz_in *in)
{
    static const uint8_t functions[] = { SRP_TMF_ABORT_TASK, SRP_TMF_ABORT_TASK_SET, SRP_TMF_CLEAR_TASK_SET,
                                         SRP_TMF_LUN_RESET, SRP_TMF_CLEAR_ACA, 0x99 };
    struct srp_tsk_mgmt iu = { .opcode = SRP_TSK_MGMT };
    uint8_t how = in8(in);
    iu.tsk_mgmt_func = functions[in8(in) % sizeof functions];
    iu.tag = put_be64(0x20 + (in8(in) & 0x1f));
    iu.lun[1] = in8(in) % (LUNS + 1);
    iu.task_tag = put_be64(in8(in) & 0x1f);
    struct peer_channel *p = hostile(how);
    if (p)
        send(p, how, &iu, sizeof iu);
}

void put_segment(struct blkif_segment *s, struct fuzz_in *in)
{
    uint8_t sectors = in8(in);
    *s = (struct blkif_segment){ GREF + DATA_FRAME + in8(in) % (DATA_FRAMES + 4), sectors & 0xf, sectors >> 4, 0 };
}

void op_blkif(struct fuzz_in *in)
{
    uint8_t how = (uint8_t)((in8(in) & ~3) | 1);
    struct blkif_request r = { .operation = in8(in) % 8 };
    union { struct blkif_request r; struct blkif_request_discard d; struct blkif_request_indirect i; } u = { r };
    uint8_t count = in8(in);
    u.r.id = in8(in);
    u.r.sector_number = in8(in);
    if (u.r.operation == BLKIF_OP_DISCARD) {
        u.d.flag = count & 1;
        u.d.nr_sectors = in8(in);
    } else if (u.r.operation == BLKIF_OP_INDIRECT) {
        u.i.indirect_op = count & 3;
        u.i.nr_segments = (uint16_t)(in8(in) * (count & 0x80 ? 64 : 1));
        for (int i = 0; i < 2; i++)
            u.i.indirect_grefs[i] = GREF + DATA_FRAME + in8(in) % DATA_FRAMES;
    } else {
        u.r.nr_segments = count % 13;
        for (uint32_t i = 0; i < u.r.nr_segments && i < BLKIF_MAX_SEGMENTS_PER_REQUEST; i++)
            put_segment(&u.r.seg[i], in);
    }
    struct peer_channel *p = hostile(how);
    if (p)
        send(p, how, &u, sizeof u);
}
