/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tap: one ring of bytes for every loop, written by the loop alone and read by one Python thread alone, so that
 * neither ever waits for the other. A record is a head, an IU and data, one behind the other. Data that does not fit is
 * left out of its record; a record that does not fit is lost; both are counted. Knows no IU and no file.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "tap.h"

struct vt_tap_ring {
    struct vt_tap *tap;
    uint8_t *bytes;
    uint64_t nbytes;            /* a power of two */
    _Atomic uint64_t head;      /* the loop's: bytes ever written */
    _Atomic uint64_t tail;      /* the reader's: bytes ever taken */
    _Atomic uint64_t lost;
    _Atomic uint64_t cut;
};

struct vt_tap {
    uint64_t data_limit;
    int event_fd;
    _Atomic bool sleeping;
    _Atomic bool stopped;
    uint32_t nr_rings;
    struct vt_tap_ring rings[VT_MAX_LOOPS];
};

enum { RING_MIN = 1 << 16 };

/* ---- the loop's side ---- */

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t put(struct vt_tap_ring *r, uint64_t at, const void *from, uint64_t nbytes)
{
    uint64_t offset = at & (r->nbytes - 1), first = r->nbytes - offset;
    if (first > nbytes)
        first = nbytes;
    memcpy(r->bytes + offset, from, first);
    memcpy(r->bytes, (const uint8_t *)from + first, nbytes - first);
    return at + nbytes;
}

static void publish(struct vt_tap_ring *r, uint64_t head)
{
    /* Both sequentially consistent: the reader says that it sleeps before it looks a last time. */
    atomic_store(&r->head, head);
    if (atomic_load(&r->tap->sleeping) && atomic_exchange(&r->tap->sleeping, false)) {
        uint64_t one = 1;
        ssize_t ignored = write(r->tap->event_fd, &one, sizeof one);
        (void)ignored;
    }
}

static void put_record(struct vt_channel *channel, struct vt_tap_record *record, const void *iu,
                       const struct vt_buffer *data)
{
    struct vt_tap_ring *r = channel->loop->tap;
    uint64_t at = atomic_load_explicit(&r->head, memory_order_relaxed);
    uint64_t room = r->nbytes - (at - atomic_load_explicit(&r->tail, memory_order_acquire));
    record->ns = now_ns();
    record->channel = channel->id;
    if (record->data_nbytes > r->tap->data_limit)
        record->data_nbytes = (uint32_t)r->tap->data_limit;
    if (sizeof *record + record->iu_nbytes + record->data_nbytes > room && record->data_nbytes) {
        record->data_nbytes = 0;
        atomic_fetch_add_explicit(&r->cut, 1, memory_order_relaxed);
    }
    if (sizeof *record + record->iu_nbytes > room) {
        atomic_fetch_add_explicit(&r->lost, 1, memory_order_relaxed);
        return;
    }
    at = put(r, at, record, sizeof *record);
    at = put(r, at, iu, record->iu_nbytes);
    uint64_t left = record->data_nbytes;
    for (uint32_t i = 0; left; i++) {
        uint64_t take = data->iov[i].iov_len < left ? data->iov[i].iov_len : left;
        at = put(r, at, data->iov[i].iov_base, take);
        left -= take;
    }
    publish(r, at);
}

void vt_tap_put_request(struct vt_task *task)
{
    struct vt_tap_record record = { .kind = VT_TAP_REQUEST, .iu_nbytes = VSCSI_SRP_SLOT };
    record.out_nbytes = task->buf[BUF_OUT].described;
    record.in_nbytes = task->buf[BUF_IN].described;
    /* What of a slot was not copied belongs to an earlier request: nobody looks beyond an IU's own length. */
    put_record(task->channel, &record, task->iu.bytes, NULL);
}

void vt_tap_put_data(struct vt_task *task, uint32_t direction)
{
    const struct vt_buffer *b = &task->buf[direction];
    uint64_t nbytes = b->mapped;
    if (direction == BUF_IN && nbytes > task->result.data_in_nbytes)
        nbytes = task->result.data_in_nbytes;
    if (nbytes == 0 || vt_is_aborted(task) || task->response_code >= 0)
        return;
    struct vt_tap_record record = { .kind = direction == BUF_IN ? VT_TAP_DATA_IN : VT_TAP_DATA_OUT };
    record.iu_nbytes = sizeof task->tag;
    record.data_nbytes = (uint32_t)nbytes;
    *(direction == BUF_IN ? &record.in_nbytes : &record.out_nbytes) = nbytes;
    put_record(task->channel, &record, &task->tag, b);
}

void vt_tap_put_response(struct vt_channel *channel, const void *iu, uint32_t nbytes)
{
    struct vt_tap_record record = { .kind = VT_TAP_RESPONSE, .iu_nbytes = nbytes };
    put_record(channel, &record, iu, NULL);
}

/* ---- Python's side ---- */

int vt_tap_start(struct vt_target *t, uint64_t ring_nbytes, uint64_t data_limit)
{
    if (t->started || t->stopped || t->tap)
        return -EALREADY;
    if (ring_nbytes < RING_MIN || ring_nbytes & (ring_nbytes - 1))
        return -EINVAL;
    struct vt_tap *tap = calloc(1, sizeof *tap);
    if (!tap)
        return -ENOMEM;
    t->tap = tap;
    tap->data_limit = data_limit < VSCSI_MAX_TRANSFER ? data_limit : VSCSI_MAX_TRANSFER;
    tap->event_fd = eventfd(0, EFD_CLOEXEC);
    int rc = tap->event_fd < 0 ? -errno : 0;
    for (uint32_t i = 0; i < t->nr_loops && rc == 0; i++) {
        struct vt_tap_ring *r = &tap->rings[i];
        tap->nr_rings++;
        r->tap = tap;
        r->nbytes = ring_nbytes;
        r->bytes = malloc(ring_nbytes);
        rc = r->bytes ? 0 : -ENOMEM;
    }
    if (rc < 0) {
        vt_tap_free(t);
        return rc;
    }
    for (uint32_t i = 0; i < t->nr_loops; i++)
        t->loops[i].tap = &tap->rings[i];
    return 0;
}

static bool empty(struct vt_tap *tap)
{
    for (uint32_t i = 0; i < tap->nr_rings; i++)
        if (atomic_load(&tap->rings[i].head) != atomic_load(&tap->rings[i].tail))
            return false;
    return true;
}

int vt_tap_wait(struct vt_target *t, int timeout_ms)
{
    struct vt_tap *tap = t->tap;
    if (!tap)
        return -ENOTCONN;
    bool stopped = atomic_load(&tap->stopped);
    if (!empty(tap))
        return 1;
    if (stopped)
        return -ESHUTDOWN;
    atomic_store(&tap->sleeping, true);
    if (empty(tap) && !atomic_load(&tap->stopped)) {
        struct pollfd wake = { .fd = tap->event_fd, .events = POLLIN };
        poll(&wake, 1, timeout_ms);
    }
    if (!atomic_exchange(&tap->sleeping, false)) {
        /* Whoever took the flag away writes, or has written already. */
        uint64_t count;
        ssize_t ignored = read(tap->event_fd, &count, sizeof count);
        (void)ignored;
    }
    return !empty(tap);
}

int64_t vt_tap_read(struct vt_target *t, uint32_t loop, void *to, uint64_t nbytes)
{
    struct vt_tap *tap = t->tap;
    if (!tap || loop >= tap->nr_rings)
        return -ENOENT;
    struct vt_tap_ring *r = &tap->rings[loop];
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    uint64_t waiting = atomic_load_explicit(&r->head, memory_order_acquire) - tail;
    if (nbytes > waiting)
        nbytes = waiting;
    uint64_t offset = tail & (r->nbytes - 1), first = r->nbytes - offset;
    if (first > nbytes)
        first = nbytes;
    memcpy(to, r->bytes + offset, first);
    memcpy((uint8_t *)to + first, r->bytes, nbytes - first);
    atomic_store_explicit(&r->tail, tail + nbytes, memory_order_release);
    return (int64_t)nbytes;
}

int vt_tap_stats(struct vt_target *t, struct vt_tap_stats *stats)
{
    if (!t->tap)
        return -ENOTCONN;
    *stats = (struct vt_tap_stats){ 0 };
    for (uint32_t i = 0; i < t->tap->nr_rings; i++) {
        stats->lost += atomic_load_explicit(&t->tap->rings[i].lost, memory_order_relaxed);
        stats->cut += atomic_load_explicit(&t->tap->rings[i].cut, memory_order_relaxed);
    }
    return 0;
}

void vt_tap_stop(struct vt_target *t)
{
    if (!t->tap)
        return;
    atomic_store(&t->tap->stopped, true);
    if (atomic_exchange(&t->tap->sleeping, false)) {
        uint64_t one = 1;
        ssize_t ignored = write(t->tap->event_fd, &one, sizeof one);
        (void)ignored;
    }
}

void vt_tap_free(struct vt_target *t)
{
    struct vt_tap *tap = t->tap;
    if (!tap)
        return;
    t->tap = NULL;
    for (uint32_t i = 0; i < tap->nr_rings; i++)
        free(tap->rings[i].bytes);
    if (tap->event_fd >= 0)
        close(tap->event_fd);
    free(tap);
}
