/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The lock of a logical unit under fire: a loop that goes through the gate, guests that come, wait for a condition and
 * go, and from half-time on a second loop. Two plain counters must stay equal, and end as the sum of all entries.
 * Usage: lock_stress SECONDS. Prints what happened; exit status 1: two were inside at once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "lock.h"

enum { GUESTS = 2 };

static struct vt_lock lock;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint64_t one, two;               /* guarded */
static _Atomic bool over;
static _Atomic uint64_t by_gate, by_mutex, as_guest, waited;

static void count(void)
{
    uint64_t seen = one;
    one = seen + 1;
    for (int i = 0; i < 8; i++)
        atomic_signal_fence(memory_order_seq_cst);
    if (two != seen) {
        fputs("two were inside at once\n", stderr);
        _exit(1);
    }
    two = seen + 1;
}

static void *loop(void *id)
{
    uint64_t gates = 0, mutexes = 0;
    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        bool gate = vt_lock_enter(&lock, id);
        count();
        pthread_cond_broadcast(&changed);
        vt_lock_leave(&lock, gate);
        gates += gate;
        mutexes += !gate;
    }
    atomic_fetch_add(&by_gate, gates);
    atomic_fetch_add(&by_mutex, mutexes);
    return NULL;
}

static void *guest(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    uint64_t times = 0;
    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        vt_lock_take(&lock);
        count();
        times++;
        if (rand_r(&seed) % 8 == 0) {
            struct timespec until;
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_nsec += 100000;
            if (until.tv_nsec >= 1000000000) {
                until.tv_nsec -= 1000000000;
                until.tv_sec++;
            }
            pthread_cond_timedwait(&changed, &lock.mutex, &until);
            atomic_fetch_add(&waited, 1);
            count();
            times++;
        }
        vt_lock_give(&lock);
        usleep((unsigned)rand_r(&seed) % 200);
    }
    atomic_fetch_add(&as_guest, times);
    return NULL;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 1;
    static int first, second;
    pthread_t threads[GUESTS + 2];
    vt_lock_init(&lock);
    if (lock.shared)
        return 77;      /* no membarrier here: nothing but a mutex */
    pthread_create(&threads[0], NULL, loop, &first);
    for (uintptr_t i = 0; i < GUESTS; i++)
        pthread_create(&threads[1 + i], NULL, guest, (void *)(i + 1));
    usleep((unsigned)(seconds * 500000));
    pthread_create(&threads[GUESTS + 1], NULL, loop, &second);
    usleep((unsigned)(seconds * 500000));
    atomic_store(&over, true);
    for (int i = 0; i < GUESTS + 2; i++)
        pthread_join(threads[i], NULL);
    uint64_t sum = by_gate + by_mutex + as_guest;
    printf("gate=%llu mutex=%llu guest=%llu waited=%llu lost=%lld\n", (unsigned long long)by_gate,
           (unsigned long long)by_mutex, (unsigned long long)as_guest, (unsigned long long)waited,
           (long long)(sum - one));
    bool shared = lock.shared;
    vt_lock_destroy(&lock);
    return sum == one && shared ? 0 : 1;
}
