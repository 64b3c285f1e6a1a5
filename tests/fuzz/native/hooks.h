/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Put before every C file that is fuzzed (gcc's -include): the same functions that touch shared memory, but the harness
 * hears of every look at it, and may change it between two looks, as a peer with another CPU would. The clock is the
 * harness's too. Knows names of functions; knows nothing of what a test does with them.
 */
#ifndef FUZZ_HOOKS_H
#define FUZZ_HOOKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A second thread rewrites shared memory (race.h). */
extern bool racing;
void race_pause(void);
/* Looks at shared memory until fuzz_fire is called; 0: never. */
extern uint32_t fuzz_countdown;
extern uint64_t fuzz_now_ns;
void fuzz_fire(const void *at);
/* The product has copied out of a slot, written one, published an index, mapped or unmapped a granted page. */
void fuzz_copied(const void *private, const void *slot, size_t nbytes);
void fuzz_written(const void *slot, const void *private, size_t nbytes);
/* The product has stored one word that is not part of such a copy; it may lie in private memory. */
void fuzz_stored(const uint64_t *at, uint64_t word);
void fuzz_published(const uint32_t *index, uint32_t value);
void fuzz_mapped(const void *mapper, uint32_t gref, int write, int persistent, const uint8_t *page);
void fuzz_unmapped(const void *mapper, uint32_t gref, int write, int persistent);

/* `at` is read, written or used next. */
static inline void fuzz_look(const void *at)
{
    if (__builtin_expect(racing, 0))
        race_pause();
    if (__builtin_expect(fuzz_countdown != 0, 0) && --fuzz_countdown == 0)
        fuzz_fire(at);
}

#define vscsi_load_acquire plain_load_acquire
#define vscsi_store_release plain_store_release
#define vscsi_slot_read plain_slot_read
#define vscsi_slot_write plain_slot_write
#define vscsi_store64_relaxed plain_store64_relaxed
#include "barrier.h"
#undef vscsi_load_acquire
#undef vscsi_store_release
#undef vscsi_slot_read
#undef vscsi_slot_write
#undef vscsi_store64_relaxed

static inline uint32_t vscsi_load_acquire(const uint32_t *p)
{
    fuzz_look(p);
    return plain_load_acquire(p);
}

static inline void vscsi_store_release(uint32_t *p, uint32_t v)
{
    plain_store_release(p, v);
    fuzz_published(p, v);
}

static inline void vscsi_store64_relaxed(uint64_t *p, uint64_t v)
{
    fuzz_look(p);
    plain_store64_relaxed(p, v);
    fuzz_stored(p, v);
}

/* Word by word, so that a slot may change within one copy of it. */
static inline void vscsi_slot_read(void *dst, const void *slot, size_t nbytes)
{
    for (size_t i = 0; i < nbytes; i += 8) {
        fuzz_look((const uint8_t *)slot + i);
        plain_slot_read((uint8_t *)dst + i, (const uint8_t *)slot + i, 8);
    }
    fuzz_copied(dst, slot, nbytes);
    race_pause();
}

static inline void vscsi_slot_write(void *slot, const void *src, size_t nbytes)
{
    fuzz_look(slot);
    plain_slot_write(slot, src, nbytes);
    fuzz_written(slot, src, nbytes);
}

#define vscsi_grant_load plain_grant_load
#define vscsi_mapper_map plain_mapper_map
#define vscsi_mapper_unmap plain_mapper_unmap
#include "grant.h"
#undef vscsi_grant_load
#undef vscsi_mapper_map
#undef vscsi_mapper_unmap

static inline struct vscsi_grant_entry vscsi_grant_load(const uint64_t *entry)
{
    fuzz_look(entry);
    struct vscsi_grant_entry e = plain_grant_load(entry);
    fuzz_look(entry);
    return e;
}

static inline int vscsi_mapper_map(struct vscsi_mapper *m, uint32_t gref, bool write, bool persistent, uint8_t **addr)
{
    int rc = plain_mapper_map(m, gref, write, persistent, addr);
    if (rc == 0)
        fuzz_mapped(m, gref, write, persistent, *addr);
    fuzz_look(rc == 0 ? *addr : NULL);
    return rc;
}

static inline void vscsi_mapper_unmap(struct vscsi_mapper *m, uint32_t gref, bool write, bool persistent)
{
    fuzz_unmapped(m, gref, write, persistent);
    plain_mapper_unmap(m, gref, write, persistent);
}

#define vscsi_now_ns plain_now_ns
#include "load.h"
#undef vscsi_now_ns

static inline uint64_t vscsi_now_ns(void)
{
    return fuzz_now_ns;
}

/* Whoever sleeps lets the peer go on; time passes when it has nothing more to do. */
#include <poll.h>
#include <time.h>

/* -1: no limit. */
int fuzz_sleep(struct pollfd *fds, nfds_t count, int timeout_ms);

static inline int fuzz_ms(const struct timespec *timeout)
{
    return timeout ? (int)(timeout->tv_sec * 1000 + (timeout->tv_nsec + 999999) / 1000000) : -1;
}

#define ppoll(fds, count, timeout, mask) fuzz_sleep(fds, count, fuzz_ms(timeout))
#define poll(fds, count, timeout_ms) fuzz_sleep(fds, count, timeout_ms)

#endif
