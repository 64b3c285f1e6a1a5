/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Spinning: how a thread looks at its ring for a bounded time before it sleeps, without standing in the peer's way.
 * Knows clock and scheduler; knows nothing of what is looked at.
 *
 * The trap: a wake-up through a socket tells the scheduler that the waker is about to sleep, so it puts the peer on the
 * waker's own CPU, which then spins until its time is up while the peer waits behind it, and the same the other way
 * round: each round trip costs both spinning times, for as long as the two stay together. So a kick names the kicker's
 * CPU, and a target that finds itself on it moves to another. (Yielding while spinning would do too, but beside any
 * other busy process a yield costs a whole time slice.)
 *
 * Who waits for I/O also learns whether spinning pays: waits that outlast all spinning make it shorter, down to next to
 * nothing; one that ends in time brings it back.
 */
#ifndef VSCSI_SPIN_H
#define VSCSI_SPIN_H

#include <sched.h>

#include "barrier.h"
#include "load.h"

enum { VSCSI_SPIN_MOVE_NS = 2000000 };  /* between moves */
enum { VSCSI_SPIN_LONG = 4, VSCSI_SPIN_HALVINGS = 8 };

struct vscsi_spin {
    uint64_t since_ns;                  /* 0: not waiting */
    uint32_t halvings;                  /* of the time that is spent on spinning */
};

static inline void vscsi_spin_reset(struct vscsi_spin *s)
{
    s->since_ns = 0;
}

/* To any other CPU we may run on; our affinity is the same afterwards. */
static inline void vscsi_spin_move_over(void)
{
    cpu_set_t allowed, others;
    if (sched_getaffinity(0, sizeof allowed, &allowed) || CPU_COUNT(&allowed) < 2)
        return;
    int here = sched_getcpu();
    if (here < 0 || !CPU_ISSET(here, &allowed))
        return;
    others = allowed;
    CPU_CLR(here, &others);
    if (sched_setaffinity(0, sizeof others, &others) == 0)
        sched_setaffinity(0, sizeof allowed, &allowed);
}

/* A peer kicked us from the CPU that `hint` names: if it is ours, leaves it, but not all the time. */
static inline void vscsi_spin_make_room(uint64_t *moved_ns, uint8_t hint)
{
    if ((uint8_t)sched_getcpu() != hint)
        return;
    uint64_t now = vscsi_now_ns();
    if (now - *moved_ns < VSCSI_SPIN_MOVE_NS)
        return;
    *moved_ns = now;
    vscsi_spin_move_over();
}

/* One step of spinning: false once `spin_ns`, or what experience leaves of it, have passed since the first step. */
static inline bool vscsi_spin_on(struct vscsi_spin *s, uint64_t spin_ns)
{
    uint64_t now = vscsi_now_ns();
    if (s->since_ns == 0)
        s->since_ns = now;
    if (now - s->since_ns >= spin_ns >> s->halvings)
        return false;
    vscsi_cpu_relax();
    return true;
}

/* The wait has ended while spinning. */
static inline void vscsi_spin_paid(struct vscsi_spin *s)
{
    if (s->since_ns && s->halvings)
        s->halvings--;
    s->since_ns = 0;
}

/* It has ended in sleep: would spinning all the time, `spin_ns` and what a wake-up takes, have been enough? */
static inline void vscsi_spin_slept(struct vscsi_spin *s, uint64_t spin_ns)
{
    if (!s->since_ns)
        return;
    if (vscsi_now_ns() - s->since_ns <= VSCSI_SPIN_LONG * spin_ns)
        s->halvings = 0;
    else if (s->halvings < VSCSI_SPIN_HALVINGS)
        s->halvings++;
    s->since_ns = 0;
}

#endif
