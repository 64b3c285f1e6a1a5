/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory ordering, all of it. No other file names an ordering for shared memory.
 * The peer is another process, possibly hostile: every access is an aligned C11 atomic, so the compiler can neither
 * tear nor repeat it, and the pairing below holds on aarch64 as on x86-64.
 */
#ifndef VSCSI_BARRIER_H
#define VSCSI_BARRIER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* An index as the peer last published it; later reads of the slots it covers see what was written before it. */
static inline uint32_t vscsi_load_acquire(const uint32_t *p)
{
    return atomic_load_explicit((const _Atomic uint32_t *)p, memory_order_acquire);
}

/* Publishes an index: slot contents written before are visible to whoever loads it with acquire. */
static inline void vscsi_store_release(uint32_t *p, uint32_t v)
{
    atomic_store_explicit((_Atomic uint32_t *)p, v, memory_order_release);
}

static inline uint32_t vscsi_load_relaxed(const uint32_t *p)
{
    return atomic_load_explicit((const _Atomic uint32_t *)p, memory_order_relaxed);
}

static inline void vscsi_store_relaxed(uint32_t *p, uint32_t v)
{
    atomic_store_explicit((_Atomic uint32_t *)p, v, memory_order_relaxed);
}

static inline uint64_t vscsi_load64_relaxed(const uint64_t *p)
{
    return atomic_load_explicit((const _Atomic uint64_t *)p, memory_order_relaxed);
}

static inline void vscsi_store64_relaxed(uint64_t *p, uint64_t v)
{
    atomic_store_explicit((_Atomic uint64_t *)p, v, memory_order_relaxed);
}

/*
 * The store-load fence of the ring protocol: my index before the peer's event field, my event field before the peer's
 * index. Neither release nor acquire gives this order, not even on x86-64.
 */
static inline void vscsi_full_fence(void)
{
    atomic_thread_fence(memory_order_seq_cst);
}

static inline void vscsi_cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/*
 * Copies between a slot and private memory. Slots are 8-byte aligned and a multiple of 8 long; one relaxed load a
 * word means that no byte of the shared side is read twice. nbytes is rounded up to 8 on both sides.
 * The private side is some IU's struct, aligned to a byte: a type that may alias it, or the compiler would reorder the fields
 * around the copy.
 */
typedef uint64_t __attribute__((may_alias, aligned(1))) vscsi_word;

static inline void vscsi_slot_read(void *dst, const void *slot, size_t nbytes)
{
    const uint64_t *s = slot;
    vscsi_word *d = dst;
#pragma GCC unroll 8
    for (size_t i = 0; i < (nbytes + 7) / 8; i++)
        d[i] = vscsi_load64_relaxed(&s[i]);
}

/* Asks for the first two cache lines of a slot; reads nothing. */
static inline void vscsi_slot_prefetch(const void *slot)
{
    __builtin_prefetch(slot);
    __builtin_prefetch((const uint8_t *)slot + 56);
}

static inline void vscsi_slot_write(void *slot, const void *src, size_t nbytes)
{
    uint64_t *d = slot;
    const vscsi_word *s = src;
#pragma GCC unroll 8
    for (size_t i = 0; i < (nbytes + 7) / 8; i++)
        vscsi_store64_relaxed(&d[i], s[i]);
}

#endif
