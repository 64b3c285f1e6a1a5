/* SPDX-License-Identifier: BSD-2-Clause */
/* See race.h. */
#include "race.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "grant.h"

/* HOLD: turns of waiting at most. HEAD: bytes of a slot that matter most. */
enum { MOST_RACES = 8, HOLD = 64, HEAD = 64 };

bool racing;
uint64_t fuzz_raced_writes;

static struct {
    pthread_t thread;
    struct race_area areas[RACE_AREAS];
    uint32_t nr_areas;
    uint32_t seed;
    atomic_bool begun;
    atomic_bool stop;
    uint32_t races;             /* of this input */
    uint32_t pauses;            /* state of random numbers */
    _Atomic uint64_t writes;    /* ever */
} race;

static uint32_t next(uint32_t *state)
{
    uint32_t x = *state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

/* Whoever looks sees the old value or the new one; between the two the thread holds still for a moment. */
static void wait_a_moment(uint32_t random)
{
    atomic_fetch_add_explicit(&race.writes, 1, memory_order_release);
    for (uint32_t i = random % HOLD; i > 0; i--)
        vscsi_cpu_relax();
}

static void write_bytes(const struct race_area *area, uint32_t random, uint32_t value)
{
    static const uint8_t likely[] = { 0, 1, 2, 6, 8, 0x10, 0x20, 0x28, 0x2a, 0x7f, 0x80, 0xff };
    uint32_t nbytes = value & 0x40000000 && area->nbytes > HEAD ? HEAD : area->nbytes;
    _Atomic uint8_t *at = (_Atomic uint8_t *)area->at + random % nbytes;
    uint8_t old = atomic_load_explicit(at, memory_order_relaxed);
    uint8_t new = value & 0x100 ? likely[(value & 0xff) % sizeof likely] : (uint8_t)value;
    atomic_store_explicit(at, new, memory_order_relaxed);
    wait_a_moment(value >> 9);
    if (!(value & 0x80000000))
        atomic_store_explicit(at, old, memory_order_relaxed);
}

static void write_index(const struct race_area *area, uint32_t random, uint32_t value)
{
    _Atomic uint32_t *at = (_Atomic uint32_t *)area->at + random % (area->nbytes / 4);
    uint32_t old = atomic_load_explicit(at, memory_order_relaxed), new = old + (value & 0xff) - 0x80;
    if (value & 0xf000)     /* most of the time rings are left alone: a broken one ends all */
        return;
    if (!atomic_compare_exchange_strong(at, &old, new))
        return;
    wait_a_moment(value >> 16);
    /* Unless its owner has gone on meanwhile. */
    atomic_compare_exchange_strong(at, &new, old);
}

static void write_grant(const struct race_area *area, uint32_t random, uint32_t value)
{
    static const uint16_t flags[] = { 0, GTF_PERMIT_ACCESS, GTF_PERMIT_ACCESS | GTF_READONLY, GTF_TRANSITIVE };
    _Atomic uint64_t *at = (_Atomic uint64_t *)area->at + random % (area->nbytes / 8);
    uint64_t old = atomic_load_explicit(at, memory_order_relaxed);
    uint64_t frame = value & 0x40 ? FRAMES + (value >> 8 & 0xff) : DATA_FRAME + (value >> 8) % DATA_FRAMES;
    uint64_t new = frame << 32 | (old & 0xffff0000) | flags[value & 3] | (value & 0x80 ? old & GTF_IN_USE : 0);
    atomic_store_explicit(at, new, memory_order_relaxed);
    wait_a_moment(value >> 16);
    if (value & 0xc)
        atomic_store_explicit(at, old, memory_order_relaxed);
}

static void (*const writers[])(const struct race_area *area, uint32_t random, uint32_t value) = {
    [RACE_BYTES] = write_bytes,
    [RACE_INDEX] = write_index,
    [RACE_GRANTS] = write_grant,
};

static void *peer(void *arg)
{
    (void)arg;
    uint32_t state = race.seed * 2654435761u | 1;
    do {
        const struct race_area *area = &race.areas[next(&state) % race.nr_areas];
        uint32_t random = next(&state);
        writers[area->kind](area, random, next(&state));
        atomic_store_explicit(&race.begun, true, memory_order_relaxed);
    } while (!atomic_load_explicit(&race.stop, memory_order_relaxed));
    return NULL;
}

void race_pause(void)
{
    enum { TRIES = 200 };
    if (!racing || next(&race.pauses) % 4)
        return;
    uint64_t seen = atomic_load_explicit(&race.writes, memory_order_acquire);
    for (int i = 0; i < TRIES && atomic_load_explicit(&race.writes, memory_order_acquire) == seen; i++) {
        if (i > TRIES / 2)
            sched_yield();
        vscsi_cpu_relax();
    }
}

bool race_begin(uint8_t what, uint32_t seed)
{
    if (racing || race.races == MOST_RACES)
        return false;
    race.nr_areas = race_areas(what, race.areas);
    if (!race.nr_areas)
        return false;
    race.seed = seed;
    race.pauses = seed | 1;
    race.races++;
    atomic_store(&race.begun, false);
    atomic_store(&race.stop, false);
    racing = true;
    PROMISE(pthread_create(&race.thread, NULL, peer, NULL) == 0, "no thread");
    while (!atomic_load_explicit(&race.begun, memory_order_relaxed))
        vscsi_cpu_relax();
    return true;
}

void race_end(void)
{
    if (!racing)
        return;
    atomic_store(&race.stop, true);
    pthread_join(race.thread, NULL);
    racing = false;
    fuzz_raced_writes = race.writes;
}

void race_reset(void)
{
    race_end();
    race.races = 0;
}
