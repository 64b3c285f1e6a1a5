/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Channels as Python sees them: making, login, answering, stopping, removing, statistics. Nothing here touches a ring:
 * every wish goes by letter to the channel's loop. Letters of one channel keep their order.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "core.h"

static struct vt_loop *choose_loop(struct vt_target *t, int32_t wanted)
{
    if (wanted >= 0)
        return (uint32_t)wanted < t->nr_loops ? &t->loops[wanted] : NULL;
    uint32_t load[VT_MAX_LOOPS] = { 0 }, best = 0;
    for (uint32_t i = 0; i < VT_MAX_CHANNELS; i++)
        if (t->channels[i])
            load[t->channels[i]->loop->index]++;
    for (uint32_t i = 1; i < t->nr_loops; i++)
        if (load[i] < load[best])
            best = i;
    return &t->loops[best];
}

static const struct vt_protocol_ops *const protocols[] = {
    [VT_PROTOCOL_SRP] = &vt_srp_ops,
    [VT_PROTOCOL_BLKIF] = &vt_blkif_ops,
};

static int attach(struct vt_channel *channel, const struct vt_channel_config *c)
{
    uint32_t entries = vscsi_ring_entries(c->ring_pages, channel->ops->slot_nbytes);
    if (!entries || !c->ring || !c->mapper)
        return -EINVAL;
    /* The peer may have published requests already, but no response has ever been made: both ends begin at 0. */
    vscsi_back_attach(&channel->ring, (struct vscsi_sring *)c->ring, entries, channel->ops->slot_nbytes, 0);
    /* calloc leaves untouched what nobody has used yet, but knows no alignment. */
    channel->tasks_memory = calloc(entries + 1, sizeof *channel->tasks);
    if (!channel->tasks_memory)
        return -ENOMEM;
    const uintptr_t last = (uintptr_t)channel->tasks_memory + VT_CACHE_LINE - 1;
    channel->tasks = (struct vt_task *)(last - last % VT_CACHE_LINE);
    channel->nr_tasks = entries;
    channel->event_fd = fcntl(c->event_fd, F_DUPFD_CLOEXEC, 3);
    return channel->event_fd < 0 ? -errno : 0;
}

void vt_channel_free(struct vt_channel *channel)
{
    struct vt_target *t = channel->target;
    vt_event_forget(t, &channel->error_event);
    vt_event_forget(t, &channel->stopped_event);
    for (uint32_t i = 0; i < channel->nr_tasks; i++) {
        vt_event_forget(t, &channel->tasks[i].event);
        /* Only where vt_stop ended a loop under a slow command. */
        free(channel->tasks[i].buf[BUF_OUT].scratch);
        free(channel->tasks[i].buf[BUF_IN].scratch);
    }
    if (channel->event_fd >= 0)
        close(channel->event_fd);
    vt_slow_part(channel);
    free(channel->tasks_memory);
    free(channel);
}

static int post(struct vt_channel *channel, uint32_t kind, struct vt_letter *letter)
{
    letter->kind = kind;
    letter->channel = channel;
    atomic_fetch_add(&channel->letters, 1);
    vt_loop_letter(channel->loop, letter);
    return 0;
}

static bool is_stopping_somewhere(struct vt_target *t)
{
    for (uint32_t i = 0; i < VT_MAX_CHANNELS; i++)
        if (t->channels[i] && t->channels[i]->stop_asked && atomic_load(&t->channels[i]->state) < CHANNEL_STOPPING)
            return true;
    return false;
}

/*
 * Under the control lock. A channel that was told to stop before takes nothing more, and what it has under way has its
 * blocks, before the new one takes anything: they may belong to the same initiator. Loops open letters at once.
 */
static void wait_for_stops(struct vt_target *t)
{
    while (t->started && !t->stopped && is_stopping_somewhere(t)) {
        pthread_mutex_unlock(&t->control);
        usleep(50);
        pthread_mutex_lock(&t->control);
    }
}

int vt_channel_add(struct vt_target *t, const struct vt_channel_config *config)
{
    if (config->protocol >= sizeof protocols / sizeof *protocols)
        return -EINVAL;
    struct vt_channel *channel = calloc(1, sizeof *channel);
    struct vt_letter *letter = calloc(1, sizeof *letter);
    if (!channel || !letter) {
        free(channel);
        free(letter);
        return -ENOMEM;
    }
    channel->target = t;
    channel->ops = protocols[config->protocol];
    channel->config = *config;
    channel->mapper = config->mapper;
    channel->persistent = config->persistent;
    channel->event_fd = -1;
    channel->nexus = VT_MAX_NEXUSES;
    channel->request_limit = UINT32_MAX;
    int rc = attach(channel, config);
    pthread_mutex_lock(&t->control);
    wait_for_stops(t);
    bool blkif = config->protocol == VT_PROTOCOL_BLKIF;
    if (rc == 0 && (t->stopped || !(channel->loop = choose_loop(t, config->loop))))
        rc = t->stopped ? -ESHUTDOWN : -EINVAL;
    if (rc == 0 && blkif && (config->nexus >= VT_MAX_NEXUSES || !t->nexuses[config->nexus].used ||
                             config->lu >= VT_MAX_LUS || !atomic_load(&t->lus[config->lu])))
        rc = -EINVAL;
    uint32_t id = 0;
    while (rc == 0 && t->channels[id])
        if (++id == VT_MAX_CHANNELS)
            rc = -ENOSPC;
    if (rc == 0)
        rc = vt_slow_join(channel);
    if (rc == 0) {
        channel->id = id;
        t->channels[id] = channel;
        if (blkif) {
            channel->nexus = config->nexus;
            channel->lu = atomic_load(&t->lus[config->lu]);
            t->nexuses[config->nexus].channels++;
            atomic_store(&channel->state, CHANNEL_LIVE);
        }
        post(channel, MAIL_ADD, letter);
    }
    pthread_mutex_unlock(&t->control);
    if (rc < 0) {
        vt_channel_free(channel);
        free(letter);
        return rc;
    }
    return (int)id;
}

/* Calls `act` with the channel and a fresh letter, under the control lock. The letter is freed unless act returns 0. */
static int with_channel(struct vt_target *t, uint32_t id, const void *argument,
                        int (*act)(struct vt_channel *, struct vt_letter *, const void *))
{
    struct vt_letter *letter = calloc(1, sizeof *letter);
    if (!letter)
        return -ENOMEM;
    pthread_mutex_lock(&t->control);
    struct vt_channel *channel = id < VT_MAX_CHANNELS ? t->channels[id] : NULL;
    int rc = channel ? act(channel, letter, argument) : -ENOENT;
    pthread_mutex_unlock(&t->control);
    if (rc < 0)
        free(letter);
    return rc;
}

struct login {
    uint32_t nexus;
    uint32_t request_limit;
};

static int login(struct vt_channel *channel, struct vt_letter *letter, const void *argument)
{
    const struct login *l = argument;
    struct vt_target *t = channel->target;
    if (l->nexus >= VT_MAX_NEXUSES || !t->nexuses[l->nexus].used || channel->config.protocol != VT_PROTOCOL_SRP)
        return -EINVAL;
    if (channel->logged_in)
        return -EALREADY;
    channel->logged_in = true;
    channel->config.nexus = l->nexus;
    t->nexuses[l->nexus].channels++;
    letter->nexus = l->nexus;
    letter->value = (int32_t)l->request_limit;
    return post(channel, MAIL_LOGIN, letter);
}

int vt_channel_login(struct vt_target *t, uint32_t channel, uint32_t nexus, uint32_t request_limit)
{
    struct login l = { nexus, request_limit };
    return request_limit > INT32_MAX ? -EINVAL : with_channel(t, channel, &l, login);
}

struct answer {
    const void *iu;
    uint32_t nbytes;
};

static int respond(struct vt_channel *channel, struct vt_letter *letter, const void *argument)
{
    const struct answer *a = argument;
    uint32_t waiting = atomic_load(&channel->cold_count);
    if (waiting == 0)
        return -ENOENT;
    atomic_fetch_sub(&channel->cold_count, 1);
    memcpy(letter->iu, a->iu, a->nbytes);
    letter->nbytes = a->nbytes;
    return post(channel, MAIL_RESPOND, letter);
}

int vt_channel_respond(struct vt_target *t, uint32_t channel, const void *iu, uint32_t nbytes)
{
    struct answer a = { iu, nbytes };
    return nbytes == 0 || nbytes > VSCSI_SRP_SLOT ? -EMSGSIZE : with_channel(t, channel, &a, respond);
}

static int credit(struct vt_channel *channel, struct vt_letter *letter, const void *argument)
{
    letter->value = *(const int32_t *)argument;
    return post(channel, MAIL_CREDIT, letter);
}

int vt_channel_credit(struct vt_target *t, uint32_t channel, int32_t delta)
{
    return with_channel(t, channel, &delta, credit);
}

static int stop(struct vt_channel *channel, struct vt_letter *letter, const void *argument)
{
    (void)argument;
    channel->stop_asked = true;
    return post(channel, MAIL_STOP, letter);
}

int vt_channel_stop(struct vt_target *t, uint32_t channel)
{
    return with_channel(t, channel, NULL, stop);
}

int vt_channel_remove(struct vt_target *t, uint32_t id)
{
    pthread_mutex_lock(&t->control);
    struct vt_channel *channel = id < VT_MAX_CHANNELS ? t->channels[id] : NULL;
    int rc = channel ? 0 : -ENOENT;
    /* A letter that came after STOPPED, such as a second stop: its loop opens it at once. */
    while (channel && atomic_load(&channel->state) == CHANNEL_STOPPED && atomic_load(&channel->letters) && !t->joined) {
        pthread_mutex_unlock(&t->control);
        usleep(50);
        pthread_mutex_lock(&t->control);
        channel = t->channels[id];
        rc = channel ? 0 : -ENOENT;
    }
    /* After vt_stop no loop is left that could touch it, stopped or not. */
    if (channel && atomic_load(&channel->state) != CHANNEL_STOPPED && !t->joined)
        rc = -EBUSY;
    if (rc == 0) {
        t->channels[id] = NULL;
        if (channel->config.protocol == VT_PROTOCOL_BLKIF || channel->logged_in)
            t->nexuses[channel->config.nexus].channels--;
    }
    pthread_mutex_unlock(&t->control);
    if (rc == 0)
        vt_channel_free(channel);
    return rc;
}

int vt_channel_stats(struct vt_target *t, uint32_t id, struct vt_channel_stats *stats)
{
    pthread_mutex_lock(&t->control);
    struct vt_channel *channel = id < VT_MAX_CHANNELS ? t->channels[id] : NULL;
    if (channel) {
        const struct vt_channel_stats *s = &channel->stats;
        *stats = (struct vt_channel_stats){
            .requests = vscsi_load64_relaxed(&s->requests),
            .responses = vscsi_load64_relaxed(&s->responses),
            .kicks_sent = vscsi_load64_relaxed(&s->kicks_sent),
            .kicks_received = vscsi_load64_relaxed(&s->kicks_received),
            .bytes_read = vscsi_load64_relaxed(&s->bytes_read),
            .bytes_written = vscsi_load64_relaxed(&s->bytes_written),
            .outstanding = vscsi_load_relaxed(&s->outstanding),
            .request_limit = vscsi_load_relaxed(&s->request_limit),
        };
    }
    pthread_mutex_unlock(&t->control);
    return channel ? 0 : -ENOENT;
}
