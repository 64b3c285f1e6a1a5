/* SPDX-License-Identifier: BSD-2-Clause */
/* blkif requests to the ring and responses from it (Xen public io/blkif.h, x86_64 ABI); knows nothing of waiting. */
#include "channel.h"
#include "segments.h"

_Static_assert(sizeof(struct blkif_response) % 8 == 0, "copied in whole words");
_Static_assert(offsetof(struct blkif_request, id) == 8 && offsetof(struct blkif_request, seg) == 24 &&
               offsetof(struct blkif_segment, first_sect) == 4, "what build_rw writes");

static uint32_t pages_of(const struct vi_segment *s)
{
    return (uint32_t)((s->offset + s->nbytes - 1) / VSCSI_PAGE_SIZE - s->offset / VSCSI_PAGE_SIZE + 1);
}

/* blkif segments needed: one for every page that a run touches. */
static int count_segments(const struct vi_segment *segments, uint32_t count, uint64_t *total)
{
    *total = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (segments[i].offset % VSCSI_SECTOR_SIZE || segments[i].nbytes % VSCSI_SECTOR_SIZE)
            return -EINVAL;
        *total += pages_of(&segments[i]);
    }
    return 0;
}

/* One word each: grant reference, first and last sector. */
static void put_segments(const struct vi_channel *c, const struct vi_segment *segments, uint32_t count, uint64_t *to)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at = segments[i].offset, end = at + segments[i].nbytes;
        while (at < end) {
            const uint64_t page_end = (at / VSCSI_PAGE_SIZE + 1) * VSCSI_PAGE_SIZE, stop = page_end < end ? page_end : end;
            const uint64_t first = at % VSCSI_PAGE_SIZE / VSCSI_SECTOR_SIZE;
            const uint64_t last = (stop - 1) % VSCSI_PAGE_SIZE / VSCSI_SECTOR_SIZE;
            vscsi_store64_relaxed(to++, vi_gref(c, at) | first << 32 | last << 40);
            at = stop;
        }
    }
}

static int build_indirect(struct vi_channel *c, struct vi_slot *slot, const struct vi_request *q, uint32_t total,
                          const struct vi_segment *segments, uint32_t count, uint64_t *to)
{
    uint32_t pages = (total + BLKIF_SEGS_PER_INDIRECT_PAGE - 1) / BLKIF_SEGS_PER_INDIRECT_PAGE;
    uint64_t table, table_nbytes = (uint64_t)pages * VSCSI_PAGE_SIZE;
    if (total > c->config.max_indirect_segments || pages > BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST)
        return -EMSGSIZE;
    int rc = vi_slot_table(c, slot, table_nbytes, &table);
    if (rc == 0)
        rc = vi_grant_run(c, slot, table, table_nbytes, true);
    if (rc == 0)
        rc = vi_grant_request(c, slot, q);
    if (rc)
        return rc;
    put_segments(c, segments, count, (uint64_t *)(void *)(c->config.memory + table));
    struct blkif_request_indirect r = { .operation = BLKIF_OP_INDIRECT, .indirect_op = q->operation,
        .nr_segments = (uint16_t)total, .id = slot->completion.tag, .sector_number = q->sector };
    for (uint32_t i = 0; i < pages; i++)
        r.indirect_grefs[i] = vi_gref(c, table + (uint64_t)i * VSCSI_PAGE_SIZE);
    vscsi_slot_write(to, &r, sizeof r);
    return 0;
}

static int build_rw(struct vi_channel *c, struct vi_slot *slot, const struct vi_request *q, uint64_t *to)
{
    const bool read = q->operation == BLKIF_OP_READ;
    const struct vi_segment *segments = read ? q->in : q->out;
    const uint32_t count = read ? q->in_count : q->out_count;
    uint32_t nbytes;
    uint64_t total;
    int rc = vi_check_segments(c, segments, count, &nbytes);
    if (rc == 0)
        rc = count_segments(segments, count, &total);
    if (rc)
        return rc;
    if (read ? q->out_count : q->in_count)
        return -EINVAL;
    bool media = q->operation == BLKIF_OP_READ || q->operation == BLKIF_OP_WRITE;
    if (media && total == 0)
        return -EINVAL;
    if (total > BLKIF_MAX_SEGMENTS_PER_REQUEST) {
        if (!media || total > UINT16_MAX)
            return -EMSGSIZE;
        return build_indirect(c, slot, q, (uint32_t)total, segments, count, to);
    }
    rc = vi_grant_request(c, slot, q);
    if (rc)
        return rc;
    vscsi_store64_relaxed(&to[0], q->operation | total << 8);
    vscsi_store64_relaxed(&to[1], slot->completion.tag);
    vscsi_store64_relaxed(&to[2], q->sector);
    put_segments(c, segments, count, &to[3]);
    return 0;
}

static int build_discard(struct vi_channel *c, struct vi_slot *slot, const struct vi_request *q, uint64_t *to)
{
    (void)c;
    if (q->out_count || q->in_count)
        return -EINVAL;
    const struct blkif_request_discard r = { .operation = BLKIF_OP_DISCARD, .flag = (uint8_t)q->flags,
        .id = slot->completion.tag, .sector_number = q->sector, .nr_sectors = q->sectors };
    vscsi_slot_write(to, &r, sizeof r);
    return 0;
}

typedef int builder(struct vi_channel *, struct vi_slot *, const struct vi_request *, uint64_t *);

static builder *const builders[] = {
    [BLKIF_OP_READ] = build_rw,
    [BLKIF_OP_WRITE] = build_rw,
    [BLKIF_OP_WRITE_BARRIER] = build_rw,
    [BLKIF_OP_FLUSH_DISKCACHE] = build_rw,
    [BLKIF_OP_DISCARD] = build_discard,
};

static int build(struct vi_channel *c, struct vi_slot *slot, const struct vi_request *q, uint64_t *to)
{
    if (q->operation >= sizeof builders / sizeof builders[0] || !builders[q->operation])
        return -EINVAL;
    slot->operation = q->operation; /* of INDIRECT too: the response names what was done, as Xen's back ends do */
    return builders[q->operation](c, slot, q, to);
}

static int take(struct vi_channel *c, const void *shared, struct vi_slot **found)
{
    vscsi_word words[sizeof(struct blkif_response) / 8];
    vscsi_slot_read(words, shared, sizeof words);
    const struct blkif_response *r = (const void *)words;
    struct vi_slot *slot = vi_slot_of_tag(c, r->id);
    if (!slot || r->operation != slot->operation)
        return -EPROTO;
    if (r->status > BLKIF_RSP_OKAY || r->status < BLKIF_RSP_EOPNOTSUPP)
        return -EPROTO;
    slot->completion.blkif_status = r->status;
    *found = slot;
    return 0;
}

const struct vi_codec vi_codec_blkif = { VSCSI_BLKIF_SLOT, false, build, take };
