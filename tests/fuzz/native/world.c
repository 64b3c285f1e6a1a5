/* SPDX-License-Identifier: BSD-2-Clause */
/* See world.h. Here: making, running and ending it all. What is checked of every access stands in watch.c. */
#include "world.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS_TO_STOP = 400 };

struct world world;

/* ---- making ---- */

static struct vt_task_policy policy_of(const struct world_config *c)
{
    static const uint8_t interlocks[] = { 0, 0, 2, 3 };
    return (struct vt_task_policy){
        .separate_sets = c->misc >> 2 & 1, .restricted = c->misc >> 3 & 1, .tas = c->misc >> 4 & 1,
        .qerr = c->misc & 0x20 ? 3 : c->misc >> 6 & 1, .limit = c->misc & 0x80 ? 3 : 0,
        .ua_intlck = interlocks[c->batch >> 6],
    };
}

static void add_lu(uint32_t lun, int image, uint32_t block_nbytes, uint32_t flags, const struct vt_task_policy *policy)
{
    struct vt_lu_config config = {
        .lun = lun, .fd = image < 0 ? -1 : IMAGE_FD + image, .block_nbytes = block_nbytes,
        .blocks = IMAGE_NBYTES / block_nbytes, .flags = flags, .policy = *policy,
    };
    world.lus[lun] = vt_lu_add(world.target, &config);
    PROMISE(world.lus[lun] >= 0, "no LU: %d", world.lus[lun]);
}

void world_open(const struct world_config *config)
{
    struct vt_config c = { .loops = 1, .engine = VT_ENGINE_URING, .batch = config->batch & 0x3f,
                           .abort_limit_ms = 1000 };
    int error = 0;
    struct domain kept[DOMAINS];
    memcpy(kept, world.domains, sizeof kept);
    memset(&world, 0, sizeof world);
    memcpy(world.domains, kept, sizeof kept);
    fuzz_now_ns = 1000000000;
    memset(&engine_state, 0, sizeof engine_state);
    engine_state.mode = config->engine % ENGINE_MODES;
    engine_state.cancels = config->engine & 0x80;
    engine_state.held_image = 1;    /* the neighbour's comes before */
    world.target = vt_new(&c, &error);
    PROMISE(world.target, "no target: %d", error);
    commands_add(world.target);
    if (config->misc & 1)
        PROMISE(vt_tap_start(world.target, 65536, 512) == 0, "no tap");
    world.loop = &world.target->loops[0];
    world.loop->engine = bio_engine_new(NULL, &error);
    world.target->started = true;
    for (uint32_t i = 0; i < DOMAINS; i++)
        domain_open(&world.domains[i], (uint16_t)i);
    world.persistent = config->persistent;
    world.cold = config->misc & 2;
    world.request_limit = config->request_limit & 0x1f;
    uint32_t some = config->lu_flags & (VT_LU_WRITE_CACHE | VT_LU_DESCRIPTOR_SENSE | VT_LU_DISCARD);
    const struct vt_task_policy policy = policy_of(config), plain = { 0 };
    add_lu(LUN_SHARED, 1, 512, some, &policy);
    add_lu(LUN_NEIGHBOUR, 0, 512, VT_LU_WRITE_CACHE, &plain);
    add_lu(LUN_SLOW, -1, 512, VT_LU_SLOW_STORE | some, &policy);
    add_lu(LUN_BIG_BLOCKS, 2, 4096, some | (config->lu_flags & VT_LU_PROTECTED), &policy);
    add_lu(LUN_NULL, -1, 512, VT_LU_NULL | some, &plain);
    /* What hostile initiators cannot see they cannot touch. */
    PROMISE(vt_lu_access(world.target, (uint32_t)world.lus[LUN_NEIGHBOUR], VT_ALL, VT_ACCESS_HIDDEN) == 0, "no mask");
    world_channel(NEIGHBOUR);
}

static const struct {
    uint8_t domain;
    uint8_t protocol;
    uint8_t ring;
    int8_t nexus_of;    /* another channel whose nexus it joins; -1: its own */
} layout[CHANNELS] = {
    { 0, VT_PROTOCOL_SRP, 0, -1 }, { 0, VT_PROTOCOL_BLKIF, 1, -1 }, { 1, VT_PROTOCOL_SRP, 0, -1 },
    { 0, VT_PROTOCOL_SRP, 2, 0 }, { NEIGHBOUR_DOMAIN, VT_PROTOCOL_SRP, 0, -1 },
};

static void take_nexus(struct peer_channel *p, uint32_t index)
{
    int other = layout[index].nexus_of;
    if (other >= 0 && world.channels[other].channel) {
        p->nexus = world.channels[other].nexus;
        return;
    }
    int nexus = vt_nexus_add(world.target);
    PROMISE(nexus >= 0, "no nexus: %d", nexus);
    p->nexus = (uint32_t)nexus;
    p->nexus_used = true;
    if (index == NEIGHBOUR)
        vt_lu_access(world.target, (uint32_t)world.lus[LUN_NEIGHBOUR], p->nexus, 0);
}

static bool map_ring(struct peer_channel *p, uint32_t ring)
{
    p->gref = GREF + RING_FRAME + ring;
    p->ring = domain_page(p->domain, RING_FRAME + ring);
    vscsi_ring_format(p->ring);
    int rc = vscsi_mapper_map_ring(p->domain->mapper, &p->gref, 1, &p->mapped);
    PROMISE(rc == 0 || rc == -EACCES || rc == -EFAULT, "mapping a ring: %d", rc);
    return rc == 0;
}

struct peer_channel *world_channel(uint32_t index)
{
    struct peer_channel *p = &world.channels[index];
    if (p->channel)
        return p;
    uint32_t protocol = layout[index].protocol;
    *p = (struct peer_channel){ .protocol = protocol, .domain = &world.domains[layout[index].domain], .fd = -1,
                                .slot_nbytes = protocol == VT_PROTOCOL_SRP ? VSCSI_SRP_SLOT : VSCSI_BLKIF_SLOT };
    if (!map_ring(p, layout[index].ring))
        return p;
    int ends[2];
    PROMISE(vscsi_event_pair(ends) == 0, "no event channel");
    p->fd = ends[0];
    take_nexus(p, index);
    bool persistent = index != NEIGHBOUR && world.persistent >> layout[index].domain & 1;
    world.was_persistent[layout[index].domain] |= persistent;
    struct vt_channel_config config = {
        .protocol = protocol, .event_fd = ends[1], .mapper = p->domain->mapper, .ring = p->mapped, .ring_pages = 1,
        .persistent = persistent, .loop = -1, .nexus = p->nexus,
        .lu = (uint32_t)world.lus[world.persistent & 4 ? LUN_BIG_BLOCKS : LUN_SHARED],
        .readonly = world.persistent >> 3 & 1, .max_indirect_segments = 64, .barrier = 1, .flush = 1, .discard = 1,
    };
    loop_round(world.loop);     /* a new channel waits until loops have opened their letters */
    int id = vt_channel_add(world.target, &config);
    close(ends[1]);
    PROMISE(id >= 0, "no channel: %d", id);
    p->id = (uint32_t)id;
    p->channel = world.target->channels[id];
    bool login = protocol == VT_PROTOCOL_SRP && (index == NEIGHBOUR || !world.cold);
    if (login)
        PROMISE(vt_channel_login(world.target, p->id, p->nexus, index == NEIGHBOUR ? 8 : world.request_limit) == 0,
                "no login");
    world_run(1);
    return p;
}

/* ---- running ---- */

void *world_slot(struct peer_channel *p, uint32_t index)
{
    return vscsi_ring_slot((struct vscsi_sring *)(void *)p->ring, index, p->channel->ring.nr_ents, p->slot_nbytes);
}

void world_kick(struct peer_channel *p)
{
    if (p->fd >= 0)
        vscsi_event_send_fd(p->fd);
    if (p->channel)
        engine_mark(p->channel->event_fd);
}

void world_push(struct peer_channel *p, bool kick)
{
    struct vscsi_sring *sring = (struct vscsi_sring *)(void *)p->ring;
    uint32_t old = sring->req_prod;
    sring->req_prod = p->prod;
    if (kick && p->prod - sring->req_event < p->prod - old)
        world_kick(p);
}

bool world_take_slow(void)
{
    if (world.nr_taken == TAKEN || !world.target->slow_first)
        return false;
    struct vt_request *r = &world.taken[world.nr_taken];
    int rc = vt_request_next(world.target, r, 0);
    PROMISE(rc == 1, "a slow command is queued, but not given: %d", rc);
    PROMISE(r->cdb_nbytes <= sizeof r->cdb, "a CDB of %u bytes", r->cdb_nbytes);
    world.nr_taken++;
    return true;
}

void world_end_slow(uint32_t which, const struct vt_result *result)
{
    if (!world.nr_taken)
        return;
    which %= world.nr_taken;
    int rc = vt_request_complete(world.target, world.taken[which].task, result);
    PROMISE(rc == 0, "a slow command cannot be completed: %d", rc);
    world.taken[which] = world.taken[--world.nr_taken];
}

static struct peer_channel *by_id(uint32_t id)
{
    for (uint32_t i = 0; i < CHANNELS; i++)
        if (world.channels[i].channel && world.channels[i].id == id)
            return &world.channels[i];
    PROMISE(false, "an event of channel %u, which there is not", id);
    return NULL;
}

void world_stop(struct peer_channel *p)
{
    int rc = vt_channel_stop(world.target, p->id);
    PROMISE(rc == 0, "stopping: %d", rc);
}

static void iu_for_python(struct peer_channel *p, const struct vt_event *event)
{
    PROMISE(p->cold < MAX_SLOTS, "more IUs than slots");
    memcpy(&p->cold_tag[p->cold++], event->iu + 8, 8);
    if (event->iu[0] == SRP_I_LOGOUT)
        world_stop(p);
    else if (event->iu[0] == SRP_LOGIN_REQ)
        vt_channel_login(world.target, p->id, p->nexus, world.request_limit);
}

static void remove_channel(struct peer_channel *p);

static void python(void)
{
    struct vt_event event;
    while (vt_event_next(world.target, &event)) {
        struct peer_channel *p = by_id(event.channel);
        PROMISE(event.type != VT_EVENT_ERROR || p != &world.channels[NEIGHBOUR], "error %u for the neighbour",
                event.error);
        PROMISE(!p->stopped, "an event after the last one");
        switch (event.type) {
        case VT_EVENT_IU:
            iu_for_python(p, &event);
            break;
        case VT_EVENT_ERROR:
            PROMISE(!p->error, "two errors of one channel");
            p->error = true;
            world_stop(p);
            break;
        default:
            p->stopped = true;
            remove_channel(p);
        }
    }
}

void world_run(uint32_t count)
{
    while (count-- > 0) {
        loop_round(world.loop);
        python();
    }
}

/* ---- ending ---- */

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

static void remove_channel(struct peer_channel *p)
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
        bool more = world.target->slow_first || engine_held();
        more |= loop_round(world.loop);
        python();
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
    for (uint32_t i = 0; i < VT_SLOW_BUSY; i++)
        PROMISE(!world.target->slow_busy[i].running, "a worker is still counted");
}

void world_close(void)
{
    fuzz_countdown = 0;
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
    for (uint32_t i = 0; i < DOMAINS; i++)
        domain_close(&world.domains[i], world.was_persistent[i]);
    bio_engine_free(world.loop->engine);
    world.loop->engine = NULL;
    vt_free(world.target);
    world.target = NULL;
}
