/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * May a loop look for requests a while before it sleeps, and should those who wait for its answers? Knows how many CPUs
 * there are, who spins, and whether I/O is under way; knows neither rings nor clocks.
 */
#include "core.h"

/* I/O that is under way wants a CPU as well: the kernel's threads move its bytes while we look. */
static uint32_t cpus_for_io(const struct vt_loop *loop)
{
    return bio_in_flight(loop->engine) ? 2 : 0;
}

bool vt_spin_may(struct vt_loop *loop)
{
    struct vt_target *t = loop->target;
    const uint32_t others = cpus_for_io(loop);
    if (loop->spinning)
        return others == 0 || atomic_load(&t->spinners) + others < t->cpus;
    /* With as many spinners as CPUs the peers would find no CPU to run on. */
    if (atomic_fetch_add(&t->spinners, 1) + 1 + others >= t->cpus) {
        atomic_fetch_sub(&t->spinners, 1);
        return false;
    }
    return loop->spinning = true;
}

void vt_spin_end(struct vt_loop *loop)
{
    if (loop->spinning)
        atomic_fetch_sub(&loop->target->spinners, 1);
    loop->spinning = false;
}

/* The same for an initiator that would spin instead of the loop. */
uint32_t vt_spin_advice(const struct vt_loop *loop)
{
    const uint32_t others = cpus_for_io(loop);
    return others && 1 + others >= loop->target->cpus ? VSCSI_ADVICE_SLEEP : 0;
}
