/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Logical units as Python makes, changes and removes them. The struct of an LU is never freed while the target lives:
 * a loop may hold a pointer to one that is being removed, and finds it so under its lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "core.h"

static struct vt_lu *lu_of(struct vt_target *t, uint32_t index)
{
    return index < VT_MAX_LUS ? atomic_load(&t->lus[index]) : NULL;
}

static bool plausible(const struct vt_lu_config *c)
{
    bool fd_needed = !(c->flags & (VT_LU_NULL | VT_LU_SLOW_STORE));
    return c->lun < 16384 && c->block_nbytes >= 512 && c->block_nbytes <= 65536 &&
           (c->block_nbytes & (c->block_nbytes - 1)) == 0 && c->blocks <= (uint64_t)INT64_MAX / c->block_nbytes &&
           (c->fd >= 0 || !fd_needed);
}

static uint16_t direct_alignment(const struct vt_lu_config *c)
{
#ifdef STATX_DIOALIGN
    struct statx st;
    if (statx(c->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 && st.stx_mask & STATX_DIOALIGN &&
        st.stx_dio_offset_align && st.stx_dio_offset_align <= 512 && st.stx_dio_mem_align <= 512)
        return 512;
#endif
    (void)c;
    return 4096;
}

static void set_facts(struct vt_lu *lu, const struct vt_lu_config *c)
{
    uint64_t most = VSCSI_MAX_TRANSFER / c->block_nbytes;
    vscsi_store64_relaxed(&lu->blocks, c->blocks);
    if (c->max_transfer_blocks && c->max_transfer_blocks < most)
        most = c->max_transfer_blocks;
    vscsi_store_relaxed(&lu->max_transfer_blocks, (uint32_t)most);
    vscsi_store_relaxed(&lu->flags, c->flags);
    vscsi_store_relaxed(&lu->write_protect, c->write_protect);
    lu->policy = c->policy;
    vscsi_store_relaxed(&lu->rules, (lu->nr_aca ? RULE_ACA : 0u) | (c->policy.separate_sets ? RULE_SETS : 0u) |
                                        (c->policy.restricted ? RULE_RESTRICTED : 0u) |
                                        (c->policy.limit ? RULE_LIMIT : 0u));
}

static uint8_t bio_flags(const struct vt_target *t, const struct vt_lu_config *c)
{
    if (c->flags & VT_LU_NULL)
        return BIO_NULL;
    if (c->flags & VT_LU_SLOW_STORE)
        return 0;
    uint8_t flags = c->flags & VT_LU_DIRECT ? BIO_DIRECT : 0;
    if (c->is_block_device)
        flags |= BIO_BLOCK_DEVICE;
    if (bio_may_block(c->fd))
        flags |= BIO_MAY_BLOCK;
    return t->config.nowait ? flags | bio_probe_nowait(c->fd, !c->write_protect) : flags;
}

static struct vt_lu *make(struct vt_target *t, uint32_t index, const struct vt_lu_config *config)
{
    struct vt_lu *lu = aligned_alloc(_Alignof(struct vt_lu), sizeof *lu);
    if (!lu)
        return NULL;
    memset(lu, 0, sizeof *lu);
    lu->it = calloc(VT_MAX_NEXUSES, sizeof *lu->it);
    if (!lu->it) {
        free(lu);
        return NULL;
    }
    vt_lock_init(&lu->lock);
    pthread_cond_init(&lu->idle, NULL);
    lu->target = t;
    lu->index = index;
    lu->lun = config->lun;
    lu->block_nbytes = config->block_nbytes;
    lu->fd = config->fd;
    lu->witness = -1;
    lu->bio_flags = bio_flags(t, config);
    lu->direct_align = direct_alignment(config);
    /* Whatever a former target process wrote may not be synced yet. */
    lu->written = 1;
    set_facts(lu, config);
    return lu;
}

void vt_lu_free(struct vt_lu *lu)
{
    if (!lu)
        return;
    vt_lock_destroy(&lu->lock);
    pthread_cond_destroy(&lu->idle);
    vt_range_free(lu);
    free(lu->it);
    free(lu);
}

int vt_lu_add(struct vt_target *t, const struct vt_lu_config *config)
{
    if (!plausible(config))
        return -EINVAL;
    pthread_mutex_lock(&t->control);
    uint32_t index = 0;
    while (index < VT_MAX_LUS && atomic_load(&t->lus[index]))
        index++;
    int rc = (int)index;
    if (atomic_load(&t->by_lun[config->lun]))
        rc = -EEXIST;
    else if (index == VT_MAX_LUS)
        rc = -ENOSPC;
    if (rc >= 0) {
        struct vt_lu *lu = make(t, index, config);
        if (lu) {
            atomic_store(&t->lus[index], lu);
            atomic_store_explicit(&t->by_lun[config->lun], lu, memory_order_release);
        } else {
            rc = -ENOMEM;
        }
    }
    pthread_mutex_unlock(&t->control);
    return rc;
}

int vt_lu_update(struct vt_target *t, uint32_t index, const struct vt_lu_config *config)
{
    const uint32_t fixed = VT_LU_NULL | VT_LU_SLOW_STORE | VT_LU_DIRECT;
    pthread_mutex_lock(&t->control);
    struct vt_lu *lu = lu_of(t, index);
    int rc = lu ? 0 : -ENOENT;
    if (lu && (!plausible(config) || config->block_nbytes != lu->block_nbytes || config->lun != lu->lun ||
               (config->flags ^ lu->flags) & fixed))
        rc = -EINVAL;
    if (rc == 0) {
        vt_lock_take(&lu->lock);
        set_facts(lu, config);
        vt_set_enable(lu);
        vt_lock_give(&lu->lock);
    }
    pthread_mutex_unlock(&t->control);
    return rc;
}

int vt_lu_witness(struct vt_target *t, uint32_t index, int fd)
{
    struct vt_lu *lu = lu_of(t, index);
    if (!lu)
        return -ENOENT;
    vscsi_store_relaxed((uint32_t *)&lu->witness, (uint32_t)fd);
    return 0;
}

int vt_lu_state(struct vt_target *t, uint32_t index, uint32_t sense)
{
    struct vt_lu *lu = lu_of(t, index);
    if (!lu)
        return -ENOENT;
    vscsi_store_relaxed(&lu->state_sense, sense);
    return 0;
}

/* Under the LU's lock. Every command asks for `deny`, so that it is 0 for most. */
void vt_lu_set_denied(struct vt_lu *lu, uint32_t nexus, uint32_t classes)
{
    lu->it[nexus].deny_rare = classes & VT_CONFLICT_RARE;
    vscsi_store_relaxed(&lu->it[nexus].deny, classes & ~(uint32_t)VT_CONFLICT_RARE);
}

int vt_lu_deny(struct vt_target *t, uint32_t index, uint32_t nexus, uint32_t classes)
{
    struct vt_lu *lu = lu_of(t, index);
    if (!lu || (nexus != VT_ALL && nexus >= VT_MAX_NEXUSES))
        return lu ? -EINVAL : -ENOENT;
    vt_lock_take(&lu->lock);
    if (nexus == VT_ALL) {
        lu->deny_default = classes;     /* of nexuses to come, too */
        for (uint32_t n = 0; n < VT_MAX_NEXUSES; n++)
            vt_lu_set_denied(lu, n, classes);
    } else {
        vt_lu_set_denied(lu, nexus, classes);
    }
    vt_lock_give(&lu->lock);
    return 0;
}

int vt_lu_access(struct vt_target *t, uint32_t index, uint32_t nexus, uint32_t access)
{
    struct vt_lu *lu = lu_of(t, index);
    if (!lu || (nexus != VT_ALL && nexus >= VT_MAX_NEXUSES))
        return lu ? -EINVAL : -ENOENT;
    vt_lock_take(&lu->lock);
    if (nexus == VT_ALL)
        lu->access_default = access;
    for (uint32_t n = 0; n < VT_MAX_NEXUSES; n++)
        if (nexus == VT_ALL || n == nexus)
            vscsi_store_relaxed(&lu->it[n].access, access);
    vt_lock_give(&lu->lock);
    return 0;
}

int vt_lu_deny_many(struct vt_target *t, uint32_t index, uint32_t others, const uint32_t *nexuses,
                    const uint32_t *classes, uint32_t count)
{
    struct vt_lu *lu = lu_of(t, index);
    uint32_t deny[VT_MAX_NEXUSES];
    for (uint32_t n = 0; n < VT_MAX_NEXUSES; n++)
        deny[n] = others;
    for (uint32_t i = 0; i < count; i++) {
        if (nexuses[i] >= VT_MAX_NEXUSES)
            return -EINVAL;
        deny[nexuses[i]] = classes[i];
    }
    if (!lu)
        return -ENOENT;
    vt_lock_take(&lu->lock);
    lu->deny_default = others;
    for (uint32_t n = 0; n < VT_MAX_NEXUSES; n++)
        vt_lu_set_denied(lu, n, deny[n]);
    vt_lock_give(&lu->lock);
    return 0;
}

int vt_lu_operation(struct vt_target *t, uint32_t index, uint32_t sense, uint32_t progress)
{
    struct vt_lu *lu = lu_of(t, index);
    if (!lu)
        return -ENOENT;
    vt_lock_take(&lu->lock);
    vscsi_store_relaxed(&lu->progress, progress < UINT16_MAX ? progress : UINT16_MAX);
    vscsi_store_relaxed(&lu->operation, sense);
    vt_lock_give(&lu->lock);
    return 0;
}

int vt_lu_sync_failed(struct vt_target *t, uint32_t index)
{
    struct vt_lu *lu = lu_of(t, index);
    return lu ? (int)vscsi_load_relaxed(&lu->sync_failed) : -ENOENT;
}

int vt_lu_stats(struct vt_target *t, uint32_t index, struct vt_lu_stats *stats)
{
    struct vt_lu *lu = lu_of(t, index);
    if (!lu)
        return -ENOENT;
    vt_lock_take(&lu->lock);
    *stats = lu->stats;
    stats->tasks = lu->nr_tasks;
    vt_lock_give(&lu->lock);
    return 0;
}

int vt_lu_wrote(struct vt_target *t, uint32_t index)
{
    struct vt_lu *lu = lu_of(t, index);
    if (!lu)
        return -ENOENT;
    vt_media_wrote(lu);
    return 0;
}

int vt_lu_remove(struct vt_target *t, uint32_t index)
{
    pthread_mutex_lock(&t->control);
    struct vt_lu *lu = lu_of(t, index);
    bool removing = lu && lu->removing;
    if (lu && !removing) {
        atomic_store(&t->by_lun[lu->lun], NULL);
        vt_lock_take(&lu->lock);
        lu->removing = true;
        vt_lock_give(&lu->lock);
    }
    pthread_mutex_unlock(&t->control);
    if (!lu || removing)
        return lu ? -EBUSY : -ENOENT;
    vt_lock_take(&lu->lock);
    for (struct vt_task *task = lu->first; task; task = task->set_next)
        vt_set_abort(lu, task);
    vt_range_wake(t);
    while (lu->nr_tasks || lu->immed_running || lu->ranges)
        pthread_cond_wait(&lu->idle, &lu->lock.mutex);
    vt_lock_give(&lu->lock);
    pthread_mutex_lock(&t->control);
    atomic_store(&t->lus[index], NULL);
    lu->buried = t->graveyard;
    t->graveyard = lu;
    pthread_mutex_unlock(&t->control);
    return 0;
}
