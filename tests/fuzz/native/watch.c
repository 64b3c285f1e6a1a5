/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every access of the target to memory of its initiators must obey, seen through the hooks; and the neighbour, who
 * finds its own data whatever the others do. Knows rings and IUs of both protocols.
 */
#include <string.h>

#include "world.h"

#undef poll

/* The loop has a thread no more than anybody else, and waits only for I/O that is under way. */
int fuzz_sleep(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    PROMISE(engine_held(), "somebody waits for a descriptor");
    return poll(fds, count, timeout_ms);
}

/* The channel whose ring, as the target maps it, holds this address. */
static struct peer_channel *by_ring(const void *address)
{
    const uint8_t *at = address;
    for (uint32_t i = 0; i < CHANNELS; i++) {
        struct peer_channel *p = &world.channels[i];
        if (p->channel && at >= p->mapped && at < p->mapped + VSCSI_PAGE_SIZE)
            return p;
    }
    return NULL;
}

bool world_is_hostile(const void *address)
{
    const struct peer_channel *p = by_ring(address);
    if (p)
        return p != &world.channels[NEIGHBOUR];
    for (uint32_t i = 0; i < PEERS; i++)
        if (domain_frame(&world.domains[i], address) >= 0)
            return true;
    return false;
}

static struct domain *by_mapper(const void *mapper)
{
    for (uint32_t i = 0; i < DOMAINS; i++)
        if (world.domains[i].mapper == mapper)
            return &world.domains[i];
    PROMISE(false, "no such mapper");
    return NULL;
}

void fuzz_mapped(const void *mapper, uint32_t gref, int write, int persistent, const uint8_t *page)
{
    domain_mapped(by_mapper(mapper), gref, write, persistent, page);
}

void fuzz_unmapped(const void *mapper, uint32_t gref, int write, int persistent)
{
    domain_unmapped(by_mapper(mapper), gref, write, persistent);
}

void world_moves(const void *address, size_t nbytes, bool write)
{
    for (uint32_t i = 0; i < DOMAINS; i++)
        if (domain_frame(&world.domains[i], address) >= 0) {
            domain_moves(&world.domains[i], address, nbytes, write);
            return;
        }
    PROMISE(false, "data at an address that nobody brought");
}

/* ---- exactly one response for each request that was taken ---- */

static uint64_t tag_of(const void *private)
{
    uint64_t tag;
    memcpy(&tag, (const uint8_t *)private + 8, sizeof tag);
    return tag;
}

/* More than fit the request, or than were advertised. */
static bool too_many_segments(const void *private)
{
    struct blkif_request_indirect r;
    memcpy(&r, private, 8);     /* no more of it has come yet */
    if (r.operation == BLKIF_OP_INDIRECT)
        return !r.nr_segments || r.nr_segments > INDIRECT_SEGMENTS;
    return r.operation <= BLKIF_OP_FLUSH_DISKCACHE && r.indirect_op > BLKIF_MAX_SEGMENTS_PER_REQUEST;
}

/* Commands of one tag may be under way at the same time: one of them is answered. `well`: one that may be. */
static uint32_t find_owed(const struct peer_channel *p, uint64_t tag, bool well)
{
    uint32_t found = p->nr_owed;
    for (uint32_t i = 0; i < p->nr_owed; i++)
        if (p->owed[i].tag == tag && (found == p->nr_owed || !(well && p->owed[i].wrong)))
            found = i;
    return found;
}

void fuzz_copied(const void *private, const void *slot, size_t nbytes)
{
    struct peer_channel *p = by_ring(slot);
    PROMISE(p, "a slot is read outside the rings");
    size_t at = (size_t)((const uint8_t *)slot - p->mapped) - VSCSI_RING_HEADER, within = at % p->slot_nbytes;
    PROMISE(at / p->slot_nbytes < p->channel->ring.nr_ents && within + nbytes <= p->slot_nbytes,
            "a slot is read past its end");
    if (within)
        return;
    PROMISE(p->nr_owed < MAX_SLOTS && p->nr_owed < p->channel->ring.nr_ents,
            "more requests are taken than there are slots");
    p->owed[p->nr_owed].wrong = p->protocol == VT_PROTOCOL_BLKIF && too_many_segments(private);
    p->owed[p->nr_owed++].tag = tag_of(private);
}

void fuzz_written(const void *slot, const void *private, size_t nbytes)
{
    struct peer_channel *p = by_ring(slot);
    PROMISE(p, "a slot is written outside the rings");
    size_t at = (size_t)((const uint8_t *)slot - p->mapped) - VSCSI_RING_HEADER;
    const struct vscsi_back_ring *ring = &p->channel->ring;
    uint32_t index = (ring->rsp_prod_pvt - 1) & (ring->nr_ents - 1);
    PROMISE(at == (size_t)index * p->slot_nbytes && nbytes <= p->slot_nbytes, "a response in the wrong place");
    PROMISE(ring->req_cons - ring->rsp_prod_pvt < ring->nr_ents, "more responses than requests");
    uint64_t tag = tag_of(private);
    bool well = false;
    if (p->protocol == VT_PROTOCOL_BLKIF) {
        struct blkif_response response;
        memcpy(&response, private, sizeof response);
        tag = response.id;
        well = response.status == BLKIF_RSP_OKAY;
    }
    uint32_t i = find_owed(p, tag, well);
    PROMISE(i < p->nr_owed, "a response that nobody asked for, tag %#llx", (unsigned long long)tag);
    PROMISE(!well || !p->owed[i].wrong, "more segments than a request may have, and all is well");
    p->owed[i] = p->owed[--p->nr_owed];
    p->answered++;
    memset(p->last, 0, sizeof p->last);
    memcpy(p->last, private, nbytes);
}

void fuzz_stored(const uint64_t *at, uint64_t word)
{
    (void)word;
    const struct peer_channel *p = by_ring(at);
    PROMISE(!p || (const uint8_t *)at < p->mapped + VSCSI_RING_HEADER, "a response is written in pieces");
}

void fuzz_published(const uint32_t *index, uint32_t value)
{
    struct peer_channel *p = by_ring(index);
    if (!p)
        return;     /* a grant or a private counter */
    const struct vscsi_back_ring *ring = &p->channel->ring;
    PROMISE((const uint8_t *)index - p->mapped == offsetof(struct vscsi_sring, rsp_prod), "an index that is not ours");
    uint32_t more = value - p->published;
    PROMISE(more && more <= ring->nr_ents && ring->req_cons - value <= ring->nr_ents, "a wild index: %u after %u",
            value, p->published);
    p->published = value;
}

/* ---- the neighbour ---- */

enum { NEIGHBOUR_ROUNDS = 64, BLOCKS = 8 };

/* What it writes in a round: the same bytes once, shifted by the round. */
static const uint8_t *pattern(uint32_t round)
{
    static uint8_t bytes[BLOCKS * 512 + 256];
    if (!bytes[1])
        for (uint32_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)(i * 11 + (i >> 8));
    return bytes + round % 256;
}

/* One command: READ or WRITE of BLOCKS blocks at `lba` with the two pages at `frame`. */
static void command(struct peer_channel *p, uint8_t opcode, uint8_t lba, uint32_t frame)
{
    struct srp_cmd cmd = { .opcode = SRP_CMD, .buf_fmt = opcode == 0x2a ? 0x10 : 0x01, .lun = { 0, LUN_NEIGHBOUR } };
    cmd.tag = put_be64(++world.neighbour_tag);
    cmd.cdb[0] = opcode;
    cmd.cdb[5] = lba;
    cmd.cdb[8] = BLOCKS;
    struct srp_direct_buf buffer = { put_be64(100), put_be32(GREF + frame), put_be32(BLOCKS * 512) };
    uint8_t *slot = world_slot(p, p->prod++);
    memcpy(slot, &cmd, sizeof cmd);
    memcpy(slot + sizeof cmd, &buffer, sizeof buffer);
    uint32_t before = p->answered;
    world_push(p, true);
    for (int i = 0; i < NEIGHBOUR_ROUNDS && p->answered == before; i++)
        world_run(1);
    PROMISE(p->answered == before + 1, "the neighbour is not served");
    struct srp_rsp rsp;
    memcpy(&rsp, p->last, sizeof rsp);
    PROMISE(get_be64(rsp.tag) == world.neighbour_tag && rsp.opcode == SRP_RSP, "the neighbour gets another's answer");
    PROMISE(!rsp.flags && !rsp.status, "the neighbour gets flags %02x, status %02x", rsp.flags, rsp.status);
}

void world_neighbour(void)
{
    struct peer_channel *p = &world.channels[NEIGHBOUR];
    struct domain *d = p->domain;
    uint32_t round = world.rounds++, from = DATA_FRAME, to = DATA_FRAME + 2;
    uint8_t lba = (uint8_t)(round % 8 * BLOCKS);
    memcpy(domain_page(d, from) + 100, pattern(round), BLOCKS * 512);
    command(p, 0x2a, lba, from);
    command(p, 0x28, lba, to);
    PROMISE(memcmp(domain_page(d, to) + 100, pattern(round), BLOCKS * 512) == 0, "the neighbour's data has changed");
    /* What it wrote before is still there, too. */
    for (uint32_t back = 1; back < 8 && back <= round; back++) {
        uint8_t old = (uint8_t)((round - back) % 8 * BLOCKS);
        const uint8_t *image = engine_state.images[0] + old * 512;
        PROMISE(memcmp(image, pattern(round - back), BLOCKS * 512) == 0, "the neighbour's older data has changed");
    }
}
