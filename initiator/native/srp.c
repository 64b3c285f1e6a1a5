/* SPDX-License-Identifier: BSD-2-Clause */
/* SRP_CMD and SRP_TSK_MGMT to the ring, SRP_RSP from it (SRP r16a); knows nothing of waiting. */
#include "be.h"
#include "channel.h"

enum { CDB_FIXED = 16, RSP_HEAD = 40 /* SRP_RSP's fixed part, in whole words */, LIMIT_MAX = 1 << 24 };

/* ---- building ---- */

struct list {
    const struct vi_segment *segments;
    uint32_t count;
    uint32_t nbytes;
};

static void put_desc(const struct vi_channel *c, uint8_t *p, uint64_t offset, uint64_t nbytes)
{
    struct srp_direct_buf d = { put_be64(offset % VSCSI_PAGE_SIZE), put_be32(vi_gref(c, offset)),
                                put_be32((uint32_t)nbytes) };
    memcpy(p, &d, sizeof d);
}

static uint32_t format_of(const struct list *l)
{
    return l->count == 0 ? SRP_FMT_NONE : l->count == 1 ? SRP_FMT_DIRECT : SRP_FMT_INDIRECT;
}

/* What the list takes in the IU with all its descriptors inline, or with none of a longer list's. */
static uint32_t descriptor_nbytes(const struct list *l, bool inline_all)
{
    if (l->count < 2)
        return l->count * (uint32_t)sizeof(struct srp_direct_buf);
    return (uint32_t)sizeof(struct srp_indirect_buf) +
           (inline_all ? l->count * (uint32_t)sizeof(struct srp_direct_buf) : 0);
}

static void put_list(const struct vi_channel *c, uint8_t *p, const struct list *l)
{
    for (uint32_t i = 0; i < l->count; i++)
        put_desc(c, p + i * sizeof(struct srp_direct_buf), l->segments[i].offset, l->segments[i].nbytes);
}

/* Writes one direction's descriptor; with a table, at *table, all the list's descriptors go there. */
static uint8_t *put_direction(const struct vi_channel *c, uint8_t *p, const struct list *l, uint8_t *inline_count,
                              uint64_t *table)
{
    const uint32_t each = sizeof(struct srp_direct_buf);
    *inline_count = 0;
    if (l->count < 2) {
        put_list(c, p, l);
        return p + l->count * each;
    }
    struct srp_indirect_buf head = { { put_be64(0), put_be32(0), put_be32(l->count * each) },
                                     put_be32(l->nbytes) };
    memcpy(p, &head, sizeof head);
    if (table) {
        put_desc(c, p, *table, (uint64_t)l->count * each);
        put_list(c, c->config.memory + *table, l);
        *table += (uint64_t)l->count * each;
        return p + sizeof head;
    }
    *inline_count = (uint8_t)l->count;
    put_list(c, p + sizeof head, l);
    return p + sizeof head + (size_t)l->count * each;
}

/* Where the external table goes: the caller's memory, else the slot's own. */
static int find_table(struct vi_channel *c, struct vi_slot *slot, const struct vi_request *q, uint64_t nbytes,
                      uint64_t *table)
{
    uint32_t ignored;
    *table = q->table_offset;
    if (q->table_nbytes == 0) {
        int rc = vi_slot_table(c, slot, nbytes, table);
        if (rc)
            return rc;
    } else if (q->table_nbytes < nbytes) {
        return -EMSGSIZE;
    }
    struct vi_segment s = { *table, nbytes };
    int rc = vi_check_segments(c, &s, 1, &ignored);
    return rc ? rc : vi_grant_run(c, slot, *table, nbytes, true);
}

static int build(struct vi_channel *c, struct vi_slot *slot, const struct vi_request *q, void *iu, uint32_t *nbytes)
{
    if (q->cdb_nbytes == 0 || q->cdb_nbytes > VSCSI_CDB_MAX || q->attribute > SRP_TSK_ACA)
        return -EINVAL;
    struct list out = { q->out, q->out_count, 0 }, in = { q->in, q->in_count, 0 };
    int rc = vi_check_segments(c, out.segments, out.count, &out.nbytes);
    if (rc == 0)
        rc = vi_check_segments(c, in.segments, in.count, &in.nbytes);
    if (rc)
        return rc;
    uint32_t more = q->cdb_nbytes > CDB_FIXED ? (q->cdb_nbytes - CDB_FIXED + 3u) & ~3u : 0;
    uint32_t room = c->max_iu_nbytes - (uint32_t)sizeof(struct srp_cmd);
    if (more > room)
        return -EMSGSIZE;
    room -= more;
    /* The partial lists are counted in one byte, and all fits the slot long before that. */
    bool all = out.count <= room / 16 && in.count <= room / 16 &&
               descriptor_nbytes(&out, true) + descriptor_nbytes(&in, true) <= room;
    if (!all && descriptor_nbytes(&out, false) + descriptor_nbytes(&in, false) > room)
        return -EMSGSIZE;

    uint64_t table = 0;
    if (!all) {
        uint64_t entries = (out.count > 1 ? out.count : 0) + (uint64_t)(in.count > 1 ? in.count : 0);
        rc = find_table(c, slot, q, entries * sizeof(struct srp_direct_buf), &table);
    }
    if (rc == 0)
        rc = vi_grant_segments(c, slot, out.segments, out.count, true);
    if (rc == 0)
        rc = vi_grant_segments(c, slot, in.segments, in.count, false);
    if (rc)
        return rc;

    struct srp_cmd *cmd = iu;
    cmd->opcode = SRP_CMD;
    cmd->buf_fmt = (uint8_t)(format_of(&out) << 4 | format_of(&in));
    cmd->tag = put_be64(slot->completion.tag);
    memcpy(cmd->lun, q->lun, sizeof cmd->lun);
    cmd->task_attr = q->attribute;
    cmd->add_cdb_len = (uint8_t)more; /* a count of words in bits 7-2: the number of bytes as it stands */
    memcpy(cmd->cdb, q->cdb, q->cdb_nbytes);
    uint8_t *p = (uint8_t *)iu + sizeof *cmd + more;
    p = put_direction(c, p, &out, &cmd->data_out_desc_cnt, all ? NULL : &table);
    p = put_direction(c, p, &in, &cmd->data_in_desc_cnt, all ? NULL : &table);
    *nbytes = (uint32_t)(p - (uint8_t *)iu);
    slot->out_nbytes = out.nbytes;
    slot->in_nbytes = in.nbytes;
    return 0;
}

void vi_build_management(struct vi_slot *slot, uint8_t function, const uint8_t lun[8], uint64_t task_tag,
                         struct srp_tsk_mgmt *iu)
{
    iu->opcode = SRP_TSK_MGMT;
    iu->tag = put_be64(slot->completion.tag);
    memcpy(iu->lun, lun, sizeof iu->lun);
    iu->tsk_mgmt_func = function;
    iu->task_tag = put_be64(task_tag);
    slot->management = true;
}

/* ---- decoding ---- */

/* One direction's residual: > 0 UNDER, < 0 OVER. A count without its flag is nothing; both flags at once are a lie. */
static int residual(uint8_t flags, uint8_t over, uint8_t under, be32_t count, uint64_t nbytes, int64_t *value)
{
    uint32_t n = get_be32(count);
    *value = 0;
    if (flags & over && flags & under)
        return -EPROTO;
    if (flags & under) {
        if (n > nbytes)
            return -EPROTO;
        *value = n;
    } else if (flags & over) {
        *value = -(int64_t)n;
    }
    return 0;
}

static int add_credit(struct vi_channel *c, be32_t delta)
{
    int64_t limit = (int64_t)c->request_limit + (int32_t)get_be32(delta);
    if (limit > LIMIT_MAX || limit < -LIMIT_MAX)
        return -EPROTO;
    c->request_limit = (int32_t)limit;
    return 0;
}

static int take(struct vi_channel *c, const void *shared, struct vi_slot **found)
{
    vscsi_word words[VSCSI_SRP_SLOT / 8];
    vscsi_slot_read(words, shared, RSP_HEAD);
    const struct srp_rsp *rsp = (const void *)words;
    if (rsp->opcode != SRP_RSP)
        return -EPROTO;
    struct vi_slot *slot = vi_slot_of_tag(c, get_be64(rsp->tag));
    if (!slot)
        return -EPROTO;
    bool responded = rsp->flags & SRP_RSP_RSPVALID, sensed = rsp->flags & SRP_RSP_SNSVALID;
    uint32_t response_nbytes = responded ? get_be32(rsp->resp_data_len) : 0;
    uint32_t sense_nbytes = sensed ? get_be32(rsp->sense_data_len) : 0;
    const uint32_t room = VSCSI_SRP_SLOT - (uint32_t)sizeof *rsp;
    if (response_nbytes > room || sense_nbytes > room - response_nbytes || (responded && response_nbytes < 4))
        return -EPROTO;
    if (slot->management && !responded)
        return -EPROTO;
    uint32_t used = (uint32_t)sizeof *rsp + response_nbytes + sense_nbytes;
    if (used > RSP_HEAD)
        vscsi_slot_read(words + RSP_HEAD / 8, (const uint8_t *)shared + RSP_HEAD, used - RSP_HEAD);

    struct vi_completion *done = &slot->completion;
    int rc = residual(rsp->flags, SRP_RSP_DOOVER, SRP_RSP_DOUNDER, rsp->data_out_res_cnt, slot->out_nbytes,
                      &done->out_residual);
    if (rc == 0)
        rc = residual(rsp->flags, SRP_RSP_DIOVER, SRP_RSP_DIUNDER, rsp->data_in_res_cnt, slot->in_nbytes,
                      &done->in_residual);
    if (rc == 0)
        rc = add_credit(c, rsp->req_lim_delta);
    if (rc)
        return rc;
    const uint8_t *tail = (const uint8_t *)words + sizeof *rsp;
    if (responded) {
        done->responded = 1;
        done->response_code = tail[3];
        /* A command without a status: ended by a task management function, or refused as malformed. */
        if (!slot->management)
            done->error = done->response_code == SRP_RESP_COMPLETE ? -ECANCELED : -EIO;
    } else {
        done->status = rsp->status;
    }
    done->sense_nbytes = (uint8_t)sense_nbytes;
    memcpy(done->sense, tail + response_nbytes, sense_nbytes);
    *found = slot;
    return 0;
}

const struct vi_codec vi_codec_srp = { VSCSI_SRP_SLOT, true, build, take };
