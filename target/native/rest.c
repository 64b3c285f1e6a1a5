/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What lets Python's conversation thread sleep as long as nothing happens: word of the first loop that wakes, and of
 * files that others change. Knows loops' sleep and inotify; knows neither what wakes a loop nor why a file matters.
 */
#include <errno.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "core.h"

/* Pairs with go_to_sleep: either the loop that wakes sees the wish, or we see that it is awake. */
int vt_tell_activity(struct vt_target *t)
{
    atomic_store(&t->tell_activity, true);
    for (uint32_t i = 0; i < t->nr_loops; i++)
        if (!atomic_load(&t->loops[i].sleeping)) {
            atomic_store(&t->tell_activity, false);
            return 1;
        }
    return 0;
}

void vt_activity(struct vt_target *t)
{
    if (atomic_exchange(&t->tell_activity, false))
        vt_event_post(t, &t->active_event);
}

int vt_watch_open(void)
{
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int vt_watch_once(int watch_fd, const char *path)
{
    return inotify_add_watch(watch_fd, path, IN_MODIFY | IN_ONESHOT) < 0 ? -errno : 0;
}

void vt_watch_drain(int watch_fd)
{
    uint8_t events[4096];
    while (read(watch_fd, events, sizeof events) > 0)
        ;
}
