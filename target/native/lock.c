/* SPDX-License-Identifier: BSD-2-Clause */
/* The slow half of lock.h: guests, and who owns a gate. Knows membarrier(2). */
#include "lock.h"

#include <linux/membarrier.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "barrier.h"

enum { LOOKS = 100 };   /* before the CPU is given to whoever is inside */

static bool fences_others(void)
{
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0 &&
           syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}

void vt_lock_init(struct vt_lock *lock)
{
    *lock = (struct vt_lock){ .shared = !fences_others() };
    pthread_mutex_init(&lock->mutex, NULL);
}

void vt_lock_destroy(struct vt_lock *lock)
{
    pthread_mutex_destroy(&lock->mutex);
}

static void close_gate(struct vt_lock *lock)
{
    atomic_store_explicit(&lock->gate, NULL, memory_order_relaxed);
    /* It has worked before; without it the owner could be inside unseen. */
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) < 0)
        abort();
    for (uint32_t i = 0; atomic_load_explicit(&lock->inside, memory_order_acquire); i++) {
        if (i < LOOKS)
            vscsi_cpu_relax();
        else
            sched_yield();
    }
}

void vt_lock_take(struct vt_lock *lock)
{
    pthread_mutex_lock(&lock->mutex);
    /* A guest that waits for a condition keeps the gate closed. */
    if (lock->guests++ == 0 && lock->owner)
        close_gate(lock);
}

void vt_lock_give(struct vt_lock *lock)
{
    if (--lock->guests == 0 && lock->owner)
        atomic_store_explicit(&lock->gate, lock->owner, memory_order_release);
    pthread_mutex_unlock(&lock->mutex);
}

void vt_lock_enter_slowly(struct vt_lock *lock, const void *loop)
{
    pthread_mutex_lock(&lock->mutex);
    if (lock->shared || lock->owner == loop)
        return;
    if (!lock->owner && lock->guests == 0) {
        lock->owner = loop;
        atomic_store_explicit(&lock->gate, loop, memory_order_release);
    } else if (lock->owner) {
        if (lock->guests == 0)
            close_gate(lock);
        lock->owner = NULL;
        lock->shared = true;
    }
}
