/* SPDX-License-Identifier: BSD-2-Clause */
/* Spinning is bounded, moving over leaves the CPU and keeps the affinity. Exit 0 passed, 1 failed, 77 one CPU only. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

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
    return moves();
}
