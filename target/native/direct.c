/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `direct`: a closed or open load in the calling thread through the very engine the loops use, without ring, protocol
 * or second thread: what block I/O itself costs, for the bench to subtract. Knows blockio.h and load.h only.
 * It goes about its slots as a loop does about its channels: one turn submits what is free, sends it off, reaps.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "blockio.h"
#include "load.h"
#include "target.h"

enum { MAX_DEPTH = 65536, BUFFER_ALIGN = 4096, DUE_SPIN_NS = 50000 };

struct slot {
    struct bio bio;
    struct iovec iov;
    uint64_t due_ns;             /* when it was started, or should have been */
    struct slot *next;           /* while free */
};

struct direct {
    const struct vscsi_load_spec *spec;
    struct vscsi_load_result *result;
    struct bio_engine *engine;
    struct vscsi_pattern pattern;
    struct slot *slots;
    struct slot *free;
    uint8_t *buffers;
    size_t buffers_nbytes;
    uint64_t started;
    uint64_t start_ns;
    uint64_t deadline_ns;
    uint8_t flags[2];            /* bio_flags of a write and of a read */
    int error;
};

static int check(const struct vscsi_load_spec *spec)
{
    if (spec->block_nbytes == 0 || spec->block_nbytes % 512 != 0 || spec->span_nbytes < spec->block_nbytes)
        return -EINVAL;
    if (spec->span_nbytes > INT64_MAX || spec->span_nbytes % spec->block_nbytes != 0)
        return -EINVAL;
    if (spec->queue_depth == 0 || spec->queue_depth > MAX_DEPTH)
        return -EINVAL;
    return spec->duration_ns == 0 && spec->max_ios == 0 ? -EINVAL : 0;
}

static int set_up_slots(struct direct *d, int fd)
{
    const struct vscsi_load_spec *spec = d->spec;
    const size_t stride = ((size_t)spec->block_nbytes + BUFFER_ALIGN - 1) / BUFFER_ALIGN * BUFFER_ALIGN;
    d->slots = calloc(spec->queue_depth, sizeof *d->slots);
    /* Shared memory, as a peer's is: the kernel copies to the same kind of page, and the first touch is not timed. */
    d->buffers_nbytes = stride * spec->queue_depth;
    d->buffers = mmap(NULL, d->buffers_nbytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE,
                      -1, 0);
    if (d->slots == NULL || d->buffers == MAP_FAILED)
        return -ENOMEM;
    for (uint32_t i = spec->queue_depth; i-- > 0;) {
        struct slot *s = &d->slots[i];
        /* One run whatever `scatter` says: a loop merges adjacent pages before it gets here. */
        s->iov = (struct iovec){d->buffers + i * stride, spec->block_nbytes};
        s->bio = (struct bio){.owner = s, .iov = &s->iov, .iovcnt = 1, .fd = fd, .nbytes = spec->block_nbytes,
                              .direct_align = spec->block_nbytes % BUFFER_ALIGN == 0 ? BUFFER_ALIGN : 512};
        s->next = d->free;
        d->free = s;
    }
    return 0;
}

static void account(struct direct *d, struct slot *s, uint64_t now_ns)
{
    if (s->bio.error == 0) {
        d->result->ios++;
        vscsi_hist_add(d->result, now_ns - s->due_ns);
    } else {
        d->result->errors++;
        if (d->error == 0)
            d->error = s->bio.error;
    }
    s->next = d->free;
    d->free = s;
}

static bool more(const struct direct *d, uint64_t now_ns)
{
    return d->error == 0 && now_ns < d->deadline_ns && (d->spec->max_ios == 0 || d->started < d->spec->max_ios);
}

static uint64_t next_due_ns(const struct direct *d, uint64_t now_ns)
{
    return vscsi_due_ns(d->spec, d->start_ns, d->started, now_ns);
}

/* Submits what is due, each free slot once. One look at the clock an I/O: the end of one is the start of the next. */
static uint64_t submit_free(struct direct *d, uint64_t now_ns)
{
    struct slot *s = d->free;
    d->free = NULL;
    bio_expect(d->engine, d->spec->queue_depth - bio_in_flight(d->engine));
    while (s != NULL) {
        struct slot *next = s->next;
        const uint64_t due_ns = next_due_ns(d, now_ns);
        if (!more(d, now_ns) || due_ns > now_ns) {
            s->next = d->free;
            d->free = s;
        } else {
            bool read;
            s->bio.offset = vscsi_pattern_next(&d->pattern, d->spec, &read);
            s->bio.kind = read ? BIO_READ : BIO_WRITE;
            s->bio.flags = d->flags[read];
            s->due_ns = due_ns;
            d->started++;
            if (bio_submit(d->engine, &s->bio)) {
                now_ns = vscsi_now_ns();
                account(d, s, now_ns);
            }
        }
        s = next;
    }
    return now_ns;
}

static uint64_t reap(struct direct *d, uint64_t now_ns)
{
    struct bio *bio = bio_reap(d->engine);
    if (bio == NULL)
        return now_ns;
    now_ns = vscsi_now_ns();
    /* A bounded turn, with one look at the clock: what ends meanwhile is for the next. */
    for (uint32_t turn = 1;; turn++) {
        account(d, bio->owner, now_ns);
        if (turn == d->spec->queue_depth || (bio = bio_reap(d->engine)) == NULL)
            return now_ns;
    }
}

/* As the rings' ends do: looks for a short time rather than sleep. */
static void wait_until_due(struct direct *d, uint64_t ns)
{
    if (ns <= DUE_SPIN_NS) {
        bio_wait(d->engine, 0);
    } else {
        bio_wait(d->engine, ns - DUE_SPIN_NS);
        d->result->sleeps++;
    }
}

static void run(struct direct *d)
{
    const int slack = d->spec->rate_per_s ? vscsi_slack(1) : 0;
    const uint64_t start_cpu_ns = vscsi_thread_cpu_ns();
    const uint64_t start_ns = vscsi_now_ns();
    uint64_t now_ns = start_ns;
    d->start_ns = start_ns;
    d->deadline_ns = d->spec->duration_ns ? start_ns + d->spec->duration_ns : UINT64_MAX;
    if (d->deadline_ns < start_ns)
        d->deadline_ns = UINT64_MAX;
    while (more(d, now_ns) || bio_in_flight(d->engine) > 0) {
        now_ns = submit_free(d, now_ns);
        const bool wanted = d->free != NULL && more(d, now_ns);
        const uint64_t due_ns = next_due_ns(d, now_ns);
        if (wanted && due_ns > now_ns) {
            wait_until_due(d, due_ns - now_ns);
            now_ns = vscsi_now_ns();
        } else if (wanted) {
            bio_flush(d->engine);
        } else if (bio_in_flight(d->engine) > 0) {
            /* Nothing to do until one ends: sends off and sleeps in one system call. */
            bio_wait(d->engine, UINT64_MAX);
            d->result->sleeps++;
        }
        now_ns = reap(d, now_ns);
    }
    d->result->elapsed_ns = now_ns - start_ns;
    d->result->unsent = vscsi_unsent(d->spec, d->deadline_ns - start_ns, d->started);
    d->result->cpu_ns = vscsi_thread_cpu_ns() - start_cpu_ns;
    if (d->spec->rate_per_s)
        vscsi_slack(slack);
}

static void set_up_flags(struct direct *d, int fd, uint32_t flags, bool nowait)
{
    uint8_t common = 0;
    if (flags & VT_LU_NULL)
        common |= BIO_NULL;
    else if (flags & VT_LU_DIRECT)
        common |= BIO_DIRECT;
    else if (nowait)
        common |= bio_probe_nowait(fd, d->spec->read_percent < 100);
    d->flags[true] = common;
    d->flags[false] = flags & VT_LU_WRITE_CACHE ? common : common | BIO_DURABLE;
}

int vt_direct_load(int fd, uint32_t flags, uint32_t engine, uint32_t nowait, const struct vscsi_load_spec *spec,
                   struct vscsi_load_result *result)
{
    memset(result, 0, sizeof *result);
    int error = check(spec);
    if (error < 0)
        return error;
    struct direct d = {.spec = spec, .result = result, .buffers = MAP_FAILED};
    const struct bio_config config = {.engine = engine, .depth = spec->queue_depth};
    vscsi_pattern_init(&d.pattern, spec);
    set_up_flags(&d, fd, flags, nowait);
    error = set_up_slots(&d, fd);
    if (error == 0 && (d.engine = bio_engine_new(&config, &error)) != NULL) {
        run(&d);
        error = d.error;
        bio_engine_free(d.engine);
    }
    if (d.buffers != MAP_FAILED)
        munmap(d.buffers, d.buffers_nbytes);
    free(d.slots);
    return error;
}
