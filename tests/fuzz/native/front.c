/* SPDX-License-Identifier: BSD-2-Clause */
/* See front.h. */
#include "front.h"

#undef poll

#include <string.h>
#include <unistd.h>

struct front front;

/* ---- hooks ---- */

bool front_is_shared(const void *at)
{
    return (const uint8_t *)at >= front.memory && (const uint8_t *)at < front.memory + FRONT_FRAMES * VSCSI_PAGE_SIZE;
}

static bool in_ring(const void *at)
{
    const uint8_t *ring = (const uint8_t *)front.sring;
    return (const uint8_t *)at >= ring && (const uint8_t *)at < ring + VSCSI_PAGE_SIZE;
}

static uint64_t word(const void *at, size_t offset)
{
    uint64_t value;
    memcpy(&value, (const uint8_t *)at + offset, sizeof value);
    return value;
}

/* SRP tags are big-endian on the wire. */
static uint64_t tag_in(const void *iu, bool response)
{
    if (front.protocol == VI_PROTOCOL_BLKIF)
        return word(iu, response ? 0 : 8);
    return __builtin_bswap64(word(iu, 8));
}

static int find(uint64_t tag)
{
    for (uint32_t i = front.nr_sent; i-- > 0;)
        if (front.sent[i].tag == tag)
            return (int)i;
    return -1;
}

void fuzz_copied(const void *private, const void *slot, size_t nbytes)
{
    if (front.raw || !in_ring(slot))
        return;
    size_t at = (size_t)((const uint8_t *)slot - (uint8_t *)front.sring) - VSCSI_RING_HEADER;
    size_t within = at % front.slot_nbytes;
    PROMISE(at / front.slot_nbytes < front.nr_ents && within + nbytes <= front.slot_nbytes,
            "a slot is read past its end");
    int i = within ? -1 : find(tag_in(private, true));
    if (i >= 0 && front.sent[i].state == SENT)
        front.sent[i].state = ANSWERED;
}

/* A request has its first two words, of which the second is the tag in both protocols. */
static void sent(const uint64_t words[2])
{
    const uint8_t *iu = (const uint8_t *)words;
    uint64_t tag = tag_in(iu, false);
    int old = find(tag);
    PROMISE(old < 0 || front.sent[old].state == OVER, "a tag is used again");
    PROMISE(front.nr_sent < MOST_SENT, "too many requests for this harness");
    front.sent[front.nr_sent].tag = tag;
    front.sent[front.nr_sent].operation = iu[0];
    if (front.protocol == VI_PROTOCOL_BLKIF && iu[0] == BLKIF_OP_INDIRECT)
        front.sent[front.nr_sent].operation = iu[1];
    front.sent[front.nr_sent].reaped = false;
    front.sent[front.nr_sent++].state = SENT;
}

/* `nbytes` of the next request, which has not been counted yet, are written: where in it they stand. */
static size_t within_request(const void *slot, size_t nbytes)
{
    PROMISE(in_ring(slot), "a slot is written outside the ring");
    const struct vscsi_front_ring *ring = &front.c->ring;
    size_t at = (size_t)((const uint8_t *)slot - (uint8_t *)front.sring) - VSCSI_RING_HEADER;
    size_t within = at % front.slot_nbytes;
    PROMISE(at / front.slot_nbytes == (ring->req_prod_pvt & (ring->nr_ents - 1)) &&
            within + nbytes <= front.slot_nbytes, "a request in the wrong place");
    PROMISE(ring->req_prod_pvt - ring->rsp_cons < ring->nr_ents, "more requests than slots");
    return within;
}

void fuzz_written(const void *slot, const void *private, size_t nbytes)
{
    if (front.raw)
        return;
    if (within_request(slot, nbytes) == 0)
        sent((const uint64_t[2]){ word(private, 0), word(private, 8) });
}

void fuzz_stored(const uint64_t *at, uint64_t value)
{
    static uint64_t words[2];
    const uint8_t *p = (const uint8_t *)at, *table = front.memory + (size_t)FRONT_INDIRECT * VSCSI_PAGE_SIZE;
    if (front.raw || (p >= table && p < table + (size_t)INDIRECT_PAGES * VSCSI_PAGE_SIZE))
        return;
    size_t within = within_request(at, sizeof value);
    if (within > 8)
        return;
    words[within / 8] = value;
    if (within == 8)
        sent(words);
}

void fuzz_published(const uint32_t *index, uint32_t value)
{
    if (index != &front.sring->req_prod)
        return;
    const struct vscsi_front_ring *ring = &front.c->ring;
    uint32_t more = value - front.published;
    PROMISE(more && more <= ring->nr_ents && value - ring->rsp_cons <= ring->nr_ents, "a wild index: %u after %u",
            value, front.published);
    front.published = value;
}

void fuzz_mapped(const void *mapper, uint32_t gref, int write, int persistent, const uint8_t *page)
{
    (void)mapper, (void)gref, (void)write, (void)persistent, (void)page;
}

void fuzz_unmapped(const void *mapper, uint32_t gref, int write, int persistent)
{
    (void)mapper, (void)gref, (void)write, (void)persistent;
}

int front_look(struct pollfd *fds, nfds_t count)
{
    return poll(fds, count, 0);
}

/* ---- requests and their ends ---- */

static void over(const struct vi_completion *done)
{
    int i = find(done->tag);
    PROMISE(i >= 0 && front.sent[i].state != OVER, "a request ends that was never sent, or ends twice");
    PROMISE(front.sent[i].state == ANSWERED || front.c->error, "a request ends, but nobody has answered it");
    PROMISE(done->sense_nbytes <= sizeof done->sense && done->cookie <= front.cookie,
            "a completion that makes no sense");
    PROMISE(!front.c->error || done->error || front.sent[i].state == ANSWERED,
            "a failed channel says that all is well");
    front.sent[i].state = OVER;
}

void front_submitted(int rc, uint64_t tag)
{
    int i = find(tag);
    PROMISE(rc <= 0 && (rc || i >= 0), "vi_submit: %d", rc);
    if (rc == 0)
        front.sent[i].reaped = true;
}

void front_waited(int rc, const struct vi_completion *done)
{
    PROMISE(rc <= 0, "waiting: %d", rc);
    if (rc == 0)
        over(done);
}

void front_wait(uint32_t which, int timeout_ms)
{
    struct vi_completion done = { 0 };
    for (uint32_t i = 0; i < front.nr_sent; i++) {
        if (front.sent[i].reaped || front.sent[i].state == OVER || which--)
            continue;
        int rc = vi_wait(front.c, front.sent[i].tag, &done, timeout_ms);
        front_waited(rc, &done);
        return;
    }
}

void front_reap(uint32_t most, uint32_t least, int timeout_ms)
{
    struct vi_completion done[8];
    int n = vi_reap(front.c, done, most < 8 ? most : 8, least, timeout_ms);
    for (int i = 0; i < n; i++)
        over(&done[i]);
}

void front_load_over(void)
{
    /* The load has collected its own; what it left behind nobody waits for. */
    for (uint32_t i = 0; i < front.nr_sent; i++)
        if (!front.sent[i].reaped && front.sent[i].state == ANSWERED)
            front.sent[i].state = OVER;
}

uint64_t front_outstanding_tag(uint32_t which)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < front.nr_sent; i++)
        count += front.sent[i].state == SENT;
    which = count ? which % count : UINT32_MAX;
    for (uint32_t i = 0; count && i < front.nr_sent; i++)
        if (front.sent[i].state == SENT && which-- == 0)
            return front.sent[i].tag;
    return 0;
}

uint8_t front_operation(uint64_t tag)
{
    int i = find(tag);
    return i < 0 ? 0 : front.sent[i].operation;
}

/* ---- a channel ---- */

static void format(void *sring)
{
    front.raw = true;
    vscsi_ring_format(sring);
    front.raw = false;
}

static void open_channel(void)
{
    const uint8_t options = front.options[1];
    format(front.sring);
    int ends[2], error = 0;
    PROMISE(vscsi_event_pair(ends) == 0, "no event channel");
    struct vi_config config = {
        .protocol = front.protocol, .ring_pages = 1, .ring = (uint8_t *)front.sring, .event_fd = ends[0],
        .persistent = options & 1, .granter = &front.granter, .memory = front.memory,
        .memory_nbytes = (uint64_t)FRONT_FRAMES * VSCSI_PAGE_SIZE, .gref_base = GREF_BASE,
        .indirect_pages = INDIRECT_PAGES, .indirect_per_slot = 1,
        .indirect_offset = (uint64_t)FRONT_INDIRECT * VSCSI_PAGE_SIZE, .max_indirect_segments = 64, .timeout_ms = 5,
    };
    front.c = vi_channel_new(&config, &error);
    PROMISE(front.c, "no channel: %d", error);
    close(ends[0]);
    front.peer_fd = ends[1];
    front.nr_ents = front.c->ring.nr_ents;
    front.slot_nbytes = front.c->ring.slot_nbytes;
    front.published = front.rsp = 0;
    front.nr_sent = 0;
    if (front.protocol == VI_PROTOCOL_SRP && !(options & 2))
        vi_channel_live(front.c, front.options[0], 64 + (front.options[2] & 0xff));
}

static void close_channel(void)
{
    vi_channel_fail(front.c, -ESHUTDOWN);
    PROMISE(vi_outstanding(front.c) == 0, "requests outlive their channel");
    for (uint32_t i = 0; i <= MOST_SENT; i += 8)
        front_reap(8, 0, 0);
    struct vi_completion done = { 0 };
    for (uint32_t i = 0; i < front.nr_sent; i++) {
        PROMISE(front.sent[i].state == OVER || !front.sent[i].reaped, "a request never ended");
        if (front.sent[i].state != OVER && vi_wait(front.c, front.sent[i].tag, &done, 0) == 0)
            over(&done);
    }
    vi_channel_free(front.c);
    if (front.peer_fd >= 0)
        close(front.peer_fd);
}

void front_again(void)
{
    close_channel();
    open_channel();
}

void front_open(uint8_t protocol, uint8_t limit, uint8_t options, uint8_t more)
{
    memset(&front, 0, offsetof(struct front, sent));
    fuzz_now_ns = 1000000000;
    front.memory = aligned_alloc(VSCSI_PAGE_SIZE, FRONT_FRAMES * VSCSI_PAGE_SIZE);
    memset(front.memory, 0, FRONT_FRAMES * VSCSI_PAGE_SIZE);
    front.granter = (struct vscsi_granter){ (uint64_t *)(void *)front.memory, VSCSI_PAGE_SIZE / 8 };
    front.sring = (struct vscsi_sring *)(void *)(front.memory + FRONT_RING * VSCSI_PAGE_SIZE);
    front.protocol = protocol & 1;
    front.options[0] = limit;
    front.options[1] = options;
    front.options[2] = more;
    for (uint32_t frame = FRONT_RING; frame < FRONT_FRAMES && options & 1; frame++)
        vscsi_granter_grant(&front.granter, GREF_BASE + frame, 0, frame, 0);
    void *reverse = front.memory + FRONT_REVERSE * VSCSI_PAGE_SIZE;
    format(reverse);
    vscsi_ring_back(&front.reverse, reverse, 1, VSCSI_SRP_SLOT, 0);
    open_channel();
}

void front_close(void)
{
    close_channel();
    for (uint32_t frame = FRONT_DATA; frame < FRONT_FRAMES && !front.scribbled && !(front.options[1] & 1); frame++) {
        int flags = vscsi_granter_flags(&front.granter, GREF_BASE + frame);
        PROMISE(flags == 0 || flags & GTF_IN_USE, "frame %u is still granted", frame);
    }
    free(front.memory);
}
