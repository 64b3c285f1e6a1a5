/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The load of both protocols: closed (every response is answered by the next request, one publication a batch) or open
 * (requests are sent when they are due). It goes through the same slots, codecs and ring as everything else; only the
 * waiting is its own, since it leads several channels at once. No allocation and no look at the payload while the clock
 * runs.
 */
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "be.h"
#include "channel.h"
#include "load.h"

enum { CHANNELS_MAX = 64, READ_10 = 0x28, WRITE_10 = 0x2a, READ_16 = 0x88, WRITE_16 = 0x8a };
/*
 * Responses taken before what follows from them is published: the target serves these while we see to the rest. With all
 * of them at once each end would wait while the other works.
 */
enum { TURN_RESPONSES = 8 };

struct lane {
    struct vi_channel *c;
    uint8_t lun[8];
    struct vi_waiter lead;
    uint64_t buffers;          /* offset of the first */
    uint64_t *stamps;          /* when the request with this buffer was due */
    uint32_t *idle;            /* stack of buffers without a request */
    uint32_t idle_count;
    uint64_t kicks;            /* counters when the run began */
    uint64_t sleeps;
};

struct run {
    const struct vscsi_load_spec *spec;
    struct vscsi_load_result *result;
    struct vscsi_pattern pattern;
    struct vi_request request;
    struct vi_segment *segments;
    uint32_t segment_count;
    uint32_t logical_block_nbytes;
    uint64_t issued;
    uint64_t start_ns;
    uint64_t end_ns;
    uint64_t next_due_ns;      /* open loop: when the next request has to be sent; 0: as soon as there is room */
    bool stop;
};

static bool ready_never(const struct vi_channel *c, const struct vi_waiter *w)
{
    (void)w;
    return c->error != 0;
}

static void set_cdb(struct vi_request *q, bool read, uint64_t lba, uint32_t blocks)
{
    memset(q->cdb, 0, 16);
    if (lba + blocks <= UINT32_MAX && blocks <= UINT16_MAX) {
        q->cdb[0] = read ? READ_10 : WRITE_10;
        vscsi_put_be(q->cdb + 2, lba, 4);
        vscsi_put_be(q->cdb + 7, blocks, 2);
        q->cdb_nbytes = 10;
    } else {
        q->cdb[0] = read ? READ_16 : WRITE_16;
        vscsi_put_be(q->cdb + 2, lba, 8);
        vscsi_put_be(q->cdb + 10, blocks, 4);
        q->cdb_nbytes = 16;
    }
}

/* One run, or pages; pages apart lie where the same page of the next buffer would be its neighbour. */
static void set_segments(struct run *r, const struct lane *l, uint32_t buffer)
{
    const struct vscsi_load_spec *spec = r->spec;
    bool apart = spec->scatter == VSCSI_SCATTER_APART;
    uint64_t each = spec->scatter ? VSCSI_PAGE_SIZE : spec->block_nbytes, left = spec->block_nbytes;
    uint64_t step = apart ? (uint64_t)VSCSI_PAGE_SIZE * spec->queue_depth : each;
    uint64_t offset = l->buffers + (uint64_t)buffer * (apart ? VSCSI_PAGE_SIZE : spec->block_nbytes);
    for (uint32_t i = 0; i < r->segment_count; i++, offset += step, left -= each)
        r->segments[i] = (struct vi_segment){ offset, left < each ? left : each };
}

/* Locked. Sends what the pattern says next with this buffer. */
static int send_one(struct run *r, struct lane *l, uint32_t buffer, uint64_t due)
{
    bool read;
    struct vscsi_pattern before = r->pattern;
    uint64_t at = vscsi_pattern_next(&r->pattern, r->spec, &read);
    struct vi_request *q = &r->request;
    struct vi_slot *slot;
    set_segments(r, l, buffer);
    q->in = q->out = r->segments;
    q->in_count = read ? r->segment_count : 0;
    q->out_count = read ? 0 : r->segment_count;
    q->cookie = (uint64_t)l->c->loads << 32 | buffer;
    if (l->c->config.protocol == VI_PROTOCOL_SRP) {
        memcpy(q->lun, l->lun, sizeof q->lun);
        set_cdb(q, read, at / r->logical_block_nbytes, r->spec->block_nbytes / r->logical_block_nbytes);
    } else {
        q->operation = read ? BLKIF_OP_READ : BLKIF_OP_WRITE;
        q->sector = at / VSCSI_SECTOR_SIZE;
    }
    int rc = vi_enqueue(l->c, q, VI_OWNER_LOAD, &slot);
    if (rc == 0) {
        l->stamps[buffer] = due;
        r->issued++;
    } else {
        r->pattern = before;
    }
    return rc;
}

/* Locked. Sends what is due; a target that takes credits away makes the queue shorter for a while. */
static int refill(struct run *r, struct lane *l, uint64_t now)
{
    while (l->idle_count && !r->stop) {
        if (r->spec->max_ios && r->issued >= r->spec->max_ios) {
            r->stop = true;
            break;
        }
        uint64_t due = vscsi_due_ns(r->spec, r->start_ns, r->issued, now);
        if (due > now) {
            r->next_due_ns = due < r->end_ns ? due : r->end_ns;
            break;
        }
        int rc = send_one(r, l, l->idle[l->idle_count - 1], due);
        if (rc == -EAGAIN && l->c->busy_count)
            break;
        if (rc)
            return rc;
        l->idle_count--;
    }
    return 0;
}

/* Locked. Books what is done: the number. What a load before this one gave up on may still be answered. */
static uint32_t book(struct run *r, struct lane *l, uint64_t now)
{
    struct vi_list *done = &l->c->done[VI_OWNER_LOAD];
    uint32_t n = 0;
    while (done->count) {
        struct vi_slot *slot = vi_list_pop(l->c, done);
        const struct vi_completion *d = &slot->completion;
        uint32_t buffer = (uint32_t)d->cookie;
        if (d->cookie >> 32 != l->c->loads) {
            vi_slot_put(l->c, slot);
            continue;
        }
        n++;
        vscsi_hist_add(r->result, now - l->stamps[buffer]);
        if (d->error || d->status || d->blkif_status || d->in_residual || d->out_residual)
            r->result->errors++;
        l->idle[l->idle_count++] = buffer;
        vi_slot_put(l->c, slot);
    }
    r->result->ios += n;
    return n;
}

/* One round over one channel: take, book, send, publish once. The number of completions or an error. */
static int turn(struct run *r, struct lane *l)
{
    struct vi_channel *c = l->c;
    bool kick = false;
    pthread_mutex_lock(&c->mutex);
    int rc = vi_pump_some(c, TURN_RESPONSES);
    uint32_t n = 0;
    if (rc >= 0) {
        uint64_t now = vscsi_now_ns();
        if (now >= r->end_ns)
            r->stop = true;
        n = book(r, l, now);
        rc = refill(r, l, now);
        kick = vi_push(c);
    }
    if (kick)
        c->inside++;
    pthread_mutex_unlock(&c->mutex);
    if (kick) {
        vi_kick(c);
        vi_leave(c);
        pthread_mutex_unlock(&c->mutex);
    }
    return rc < 0 ? rc : (int)n;
}

/* Until the next request is due, or as long as an answer may take: -ETIMEDOUT only for the latter. */
static int sleep_until(struct pollfd *fds, uint32_t count, uint64_t due_ns, int timeout_ms)
{
    uint64_t now = vscsi_now_ns(), left = due_ns > now ? due_ns - now : 0;
    if (!due_ns)
        return poll(fds, count, timeout_ms) ? 0 : -ETIMEDOUT;
    struct timespec until = { (time_t)(left / 1000000000u), (long)(left % 1000000000u) };
    ppoll(fds, count, &until, NULL);
    return 0;
}

/* Nothing came for the spinning time: asks every channel for an event, looks once more, and sleeps. */
static int sleep_all(struct lane *lanes, uint32_t count, uint64_t due_ns, int timeout_ms)
{
    struct pollfd fds[2 * CHANNELS_MAX];
    bool found = false;
    int rc = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct vi_channel *c = lanes[i].c;
        pthread_mutex_lock(&c->mutex);
        found |= vi_ask(c);
        c->polling = true;
        pthread_mutex_unlock(&c->mutex);
        fds[2 * i] = (struct pollfd){ c->event_fd, POLLIN, 0 };
        fds[2 * i + 1] = (struct pollfd){ c->wake_fd, POLLIN, 0 };
    }
    if (!found)
        rc = sleep_until(fds, 2 * count, due_ns, timeout_ms);
    for (uint32_t i = 0; i < count; i++) {
        struct vi_channel *c = lanes[i].c;
        eventfd_t ignored;
        pthread_mutex_lock(&c->mutex);
        c->polling = false;
        c->stats.sleeps += !found && i == 0;
        if (!found && fds[2 * i + 1].revents)
            eventfd_read(c->wake_fd, &ignored);
        if (!found && fds[2 * i].revents && !c->error)
            vi_drain_event(c);
        pthread_mutex_unlock(&c->mutex);
    }
    return rc;
}

static int loop(struct run *r, struct lane *lanes, uint32_t count)
{
    const struct vi_config *g = &lanes[0].c->config;
    const int timeout_ms = g->timeout_ms ? (int)g->timeout_ms : -1;
    struct vscsi_spin spin = { 0 };
    for (;;) {
        uint32_t got = 0, outstanding = 0;
        uint64_t spin_ns = 0;
        r->next_due_ns = 0;
        for (uint32_t i = 0; i < count; i++) {
            int n = turn(r, &lanes[i]);
            if (n < 0)
                return n;
            got += (uint32_t)n;
            uint64_t worth_ns = vi_spin_ns(lanes[i].c);
            spin_ns = worth_ns > spin_ns ? worth_ns : spin_ns;
            outstanding += r->spec->queue_depth - lanes[i].idle_count;
        }
        if (outstanding == 0 && r->stop)
            return 0;
        if (got) {
            vscsi_spin_paid(&spin);
            continue;
        }
        if (spin_ns && vscsi_spin_on(&spin, spin_ns))
            continue;
        int rc = sleep_all(lanes, count, r->stop ? 0 : r->next_due_ns, timeout_ms);
        if (rc)
            return rc;
        vscsi_spin_slept(&spin, g->spin_ns);
    }
}

static int check(struct vi_channel **channels, uint32_t count, uint32_t logical, const struct vscsi_load_spec *spec)
{
    if (count == 0 || count > CHANNELS_MAX || spec->queue_depth == 0 || spec->block_nbytes == 0 ||
        spec->block_nbytes % VSCSI_SECTOR_SIZE || spec->span_nbytes < spec->block_nbytes ||
        spec->scatter > VSCSI_SCATTER_APART ||
        (spec->scatter == VSCSI_SCATTER_APART && spec->block_nbytes % VSCSI_PAGE_SIZE))
        return -EINVAL;
    for (uint32_t i = 0; i < count; i++) {
        const struct vi_channel *c = channels[i];
        if (c->config.protocol == VI_PROTOCOL_SRP && (logical == 0 || spec->block_nbytes % logical))
            return -EINVAL;
        if (!c->config.persistent && spec->block_nbytes % VSCSI_PAGE_SIZE)
            return -EINVAL; /* two requests would share a page, and its grant */
        if (spec->queue_depth > c->ring.nr_ents)
            return -EINVAL;
    }
    return 0;
}

/* Takes the lead of every channel: how many before one refused. */
static uint32_t take_leads(struct lane *lanes, uint32_t count, int *error)
{
    for (uint32_t i = 0; i < count; i++) {
        struct vi_channel *c = lanes[i].c;
        lanes[i].lead.ready = ready_never;
        pthread_mutex_lock(&c->mutex);
        *error = vi_take_lead(c, &lanes[i].lead);
        if (*error == 0) {
            c->loads++;
            c->inside++; /* until the end: whoever fails the channel waits for us */
            lanes[i].kicks = c->stats.kicks_sent;
            lanes[i].sleeps = c->stats.sleeps;
        }
        pthread_mutex_unlock(&c->mutex);
        if (*error)
            return i;
    }
    return count;
}

static void resign_all(struct lane *lanes, uint32_t count, struct vscsi_load_result *result)
{
    for (uint32_t i = 0; i < count; i++) {
        struct vi_channel *c = lanes[i].c;
        vi_leave(c);
        struct vi_slot *slot;
        while ((slot = vi_list_pop(c, &c->done[VI_OWNER_LOAD])))
            vi_slot_put(c, slot);
        result->kicks += c->stats.kicks_sent - lanes[i].kicks;
        result->sleeps += c->stats.sleeps - lanes[i].sleeps;
        vi_resign(c, &lanes[i].lead);
        pthread_mutex_unlock(&c->mutex);
    }
}

int vi_load(struct vi_channel **channels, uint32_t count, const uint8_t *luns, uint32_t logical_block_nbytes,
            uint64_t buffer_offset, const struct vscsi_load_spec *spec, struct vscsi_load_result *result)
{
    int rc = check(channels, count, logical_block_nbytes, spec);
    if (rc)
        return rc;
    const uint32_t depth = spec->queue_depth;
    struct lane lanes[CHANNELS_MAX] = { 0 };
    struct run r = { .spec = spec, .result = result, .logical_block_nbytes = logical_block_nbytes };
    r.segment_count = spec->scatter ? (spec->block_nbytes + VSCSI_PAGE_SIZE - 1) / VSCSI_PAGE_SIZE : 1;
    r.segments = calloc(r.segment_count, sizeof *r.segments);
    uint64_t *stamps = calloc((size_t)count * depth, sizeof *stamps);
    uint32_t *idle = calloc((size_t)count * depth, sizeof *idle);
    memset(result, 0, sizeof *result);
    rc = r.segments && stamps && idle ? 0 : -ENOMEM;
    if (rc == 0) {
        for (uint32_t i = 0; i < count; i++) {
            lanes[i].c = channels[i];
            if (luns)
                memcpy(lanes[i].lun, luns + i * sizeof lanes[i].lun, sizeof lanes[i].lun);
            lanes[i].buffers = buffer_offset + (uint64_t)i * depth * spec->block_nbytes;
            lanes[i].stamps = stamps + (size_t)i * depth;
            lanes[i].idle = idle + (size_t)i * depth;
            for (uint32_t k = 0; k < depth; k++)
                lanes[i].idle[lanes[i].idle_count++] = depth - 1 - k;
        }
        vscsi_pattern_init(&r.pattern, spec);
        uint32_t led = take_leads(lanes, count, &rc);
        int slack = spec->rate_per_s ? vscsi_slack(1) : 0;
        uint64_t cpu = vscsi_thread_cpu_ns();
        r.start_ns = vscsi_now_ns();
        r.end_ns = r.start_ns + spec->duration_ns;
        if (rc == 0)
            rc = loop(&r, lanes, count);
        result->elapsed_ns = vscsi_now_ns() - r.start_ns;
        result->cpu_ns = vscsi_thread_cpu_ns() - cpu;
        result->unsent = vscsi_unsent(spec, spec->duration_ns, r.issued);
        if (spec->rate_per_s)
            vscsi_slack(slack);
        resign_all(lanes, led, result);
    }
    free(idle);
    free(stamps);
    free(r.segments);
    return rc;
}
