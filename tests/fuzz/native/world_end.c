/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The end of a world: everything under way ends, everything is answered and given back, or a message says what is not.
 * Knows the target's books; knows nothing of the input.
 */
#include <unistd.h>

#include "world.h"

enum { ROUNDS_TO_STOP = 400, NEXUSES = 16 };

/* After its last word: every request was answered, except IUs for Python, and the one that broke the protocol. */
static void check_answers(const struct peer_channel *p)
{
    const struct vt_channel *c = p->channel;
    PROMISE(c->in_flight == 0, "%u tasks are left", c->in_flight);
    PROMISE(c->ring.rsp_published == c->ring.rsp_prod_pvt || c->ring_broken, "a response was not published");
    if (!c->ring_broken)
        PROMISE(p->nr_owed == p->cold || (p->error && p->nr_owed == p->cold + 1), "%u requests, %u of them for Python, "
                "were never answered", p->nr_owed, p->cold);
    for (uint32_t i = 0; i < c->nr_tasks; i++) {
        int state = atomic_load(&c->tasks[i].state);
        PROMISE(state == TASK_FREE || state == TASK_COLD, "task %u is in state %d", i, state);
        for (int k = 0; k < 2; k++)
            PROMISE(!c->tasks[i].buf[k].nruns && !c->tasks[i].buf[k].scratch, "task %u has pages", i);
    }
}

void world_remove(struct peer_channel *p)
{
    check_answers(p);
    loop_round(world.loop);     /* letters that came later */
    int rc = vt_channel_remove(world.target, p->id);
    PROMISE(rc == 0, "removing a channel: %d", rc);
    p->channel = NULL;
    vscsi_mapper_unmap_ring(p->domain->mapper, &p->gref, 1, p->mapped);
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
    /* A nexus goes with its last channel. */
    for (uint32_t i = 0; i < CHANNELS; i++) {
        struct peer_channel *other = &world.channels[i];
        if (other != p && other->channel && other->nexus == p->nexus) {
            other->nexus_used |= p->nexus_used;
            return;
        }
    }
    rc = vt_nexus_remove(world.target, p->nexus);
    PROMISE(rc == 0, "removing a nexus: %d", rc);
}

/* Time goes on as far as somebody waits for it. True: somebody did. */
static bool pass_time(void)
{
    const struct vt_task *delayed = world.loop->delayed_first;
    uint64_t until = atomic_load(&world.loop->sched_ns);
    if (delayed && delayed->due_ns < until)
        until = delayed->due_ns;
    if (until != UINT64_MAX && until > fuzz_now_ns)
        fuzz_now_ns = until;
    return until != UINT64_MAX;
}

static void quiet(void)
{
    engine_state.mode = ENGINE_INLINE;
    for (uint32_t i = 0; i < LOCKS; i++)
        if (world.locks[i] > 0)
            vt_range_unlock(world.target, (uint32_t)world.lus[world.lock_lu[i]], world.locks[i]);
    const struct vt_result good = { 0 };
    for (uint32_t round = 0; round < ROUNDS_TO_STOP; round++) {
        while (engine_end(0, 0, UINT64_MAX))
            ;
        while (world_take_slow())
            ;
        while (world.nr_taken)
            world_end_slow(0, &good);
        bool more = world.target->slow.waiting || engine_held();
        more |= pass_time();
        more |= loop_round(world.loop);
        world_python();
        if (!more)
            return;
    }
    PROMISE(false, "it never comes to rest");
}

static void check_lu(const struct vt_lu *lu)
{
    PROMISE(!lu->nr_tasks && !lu->first && !lu->nr_ordered && !lu->nr_hoq && !lu->nr_dormant, "tasks are left");
    PROMISE(!lu->tmfs && !lu->ranges && !lu->parked_first && !lu->range_waiting, "somebody still waits");
    PROMISE(!lu->durable_running && !lu->immed_running, "writes are left");
    for (uint32_t i = 0; i < VT_TAG_BUCKETS; i++)
        PROMISE(!lu->tags[i], "a tag is left");
}

static void check_device(void)
{
    struct vt_sched_stats stats;
    for (uint32_t nexus = 0; nexus < NEXUSES && world.sched >= 0; nexus++) {
        PROMISE(vt_sched_stats(world.target, (uint32_t)world.sched, nexus, &stats) == 0, "no statistics");
        PROMISE(!stats.waiting && !stats.running, "nexus %u waits for the device, or has it still", nexus);
    }
}

static void check_rest(void)
{
    const struct vt_loop *loop = world.loop;
    uint32_t scratch = 0;
    for (const struct vt_scratch *s = loop->scratch; s; s = s->next)
        scratch++;
    PROMISE(scratch == loop->scratch_made, "%u of %u scratch buffers came back", scratch, loop->scratch_made);
    PROMISE(!loop->ready_first && !loop->mail_first && !loop->scratch_wait && !loop->active && !loop->dirty,
            "the loop still has something");
    PROMISE(!loop->nr_channels && !loop->tmfs_waiting && !loop->quiet_channels, "the loop counts what is gone");
    for (uint32_t i = 0; i < LUNS; i++)
        check_lu(atomic_load(&world.target->lus[world.lus[i]]));
    for (uint32_t i = 0; i < VT_MAX_CHANNELS; i++)
        if (world.target->channels[i])
            PROMISE(!world.target->channels[i]->slow->running, "a worker is still counted");
    PROMISE(!world.target->leftovers, "a worker that was given up is still counted");
}

void world_close(void)
{
    quiet();
    fuzz_now_ns += 100000000000;    /* quiet peers are listened to again, functions that wait give up */
    world_neighbour();
    for (uint32_t i = 0; i < CHANNELS; i++)
        if (world.channels[i].channel)
            world_stop(&world.channels[i]);
    quiet();
    for (uint32_t i = 0; i < CHANNELS; i++)
        PROMISE(!world.channels[i].channel, "channel %u does not stop", i);
    check_rest();
    check_device();
    for (uint32_t i = 0; i < DOMAINS; i++)
        domain_close(&world.domains[i], world.was_persistent[i]);
    bio_engine_free(world.loop->engine);
    world.loop->engine = NULL;
    vt_free(world.target);
    vt_disk_free(world.disk);
    world.target = NULL;
}
