/* SPDX-License-Identifier: BSD-2-Clause */
/* A channel's life: made, used for login, live, failed, freed. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "channel.h"

static const struct vi_codec *const codecs[] = {
    [VI_PROTOCOL_SRP] = &vi_codec_srp,
    [VI_PROTOCOL_BLKIF] = &vi_codec_blkif,
};

/* `nbytes` at `offset` lie in memory, page-aligned. */
static bool in_memory(const struct vi_config *g, uint64_t offset, uint64_t nbytes)
{
    return offset % VSCSI_PAGE_SIZE == 0 && offset <= g->memory_nbytes && nbytes <= g->memory_nbytes - offset;
}

static int check(const struct vi_config *g, uint32_t *slots)
{
    if (g->protocol >= sizeof codecs / sizeof codecs[0] || !g->ring || !g->memory || !g->granter)
        return -EINVAL;
    *slots = vscsi_ring_entries(g->ring_pages, codecs[g->protocol]->slot_nbytes);
    if (*slots < 4 || *slots > 1u << VI_TAG_SLOT_BITS)
        return -EINVAL;
    if (g->ring < g->memory || !in_memory(g, (uint64_t)(g->ring - g->memory), (uint64_t)g->ring_pages * VSCSI_PAGE_SIZE))
        return -EINVAL;
    if (g->indirect_per_slot > g->indirect_pages / *slots)
        return -EINVAL;
    if (!in_memory(g, g->indirect_offset, (uint64_t)g->indirect_pages * VSCSI_PAGE_SIZE))
        return -EINVAL;
    return 0;
}

static void release(struct vi_channel *c)
{
    if (c->event_fd >= 0)
        close(c->event_fd);
    if (c->wake_fd >= 0)
        close(c->wake_fd);
    for (uint32_t n = 0; c->slots && n < c->ring.nr_ents; n++)
        free(c->slots[n].runs);
    free(c->slots);
    free(c);
}

struct vi_channel *vi_channel_new(const struct vi_config *config, int *error)
{
    uint32_t slots;
    *error = check(config, &slots);
    if (*error)
        return NULL;
    struct vi_channel *c = calloc(1, sizeof *c);
    *error = -ENOMEM;
    if (!c)
        return NULL;
    c->config = *config;
    c->codec = codecs[config->protocol];
    vscsi_front_attach(&c->ring, (struct vscsi_sring *)(void *)config->ring, slots, c->codec->slot_nbytes, 0);
    c->slots = aligned_alloc(_Alignof(struct vi_slot), slots * sizeof *c->slots);
    if (c->slots)
        memset(c->slots, 0, slots * sizeof *c->slots);
    c->event_fd = fcntl(config->event_fd, F_DUPFD_CLOEXEC, 3);
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!c->slots || c->event_fd < 0 || c->wake_fd < 0) {
        if (c->slots)
            *error = -errno;
        release(c);
        return NULL;
    }
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->left, NULL);
    for (uint32_t n = slots; n-- > 0;) {
        c->slots[n].completion.tag = vi_first_tag(c, n);
        vi_slot_put(c, &c->slots[n]);
    }
    const uint8_t *table = (const uint8_t *)config->granter->table;
    if (table >= config->memory && table < config->memory + config->memory_nbytes)
        c->arena_offset = (uint64_t)(table - config->memory) + config->granter->nr_grants * sizeof(uint64_t);
    if (c->arena_offset < config->memory_nbytes)
        c->arena_nbytes = config->memory_nbytes - c->arena_offset;
    c->max_iu_nbytes = c->codec->slot_nbytes;
    c->live = config->protocol == VI_PROTOCOL_BLKIF; /* no login */
    *error = 0;
    return c;
}

/* Afterwards nobody touches the ring any more, whoever still waits. */
static void fail_and_wait(struct vi_channel *c, int error)
{
    vi_fail_locked(c, error);
    while (c->inside)
        pthread_cond_wait(&c->left, &c->mutex);
}

void vi_channel_fail(struct vi_channel *c, int error)
{
    pthread_mutex_lock(&c->mutex);
    fail_and_wait(c, error);
    pthread_mutex_unlock(&c->mutex);
}

void vi_channel_drain(struct vi_channel *c, int error)
{
    pthread_mutex_lock(&c->mutex);
    vi_pump(c);
    fail_and_wait(c, error);
    pthread_mutex_unlock(&c->mutex);
}

void vi_channel_free(struct vi_channel *c)
{
    if (!c)
        return;
    vi_channel_fail(c, -ESHUTDOWN);
    pthread_mutex_destroy(&c->mutex);
    pthread_cond_destroy(&c->left);
    release(c);
}

uint32_t vi_channel_slots(struct vi_channel *c)
{
    return c->ring.nr_ents;
}

int vi_channel_send(struct vi_channel *c, const void *iu, uint32_t nbytes)
{
    vscsi_word words[VSCSI_SRP_SLOT / 8] = { 0 };
    if (nbytes == 0 || nbytes > c->ring.slot_nbytes)
        return -EMSGSIZE;
    memcpy(words, iu, nbytes);
    pthread_mutex_lock(&c->mutex);
    int rc = c->error;
    void *slot = rc ? NULL : vscsi_front_next_request(&c->ring);
    bool kick = false;
    if (slot) {
        vscsi_slot_write(slot, words, nbytes);
        kick = vi_push(c);
    } else if (rc == 0) {
        rc = -EAGAIN;
    }
    if (kick) {
        vi_enter(c);
        vi_kick(c);
        vi_leave(c);
    }
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

static bool ready_inbox(const struct vi_channel *c, const struct vi_waiter *w)
{
    (void)w;
    return c->error || c->inbox_full;
}

int vi_channel_receive(struct vi_channel *c, void *iu, int timeout_ms)
{
    struct vi_waiter w = { .ready = ready_inbox };
    uint64_t deadline = vi_deadline(timeout_ms);
    pthread_mutex_lock(&c->mutex);
    int rc = vi_wait_for(c, &w, deadline);
    if (c->inbox_full) {
        memcpy(iu, c->inbox, c->ring.slot_nbytes);
        c->inbox_full = false;
        rc = 1;
    } else if (rc == 0) {
        rc = c->error;
    }
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

int vi_channel_live(struct vi_channel *c, uint32_t request_limit, uint32_t max_iu_nbytes)
{
    if (max_iu_nbytes < 64 || request_limit > INT32_MAX / 2)
        return -EINVAL; /* SRP r16a: no target may ask for less than 64 */
    pthread_mutex_lock(&c->mutex);
    int rc = c->error;
    if (rc == 0 && (c->inbox_full || c->ring.rsp_cons != c->ring.req_published))
        rc = -EBUSY;
    if (rc == 0) {
        c->live = true;
        c->request_limit = (int32_t)request_limit;
        c->kept_credits = request_limit > 1;
        if (max_iu_nbytes < c->max_iu_nbytes)
            c->max_iu_nbytes = max_iu_nbytes;
        vi_notify(c);
    }
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

void vi_channel_eager_events(struct vi_channel *c)
{
    pthread_mutex_lock(&c->mutex);
    c->eager_events = true;
    pthread_mutex_unlock(&c->mutex);
}

int vi_channel_credit(struct vi_channel *c, int32_t delta)
{
    pthread_mutex_lock(&c->mutex);
    int64_t limit = (int64_t)c->request_limit + delta;
    int rc = c->error;
    if (rc == 0 && (limit > INT32_MAX / 2 || limit < INT32_MIN / 2)) {
        rc = -EPROTO;
        vi_fail_locked(c, rc);
    } else if (rc == 0) {
        c->request_limit = (int32_t)limit;
        vi_notify(c);
    }
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

uint32_t vi_outstanding(struct vi_channel *c)
{
    pthread_mutex_lock(&c->mutex);
    uint32_t n = c->busy_count;
    pthread_mutex_unlock(&c->mutex);
    return n;
}

int vi_channel_stats(struct vi_channel *c, struct vi_stats *stats)
{
    pthread_mutex_lock(&c->mutex);
    *stats = c->stats;
    stats->request_limit = c->request_limit;
    stats->outstanding = c->busy_count;
    pthread_mutex_unlock(&c->mutex);
    return 0;
}
