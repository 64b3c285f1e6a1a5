/* SPDX-License-Identifier: BSD-2-Clause */
/* The functions of native.cdef.h: thin shells around the inline headers, for Python and for tests. */
#include "native.h"

#include "event.h"
#include "grant.h"
#include "load.h"
#include "ring.h"

int vscsi_granter_grant(struct vscsi_granter *g, uint32_t gref, uint16_t domid, uint32_t frame, int readonly)
{
    return vscsi_grant_access(g, gref, domid, frame, readonly != 0);
}

int vscsi_granter_grant_run(struct vscsi_granter *g, uint32_t gref, uint16_t domid, uint32_t frame, uint32_t count,
                            int readonly, uint32_t *at)
{
    const uint16_t access = GTF_TYPE_MASK | GTF_READONLY;
    const uint16_t wanted = GTF_PERMIT_ACCESS | (readonly ? GTF_READONLY : 0);
    if (gref < VSCSI_GREF_RESERVED || gref > g->nr_grants || count > g->nr_grants - gref)
        return -ERANGE;
    for (*at = 0; *at < count; (*at)++) {
        uint16_t now = vscsi_grant_load(&g->table[gref + *at]).flags & access;
        if (now && now != wanted)
            return -EEXIST;
    }
    for (uint32_t i = 0; i < count; i++)
        if (!(vscsi_grant_load(&g->table[gref + i]).flags & access))
            vscsi_grant_access(g, gref + i, domid, frame + i, readonly != 0);
    return 0;
}

int vscsi_granter_end(struct vscsi_granter *g, uint32_t gref)
{
    return vscsi_grant_end(g, gref);
}

int vscsi_granter_flags(struct vscsi_granter *g, uint32_t gref)
{
    return gref < g->nr_grants ? vscsi_grant_load(&g->table[gref]).flags : -ERANGE;
}

int vscsi_mapper_get(struct vscsi_mapper *m, uint32_t gref, int write, int persistent, uint8_t **addr)
{
    return vscsi_mapper_map(m, gref, write != 0, persistent != 0, addr);
}

void vscsi_mapper_put(struct vscsi_mapper *m, uint32_t gref, int write, int persistent)
{
    if (gref >= VSCSI_GREF_RESERVED && gref < m->nr_grants)
        vscsi_mapper_unmap(m, gref, write != 0, persistent != 0);
}

int vscsi_event_pair(int ends[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    int smallest = 1; /* the kernel rounds up to its minimum: a handful of signals, and a drain is short */
    for (int i = 0; i < 2; i++)
        setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &smallest, sizeof smallest);
    return 0;
}

int vscsi_event_send_fd(int fd)
{
    return vscsi_event_send(fd);
}

int vscsi_event_drain_fd(int fd)
{
    return vscsi_event_drain(fd);
}

uint32_t vscsi_ring_capacity(uint32_t pages, uint32_t slot_nbytes)
{
    return vscsi_ring_entries(pages, slot_nbytes);
}

void vscsi_ring_format(void *page)
{
    vscsi_ring_init(page);
}

int vscsi_ring_front(struct vscsi_front_ring *r, void *page, uint32_t pages, uint32_t slot_nbytes, uint32_t start)
{
    uint32_t n = vscsi_ring_entries(pages, slot_nbytes);
    if (n == 0 || slot_nbytes % 8 || slot_nbytes > VSCSI_PAGE_SIZE)
        return -EINVAL;
    vscsi_front_attach(r, page, n, slot_nbytes, start);
    return 0;
}

int vscsi_ring_back(struct vscsi_back_ring *r, void *page, uint32_t pages, uint32_t slot_nbytes, uint32_t start)
{
    uint32_t n = vscsi_ring_entries(pages, slot_nbytes);
    if (n == 0 || slot_nbytes % 8 || slot_nbytes > VSCSI_PAGE_SIZE)
        return -EINVAL;
    vscsi_back_attach(r, page, n, slot_nbytes, start);
    return 0;
}

/* An IU of any length up to the slot's, zero-padded to whole words. */
static int write_slot(void *slot, uint32_t slot_nbytes, const void *iu, uint32_t nbytes)
{
    uint64_t words[VSCSI_PAGE_SIZE / 8] = { 0 };
    if (nbytes > slot_nbytes || slot_nbytes > sizeof words)
        return -EINVAL;
    memcpy(words, iu, nbytes);
    vscsi_slot_write(slot, words, nbytes);
    return 0;
}

int vscsi_ring_request(struct vscsi_front_ring *r, const void *iu, uint32_t nbytes)
{
    if (nbytes > r->slot_nbytes)
        return -EINVAL;
    void *slot = vscsi_front_next_request(r);
    if (!slot)
        return -EAGAIN;
    int rc = write_slot(slot, r->slot_nbytes, iu, nbytes);
    return rc ? rc : vscsi_front_push(r);
}

int vscsi_ring_take_response(struct vscsi_front_ring *r, void *iu)
{
    int n = vscsi_front_final_check(r, 1);
    if (n <= 0)
        return n;
    vscsi_slot_read(iu, vscsi_front_response(r), r->slot_nbytes);
    r->rsp_cons++;
    return 1;
}

int vscsi_ring_take_request(struct vscsi_back_ring *r, void *iu)
{
    int n = vscsi_back_final_check(r);
    if (n <= 0)
        return n;
    vscsi_slot_read(iu, vscsi_back_request(r), r->slot_nbytes);
    vscsi_back_consume(r);
    return 1;
}

int vscsi_ring_respond(struct vscsi_back_ring *r, const void *iu, uint32_t nbytes)
{
    if (nbytes > r->slot_nbytes)
        return -EINVAL;
    void *slot = vscsi_back_next_response(r);
    if (!slot)
        return -EAGAIN;
    int rc = write_slot(slot, r->slot_nbytes, iu, nbytes);
    return rc ? rc : vscsi_back_push(r);
}

uint32_t vscsi_hist_bucket_of(uint64_t ns)
{
    return vscsi_hist_bucket(ns);
}

uint64_t vscsi_hist_value(uint32_t bucket)
{
    const uint32_t sub = 1u << VSCSI_HIST_SUB_BITS;
    if (bucket < sub)
        return bucket;
    uint32_t shift = bucket / sub - 1;
    return ((uint64_t)(bucket % sub + sub) << shift) + ((uint64_t)1 << shift) / 2;
}

uint64_t vscsi_hist_quantile(const struct vscsi_load_result *r, double q)
{
    uint64_t total = 0, seen = 0;
    for (uint32_t i = 0; i < VSCSI_HIST_BUCKETS; i++)
        total += r->histogram[i];
    for (uint32_t i = 0; i < VSCSI_HIST_BUCKETS; i++) {
        seen += r->histogram[i];
        if (seen && (double)seen >= q * (double)total) {
            uint64_t middle = vscsi_hist_value(i);
            return i >= 1u << VSCSI_HIST_SUB_BITS && r->max_ns && middle > r->max_ns ? r->max_ns : middle;
        }
    }
    return 0;
}

void vscsi_load_merge(struct vscsi_load_result *into, const struct vscsi_load_result *from)
{
    into->ios += from->ios;
    into->errors += from->errors;
    if (from->elapsed_ns > into->elapsed_ns)
        into->elapsed_ns = from->elapsed_ns;
    into->cpu_ns += from->cpu_ns;
    into->kicks += from->kicks;
    into->sleeps += from->sleeps;
    into->unsent += from->unsent;
    if (from->max_ns > into->max_ns)
        into->max_ns = from->max_ns;
    for (uint32_t i = 0; i < VSCSI_HIST_BUCKETS; i++)
        into->histogram[i] += from->histogram[i];
}

const char *vscsi_stamp(void)
{
    return VSCSI_STAMP;
}
