/* SPDX-License-Identifier: BSD-2-Clause */
/* Spinning is bounded and learns, a peer's state shows in the ring, moving over leaves the CPU and keeps the affinity. Exit 0 passed, 1 failed, 77 one CPU only. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "ring.h"
#include "spin.h"

#define CHECK(what) \
    do { \
        if (!(what)) { \
            fprintf(stderr, "%d: %s\n", __LINE__, #what); \
            exit(1); \
        } \
    } while (0)

static void bounded(void)
{
    struct vscsi_spin s = { 0 };
    CHECK(!vscsi_spin_on(&s, 0));
    for (int round = 0; round < 3; round++) {
        vscsi_spin_reset(&s);
        uint64_t start = vscsi_now_ns(), steps = 0;
        while (vscsi_spin_on(&s, 200000))
            steps++;
        CHECK(steps > 0);
        CHECK(vscsi_now_ns() - start >= 200000);
        CHECK(!vscsi_spin_on(&s, 200000)); /* until it is reset */
    }
}

/* As if the wait had begun `ns` ago. */
static void waited(struct vscsi_spin *s, uint64_t ns)
{
    s->since_ns = vscsi_now_ns() - ns;
}

static void learns(void)
{
    enum { SPIN_NS = 1000000, LONG_NS = 100 * SPIN_NS };
    struct vscsi_spin s = { 0 };
    vscsi_spin_slept(&s, SPIN_NS);
    CHECK(s.halvings == 0); /* it had not even begun to wait */
    for (uint32_t i = 1; i <= 2 * VSCSI_SPIN_HALVINGS; i++) {
        waited(&s, LONG_NS);
        vscsi_spin_slept(&s, SPIN_NS);
        CHECK(s.halvings == (i < VSCSI_SPIN_HALVINGS ? i : VSCSI_SPIN_HALVINGS) && s.since_ns == 0);
    }
    waited(&s, SPIN_NS / 4);
    CHECK(!vscsi_spin_on(&s, SPIN_NS));
    vscsi_spin_paid(&s);
    CHECK(s.halvings == VSCSI_SPIN_HALVINGS - 1 && s.since_ns == 0);
    vscsi_spin_paid(&s);
    CHECK(s.halvings == VSCSI_SPIN_HALVINGS - 1); /* no wait, nothing learnt */
    waited(&s, 0);
    vscsi_spin_slept(&s, LONG_NS);
    CHECK(s.halvings == 0);
    waited(&s, SPIN_NS / 4);
    CHECK(vscsi_spin_on(&s, LONG_NS));
}

static void peer_works(void)
{
    static _Alignas(64) uint8_t page[VSCSI_PAGE_SIZE];
    struct vscsi_sring *sring = (struct vscsi_sring *)(void *)page;
    struct vscsi_front_ring front;
    struct vscsi_back_ring back;
    vscsi_ring_init(sring);
    vscsi_front_attach(&front, sring, 8, 64, 0);
    vscsi_back_attach(&back, sring, 8, 64, 0);
    CHECK(!vscsi_front_peer_works(&front)); /* a new ring asks for a kick */
    CHECK(vscsi_front_next_request(&front) && vscsi_front_push(&front));
    CHECK(vscsi_front_peer_works(&front));
    vscsi_back_consume(&back);
    CHECK(vscsi_front_peer_works(&front));
    CHECK(vscsi_back_final_check(&back) == 0);
    CHECK(!vscsi_front_peer_works(&front));
    CHECK(vscsi_front_next_request(&front) && vscsi_front_push(&front));
    CHECK(vscsi_front_peer_works(&front));
    vscsi_back_advise(&back, VSCSI_ADVICE_SLEEP);
    CHECK(!vscsi_front_peer_works(&front));
    sring->advice = 77; /* what nobody knows says nothing; and only changes are written */
    vscsi_back_advise(&back, VSCSI_ADVICE_SLEEP);
    CHECK(vscsi_front_peer_works(&front) && sring->advice == 77);
    vscsi_back_advise(&back, 0);
    CHECK(sring->advice == 0);
}

static void *stay(void *cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(*(int *)cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
    vscsi_spin_move_over();
    cpu_set_t after;
    CHECK(sched_getaffinity(0, sizeof after, &after) == 0);
    CHECK(CPU_EQUAL(&one, &after));
    CHECK(sched_getcpu() == *(int *)cpu);
    return NULL;
}

static int moves(void)
{
    cpu_set_t before, after;
    CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
    int here = sched_getcpu();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, stay, &here) == 0);
    pthread_join(thread, NULL);
    if (CPU_COUNT(&before) < 2)
        return 77;
    for (int i = 0; i < 20; i++) {
        cpu_set_t one;
        CPU_ZERO(&one);
        here = sched_getcpu();
        CPU_SET(here, &one);
        sched_setaffinity(0, sizeof one, &one); /* so that it is surely here ... */
        CHECK(sched_getcpu() == here);
        sched_setaffinity(0, sizeof before, &before);
        vscsi_spin_move_over();
        CHECK(sched_getaffinity(0, sizeof after, &after) == 0);
        CHECK(CPU_EQUAL(&before, &after)); /* ... and is as free as before */
    }
    return 0;
}

int main(void)
{
    bounded();
    learns();
    peer_works();
    return moves();
}
