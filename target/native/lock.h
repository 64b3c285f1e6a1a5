/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The lock of a logical unit: a mutex for everybody, and a gate beside it for the one loop that serves the unit, which
 * enters and leaves with plain stores: no locked instruction for a command. Knows threads; knows nothing of what is
 * guarded.
 *
 * The loop says that it is inside, then looks at the gate. Everybody else (a guest) takes the mutex, closes the gate,
 * then waits until the loop is not inside. Each needs its store before its load; the loop gets that fence for nothing,
 * since a guest has the kernel put it there (membarrier(2)), into whatever runs of this process. Closed, or where there
 * is no membarrier, the loop takes the mutex like all others. A unit that two loops serve has no gate any more.
 */
#ifndef VSCSI_LOCK_H
#define VSCSI_LOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct vt_lock {
    _Atomic(const void *) gate;     /* whom it is open for */
    _Atomic bool inside;            /* he is; written by him alone */
    pthread_mutex_t mutex;
    const void *owner;              /* for whom it opens when the last guest leaves; this and the rest: the mutex's */
    uint32_t guests;
    bool shared;                    /* for nobody, and for good */
};

void vt_lock_init(struct vt_lock *lock);
void vt_lock_destroy(struct vt_lock *lock);
/* The guest's way, open to a loop, too. A condition may be waited for with `mutex`. */
void vt_lock_take(struct vt_lock *lock);
void vt_lock_give(struct vt_lock *lock);
/* The loop's way when it has found the gate closed; it becomes the owner if nobody is. */
void vt_lock_enter_slowly(struct vt_lock *lock, const void *loop);

/* A loop's way. True: through the gate; vt_lock_leave must be told. */
static inline bool vt_lock_enter(struct vt_lock *lock, const void *loop)
{
    if (__builtin_expect(atomic_load_explicit(&lock->gate, memory_order_relaxed) == loop, 1)) {
        atomic_store_explicit(&lock->inside, true, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst);
        if (__builtin_expect(atomic_load_explicit(&lock->gate, memory_order_acquire) == loop, 1))
            return true;
        atomic_store_explicit(&lock->inside, false, memory_order_release);
    }
    vt_lock_enter_slowly(lock, loop);
    return false;
}

static inline void vt_lock_leave(struct vt_lock *lock, bool by_gate)
{
    if (__builtin_expect(by_gate, 1))
        atomic_store_explicit(&lock->inside, false, memory_order_release);
    else
        pthread_mutex_unlock(&lock->mutex);
}

#endif
