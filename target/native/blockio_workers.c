/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads that may block: one queue in, one list out, and an eventfd for an owner that sleeps. The whole of the pool
 * engine's I/O, and what io_uring cannot do without blocking. Knows struct bio's steps; knows no watches and no policy.
 * The owner is one thread; the eventfd is written only when it said that it is about to sleep.
 * One descriptor occupies at most as many threads as there are at first, and when none of them has ended anything for a
 * while, more are started for others that wait: whose I/O does not end holds up nobody else.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "blockio_engine.h"

enum { DEFAULT_THREADS = 4, MAX_THREADS = 64, STALL_NS = 20000000 };

struct worker {
    struct bio_workers *owner;
    pthread_t thread;
    int fd;                      /* whose I/O it runs or is about to; -1: none */
};

struct bio_workers {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct bio_list queue;
    struct bio_list done;
    atomic_uint ended;           /* length of `done`; read without the lock to see whether taking it pays */
    atomic_uint waiting;         /* length of `queue` */
    uint64_t ends;               /* of I/Os, ever */
    uint64_t seen_ends;          /* when it was last looked */
    uint64_t seen_ns;
    uint32_t idle;
    uint32_t limit;              /* threads for one descriptor */
    uint32_t threads;
    int event_fd;
    bool stop;
    bool sleeping;
    bool signalled;              /* the eventfd holds a count */
    struct worker worker[MAX_THREADS];
};

/* May another thread run I/O on this descriptor? With the lock. */
static bool has_room(const struct bio_workers *w, int fd)
{
    uint32_t running = 0;
    for (uint32_t i = 0; i < w->threads; i++)
        running += w->worker[i].fd == fd;
    return running < w->limit;
}

/* With the lock. */
static struct bio *next(struct bio_workers *w)
{
    struct bio *bio = w->queue.head;
    if (w->threads > w->limit) {
        while (bio != NULL && !has_room(w, bio->fd))
            bio = bio->next;
        if (bio != NULL)
            bio_list_remove(&w->queue, bio);
    } else {
        bio = bio_list_pop(&w->queue);
    }
    if (bio != NULL)
        atomic_fetch_sub_explicit(&w->waiting, 1, memory_order_relaxed);
    return bio;
}

/* With the lock. */
static void ended(struct bio_workers *w, struct bio *bio)
{
    bio_list_push(&w->done, bio);
    w->ends++;
    atomic_fetch_add_explicit(&w->ended, 1, memory_order_release);
    if (w->sleeping) {
        w->sleeping = false;
        w->signalled = true;
        eventfd_write(w->event_fd, 1);
    }
}

static void *run(void *arg)
{
    struct worker *self = arg;
    struct bio_workers *w = self->owner;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        self->fd = -1;
        struct bio *bio = next(w);
        if (bio != NULL) {
            self->fd = bio->fd;
            pthread_mutex_unlock(&w->lock);
            bio_run(bio);
            pthread_mutex_lock(&w->lock);
            ended(w, bio);
        } else if (w->stop) {
            break;
        } else {
            w->idle++;
            pthread_cond_wait(&w->work, &w->lock);
            w->idle--;
        }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

void bio_workers_free(struct bio_workers *w)
{
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->work);
    pthread_mutex_unlock(&w->lock);
    for (uint32_t i = 0; i < w->threads; i++)
        pthread_join(w->worker[i].thread, NULL);
    pthread_cond_destroy(&w->work);
    pthread_mutex_destroy(&w->lock);
    close(w->event_fd);
    free(w);
}

/* One more thread, for I/O on this descriptor at first. Signals are the main thread's. */
static int start(struct bio_workers *w, int fd)
{
    struct worker *one = &w->worker[w->threads];
    *one = (struct worker){.owner = w, .fd = fd};
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&one->thread, NULL, run, one);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    w->threads += failed == 0;
    return failed;
}

struct bio_workers *bio_workers_new(uint32_t threads, int *error)
{
    if (threads == 0)
        threads = DEFAULT_THREADS;
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    struct bio_workers *w = calloc(1, sizeof *w);
    if (w == NULL) {
        *error = -ENOMEM;
        return NULL;
    }
    w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->event_fd < 0) {
        *error = -errno;
        free(w);
        return NULL;
    }
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->work, NULL);
    bio_list_init(&w->queue);
    bio_list_init(&w->done);
    w->limit = threads;
    int failed = 0;
    pthread_mutex_lock(&w->lock);
    while (failed == 0 && w->threads < threads)
        failed = start(w, -1);
    pthread_mutex_unlock(&w->lock);
    if (w->threads == 0) {
        bio_workers_free(w);
        *error = -failed;
        return NULL;
    }
    return w;
}

void bio_workers_give(struct bio_workers *w, struct bio_list *list)
{
    if (list->head == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    uint32_t count = 0;
    for (struct bio *bio = list->head; bio != NULL; bio = bio->next)
        count++;
    atomic_fetch_add_explicit(&w->waiting, count, memory_order_relaxed);
    bio_list_move(&w->queue, list);
    for (uint32_t wake = count < w->idle ? count : w->idle; wake > 0; wake--)
        pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->lock);
}

bool bio_workers_take(struct bio_workers *w, struct bio_list *to)
{
    if (atomic_load_explicit(&w->ended, memory_order_acquire) == 0)
        return false;
    pthread_mutex_lock(&w->lock);
    bio_list_move(to, &w->done);
    atomic_store_explicit(&w->ended, 0, memory_order_relaxed);
    pthread_mutex_unlock(&w->lock);
    return true;
}

bool bio_workers_cancel(struct bio_workers *w, struct bio *bio)
{
    pthread_mutex_lock(&w->lock);
    bool found = bio_list_remove(&w->queue, bio);
    if (found) {
        atomic_fetch_sub_explicit(&w->waiting, 1, memory_order_relaxed);
        bio->error = -ECANCELED;
        ended(w, bio);
    }
    pthread_mutex_unlock(&w->lock);
    return found;
}

static uint64_t coarse_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* With the lock: nothing has ended for a while, and somebody waits who has nothing to do with that. */
static void look(struct bio_workers *w)
{
    uint64_t now = coarse_ns();
    if (w->seen_ends != w->ends || w->seen_ns == 0) {
        w->seen_ends = w->ends;
        w->seen_ns = now;
        return;
    }
    if (now - w->seen_ns < STALL_NS)
        return;
    w->seen_ns = 0;
    for (struct bio *bio = w->queue.head; bio != NULL && w->threads < MAX_THREADS; bio = bio->next)
        if (has_room(w, bio->fd))
            start(w, bio->fd);
}

uint64_t bio_workers_look(struct bio_workers *w, uint64_t timeout_ns)
{
    if (atomic_load_explicit(&w->waiting, memory_order_relaxed) == 0)
        return timeout_ns;
    pthread_mutex_lock(&w->lock);
    if (w->queue.head != NULL)
        look(w);
    else
        w->seen_ns = 0;
    pthread_mutex_unlock(&w->lock);
    return timeout_ns < STALL_NS ? timeout_ns : STALL_NS;
}

bool bio_workers_sleep(struct bio_workers *w)
{
    pthread_mutex_lock(&w->lock);
    bool nothing = w->done.head == NULL;
    w->sleeping = nothing;
    pthread_mutex_unlock(&w->lock);
    return nothing;
}

void bio_workers_awake(struct bio_workers *w)
{
    pthread_mutex_lock(&w->lock);
    w->sleeping = false;
    if (w->signalled) {
        eventfd_t count;
        eventfd_read(w->event_fd, &count);
        w->signalled = false;
    }
    pthread_mutex_unlock(&w->lock);
}

int bio_workers_fd(const struct bio_workers *w)
{
    return w->event_fd;
}
