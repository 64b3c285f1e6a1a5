/* SPDX-License-Identifier: BSD-2-Clause */
/* SRP_CMD and SRP_TSK_MGMT to the ring, SRP_RSP from it (SRP r16a); knows nothing of waiting. */
#include "be.h"
#include "channel.h"
#include "segments.h"

enum { CDB_FIXED = 16, HEAD_WORDS = sizeof(struct srp_cmd) / 8, LIMIT_MAX = 1 << 24 };
/* SRP_RSP up to its status and its flags, and all its fixed part, in whole words. */
enum { RSP_HEAD = 24, RSP_WHOLE = 40 };

/* ---- building ---- */

/* A field's value where it stands in its word of the IU. */
#define FIELD(name, value) ((uint64_t)(value) << offsetof(struct srp_cmd, name) % 8 * 8)

_Static_assert(offsetof(struct srp_cmd, lun) == 20 && offsetof(struct srp_cmd, cdb) == 32, "what put_head writes");

struct list {
    const struct vi_segment *segments;
    uint32_t count;
    uint32_t nbytes;
};

/* A memory descriptor (struct srp_direct_buf) as the two words it is in memory. */
struct desc {
    uint64_t words[2];
};

_Static_assert(sizeof(struct desc) == sizeof(struct srp_direct_buf), "what describe makes");

static inline struct desc describe(const struct vi_channel *c, uint64_t offset, uint64_t nbytes)
{
    const uint32_t key = __builtin_bswap32(vi_gref(c, offset)), length = __builtin_bswap32((uint32_t)nbytes);
    return (struct desc){ { __builtin_bswap64(offset % VSCSI_PAGE_SIZE), (uint64_t)length << 32 | key } };
}

static inline uint32_t format_of(uint32_t count)
{
    return count == 0 ? SRP_FMT_NONE : count == 1 ? SRP_FMT_DIRECT : SRP_FMT_INDIRECT;
}

/* Additional CDB bytes, a multiple of 4. */
static inline uint32_t more_cdb(const struct vi_request *q)
{
    return q->cdb_nbytes > CDB_FIXED ? (q->cdb_nbytes - CDB_FIXED + 3u) & ~3u : 0;
}

/* SRP_CMD's fixed part goes to the ring as it is made: every word is stored once, and zero where the CDB ends. */
static inline void put_head(uint64_t *to, const struct vi_slot *slot, const struct vi_request *q, uint32_t out_inline,
                            uint32_t in_inline)
{
    uint64_t lun, cdb[2];
    memcpy(&lun, q->lun, sizeof lun);
    memcpy(cdb, q->cdb, sizeof cdb);
    if (q->cdb_nbytes <= 8) {
        cdb[0] &= UINT64_MAX >> (64 - 8 * q->cdb_nbytes);
        cdb[1] = 0;
    } else if (q->cdb_nbytes < CDB_FIXED) {
        cdb[1] &= UINT64_MAX >> (128 - 8 * q->cdb_nbytes);
    }
    const uint32_t format = format_of(q->out_count) << 4 | format_of(q->in_count);
    vscsi_store64_relaxed(&to[0], FIELD(opcode, SRP_CMD) | FIELD(buf_fmt, format) |
                                      FIELD(data_out_desc_cnt, out_inline) | FIELD(data_in_desc_cnt, in_inline));
    vscsi_store64_relaxed(&to[1], __builtin_bswap64(slot->completion.tag));
    vscsi_store64_relaxed(&to[2], FIELD(lun, lun));
    /* The additional length is a count of words in bits 7-2: the number of bytes as it stands. */
    vscsi_store64_relaxed(&to[3], lun >> 32 | FIELD(task_attr, q->attribute) | FIELD(add_cdb_len, more_cdb(q)));
    vscsi_store64_relaxed(&to[4], cdb[0]);
    vscsi_store64_relaxed(&to[5], cdb[1]);
}

/* What the list takes in the IU with all its descriptors inline, or with none of a longer list's. */
static uint32_t descriptor_nbytes(const struct list *l, bool inline_all)
{
    if (l->count < 2)
        return l->count * (uint32_t)sizeof(struct desc);
    return (uint32_t)sizeof(struct srp_indirect_buf) + (inline_all ? l->count * (uint32_t)sizeof(struct desc) : 0);
}

static void put_list(const struct vi_channel *c, uint8_t *p, const struct list *l)
{
    for (uint32_t i = 0; i < l->count; i++) {
        struct desc d = describe(c, l->segments[i].offset, l->segments[i].nbytes);
        memcpy(p + i * sizeof d, &d, sizeof d);
    }
}

/* Writes one direction's descriptor; with a table, at *table, all the list's descriptors go there. */
static uint8_t *put_direction(const struct vi_channel *c, uint8_t *p, const struct list *l, uint32_t *inline_count,
                              uint64_t *table)
{
    const uint32_t nbytes = l->count * (uint32_t)sizeof(struct desc);
    *inline_count = 0;
    if (l->count < 2) {
        put_list(c, p, l);
        return p + nbytes;
    }
    struct srp_indirect_buf head = { { put_be64(0), put_be32(0), put_be32(nbytes) }, put_be32(l->nbytes) };
    memcpy(p, &head, sizeof head);
    if (table) {
        struct desc d = describe(c, *table, nbytes);
        memcpy(p, &d, sizeof d);
        put_list(c, c->config.memory + *table, l);
        *table += nbytes;
        return p + sizeof head;
    }
    *inline_count = l->count;
    put_list(c, p + sizeof head, l);
    return p + sizeof head + nbytes;
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

/* With additional CDB bytes or several descriptors. */
__attribute__((noinline)) static int build_long(struct vi_channel *c, struct vi_slot *slot, const struct vi_request *q,
                                                uint64_t *to)
{
    const struct list out = { q->out, q->out_count, slot->out_nbytes }, in = { q->in, q->in_count, slot->in_nbytes };
    const uint32_t more = more_cdb(q);
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
    int rc = 0;
    if (!all) {
        uint64_t entries = (out.count > 1 ? out.count : 0) + (uint64_t)(in.count > 1 ? in.count : 0);
        rc = find_table(c, slot, q, entries * sizeof(struct desc), &table);
    }
    if (rc == 0)
        rc = vi_grant_request(c, slot, q);
    if (rc)
        return rc;

    uint8_t tail[VSCSI_SRP_SLOT - sizeof(struct srp_cmd)] = { 0 };
    uint32_t out_inline, in_inline;
    if (more)
        memcpy(tail, q->cdb + CDB_FIXED, q->cdb_nbytes - CDB_FIXED);
    uint8_t *p = tail + more;
    p = put_direction(c, p, &out, &out_inline, all ? NULL : &table);
    p = put_direction(c, p, &in, &in_inline, all ? NULL : &table);
    put_head(to, slot, q, out_inline, in_inline);
    vscsi_slot_write(to + HEAD_WORDS, tail, (size_t)(p - tail));
    return 0;
}

static int build(struct vi_channel *c, struct vi_slot *slot, const struct vi_request *q, uint64_t *to)
{
    if (q->cdb_nbytes == 0 || q->cdb_nbytes > VSCSI_CDB_MAX || q->attribute > SRP_TSK_ACA)
        return -EINVAL;
    int rc = vi_check_segments(c, q->out, q->out_count, &slot->out_nbytes);
    if (rc == 0)
        rc = vi_check_segments(c, q->in, q->in_count, &slot->in_nbytes);
    if (rc)
        return rc;
    const uint64_t count = (uint64_t)q->out_count + q->in_count;
    if (q->cdb_nbytes > CDB_FIXED || count > 1)
        return build_long(c, slot, q, to);
    /* Nearly every command. Its IU has 64 bytes at most, and no target may ask for less. */
    rc = vi_grant_request(c, slot, q);
    if (rc)
        return rc;
    put_head(to, slot, q, 0, 0);
    if (count) {
        const struct vi_segment *s = q->in_count ? q->in : q->out;
        struct desc d = describe(c, s->offset, s->nbytes);
        vscsi_store64_relaxed(&to[HEAD_WORDS], d.words[0]);
        vscsi_store64_relaxed(&to[HEAD_WORDS + 1], d.words[1]);
    }
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
    slot->out_nbytes = slot->in_nbytes = 0;
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

static inline int add_credit(struct vi_channel *c, uint32_t delta)
{
    const int64_t limit = (int64_t)c->request_limit + (int32_t)delta;
    if (limit > LIMIT_MAX || limit < -LIMIT_MAX)
        return -EPROTO;
    c->request_limit = (int32_t)limit;
    return 0;
}

/* A response with residuals, response data or sense data. `words` holds the first three; the others are yet to be read. */
__attribute__((noinline)) static int take_flagged(struct vi_slot *slot, const void *shared, vscsi_word *words)
{
    const struct srp_rsp *rsp = (const void *)words;
    const uint8_t *more = (const uint8_t *)shared + RSP_HEAD;
    vscsi_slot_read(words + RSP_HEAD / 8, more, RSP_WHOLE - RSP_HEAD);
    bool responded = rsp->flags & SRP_RSP_RSPVALID, sensed = rsp->flags & SRP_RSP_SNSVALID;
    uint32_t response_nbytes = responded ? get_be32(rsp->resp_data_len) : 0;
    uint32_t sense_nbytes = sensed ? get_be32(rsp->sense_data_len) : 0;
    const uint32_t room = VSCSI_SRP_SLOT - (uint32_t)sizeof *rsp;
    if (response_nbytes > room || sense_nbytes > room - response_nbytes || (responded && response_nbytes < 4))
        return -EPROTO;
    if (slot->management && !responded)
        return -EPROTO;
    uint32_t used = (uint32_t)sizeof *rsp + response_nbytes + sense_nbytes;
    if (used > RSP_WHOLE)
        vscsi_slot_read(words + RSP_WHOLE / 8, more + RSP_WHOLE - RSP_HEAD, used - RSP_WHOLE);

    struct vi_completion *done = &slot->completion;
    int rc = residual(rsp->flags, SRP_RSP_DOOVER, SRP_RSP_DOUNDER, rsp->data_out_res_cnt, slot->out_nbytes,
                      &done->out_residual);
    if (rc == 0)
        rc = residual(rsp->flags, SRP_RSP_DIOVER, SRP_RSP_DIUNDER, rsp->data_in_res_cnt, slot->in_nbytes,
                      &done->in_residual);
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
    return 0;
}

/* Where no flag is set there is nothing beyond the first three words, whatever stands there. */
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
    int rc = add_credit(c, get_be32(rsp->req_lim_delta));
    if (rc == 0) {
        if (rsp->flags || slot->management)
            rc = take_flagged(slot, shared, words);
        else
            slot->completion.status = rsp->status;
    }
    *found = slot;
    return rc;
}

const struct vi_codec vi_codec_srp = { VSCSI_SRP_SLOT, true, build, take };
