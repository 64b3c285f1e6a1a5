/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finds the functions that ours stand before. They are looked up when first needed: other libraries' constructors may
 * call ours before our own has run. Knows the dynamic linker; knows no device.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <stdatomic.h>

#include "door.h"

void *door_next_cached(const char *name, void *_Atomic *cache)
{
    void *found = atomic_load_explicit(cache, memory_order_relaxed);

    if (found == NULL) {
        int kept = errno;

        found = dlsym(RTLD_NEXT, name);
        errno = kept;
        if (found == NULL) {
            abort(); /* a program cannot call what its C library does not have */
        }
        atomic_store_explicit(cache, found, memory_order_relaxed);
    }
    return found;
}

long door_result(long value)
{
    if (value < 0) {
        errno = (int)-value;
        return -1;
    }
    return value;
}
