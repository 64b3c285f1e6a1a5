/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: malicious initiators against the target's C core. The input is a program: six bytes of configuration,
 * then operations, each one byte (its number, modulo their count) and its operands; see `operations`. Some of them can
 * be put off until the target looks at shared memory for the n-th time from now: a peer that rewrites what is read.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "program.h"
#include "race.h"
#include "requests.h"

struct peer_channel *hostile(uint8_t byte)
{
    uint32_t index = byte & 3;
    struct peer_channel *p = &world.channels[index];
    if (!p->channel && !in_hook)
        p = world_channel(index);
    return p->channel ? p : NULL;
}

static struct domain *hostile_domain(uint8_t byte)
{
    return &world.domains[byte % PEERS];
}

/* ---- shared memory ---- */

static void op_patch(struct fuzz_in *in)
{
    struct peer_channel *p = hostile(in8(in));
    uint8_t back = in8(in), offset = in8(in), value = in8(in);
    if (p)
        ((uint8_t *)world_slot(p, p->prod - 1 - (back & 7)))[offset % p->slot_nbytes] = value;
}

static void op_index(struct fuzz_in *in)
{
    uint8_t which = in8(in), how = in8(in);
    struct peer_channel *p = hostile(which);
    uint32_t value = how & 1 ? in32(in) : (uint32_t)(int8_t)in8(in);
    if (!p)
        return;
    struct vscsi_sring *sring = (struct vscsi_sring *)(void *)p->ring;
    uint32_t *const indexes[] = { &sring->req_prod, &sring->req_event, &sring->rsp_prod, &sring->rsp_event };
    uint32_t *index = indexes[which >> 2 & 3];
    *index = how & 2 ? value : *index + value;
    if (how & 4 && index == &sring->req_prod)
        p->prod = *index;
    if (how & 8)
        world_kick(p);
}

static void op_poke(struct fuzz_in *in)
{
    struct domain *d = hostile_domain(in8(in));
    uint32_t frame = DATA_FRAME + in8(in) % DATA_FRAMES, offset = in16(in) % VSCSI_PAGE_SIZE;
    struct fuzz_in bytes = in_part(in, 1 + (in8(in) & 0x3f));
    if (bytes.left > VSCSI_PAGE_SIZE - offset)
        bytes.left = VSCSI_PAGE_SIZE - offset;
    memcpy(domain_page(d, frame) + offset, bytes.at, bytes.left);
}

/* Descriptors or segments in a page: what indirect requests are made of. Bit 2: again and again, to the page's end. */
static void op_table(struct fuzz_in *in)
{
    uint8_t which = in8(in);
    struct domain *d = hostile_domain(which);
    uint8_t *page = domain_page(d, DATA_FRAME + in8(in) % DATA_FRAMES);
    uint32_t count = in8(in) & 31, at = in8(in) * 8u, nbytes = count * (which & 2 ? 8 : 16);
    for (uint32_t i = 0; i < count; i++) {
        if (which & 2)
            put_segment((struct blkif_segment *)(void *)(page + at + i * 8), in);
        else
            put_direct(page + at + i * 16, in);
    }
    if (which & 4 && nbytes)
        for (uint32_t i = at + nbytes; i < VSCSI_PAGE_SIZE; i++)
            page[i] = page[i - nbytes];
}

/* An entry of the grant table, honestly or by force. The frames that are secret are never named. */
static void op_grant(struct fuzz_in *in)
{
    uint8_t which = in8(in);
    struct domain *d = hostile_domain(which);
    uint32_t gref = GREF + in8(in) % 64, frame = in8(in), flags = in8(in);
    if (frame < FRAMES && (frame == SECRET_A || frame == SECRET_B || frame == SECRET_C))
        frame = DATA_FRAME;
    frame = frame == 0xff ? UINT32_MAX : frame;
    uint16_t domid = (uint16_t)(d - world.domains);
    if (which & 0x10) {
        vscsi_granter_end(&d->granter, gref);
    } else if (which & 0x20) {
        vscsi_granter_grant(&d->granter, gref, domid, frame, flags & 1);
    } else {
        uint64_t entry = (uint64_t)frame << 32 | (uint64_t)(which & 0x40 ? domid + 1u : domid) << 16 | flags;
        d->granter.table[gref] = which & 0x80 ? entry | GTF_SUB_PAGE : entry;
    }
}

static void op_kick(struct fuzz_in *in)
{
    uint8_t which = in8(in);
    struct peer_channel *p = hostile(which);
    for (uint32_t n = which >> 4; p && n-- > 0;) {
        world_kick(p);
        if (!in_hook)
            world_run(1);
    }
}

/* ---- what time, the image, Python's workers and Python's thread do ---- */

static void op_run(struct fuzz_in *in)
{
    world_run(in8(in) & 7);
}

static void op_time(struct fuzz_in *in)
{
    fuzz_now_ns += (uint64_t)in8(in) * 20000000;
    world_run(1);
}

static void op_engine(struct fuzz_in *in)
{
    static const int errors[] = { 0, -EIO, -ENOSPC, -ECANCELED, -EROFS, -ENODATA, -EOPNOTSUPP, -EFAULT };
    uint8_t what = in8(in), which = in8(in);
    engine_end(which, errors[what & 7], what & 0x80 ? in16(in) : UINT64_MAX);
    world_run(1);
}

static void end_slow(struct fuzz_in *in, uint8_t which)
{
    struct vt_result result = { .status = in8(in) & 0xbf, .data_in_nbytes = in16(in), .data_out_nbytes = in16(in) };
    result.sense_nbytes = result.status == 2 ? 18 : 0;
    result.sense[0] = 0x70;
    result.sense[2] = in8(in);
    world_end_slow(which, &result);
    world_run(1);
}

static void op_worker(struct fuzz_in *in)
{
    uint8_t what = in8(in), which = in8(in);
    uint8_t bytes[2048] = { 0 };
    if (what & 1)
        world_take_slow();
    if (!world.nr_taken)
        return;
    const struct vt_request *r = &world.taken[which % world.nr_taken];
    uint64_t offset = in16(in), nbytes = in16(in) % sizeof bytes;
    if (what & 2)
        PROMISE(vt_request_fetch(world.target, r->task, offset, bytes, nbytes) <= (int64_t)nbytes, "too much data");
    if (what & 4)
        PROMISE(vt_request_store(world.target, r->task, offset, bytes, nbytes) <= (int64_t)nbytes, "too much data");
    if (what & 8)
        vt_request_detach(world.target, r->task);
    if (what & 0x10 && r->lu >= 0) {
        uint32_t at = which % LOCKS;
        if (world.locks[at] > 0)
            vt_range_unlock(world.target, (uint32_t)world.lus[world.lock_lu[at]], world.locks[at]);
        world.lock_lu[at] = LUN_SHARED;
        world.locks[at] = vt_range_lock(world.target, what & 0x20 ? r->task : 0, (uint32_t)world.lus[LUN_SHARED],
                                        offset, nbytes, 0);
    }
    if (what & 0x40)
        end_slow(in, which);
}

static void op_python(struct fuzz_in *in)
{
    uint8_t what = in8(in), which = in8(in);
    struct vt_target *t = world.target;
    uint32_t lun = which % LUNS, lu = (uint32_t)world.lus[lun == LUN_NEIGHBOUR ? LUN_SHARED : lun];
    struct peer_channel *p = &world.channels[which & 3];
    uint32_t nexus = p->channel ? p->nexus : VT_ALL;
    uint8_t answer[64] = { SRP_LOGIN_RSP };
    switch (what % 10) {
    case 0:
        if (p->channel)
            world_stop(p);
        break;
    case 1:
        if (p->cold && p->channel) {
            memcpy(answer + 8, &p->cold_tag[0], 8);
            if (vt_channel_respond(t, p->id, answer, 52) == 0)
                memmove(p->cold_tag, p->cold_tag + 1, --p->cold * 8);
        }
        break;
    case 2:
        if (p->channel)
            vt_channel_credit(t, p->id, (int8_t)in8(in));
        break;
    case 3: /* the peer closes its event channel */
        if (p->channel && p->fd >= 0) {
            close(p->fd);
            p->fd = -1;
            engine_mark(p->channel->event_fd);
        }
        break;
    case 4:
        vt_lu_state(t, lu, which & 0x80 ? 0x020402 : 0);
        break;
    case 5:
        vt_lu_operation(t, lu, which & 0x80 ? 0x020404 : 0, 100);
        break;
    case 6:
        if (nexus != VT_ALL)
            vt_lu_deny(t, lu, nexus, which >> 4);
        break;
    case 7:
        if (nexus != VT_ALL)
            vt_ua_establish(t, nexus, VT_ALL, lu, 0x2900 + which % 8u);
        break;
    case 8:
        if (nexus != VT_ALL)
            vt_lu_access(t, lu, nexus, which >> 6);
        break;
    default:
        engine_state.mode = which % ENGINE_MODES;
    }
    world_run(1);
}

/* Shares and limits of the device that units share, if they do. */
static void op_share(struct fuzz_in *in)
{
    uint8_t what = in8(in), which = in8(in);
    const struct peer_channel *p = &world.channels[which & 3];
    struct vt_sched_share share = { 1 + in8(in), what & 1 ? in8(in) : 0, what & 2 ? in8(in) * 512u : 0 };
    if (world.sched >= 0 && p->channel)
        vt_sched_share(world.target, (uint32_t)world.sched, p->nexus, &share);
    if (world.sched >= 0 && what & 4) {
        struct vt_sched_config config = world.sched_config;
        config.depth = 1 + (what >> 4);
        vt_sched_update(world.target, (uint32_t)world.sched, &config);
    }
    world_run(1);
}

static void op_neighbour(struct fuzz_in *in)
{
    (void)in;
    world_neighbour();
}

/* ---- what a second thread rewrites ---- */

uint32_t race_areas(uint8_t what, struct race_area areas[RACE_AREAS])
{
    enum { SLOTS = 0x04, INDEXES = 0x08, TABLES = 0x10, GRANTS = 0x20, EACH = SLOTS | INDEXES | TABLES | GRANTS };
    struct peer_channel *p = hostile(what);
    uint32_t count = 0;
    if (!p)
        return 0;
    what &= EACH;
    what = what ? what : EACH;
    /* The slots that are used next, and where tables are put first: a few bytes that are read, not many that are not. */
    uint32_t slot = p->prod & (p->channel->ring.nr_ents - 1);
    if (what & SLOTS)
        areas[count++] = (struct race_area){ world_slot(p, slot), p->slot_nbytes, RACE_BYTES };
    if (what & INDEXES)
        areas[count++] = (struct race_area){ p->ring, 16, RACE_INDEX };
    for (uint32_t page = 0; page < 4 && what & TABLES; page++)
        areas[count++] = (struct race_area){ domain_page(p->domain, DATA_FRAME + page), 128, RACE_BYTES };
    if (what & GRANTS)
        areas[count++] = (struct race_area){ &p->domain->granter.table[GREF + DATA_FRAME], 8 * 8, RACE_GRANTS };
    return count;
}

/* ---- programs ---- */

static const struct operation operations[] = {
    { op_command, true }, { op_raw, true }, { op_management, true }, { op_blkif, true }, { op_patch, true },
    { op_index, true }, { op_poke, true }, { op_table, true }, { op_grant, true }, { op_kick, true },
    { op_when_read, true }, { op_run, false }, { op_engine, false }, { op_worker, false }, { op_python, false },
    { op_neighbour, false }, { op_time, false }, { op_spoil, false }, { op_race, false }, { op_share, false },
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    struct fuzz_in in = { data, nbytes };
    struct world_config config = { in8(&in), in8(&in), in8(&in), in8(&in), in8(&in), in8(&in) };
    program_calm();
    world_open(&config);
    program_run(data, &in, operations, sizeof operations / sizeof *operations, world_is_hostile);
    world_close();
    return 0;
}
