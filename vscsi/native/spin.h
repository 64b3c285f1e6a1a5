/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Spinning: how a thread looks at its ring for a bounded time before it sleeps, without standing in the peer's way.
 * Knows clock and scheduler; knows nothing of what is looked at.
 *
 * The trap: a wake-up through a socket tells the scheduler that the waker is about to sleep, so it puts the peer on the
 * waker's own CPU, which then spins until its time is up while the peer waits behind it, and the same the other way
 * round: each round trip costs both spinning times, and they grow with the setting. So a spinner yields every few
 * microseconds; if that yield took long, somebody else runs here, and one side, the target, moves to another CPU.
 */
#ifndef VSCSI_SPIN_H
#define VSCSI_SPIN_H

#include <sched.h>

#include "barrier.h"
#include "load.h"

enum {
    VSCSI_SPIN_YIELD_NS = 3000,       /* between yields */
    VSCSI_SPIN_SHARED_NS = 2000,      /* a yield that took longer gave the CPU to somebody */
    VSCSI_SPIN_MOVE_NS = 2000000      /* between moves */
};

struct vscsi_spin {
    uint64_t since_ns;                /* 0: not spinning */
    uint64_t yielded_ns;
    uint64_t moved_ns;
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

/* One step of spinning: false once `spin_ns` have passed since the first step after a reset. `moves`: the target. */
static inline bool vscsi_spin_on(struct vscsi_spin *s, uint64_t spin_ns, bool moves)
{
    uint64_t now = vscsi_now_ns();
    if (s->since_ns == 0)
        s->since_ns = s->yielded_ns = now;
    if (now - s->since_ns >= spin_ns)
        return false;
    vscsi_cpu_relax();
    if (now - s->yielded_ns < VSCSI_SPIN_YIELD_NS)
        return true;
    sched_yield();
    s->yielded_ns = vscsi_now_ns();
    if (moves && s->yielded_ns - now > VSCSI_SPIN_SHARED_NS && s->yielded_ns - s->moved_ns > VSCSI_SPIN_MOVE_NS) {
        vscsi_spin_move_over();
        s->moved_ns = s->yielded_ns;
    }
    return true;
}

#endif
