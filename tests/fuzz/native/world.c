/* SPDX-License-Identifier: BSD-2-Clause */
/* See world.h. Here: making and running it. What is checked of every access stands in watch.c. */
#include "world.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

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
        .lun = lun, .fd = image < 0 ? -1 : engine_state.fds[image], .block_nbytes = block_nbytes,
        .blocks = IMAGE_NBYTES / block_nbytes, .flags = flags, .policy = *policy,
    };
    world.lus[lun] = vt_lu_add(world.target, &config);
    PROMISE(world.lus[lun] >= 0, "no LU: %d", world.lus[lun]);
}

/* A disk that two units share, and what it takes to have turns at it. */
static void add_device(const struct world_config *config)
{
    uint32_t rotates = config->lu_flags & WORLD_ROTATES;
    world.sched = -1;
    if (config->engine & WORLD_SCHEDULED) {
        world.sched_config = (struct vt_sched_config){ .depth = 1u + (config->request_limit >> 5), .rotational = rotates != 0,
                                                        .quantum_us = 10000, .idle_us = config->misc & 1 ? 2000 : 0,
                                                        .seed = 1 };
        world.sched = vt_sched_add(world.target, &world.sched_config);
        PROMISE(world.sched >= 0, "no scheduler: %d", world.sched);
        for (uint32_t lun = LUN_SHARED; lun <= LUN_BIG_BLOCKS; lun += LUN_BIG_BLOCKS - LUN_SHARED)
            PROMISE(vt_lu_schedule(world.target, (uint32_t)world.lus[lun], (uint32_t)world.sched,
                                   lun * IMAGE_NBYTES) == 0, "no turns");
    }
    const struct vt_disk_config disk = { IMAGE_NBYTES, 1 << 20, 8000, 5000, 500, 0 };
    world.disk = config->lu_flags & WORLD_DISK ? vt_disk_new(&disk) : NULL;
    if (world.disk)
        PROMISE(vt_lu_disk(world.target, (uint32_t)world.lus[LUN_BIG_BLOCKS], world.disk, 0) == 0, "no disk");
}

static void add_lus(const struct world_config *config)
{
    uint32_t some = config->lu_flags & (WORLD_LU_FLAGS & ~VT_LU_PROTECTED);
    bool direct = config->lu_flags & WORLD_DIRECT && engine_state.kind != ENGINE_OURS;
    const struct vt_task_policy policy = policy_of(config), plain = { 0 };
    add_lu(LUN_SHARED, 1, 512, some, &policy);
    add_lu(LUN_NEIGHBOUR, 0, 512, VT_LU_WRITE_CACHE, &plain);
    add_lu(LUN_SLOW, -1, 512, VT_LU_SLOW_STORE | some, &policy);
    add_lu(LUN_BIG_BLOCKS, 2, 4096,
           some | (config->lu_flags & VT_LU_PROTECTED) | (direct ? VT_LU_DIRECT : 0), &policy);
    add_lu(LUN_NULL, -1, 512, VT_LU_NULL | some, &plain);
    /* What hostile initiators cannot see they cannot touch. */
    PROMISE(vt_lu_access(world.target, (uint32_t)world.lus[LUN_NEIGHBOUR], VT_ALL, VT_ACCESS_HIDDEN) == 0, "no mask");
}

static void set_engine(const struct world_config *config)
{
    uint8_t mode = config->engine & WORLD_MODE;
    engine_reset();
    engine_state.mode = mode % ENGINE_MODES;
    engine_state.cancels = config->engine & WORLD_CANCELS;
    engine_state.held_image = 1;    /* the neighbour's comes before */
    if (config->engine & WORLD_PRODUCT_ENGINE)
        engine_state.kind = mode & 1 ? ENGINE_PREFERRED : ENGINE_POOL;
}

void world_open(const struct world_config *config)
{
    struct vt_config c = { .loops = 1, .engine = VT_ENGINE_URING, .batch = config->batch & 0x3f,
                           .abort_limit_ms = 1000, .nowait = config->lu_flags & WORLD_NOWAIT };
    int error = 0;
    struct domain kept[DOMAINS];
    memcpy(kept, world.domains, sizeof kept);
    memset(&world, 0, sizeof world);
    memcpy(world.domains, kept, sizeof kept);
    fuzz_now_ns = 1000000000;
    set_engine(config);
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
    add_lus(config);
    add_device(config);
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
    if (world.sched >= 0)
        PROMISE(vt_sched_forget(world.target, (uint32_t)world.sched, p->nexus) == 0, "turns of a former nexus");
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
        .readonly = world.persistent >> 3 & 1, .max_indirect_segments = INDIRECT_SEGMENTS, .barrier = 1, .flush = 1, .discard = 1,
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
    if (world.nr_taken == TAKEN || !world.target->slow.waiting)
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
    /* A reset that Python ends too late has been answered with FUNCTION FAILED. */
    bool late = rc == -ENOENT && world.taken[which].op == VT_OP_LU_RESET;
    PROMISE(rc == 0 || late, "a slow command cannot be completed: %d", rc);
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

void world_python(void)
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
            world_remove(p);
        }
    }
}

void world_run(uint32_t count)
{
    while (count-- > 0) {
        loop_round(world.loop);
        world_python();
    }
}
