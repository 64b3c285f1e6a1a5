/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The shared ring of Xen's public io/ring.h, both sides: free-running 32-bit indexes, event suppression, final check.
 * Knows indexes and slots; knows nothing of what a slot holds or of how a peer is kicked.
 * Shared memory is hostile: own indexes live in the private structs and are never read back from the shared page;
 * the peer's are read once per call and checked before use. Errors are negative errno; -EPROTO means the peer broke
 * the ring, and the ring must not be used again.
 * The private side keeps one thread of control; callers lock.
 */
#ifndef VSCSI_RING_H
#define VSCSI_RING_H

#include <errno.h>
#include <stdbool.h>

#include "abi.h"
#include "barrier.h"

/* Entries of a ring of that many pages: the largest power of two whose slots fit behind the header. 0 if none does. */
static inline uint32_t vscsi_ring_entries(uint32_t pages, uint32_t slot_nbytes)
{
    if (pages == 0 || pages > VSCSI_MAX_RING_PAGES || slot_nbytes == 0)
        return 0;
    uint32_t fit = (pages * VSCSI_PAGE_SIZE - VSCSI_RING_HEADER) / slot_nbytes;
    uint32_t n = 1;
    while (n * 2 <= fit)
        n *= 2;
    return fit ? n : 0;
}

static inline void *vscsi_ring_slot(struct vscsi_sring *s, uint32_t index, uint32_t nr_ents, uint32_t slot_nbytes)
{
    return (uint8_t *)s + VSCSI_RING_HEADER + (size_t)(index & (nr_ents - 1)) * slot_nbytes;
}

/* Only the requesting side initialises, before it grants the pages. */
static inline void vscsi_ring_init(struct vscsi_sring *s)
{
    uint64_t *words = (uint64_t *)s;
    for (size_t i = 0; i < VSCSI_RING_HEADER / 8; i++)
        vscsi_store64_relaxed(&words[i], 0);
    vscsi_store_relaxed(&s->req_event, 1);
    vscsi_store_release(&s->rsp_event, 1);
}

/* ---- the side that makes requests ---- */

/* Attaches at index `start` (0 for a new ring). */
static inline void vscsi_front_attach(struct vscsi_front_ring *r, struct vscsi_sring *s, uint32_t nr_ents,
                                      uint32_t slot_nbytes, uint32_t start)
{
    r->sring = s;
    r->req_prod_pvt = r->req_published = r->rsp_cons = start;
    r->nr_ents = nr_ents;
    r->slot_nbytes = slot_nbytes;
}

static inline uint32_t vscsi_front_free(const struct vscsi_front_ring *r)
{
    return r->nr_ents - (r->req_prod_pvt - r->rsp_cons);
}

/* The next free request slot, already counted as used, or NULL when the ring is full. */
static inline void *vscsi_front_next_request(struct vscsi_front_ring *r)
{
    if (vscsi_front_free(r) == 0)
        return NULL;
    return vscsi_ring_slot(r->sring, r->req_prod_pvt++, r->nr_ents, r->slot_nbytes);
}

/* Publishes; true if the peer asked to be kicked for one of these requests. */
static inline bool vscsi_front_push(struct vscsi_front_ring *r)
{
    uint32_t old = r->req_published, new_ = r->req_prod_pvt;
    if (old == new_)
        return false;
    vscsi_store_release(&r->sring->req_prod, new_);
    vscsi_store_relaxed(&r->req_published, new_); /* whoever waits awake looks at it: vscsi_front_peer_works */
    vscsi_full_fence();
    return (uint32_t)(new_ - vscsi_load_relaxed(&r->sring->req_event)) < (uint32_t)(new_ - old);
}

/* Responses waiting (>= 0), or -EPROTO: more responses than requests, or an index that ran backwards. */
static inline int vscsi_front_unconsumed(const struct vscsi_front_ring *r)
{
    uint32_t n = vscsi_load_acquire(&r->sring->rsp_prod) - r->rsp_cons;
    if (n > r->req_published - r->rsp_cons)
        return -EPROTO;
    return (int)n;
}

static inline const void *vscsi_front_response(const struct vscsi_front_ring *r)
{
    return vscsi_ring_slot(r->sring, r->rsp_cons, r->nr_ents, r->slot_nbytes);
}

/* Before sleeping: ask to be kicked for the response `ahead` from here (1: the next one), then look once more. */
static inline int vscsi_front_final_check(struct vscsi_front_ring *r, uint32_t ahead)
{
    int n = vscsi_front_unconsumed(r);
    if (n)
        return n;
    vscsi_store_relaxed(&r->sring->rsp_event, r->rsp_cons + ahead);
    vscsi_full_fence();
    return vscsi_front_unconsumed(r);
}

/*
 * Is the peer at work, so that a response may come any moment? Not once it has asked to be kicked for our next request:
 * then it rests, or is about to. Nor if it advises against waiting awake. The one function that needs no lock: another
 * thread may publish meanwhile.
 */
static inline bool vscsi_front_peer_works(const struct vscsi_front_ring *r)
{
    return vscsi_load_relaxed(&r->sring->req_event) != vscsi_load_relaxed(&r->req_published) + 1 &&
           vscsi_load_relaxed(&r->sring->advice) != VSCSI_ADVICE_SLEEP;
}

/* ---- the side that answers ---- */

static inline void vscsi_back_attach(struct vscsi_back_ring *r, struct vscsi_sring *s, uint32_t nr_ents,
                                     uint32_t slot_nbytes, uint32_t start)
{
    r->sring = s;
    r->rsp_prod_pvt = r->rsp_published = r->req_cons = start;
    r->nr_ents = nr_ents;
    r->slot_nbytes = slot_nbytes;
    r->advised = 0;
}

/* Requests waiting (>= 0), or -EPROTO: the producer ran backwards or past the slots that are free for it. */
static inline int vscsi_back_unconsumed(const struct vscsi_back_ring *r)
{
    uint32_t prod = vscsi_load_acquire(&r->sring->req_prod);
    uint32_t n = prod - r->req_cons;
    if (n > r->nr_ents || prod - r->rsp_published > r->nr_ents)
        return -EPROTO;
    return (int)n;
}

/* The oldest waiting request. The caller copies it to private memory, then counts it with vscsi_back_consume. */
static inline const void *vscsi_back_request(const struct vscsi_back_ring *r)
{
    return vscsi_ring_slot(r->sring, r->req_cons, r->nr_ents, r->slot_nbytes);
}

static inline void vscsi_back_consume(struct vscsi_back_ring *r)
{
    r->req_cons++;
}

/* Requests consumed and not yet answered; a response may be made only while this is not 0. */
static inline uint32_t vscsi_back_unanswered(const struct vscsi_back_ring *r)
{
    return r->req_cons - r->rsp_prod_pvt;
}

/* The slot of the next response, already counted. NULL if every consumed request has been answered. */
static inline void *vscsi_back_next_response(struct vscsi_back_ring *r)
{
    if (vscsi_back_unanswered(r) == 0)
        return NULL;
    return vscsi_ring_slot(r->sring, r->rsp_prod_pvt++, r->nr_ents, r->slot_nbytes);
}

static inline bool vscsi_back_push(struct vscsi_back_ring *r)
{
    uint32_t old = r->rsp_published, new_ = r->rsp_prod_pvt;
    if (old == new_)
        return false;
    vscsi_store_release(&r->sring->rsp_prod, new_);
    r->rsp_published = new_;
    vscsi_full_fence();
    return (uint32_t)(new_ - vscsi_load_relaxed(&r->sring->rsp_event)) < (uint32_t)(new_ - old);
}

/* Tells the peer whether waiting awake makes sense; written only when it changes. */
static inline void vscsi_back_advise(struct vscsi_back_ring *r, uint32_t advice)
{
    if (r->advised == advice)
        return;
    r->advised = advice;
    vscsi_store_relaxed(&r->sring->advice, advice);
}

/* Before sleeping: ask to be kicked for the next request, then look once more. */
static inline int vscsi_back_final_check(struct vscsi_back_ring *r)
{
    int n = vscsi_back_unconsumed(r);
    if (n)
        return n;
    vscsi_store_relaxed(&r->sring->req_event, r->req_cons + 1);
    vscsi_full_fence();
    return vscsi_back_unconsumed(r);
}

#endif
