/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A disk that is not there: what a head, a platter and one queue cost in time, and the media access that has to wait for
 * it in its loop. Knows positions and times; moves no byte, and knows no command.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "core.h"
#include "load.h"

struct vt_disk {
    struct vt_disk_config config;
    pthread_mutex_t lock;
    uint64_t track_nbytes;
    uint64_t head;
    uint64_t busy_until_ns;
};

struct vt_disk *vt_disk_new(const struct vt_disk_config *config)
{
    if (!config->nbytes || !config->bytes_per_s || !config->revolution_us)
        return NULL;
    struct vt_disk *disk = calloc(1, sizeof *disk);
    if (!disk)
        return NULL;
    disk->config = *config;
    disk->track_nbytes = (uint64_t)((double)config->bytes_per_s * config->revolution_us / 1e6);
    disk->track_nbytes += disk->track_nbytes == 0;
    pthread_mutex_init(&disk->lock, NULL);
    return disk;
}

void vt_disk_resize(struct vt_disk *disk, uint64_t nbytes)
{
    pthread_mutex_lock(&disk->lock);
    disk->config.nbytes = nbytes ? nbytes : 1;
    pthread_mutex_unlock(&disk->lock);
}

void vt_disk_free(struct vt_disk *disk)
{
    if (disk)
        pthread_mutex_destroy(&disk->lock);
    free(disk);
}

/* The arm accelerates half the way and brakes the other half, so time goes with the root of the distance. */
static uint64_t seek_ns(const struct vt_disk *disk, uint64_t offset)
{
    const double mean_root = 8.0 / 15;  /* of the distance between two random places */
    const struct vt_disk_config *c = &disk->config;
    uint64_t distance = offset > disk->head ? offset - disk->head : disk->head - offset;
    if (distance < disk->track_nbytes)
        return 0;
    double far_us = c->seek_us > c->step_us ? (c->seek_us - c->step_us) / mean_root : 0;
    double part = (double)distance / (double)c->nbytes;
    return (uint64_t)(1000 * (c->step_us + far_us * sqrt(part < 1 ? part : 1)));
}

/* Until the platter has brought the place under the head. */
static uint64_t rotation_ns(const struct vt_disk *disk, uint64_t offset, uint64_t at_ns)
{
    uint64_t revolution_ns = (uint64_t)disk->config.revolution_us * 1000;
    double place = (double)(offset % disk->track_nbytes) / (double)disk->track_nbytes;
    uint64_t wanted_ns = (uint64_t)(place * (double)revolution_ns);
    return (wanted_ns + revolution_ns - at_ns % revolution_ns) % revolution_ns;
}

uint64_t vt_disk_serve(struct vt_disk *disk, uint64_t offset, uint64_t nbytes, uint64_t now_ns)
{
    pthread_mutex_lock(&disk->lock);
    uint64_t at_ns = disk->busy_until_ns > now_ns ? disk->busy_until_ns : now_ns;
    if (offset != disk->head) {
        at_ns += seek_ns(disk, offset);
        at_ns += rotation_ns(disk, offset, at_ns);
    }
    at_ns += (uint64_t)((double)nbytes * 1e9 / (double)disk->config.bytes_per_s);
    disk->head = offset + nbytes;
    disk->busy_until_ns = at_ns;
    pthread_mutex_unlock(&disk->lock);
    return at_ns;
}

int vt_lu_disk(struct vt_target *t, uint32_t index, struct vt_disk *disk, uint64_t base)
{
    struct vt_lu *lu = index < VT_MAX_LUS ? atomic_load(&t->lus[index]) : NULL;
    if (!lu)
        return -ENOENT;
    vt_lock_take(&lu->lock);
    lu->disk_base = base;
    atomic_store(&lu->disk, disk);
    vt_lock_give(&lu->lock);
    return 0;
}

/* ---- media access that waits for the disk: in its loop only, by the time it is done ---- */

void vt_disk_wait(struct vt_task *task)
{
    struct vt_lu *lu = task->lu;
    struct vt_loop *loop = task->channel->loop;
    struct vt_disk *disk = atomic_load_explicit(&lu->disk, memory_order_acquire);
    task->due_ns = vt_disk_serve(disk, lu->disk_base + task->offset, task->nbytes, vscsi_now_ns());
    struct vt_task **link = &loop->delayed_first;
    /* One disk ends them in the order in which it took them. */
    if (loop->delayed_last && loop->delayed_last->due_ns <= task->due_ns)
        link = &loop->delayed_last->q_next;
    while (*link && (*link)->due_ns <= task->due_ns)
        link = &(*link)->q_next;
    task->q_next = *link;
    *link = task;
    if (!task->q_next)
        loop->delayed_last = task;
}

/* Goes on with what is due; when the next will be, in ns from now. */
uint64_t vt_disk_due(struct vt_loop *loop, uint64_t now_ns)
{
    for (struct vt_task *task; (task = loop->delayed_first) && task->due_ns <= now_ns;) {
        loop->delayed_first = task->q_next;
        if (!loop->delayed_first)
            loop->delayed_last = NULL;
        vt_media_go(task);
    }
    return loop->delayed_first ? loop->delayed_first->due_ns - now_ns : UINT64_MAX;
}

/* Aborted ones are answered now; the disk, which knows nothing of it, is busy all the same. */
void vt_disk_cancel(struct vt_loop *loop)
{
    struct vt_task *aborted = NULL, **end = &aborted, *last = NULL;
    for (struct vt_task **link = &loop->delayed_first; *link;) {
        struct vt_task *task = *link;
        if (vt_is_aborted(task)) {
            *link = task->q_next;
            *end = task;
            end = &task->q_next;
        } else {
            last = task;
            link = &task->q_next;
        }
    }
    *end = NULL;
    loop->delayed_last = last;
    while (aborted) {
        struct vt_task *next = aborted->q_next;
        vt_media_go(aborted);
        aborted = next;
    }
}
