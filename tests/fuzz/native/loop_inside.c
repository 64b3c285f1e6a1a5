/* SPDX-License-Identifier: BSD-2-Clause */
/* The target's loop without its thread: one round of `serve` at a time. Knows loop.c from inside, and nothing else. */
#include "loop.c"

#include "world.h"

bool loop_round(struct vt_loop *loop)
{
    engine_wait();
    bool work = pass(loop);
    timers(loop);
    /* As before sleeping: what it finds then it serves at once. */
    if (!work && !loop->dirty && !rest(loop))
        work = take_events(loop);
    else
        take_events(loop);
    return work;
}
