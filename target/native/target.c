/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The target as a whole: made, started, stopped, freed. Knows which parts there are and in what order they live;
 * knows nothing of what they do.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "core.h"
#include "tap.h"

enum { TABLE_NBYTES = VT_MAX_DESCRIPTORS * sizeof(struct srp_direct_buf) };

static uint32_t usable_cpus(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
}

static int make_loop(struct vt_target *t, uint32_t index)
{
    struct vt_loop *loop = &t->loops[index];
    loop->target = t;
    loop->index = index;
    loop->sched_ns = UINT64_MAX;
    pthread_mutex_init(&loop->mail_lock, NULL);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop->channels = calloc(VT_MAX_CHANNELS, sizeof *loop->channels);
    loop->table = aligned_alloc(64, TABLE_NBYTES);
    if (loop->wake_fd < 0)
        return -errno;
    return loop->channels && loop->table ? 0 : -ENOMEM;
}

static void init_locks(struct vt_target *t)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&t->control, NULL);
    pthread_mutex_init(&t->boot_lock, NULL);
    pthread_cond_init(&t->boot_cond, NULL);
    pthread_mutex_init(&t->event_lock, NULL);
    pthread_mutex_init(&t->slow_lock, NULL);
    pthread_cond_init(&t->slow_cond, &monotonic);
    pthread_mutex_init(&t->range_lock, NULL);
    pthread_cond_init(&t->range_cond, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

struct vt_target *vt_new(const struct vt_config *config, int *error)
{
    *error = -EINVAL;
    if (config->loops == 0 || config->loops > VT_MAX_LOOPS || config->engine > VT_ENGINE_POOL)
        return NULL;
    struct vt_target *t = calloc(1, sizeof *t);
    if (!t) {
        *error = -ENOMEM;
        return NULL;
    }
    t->config = *config;
    if (t->config.batch == 0)
        t->config.batch = 64;
    if (t->config.abort_limit_ms == 0)
        t->config.abort_limit_ms = VT_ABORT_LIMIT_MS;
    t->cpus = usable_cpus();
    t->slow.limit = t->config.workers_per_lu;
    t->next_task_id = 1;
    t->next_ticket = 1;
    t->active_event.type = VT_EVENT_ACTIVE;
    init_locks(t);
    t->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = t->event_fd < 0 ? -errno : 0;
    for (uint32_t i = 0; i < VT_MAX_LOOPS; i++)
        t->loops[i].wake_fd = -1;
    for (uint32_t i = 0; i < config->loops && rc == 0; i++) {
        t->nr_loops++;
        rc = make_loop(t, i);
    }
    *error = rc;
    if (rc == 0)
        return t;
    vt_free(t);
    return NULL;
}

/*
 * -ETIMEDOUT: some have I/O that does not end. By the clock of the day, which a monotonic join would spare: ThreadSanitizer
 * knows this join only, and takes what a loop did before any other for a race.
 */
static int join_loops(struct vt_target *t, uint32_t ms)
{
    struct timespec until;
    int rc = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + ms % 1000 * 1000000u;
    until.tv_sec += (time_t)(ms / 1000 + ns / 1000000000u);
    until.tv_nsec = (long)(ns % 1000000000u);
    for (uint32_t i = 0; i < t->nr_loops; i++) {
        struct vt_loop *loop = &t->loops[i];
        if (!loop->started)
            continue;
        atomic_store(&loop->stop, true);
        vt_loop_wake(loop);
    }
    for (uint32_t i = 0; i < t->nr_loops; i++) {
        struct vt_loop *loop = &t->loops[i];
        if (!loop->started)
            continue;
        if (ms == UINT32_MAX) {
            pthread_join(loop->thread, NULL);
        } else if (pthread_timedjoin_np(loop->thread, NULL, &until)) {
            rc = -ETIMEDOUT;
            continue;
        }
        atomic_store(&loop->has_clock, false);
        loop->started = false;
    }
    return rc;
}

int vt_start(struct vt_target *t)
{
    if (t->started || t->stopped)
        return -EALREADY;
    int rc = 0;
    for (uint32_t i = 0; i < t->nr_loops && rc == 0; i++)
        rc = vt_loop_boot(&t->loops[i]);
    pthread_mutex_lock(&t->boot_lock);
    if (rc < 0) {
        t->boot_error = rc;
        pthread_cond_broadcast(&t->boot_cond);
    }
    while (t->booted < t->nr_loops && t->boot_error == 0)
        pthread_cond_wait(&t->boot_cond, &t->boot_lock);
    rc = t->boot_error;
    pthread_mutex_unlock(&t->boot_lock);
    if (rc < 0)
        join_loops(t, UINT32_MAX);
    else
        t->started = true;
    return rc;
}

int vt_stop_within(struct vt_target *t, uint32_t ms)
{
    pthread_mutex_lock(&t->control);
    t->stopped = true;
    pthread_mutex_unlock(&t->control);
    vt_slow_stop(t);
    atomic_store(&t->stopping, true);
    vt_range_wake(t);
    int rc = join_loops(t, ms);
    vt_tap_stop(t);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&t->control);
    for (uint32_t i = 0; i < VT_MAX_LUS; i++)
        vt_range_forget(atomic_load(&t->lus[i]));
    vt_sched_stop(t);
    t->joined = true;
    pthread_mutex_unlock(&t->control);
    return 0;
}

void vt_stop(struct vt_target *t)
{
    vt_stop_within(t, UINT32_MAX);
}

static void free_letters(struct vt_loop *loop)
{
    while (loop->letters_first) {
        struct vt_letter *letter = loop->letters_first;
        loop->letters_first = letter->next;
        free(letter);
    }
}

static void free_loop(struct vt_loop *loop)
{
    free_letters(loop);
    while (loop->scratch) {
        struct vt_scratch *s = loop->scratch;
        loop->scratch = s->next;
        free(s);
    }
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    free(loop->channels);
    free(loop->table);
    pthread_mutex_destroy(&loop->mail_lock);
}

void vt_free(struct vt_target *t)
{
    if (!t)
        return;
    vt_stop(t);
    for (uint32_t i = 0; i < VT_MAX_CHANNELS; i++)
        if (t->channels[i])
            vt_channel_free(t->channels[i]);
    vt_slow_free(t);
    for (uint32_t i = 0; i < t->nr_loops; i++)
        free_loop(&t->loops[i]);
    for (uint32_t i = 0; i < VT_MAX_LUS; i++)
        vt_lu_free(atomic_load(&t->lus[i]));
    for (uint32_t i = 0; i < atomic_load(&t->nr_scheds); i++)
        vt_sched_free(atomic_load(&t->scheds[i]));
    while (t->graveyard) {
        struct vt_lu *lu = t->graveyard;
        t->graveyard = lu->buried;
        vt_lu_free(lu);
    }
    for (uint32_t i = 0; i < 256; i++)
        for (struct vt_row *row = atomic_load(&t->rows[i]), *next; row; row = next) {
            next = atomic_load(&row->next);
            free(row);
        }
    if (t->event_fd >= 0)
        close(t->event_fd);
    vt_tap_free(t);
    free(t);
}

int vt_engine_used(struct vt_target *t)
{
    return t->started ? t->engine_used : -ENOTCONN;
}

int vt_loop_stats(struct vt_target *t, uint32_t index, struct vt_loop_stats *stats)
{
    if (index >= t->nr_loops)
        return -ENOENT;
    struct vt_loop *loop = &t->loops[index];
    struct timespec cpu = { 0 };
    if (atomic_load(&loop->has_clock))
        clock_gettime(loop->cpu_clock, &cpu);
    *stats = (struct vt_loop_stats){
        .cpu_ns = (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec,
        .passes = vscsi_load64_relaxed(&loop->stats.passes),
        .sleeps = vscsi_load64_relaxed(&loop->stats.sleeps),
        .channels = vscsi_load64_relaxed(&loop->stats.channels),
    };
    return 0;
}
