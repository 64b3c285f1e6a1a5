/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Unit attentions: one queue per (I_T nexus, LU), in SAM's order of preference, and the table of nexuses.
 * Knows codes (ASC << 8 | ASCQ) and their rank; knows nothing of who establishes them and why.
 */
#include <errno.h>

#include "core.h"

enum { RANK_POWER_ON = 0, RANK_LAST_RESET = 5, RANK_OTHER = 6 };

static uint32_t rank_of(uint32_t code)
{
    static const struct { uint16_t code; uint8_t rank; } ranks[] = {
        { 0x2900, 0 }, { 0x2901, 1 }, { 0x2904, 1 }, { 0x2902, 2 }, { 0x2905, 2 }, { 0x2906, 2 }, { 0x3f01, 2 },
        { 0x2903, 3 }, { 0x2907, 4 }, { 0x2f01, 5 },
    };
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++)
        if (ranks[i].code == code)
            return ranks[i].rank;
    return RANK_OTHER;
}

/* Power on and hard reset make everything that ranks below them pointless. */
static bool clears_the_rest(uint32_t code)
{
    return code == 0x2900 || code == 0x2901 || code == 0x2902 || code == 0x2904;
}

bool vt_ua_is_reset(uint32_t code)
{
    return rank_of(code) <= RANK_LAST_RESET;
}

/* All of these under the LU's lock. */

uint32_t vt_ua_first(struct vt_lu *lu, uint32_t nexus)
{
    struct vt_it *it = &lu->it[nexus];
    return it->ua_count ? it->ua[0] : 0;
}

static void drop(struct vt_it *it, uint32_t at)
{
    memmove(&it->ua[at], &it->ua[at + 1], (it->ua_count - at - 1) * sizeof *it->ua);
    vscsi_store_relaxed(&it->ua_count, it->ua_count - 1);
}

static void put(struct vt_lu *lu, uint32_t nexus, uint32_t code, bool before_equals)
{
    struct vt_it *it = &lu->it[nexus];
    for (uint32_t i = 0; i < it->ua_count; i++)
        if (it->ua[i] == code)
            return;
    uint32_t at = 0, rank = rank_of(code);
    while (at < it->ua_count && rank_of(it->ua[at]) + before_equals <= rank)
        at++;
    if (clears_the_rest(code))
        vscsi_store_relaxed(&it->ua_count, at);
    if (it->ua_count == VT_MAX_UA) {
        /* SAM: an overflowing queue may be replaced by power on. */
        it->ua[0] = 0x2900;
        vscsi_store_relaxed(&it->ua_count, 1);
        return;
    }
    memmove(&it->ua[at + 1], &it->ua[at], (it->ua_count - at) * sizeof *it->ua);
    it->ua[at] = code;
    vscsi_store_relaxed(&it->ua_count, it->ua_count + 1);
}

void vt_ua_put(struct vt_lu *lu, uint32_t nexus, uint32_t code)
{
    put(lu, nexus, code, false);
}

/* One that was taken and then told to nobody: before its equals, which have come later. */
void vt_ua_return(struct vt_lu *lu, uint32_t nexus, uint32_t code)
{
    put(lu, nexus, code, true);
}

uint32_t vt_ua_pop(struct vt_lu *lu, uint32_t nexus)
{
    uint32_t code = vt_ua_first(lu, nexus);
    if (code)
        drop(&lu->it[nexus], 0);
    return code;
}

/* ---- from Python ---- */

/* Calls `each` for every (LU, nexus) that the two selectors mean, under the LU's lock. */
static int for_each(struct vt_target *t, uint32_t nexus, uint32_t except, uint32_t lu, uint32_t code,
                    void (*each)(struct vt_lu *, uint32_t, uint32_t))
{
    if ((nexus != VT_ALL && nexus >= VT_MAX_NEXUSES) || (lu != VT_ALL && lu >= VT_MAX_LUS))
        return -EINVAL;
    pthread_mutex_lock(&t->control);
    for (uint32_t i = lu == VT_ALL ? 0 : lu; i < (lu == VT_ALL ? VT_MAX_LUS : lu + 1); i++) {
        struct vt_lu *unit = atomic_load(&t->lus[i]);
        if (!unit)
            continue;
        vt_lock_take(&unit->lock);
        for (uint32_t n = nexus == VT_ALL ? 0 : nexus; n < (nexus == VT_ALL ? VT_MAX_NEXUSES : nexus + 1); n++)
            if (n != except && atomic_load(&t->nexuses[n].used))
                each(unit, n, code);
        vt_lock_give(&unit->lock);
    }
    pthread_mutex_unlock(&t->control);
    return 0;
}

int vt_ua_establish(struct vt_target *t, uint32_t nexus, uint32_t except, uint32_t lu, uint32_t code)
{
    if (code == 0 || code > 0xffff)
        return -EINVAL;
    atomic_fetch_add(&t->ua_changes, 1);    /* before it can be found */
    return for_each(t, nexus, except, lu, code, vt_ua_put);
}

static void remove_code(struct vt_lu *lu, uint32_t nexus, uint32_t code)
{
    struct vt_it *it = &lu->it[nexus];
    for (uint32_t i = 0; i < it->ua_count; i++)
        if (it->ua[i] == code) {
            drop(it, i);
            return;
        }
}

/*
 * In a loop: what the task's nexus is about to be answered makes a unit attention pointless, on every LU. Not one that
 * may have come after the command had looked.
 */
void vt_ua_told(const struct vt_task *task)
{
    struct vt_target *t = task->channel->target;
    for (uint32_t i = 0; i < VT_MAX_LUS; i++) {
        struct vt_lu *lu = atomic_load(&t->lus[i]);
        if (!lu || !vscsi_load_relaxed(&lu->it[task->nexus].ua_count))
            continue;
        vt_lock_take(&lu->lock);
        if (atomic_load(&t->ua_changes) == task->ua_seen)
            remove_code(lu, task->nexus, task->result.clears);
        vt_lock_give(&lu->lock);
    }
}

int vt_ua_take(struct vt_target *t, uint32_t nexus, uint32_t lu)
{
    if (nexus >= VT_MAX_NEXUSES || lu >= VT_MAX_LUS)
        return -EINVAL;
    struct vt_lu *unit = atomic_load(&t->lus[lu]);
    if (!unit)
        return -ENOENT;
    vt_lock_take(&unit->lock);
    uint32_t code = vt_ua_pop(unit, nexus);
    vt_lock_give(&unit->lock);
    return (int)code;
}

static void forget(struct vt_lu *lu, uint32_t nexus, uint32_t code)
{
    (void)code;
    vscsi_store_relaxed(&lu->it[nexus].ua_count, 0);
    vt_lu_set_denied(lu, nexus, lu->deny_default);
    vscsi_store_relaxed(&lu->it[nexus].access, lu->access_default);
}

int vt_nexus_add(struct vt_target *t)
{
    int index = -ENOSPC;
    pthread_mutex_lock(&t->control);
    for (uint32_t i = 0; i < VT_MAX_NEXUSES && index < 0; i++)
        if (!t->nexuses[i].used) {
            t->nexuses[i].channels = 0;
            atomic_store(&t->nexuses[i].used, true);
            index = (int)i;
        }
    pthread_mutex_unlock(&t->control);
    if (index >= 0)
        for_each(t, (uint32_t)index, VT_ALL, VT_ALL, 0, forget);
    return index;
}

int vt_nexus_remove(struct vt_target *t, uint32_t nexus)
{
    if (nexus >= VT_MAX_NEXUSES)
        return -EINVAL;
    int rc = 0;
    pthread_mutex_lock(&t->control);
    if (!t->nexuses[nexus].used)
        rc = -ENOENT;
    else if (t->nexuses[nexus].channels)
        rc = -EBUSY;
    else
        atomic_store(&t->nexuses[nexus].used, false);
    pthread_mutex_unlock(&t->control);
    return rc;
}
