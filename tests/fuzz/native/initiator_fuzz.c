/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a malicious target against the initiator's C core. The input is a program: four bytes of configuration,
 * then operations of both sides, each one byte and its operands. While the initiator sleeps the target's operations go
 * on; where none is next, time passes. See front.h for what is promised.
 */
#include <string.h>
#include <unistd.h>

#include "front.h"
#include "program.h"
#include "race.h"

#include "be.h"

enum { MOST_SEGMENTS = 40 };

/* ---- the initiator ---- */

static uint32_t put_segments(struct fuzz_in *in, struct vi_segment *segments, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t page = in8(in) % DATA_PAGES, shape = in8(in);
        uint32_t offset = shape & 0x80 ? (shape & 7) * 512 : 0, nbytes = shape & 0x40 ? 512u << (shape >> 3 & 7) : 4096;
        if (shape & 0x20)
            nbytes -= shape & 3;    /* no whole sectors */
        uint64_t at = (uint64_t)(FRONT_DATA + page) * VSCSI_PAGE_SIZE + offset;
        uint64_t end = (uint64_t)FRONT_FRAMES * VSCSI_PAGE_SIZE;
        segments[i] = (struct vi_segment){ at, nbytes < end - at ? nbytes : end - at };
    }
    return count;
}

static void put_request(struct fuzz_in *in, struct vi_request *q, struct vi_segment *segments)
{
    uint8_t what = in8(in), counts = in8(in);
    *q = (struct vi_request){ .cookie = ++front.cookie, .lun = { 0, in8(in) }, .cdb_nbytes = 10 };
    q->cdb[0] = what & 1 ? 0x2a : 0x28;
    q->operation = what & 7;
    q->attribute = what >> 3 & 7;
    if (what & 0x40)
        q->cdb_nbytes = in8(in);
    q->sector = in8(in);
    q->sectors = counts;
    uint32_t more = what & 0x80 ? 24 : 0;   /* beyond what fits an IU */
    if (counts & 0x80)
        q->out_count = put_segments(in, segments, (counts & 7) + more);
    q->out = segments;
    q->in = segments + q->out_count;
    if (counts & 0x08)
        q->in_count = put_segments(in, segments + q->out_count, counts >> 4 & 7);
}

static void op_submit(struct fuzz_in *in)
{
    struct vi_request q;
    struct vi_segment segments[MOST_SEGMENTS];
    put_request(in, &q, segments);
    uint64_t tag = 0;
    int rc = vi_submit(front.c, &q, &tag);
    front_submitted(rc, tag);
}

static void op_execute(struct fuzz_in *in)
{
    struct vi_request q;
    struct vi_segment segments[MOST_SEGMENTS];
    struct vi_completion done = { 0 };
    put_request(in, &q, segments);
    int rc = vi_execute(front.c, &q, &done, 1 + (in8(in) & 3));
    front_waited(rc, &done);
}

static void op_management(struct fuzz_in *in)
{
    struct vi_completion done = { 0 };
    const uint8_t lun[8] = { 0, in8(in) }, function = in8(in), task = in8(in);
    int rc = vi_task_management(front.c, function, lun, task, &done, 1 + (in8(in) & 3));
    front_waited(rc, &done);
}

static void op_wait(struct fuzz_in *in)
{
    front_wait(in8(in), in8(in) & 3);
}

static void op_reap(struct fuzz_in *in)
{
    uint8_t what = in8(in);
    front_reap(1 + (what & 7), what >> 3 & 7, what >> 6);
}

static void op_flush(struct fuzz_in *in)
{
    (void)in;
    vi_flush(front.c);
}

/* Login: IUs of the conversation, then live. */
static void op_login(struct fuzz_in *in)
{
    uint8_t what = in8(in), iu[VSCSI_SRP_SLOT] = { 0 };
    switch (what & 3) {
    case 0:
        front.raw = true;
        vi_channel_send(front.c, iu, 64);
        front.raw = false;
        break;
    case 1:
        vi_channel_receive(front.c, iu, what >> 6);
        break;
    case 2:
        vi_channel_live(front.c, in8(in), what >> 2);
        break;
    default:
        vi_channel_credit(front.c, (int32_t)in32(in));
    }
}

static void op_load(struct fuzz_in *in)
{
    struct vscsi_load_spec spec = { .block_nbytes = 4096, .queue_depth = 1 + (in8(in) & 3), .span_nbytes = 65536,
                                    .max_ios = in8(in) & 31, .duration_ns = 20000000, .read_percent = in8(in) };
    static struct vscsi_load_result result;
    const uint8_t lun[8] = { 0 };
    vi_load(&front.c, 1, lun, 512, (uint64_t)FRONT_DATA * VSCSI_PAGE_SIZE, &spec, &result);
    front_load_over();
}

static void op_end(struct fuzz_in *in)
{
    uint8_t what = in8(in);
    if (what & 1)
        vi_channel_drain(front.c, -ECONNRESET);
    else
        vi_channel_fail(front.c, -EPIPE);
    if (what & 2)
        front_again();
}

/* ---- the target: it has the ring, the grant table and the event channel ---- */

static uint8_t *slot_at(uint32_t index)
{
    return vscsi_ring_slot(front.sring, index, front.nr_ents, front.slot_nbytes);
}

static void publish(uint8_t how)
{
    if (how & 0x80)
        return;
    front.sring->rsp_prod = front.rsp;
    if (!(how & 0x40) && front.peer_fd >= 0)
        vscsi_event_send_fd(front.peer_fd);
}

/* An answer to a request that was sent, more or less as it should be. */
static void op_respond(struct fuzz_in *in)
{
    uint8_t how = in8(in), flags = in8(in), bad = in8(in);
    uint64_t tag = front_outstanding_tag(how & 0x3f);
    uint8_t iu[VSCSI_SRP_SLOT] = { 0 };
    if (front.protocol == VI_PROTOCOL_BLKIF) {
        struct blkif_response r = { .id = tag, .operation = bad & 1 ? in8(in) : front_operation(tag),
                                    .status = (int16_t)(flags & 0x80 ? in16(in) : -(flags % 3)) };
        memcpy(iu, &r, sizeof r);
    } else {
        struct srp_rsp r = { .opcode = SRP_RSP, .flags = flags & 0x3f, .tag = put_be64(tag), .status = in8(in),
                             .req_lim_delta = put_be32(bad & 2 ? in32(in) : 1) };
        if (flags & 0x3c)
            r.data_in_res_cnt = r.data_out_res_cnt = put_be32(bad & 4 ? in32(in) : in8(in));
        r.sense_data_len = put_be32(bad & 8 ? in32(in) : 18);
        r.resp_data_len = put_be32(bad & 16 ? in32(in) : 4);
        memcpy(iu, &r, sizeof r);
        iu[sizeof r + 3] = in8(in);
    }
    if (bad & 0x80)
        iu[in8(in) % sizeof iu] ^= in8(in);
    if (bad & 0x40)
        iu[8 + (in8(in) & 7)] ^= in8(in);   /* the tag */
    memcpy(slot_at(front.rsp++), iu, front.slot_nbytes);
    publish(how);
}

static void op_raw(struct fuzz_in *in)
{
    uint8_t how = in8(in), *slot = slot_at(front.rsp);
    struct fuzz_in iu = in_part(in, in8(in));
    memcpy(slot, iu.at, iu.left < front.slot_nbytes ? iu.left : front.slot_nbytes);
    front.rsp += !(how & 0x20);
    publish(how);
}

static void op_index(struct fuzz_in *in)
{
    uint8_t how = in8(in);
    uint32_t value = how & 1 ? in32(in) : (uint32_t)(int8_t)in8(in);
    uint32_t *const indexes[] = { &front.sring->rsp_prod, &front.sring->req_event, &front.sring->req_prod,
                                  &front.sring->rsp_event };
    uint32_t *index = indexes[how >> 2 & 3];
    *index = how & 2 ? value : *index + value;
    if (how & 0x10 && index == &front.sring->rsp_prod)
        front.rsp = *index;
    if (how & 0x20 && front.peer_fd >= 0)
        vscsi_event_send_fd(front.peer_fd);
}

static void op_patch(struct fuzz_in *in)
{
    uint8_t back = in8(in), offset = in8(in);
    slot_at(front.rsp - 1 - (back & 7))[offset % front.slot_nbytes] = in8(in);
}

static void op_kick(struct fuzz_in *in)
{
    for (uint32_t n = in8(in) & 0x1f; n-- > 0 && front.peer_fd >= 0;)
        vscsi_event_send_fd(front.peer_fd);
}

/* In-use bits, as a target that has the page mapped; or any entry at all. */
static void op_grant(struct fuzz_in *in)
{
    uint8_t how = in8(in);
    uint64_t *entry = &front.granter.table[GREF_BASE + in8(in) % FRONT_FRAMES];
    if (how & 1) {
        *entry = how & 2 ? *entry | (how >> 2 & 0x18) : *entry & ~(uint64_t)0x18;
    } else {
        *entry = in32(in);
        front.scribbled = true;
    }
}

static void op_hang_up(struct fuzz_in *in)
{
    if (front.peer_fd >= 0 && in8(in) & 1) {
        close(front.peer_fd);
        front.peer_fd = -1;
    }
}

/* The reverse ring, as the initiator's Python uses it. */
static void op_reverse(struct fuzz_in *in)
{
    uint8_t how = in8(in), iu[VSCSI_SRP_SLOT];
    struct vscsi_sring *sring = front.reverse.sring;
    if (how & 1) {
        sring->req_prod = how & 2 ? in32(in) : sring->req_prod + 1;
        return;
    }
    if (in_hook || front.reverse_broken)
        return;
    front.raw = true;
    int rc = vscsi_ring_take_request(&front.reverse, iu);
    PROMISE(rc == 1 || rc == 0 || rc == -EPROTO, "the reverse ring: %d", rc);
    if (rc == 1 && how & 4)
        vscsi_ring_respond(&front.reverse, iu, 16);
    front.raw = false;
    front.reverse_broken = rc < 0;
}

/* ---- what a second thread rewrites ---- */

uint32_t race_areas(uint8_t what, struct race_area areas[RACE_AREAS])
{
    enum { SLOTS = 0x01, INDEXES = 0x02, GRANTS = 0x04, REVERSE = 0x08, EACH = SLOTS | INDEXES | GRANTS | REVERSE };
    uint32_t count = 0, slot = front.rsp & (front.nr_ents - 1);
    what &= EACH;
    what = what ? what : EACH;
    if (what & SLOTS)
        areas[count++] = (struct race_area){ slot_at(slot), front.slot_nbytes, RACE_BYTES };
    if (what & INDEXES)
        areas[count++] = (struct race_area){ front.sring, 16, RACE_INDEX };
    if (what & GRANTS) {
        areas[count++] = (struct race_area){ &front.granter.table[GREF_BASE + FRONT_INDIRECT],
                                             (INDIRECT_PAGES + DATA_PAGES) * 8, RACE_GRANTS };
        front.scribbled = true;
    }
    if (what & REVERSE)
        areas[count++] = (struct race_area){ front.reverse.sring, VSCSI_RING_HEADER + VSCSI_SRP_SLOT, RACE_BYTES };
    return count;
}

/* ---- programs ---- */

static const struct operation operations[] = {
    { op_submit, false }, { op_respond, true }, { op_reap, false }, { op_flush, false }, { op_raw, true },
    { op_index, true }, { op_execute, false }, { op_wait, false }, { op_management, false }, { op_login, false },
    { op_patch, true }, { op_kick, true }, { op_grant, true }, { op_when_read, true }, { op_spoil, true },
    { op_load, false }, { op_reverse, true }, { op_hang_up, true }, { op_end, false }, { op_race, false },
};

int fuzz_sleep(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    (void)timeout_ms;
    fuzz_now_ns += 10000;
    if (!program_step_of_peer())
        fuzz_now_ns += 10000000;
    return front_look(fds, count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    struct fuzz_in in = { data, nbytes };
    uint8_t protocol = in8(&in), limit = in8(&in);
    program_calm();
    front_open(protocol, limit, in8(&in), in8(&in));
    program_run(data, &in, operations, sizeof operations / sizeof *operations, front_is_shared);
    front_close();
    return 0;
}
