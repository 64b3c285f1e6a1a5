/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Events from the loops to the one Python thread that holds conversations. Every node lives in a channel or a task, so
 * that posting needs no memory. Knows nothing of what an event means.
 */
#include <errno.h>
#include <unistd.h>

#include "core.h"

void vt_event_post(struct vt_target *t, struct vt_event_node *node)
{
    pthread_mutex_lock(&t->event_lock);
    if (!node->queued) {
        node->queued = true;
        node->next = NULL;
        if (t->event_last)
            t->event_last->next = node;
        else
            t->event_first = node;
        t->event_last = node;
        uint64_t one = 1;
        ssize_t ignored = write(t->event_fd, &one, sizeof one);
        (void)ignored;
    }
    pthread_mutex_unlock(&t->event_lock);
}

void vt_event_forget(struct vt_target *t, struct vt_event_node *node)
{
    pthread_mutex_lock(&t->event_lock);
    if (node->queued) {
        struct vt_event_node **link = &t->event_first, *before = NULL;
        while (*link != node) {
            before = *link;
            link = &(*link)->next;
        }
        *link = node->next;
        if (t->event_last == node)
            t->event_last = before;
        node->queued = false;
    }
    pthread_mutex_unlock(&t->event_lock);
}

int vt_event_fd(struct vt_target *t)
{
    return t->event_fd;
}

int vt_event_next(struct vt_target *t, struct vt_event *event)
{
    int found = 0;
    pthread_mutex_lock(&t->event_lock);
    struct vt_event_node *node = t->event_first;
    if (node) {
        t->event_first = node->next;
        if (!node->next)
            t->event_last = NULL;
        node->queued = false;
        *event = (struct vt_event){ .type = node->type, .channel = node->channel, .error = node->error,
                                    .iu_nbytes = node->iu_nbytes };
        if (node->iu)
            memcpy(event->iu, node->iu, node->iu_nbytes);
        found = 1;
    }
    if (!t->event_first) {
        uint64_t count;
        ssize_t ignored = read(t->event_fd, &count, sizeof count);
        (void)ignored;
    }
    pthread_mutex_unlock(&t->event_lock);
    return found;
}
