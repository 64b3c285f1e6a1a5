/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A loop: one thread that serves its channels, its engine and its mailbox, pass by pass, and sleeps in bio_wait only.
 * Knows when to look, spin and sleep; knows nothing of what is in a ring or in a command.
 * Never takes the GIL, never blocks elsewhere, never makes a call that a peer can hold up.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core.h"
#include "load.h"
#include "spin.h"

enum { LOOK_EVERY = 16 };   /* passes between looks at event channels while there is work */

/* ---- from other threads ---- */

void vt_loop_wake(struct vt_loop *loop)
{
    /* Pairs with go_to_sleep: whoever comes second sees the other's store. */
    atomic_store(&loop->mail_pending, true);
    if (atomic_load(&loop->sleeping)) {
        uint64_t one = 1;
        ssize_t ignored = write(loop->wake_fd, &one, sizeof one);
        (void)ignored;
    }
}

void vt_loop_mail(struct vt_loop *loop, struct vt_task *task, enum vt_mail what)
{
    pthread_mutex_lock(&loop->mail_lock);
    task->mail = (uint8_t)what;
    task->q_next = NULL;
    if (loop->mail_last)
        loop->mail_last->q_next = task;
    else
        loop->mail_first = task;
    loop->mail_last = task;
    pthread_mutex_unlock(&loop->mail_lock);
    vt_loop_wake(loop);
}

void vt_loop_letter(struct vt_loop *loop, struct vt_letter *letter)
{
    letter->next = NULL;
    pthread_mutex_lock(&loop->mail_lock);
    if (loop->letters_last)
        loop->letters_last->next = letter;
    else
        loop->letters_first = letter;
    loop->letters_last = letter;
    pthread_mutex_unlock(&loop->mail_lock);
    vt_loop_wake(loop);
}

/* ---- in the loop's thread ---- */

void vt_loop_ready(struct vt_loop *loop, struct vt_task *task)
{
    task->q_next = NULL;
    if (loop->ready_last)
        loop->ready_last->q_next = task;
    else
        loop->ready_first = task;
    loop->ready_last = task;
}

void vt_loop_wait_scratch(struct vt_loop *loop, struct vt_task *task)
{
    /* Whoever holds scratch may wait for a range, so nobody who wants a range may wait for this one. */
    if (task->in_set)
        vt_range_drop(task, EXTENT_LOOK);
    if (task->sched)
        vt_sched_leave(task);
    struct vt_task **end = &loop->scratch_wait;
    while (*end)
        end = &(*end)->q_next;
    task->q_next = NULL;
    *end = task;
}

static void (*const deliver[])(struct vt_task *) = {
    [MAIL_START] = vt_task_resume,
    [MAIL_SLOW_DONE] = vt_media_slow_done,
    [MAIL_TMF_DONE] = vt_tmf_quiesced,
    [MAIL_TMF_VISIT] = vt_tmf_visit,
    [MAIL_SETTLED] = vt_media_settled,
};

static bool take_mail(struct vt_loop *loop)
{
    if (!atomic_exchange(&loop->mail_pending, false))
        return false;
    pthread_mutex_lock(&loop->mail_lock);
    struct vt_letter *letter = loop->letters_first;
    struct vt_task *task = loop->mail_first;
    loop->letters_first = loop->letters_last = NULL;
    loop->mail_first = loop->mail_last = NULL;
    pthread_mutex_unlock(&loop->mail_lock);
    while (letter) {
        struct vt_letter *next = letter->next;
        vt_channel_letter(letter);
        free(letter);
        letter = next;
    }
    while (task) {
        struct vt_task *next = task->q_next;
        deliver[task->mail](task);
        task = next;
    }
    return true;
}

static bool reap(struct vt_loop *loop)
{
    bool any = false;
    for (struct bio *bio; (bio = bio_reap(loop->engine)); any = true) {
        if (bio->owner)
            vt_media_done(bio->owner);
        else
            vt_media_immed_done((struct vt_lu *)((uint8_t *)bio - offsetof(struct vt_lu, immed)), loop);
    }
    return any;
}

static bool run_ready(struct vt_loop *loop)
{
    /* What these make ready has its turn in the next pass: others, and the responses, wait. */
    struct vt_task *ready = loop->ready_first;
    bool any = ready != NULL;
    loop->ready_first = loop->ready_last = NULL;
    while (ready) {
        struct vt_task *next = ready->q_next;
        vt_task_resume(ready);
        ready = next;
    }
    if (loop->retry) {
        loop->retry = false;
        struct vt_task *task = loop->scratch_wait;
        loop->scratch_wait = NULL;
        while (task) {
            struct vt_task *next = task->q_next;
            vt_task_resume(task);
            task = next;
            any = true;
        }
    }
    return any;
}

/* A task management function aborted something of ours: ask the kernel to give up what is in flight. */
static void cancel_aborted(struct vt_loop *loop)
{
    if (!atomic_exchange(&loop->cancel_wanted, false))
        return;
    loop->retry = true;
    for (uint32_t i = 0; i < loop->nr_channels; i++) {
        struct vt_channel *channel = loop->channels[i];
        for (uint32_t k = 0; k < channel->nr_tasks; k++) {
            struct vt_task *task = &channel->tasks[k];
            if (task->in_flight && !task->cancelled && vt_is_aborted(task)) {
                task->cancelled = true;
                bio_cancel(loop->engine, &task->bio);
            }
        }
    }
    vt_disk_cancel(loop);
}

static struct vt_channel *pop_dirty(struct vt_loop *loop)
{
    struct vt_channel *channel = loop->dirty;
    loop->dirty = channel->next_dirty;
    channel->dirty = false;
    return channel;
}

void vt_loop_publish(struct vt_loop *loop)
{
    while (loop->dirty)
        vt_channel_publish(pop_dirty(loop));
}

/* In the middle of a pass: no channel may leave the loop now. */
static void answer(struct vt_loop *loop)
{
    struct vt_channel *leaving = NULL;
    bio_flush(loop->engine);
    reap(loop);
    while (loop->dirty) {
        struct vt_channel *channel = pop_dirty(loop);
        if (atomic_load_explicit(&channel->state, memory_order_relaxed) == CHANNEL_STOPPING) {
            channel->next_dirty = leaving;
            leaving = channel;
        } else {
            vt_channel_publish(channel);
        }
    }
    while (leaving) {
        struct vt_channel *channel = leaving;
        leaving = channel->next_dirty;
        vt_channel_mark_dirty(channel);
    }
}

static bool serve_channels(struct vt_loop *loop)
{
    bool any = false;
    uint32_t taken = 0;
    loop->taken = 0;
    for (struct vt_channel *channel = loop->active; channel; channel = channel->next_active) {
        any |= vt_channel_pass(channel);
        /* Many channels with little each are a batch as well: their initiators need not wait for the end of the pass. */
        if (loop->taken >= loop->target->config.batch && channel->next_active) {
            answer(loop);
            taken += loop->taken;
            loop->taken = 0;
        }
    }
    loop->taken_before = taken + loop->taken;
    return any;
}

static bool take_events(struct vt_loop *loop)
{
    bool any = false;
    for (void *cookie; (cookie = bio_ready(loop->engine)); any = true) {
        if (cookie == loop) {
            uint64_t count;
            ssize_t ignored = read(loop->wake_fd, &count, sizeof count);
            (void)ignored;
        } else {
            vt_channel_event(cookie);
        }
    }
    return any;
}

/* Arms every channel that is being looked at; those with nothing leave the list. True: one had work after all. */
static bool rest(struct vt_loop *loop)
{
    bool more = false;
    const uint32_t advice = vt_spin_advice(loop);
    struct vt_channel **link = &loop->active;
    while (*link) {
        struct vt_channel *channel = *link;
        if (!vt_channel_rest(channel, advice)) {
            more = true;
            link = &channel->next_active;
            continue;
        }
        channel->active = false;
        *link = channel->next_active;
    }
    return more;
}

static uint64_t look_at_limits(struct vt_loop *loop, uint64_t now_ns)
{
    if (atomic_load(&loop->sched_ns) <= now_ns) {
        atomic_store(&loop->sched_ns, UINT64_MAX);
        vt_sched_tick(loop->target, now_ns);
    }
    uint64_t at_ns = atomic_load(&loop->sched_ns);
    return at_ns == UINT64_MAX || at_ns > now_ns ? at_ns - now_ns : 0;
}

/* When the loop must wake by itself, in ns from now. */
static uint64_t timers(struct vt_loop *loop)
{
    uint64_t next = UINT64_MAX;
    bool limits = atomic_load(&loop->sched_ns) != UINT64_MAX;
    if (!loop->quiet_channels && !loop->tmfs_waiting && !loop->delayed_first && !limits)
        return next;
    uint64_t now = vscsi_now_ns();
    if (limits)
        next = look_at_limits(loop, now);
    uint64_t due = vt_disk_due(loop, now);
    if (due < next)
        next = due;
    for (uint32_t i = 0; i < loop->nr_channels; i++) {
        struct vt_channel *channel = loop->channels[i];
        if (channel->quiet_until_ns) {
            if (now >= channel->quiet_until_ns)
                vt_channel_unquiet(channel);
            else if (channel->quiet_until_ns - now < next)
                next = channel->quiet_until_ns - now;
        }
        if (loop->tmfs_waiting)
            vt_tmf_expire(channel, now);
    }
    if (loop->tmfs_waiting && next > 100000000)
        next = 100000000;
    return next;
}

static void go_to_sleep(struct vt_loop *loop, uint64_t timeout_ns)
{
    atomic_store(&loop->sleeping, true);
    if (!atomic_load(&loop->mail_pending)) {
        vt_bump(&loop->stats.sleeps, 1);
        bio_wait(loop->engine, timeout_ns);
    }
    atomic_store(&loop->sleeping, false);
    if (atomic_load(&loop->target->tell_activity))
        vt_activity(loop->target);
    take_events(loop);
}

/* One round of everything; true if there was anything to do. */
static bool pass(struct vt_loop *loop)
{
    bool work = take_mail(loop);
    cancel_aborted(loop);
    if (!atomic_load_explicit(&loop->stop, memory_order_relaxed))
        work |= serve_channels(loop);
    work |= run_ready(loop);
    bio_flush(loop->engine);
    work |= reap(loop);
    work |= run_ready(loop);
    bio_flush(loop->engine);
    vt_loop_publish(loop);
    return work;
}

static void serve(struct vt_loop *loop)
{
    struct vscsi_spin spin = { 0 };
    uint64_t passes = 0;
    const uint64_t spin_ns = loop->target->config.spin_ns;
    for (;;) {
        bool work = pass(loop);
        vt_bump(&loop->stats.passes, 1);
        if (++passes % LOOK_EVERY == 0) {
            bio_wait(loop->engine, 0);
            work |= take_events(loop);
            timers(loop);
        }
        if (work) {
            vscsi_spin_reset(&spin);
            continue;
        }
        if (atomic_load(&loop->stop) && bio_in_flight(loop->engine) == 0 && !atomic_load(&loop->mail_pending))
            break;
        if (spin_ns && !atomic_load(&loop->stop) && vt_spin_may(loop) && vscsi_spin_on(&spin, spin_ns)) {
            if (bio_in_flight(loop->engine))
                bio_wait(loop->engine, 0);
            continue;
        }
        vt_spin_end(loop);
        uint64_t timeout = timers(loop);
        if (loop->dirty || loop->ready_first || rest(loop))
            continue;
        go_to_sleep(loop, timeout);
        vscsi_spin_reset(&spin);
    }
    vt_spin_end(loop);
}

static void *run(void *arg)
{
    struct vt_loop *loop = arg;
    struct vt_target *t = loop->target;
    struct bio_config config = { t->config.engine, 256, t->config.pool_threads };
    int error = 0;
    loop->engine = bio_engine_new(&config, &error);
    if (loop->engine)
        error = bio_watch(loop->engine, loop->wake_fd, loop);
    pthread_mutex_lock(&t->boot_lock);
    t->booted++;
    if (error < 0)
        t->boot_error = error;
    else
        t->engine_used = bio_engine_kind(loop->engine);
    pthread_cond_broadcast(&t->boot_cond);
    while (t->booted < t->nr_loops && t->boot_error == 0)
        pthread_cond_wait(&t->boot_cond, &t->boot_lock);
    bool serving = t->boot_error == 0;
    pthread_mutex_unlock(&t->boot_lock);
    if (serving)
        serve(loop);
    if (loop->engine) {
        bio_unwatch(loop->engine, loop->wake_fd);
        for (uint32_t i = 0; i < loop->nr_channels; i++)
            if (loop->channels[i]->watched)
                bio_unwatch(loop->engine, loop->channels[i]->event_fd);
        bio_engine_free(loop->engine);
        loop->engine = NULL;
    }
    return NULL;
}

/* Signals belong to the main thread: a loop blocks all of them from its first instruction. */
int vt_loop_boot(struct vt_loop *loop)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&loop->thread, NULL, run, loop);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc)
        return -rc;
    char name[16]; /* what the statistics and `top -H` know it by */
    snprintf(name, sizeof name, "vscsi-loop-%u", loop->index);
    pthread_setname_np(loop->thread, name);
    loop->started = true;
    if (pthread_getcpuclockid(loop->thread, &loop->cpu_clock) == 0)
        atomic_store(&loop->has_clock, true);
    return 0;
}
