/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Waiting. Of all the threads that wait on a channel one is the leader: it spins, then sleeps on the event channel, takes
 * responses and completes them for everyone. The others sleep on their own condition; the leader hands over when it
 * has what it came for. No wake-up is lost: the final check comes after the request for an event, and whoever else
 * takes responses gets the leader out of its sleep.
 */
#include <poll.h>
#include <sys/eventfd.h>

#include "channel.h"
#include "load.h"

enum { NEVER = 0 };

uint64_t vi_deadline(int timeout_ms)
{
    return timeout_ms < 0 ? NEVER : vscsi_now_ns() + (uint64_t)timeout_ms * 1000000u;
}

static struct timespec to_timespec(uint64_t ns)
{
    return (struct timespec){ (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
}

static bool passed(uint64_t deadline_ns)
{
    return deadline_ns != NEVER && vscsi_now_ns() >= deadline_ns;
}

void vi_enter(struct vi_channel *c)
{
    c->inside++;
    pthread_mutex_unlock(&c->mutex);
}

void vi_leave(struct vi_channel *c)
{
    pthread_mutex_lock(&c->mutex);
    if (--c->inside == 0)
        pthread_cond_broadcast(&c->left);
}

/* As with a lock whose owner runs: for longer than asked while the target is at work, and not at all once it rests. */
uint64_t vi_spin_ns(const struct vi_channel *c)
{
    return vscsi_front_peer_works(&c->ring) ? VSCSI_SPIN_LONG * (uint64_t)c->config.spin_ns : 0;
}

static void spin(struct vi_channel *c)
{
    uint32_t seen = c->ring.rsp_cons;
    vi_enter(c);
    while (vscsi_load_relaxed(&c->ring.sring->rsp_prod) == seen && vscsi_spin_on(&c->spin, vi_spin_ns(c)))
        ;
    vi_leave(c);
}

static void sleep_in_kernel(struct vi_channel *c, uint64_t deadline_ns)
{
    struct pollfd fds[2] = { { c->event_fd, POLLIN, 0 }, { c->wake_fd, POLLIN, 0 } };
    struct timespec left, *timeout = NULL;
    if (deadline_ns != NEVER) {
        uint64_t now = vscsi_now_ns();
        left = to_timespec(deadline_ns > now ? deadline_ns - now : 0);
        timeout = &left;
    }
    c->polling = true;
    c->stats.sleeps++;
    vi_enter(c);
    ppoll(fds, 2, timeout, NULL);
    vi_leave(c);
    c->polling = false;
    eventfd_t ignored;
    if (fds[1].revents)
        eventfd_read(c->wake_fd, &ignored);
    if (fds[0].revents && !c->error)
        vi_drain_event(c);
}

static void lead(struct vi_channel *c, struct vi_waiter *w, uint64_t deadline_ns)
{
    bool spun = c->config.spin_ns == 0;
    vscsi_spin_reset(&c->spin);
    while (!w->ready(c, w)) {
        int n = vi_pump(c);
        if (n > 0)
            vscsi_spin_paid(&c->spin);
        if (n < 0 || w->ready(c, w) || passed(deadline_ns))
            return;
        if (n > 0)
            continue;
        if (!spun) {
            spin(c);
            spun = true;
            continue;
        }
        if (vi_ask(c))
            continue;
        sleep_in_kernel(c, deadline_ns);
        vscsi_spin_slept(&c->spin, c->config.spin_ns);
        spun = c->config.spin_ns == 0;
    }
}

static void link_waiter(struct vi_channel *c, struct vi_waiter *w)
{
    w->prev = NULL;
    w->next = c->waiters;
    if (w->next)
        w->next->prev = w;
    c->waiters = w;
}

static void unlink_waiter(struct vi_channel *c, struct vi_waiter *w)
{
    if (w->next)
        w->next->prev = w->prev;
    if (w->prev)
        w->prev->next = w->next;
    else
        c->waiters = w->next;
}

/* Whoever leaves while nobody leads makes sure that somebody will; the last of the list has waited longest. */
static void hand_over(struct vi_channel *c)
{
    struct vi_waiter *w = c->waiters;
    if (c->leader || !w)
        return;
    while (w->next)
        w = w->next;
    pthread_cond_signal(&w->cond);
}

int vi_take_lead(struct vi_channel *c, struct vi_waiter *w)
{
    if (c->leader)
        return -EBUSY;
    pthread_cond_init(&w->cond, NULL);
    link_waiter(c, w);
    c->leader = w;
    return 0;
}

void vi_resign(struct vi_channel *c, struct vi_waiter *w)
{
    c->leader = NULL;
    unlink_waiter(c, w);
    pthread_cond_destroy(&w->cond);
    hand_over(c);
}

int vi_wait_for(struct vi_channel *c, struct vi_waiter *w, uint64_t deadline_ns)
{
    if (w->ready(c, w))
        return 0;
    int rc = 0;
    pthread_cond_init(&w->cond, NULL);
    link_waiter(c, w);
    while (!w->ready(c, w)) {
        if (!c->leader) {
            c->leader = w;
            lead(c, w, deadline_ns);
            c->leader = NULL;
        } else if (deadline_ns == NEVER) {
            pthread_cond_wait(&w->cond, &c->mutex);
        } else {
            struct timespec until = to_timespec(deadline_ns);
            pthread_cond_clockwait(&w->cond, &c->mutex, CLOCK_MONOTONIC, &until);
        }
        if (!w->ready(c, w) && passed(deadline_ns)) {
            rc = -ETIMEDOUT;
            break;
        }
    }
    unlink_waiter(c, w);
    pthread_cond_destroy(&w->cond);
    hand_over(c);
    return rc;
}
