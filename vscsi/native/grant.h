/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Grant table, version 1 entries, both roles: the granter (initiator), who owns the table and the memory, and the
 * mapper (target), who plays the hypervisor's part: it validates entries and sets their in-use bits.
 * Knows frames, references and permissions; knows nothing of rings or of what is read and written.
 * An entry is read as one 64-bit atomic. In-use bits are set by compare-and-swap on all of it, so that they belong to
 * the frame that was read with them, and cleared, like every change by the granter, on its low half (flags and domid).
 */
#ifndef VSCSI_GRANT_H
#define VSCSI_GRANT_H

#include <errno.h>
#include <stdbool.h>

#include "abi.h"
#include "barrier.h"
#include "native.h"

#define GTF_IN_USE (GTF_READING | GTF_WRITING)

static inline struct vscsi_grant_entry vscsi_grant_load(const uint64_t *entry)
{
    uint64_t word = atomic_load_explicit((const _Atomic uint64_t *)entry, memory_order_acquire);
    return (struct vscsi_grant_entry){ (uint16_t)word, (uint16_t)(word >> 16), (uint32_t)(word >> 32) };
}

/* The half of an entry that holds flags and domid, which alone may be swapped. */
static inline _Atomic uint32_t *vscsi_grant_low(uint64_t *entry)
{
    return (_Atomic uint32_t *)(void *)entry;
}

/* ---- granter ---- */

/* Frame first, flags last. -ERANGE: no such reference; -EBUSY: still granted. */
static inline int vscsi_grant_access(struct vscsi_granter *g, uint32_t gref, uint16_t domid, uint32_t frame,
                                     bool readonly)
{
    if (gref < VSCSI_GREF_RESERVED || gref >= g->nr_grants)
        return -ERANGE;
    uint64_t *entry = &g->table[gref];
    if (atomic_load_explicit(vscsi_grant_low(entry), memory_order_relaxed) & GTF_TYPE_MASK)
        return -EBUSY;
    vscsi_store_relaxed((uint32_t *)entry + 1, frame);
    uint32_t low = (uint32_t)domid << 16 | GTF_PERMIT_ACCESS | (readonly ? GTF_READONLY : 0);
    atomic_store_explicit(vscsi_grant_low(entry), low, memory_order_release);
    return 0;
}

/* Ends access. -EBUSY while the peer has the page in use: the page must then not be used again. */
static inline int vscsi_grant_end(struct vscsi_granter *g, uint32_t gref)
{
    if (gref < VSCSI_GREF_RESERVED || gref >= g->nr_grants)
        return -ERANGE;
    _Atomic uint32_t *low = vscsi_grant_low(&g->table[gref]);
    uint32_t seen = atomic_load_explicit(low, memory_order_acquire);
    do {
        if (seen & GTF_IN_USE)
            return -EBUSY;
    } while (!atomic_compare_exchange_weak_explicit(low, &seen, 0, memory_order_acq_rel, memory_order_acquire));
    return 0;
}

/* ---- mapper ---- */

/*
 * One reference's private state. pinned_* are set for good (persistent grants); the counts are uses that come and go.
 * The lock is held for a few instructions and only ever contended by loops that serve the same connection.
 */
struct vscsi_mapping {
    _Atomic(uint8_t *) pinned_read;
    _Atomic(uint8_t *) pinned_write;
    _Atomic uint32_t readers;
    _Atomic uint32_t writers;
    atomic_flag lock;
};

int vscsi_mapper_map_slow(struct vscsi_mapper *m, uint32_t gref, bool write, bool persistent, uint8_t **addr);
void vscsi_mapper_unmap_slow(struct vscsi_mapper *m, uint32_t gref, bool write);

/* The page's address if it is mapped for good, else NULL. */
static inline uint8_t *vscsi_mapper_pinned(struct vscsi_mapper *m, uint32_t gref, bool write)
{
    if (gref >= m->nr_grants)
        return NULL;
    struct vscsi_mapping *mapping = &m->mappings[gref];
    return atomic_load_explicit(write ? &mapping->pinned_write : &mapping->pinned_read, memory_order_acquire);
}

/*
 * The address of the granted page for reading or writing, in use until unmapped.
 * -ERANGE no such reference; -EACCES not granted to us, or read-only; -EFAULT frame outside the peer's memory.
 */
static inline int vscsi_mapper_map(struct vscsi_mapper *m, uint32_t gref, bool write, bool persistent, uint8_t **addr)
{
    uint8_t *p = persistent ? vscsi_mapper_pinned(m, gref, write) : NULL;
    if (p) {
        *addr = p;
        return 0;
    }
    return vscsi_mapper_map_slow(m, gref, write, persistent, addr);
}

/* Counterpart of vscsi_mapper_map with the same arguments; persistent uses last until the mapper is freed. */
static inline void vscsi_mapper_unmap(struct vscsi_mapper *m, uint32_t gref, bool write, bool persistent)
{
    if (!persistent)
        vscsi_mapper_unmap_slow(m, gref, write);
}

#endif
