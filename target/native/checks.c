/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a SCSI command must pass before it runs, in SAM's order. Knows how to look at a row of the command table and at
 * an LU's state; the facts themselves (opcodes, usage maps, conflict classes) come from Python (vt_command_add).
 */
#include <errno.h>
#include <stdlib.h>

#include "checks.h"

enum { CHECK_CONDITION = 0x02, RESERVATION_CONFLICT = 0x18, VARIABLE_LENGTH = 0x7f };

/* ---- the command table ---- */

static uint32_t service_action(const uint8_t *cdb)
{
    return cdb[0] == VARIABLE_LENGTH ? (uint32_t)cdb[8] << 8 | cdb[9] : cdb[1] & 0x1fu;
}

static void derive(struct vt_row *row)
{
    const struct vt_command *facts = &row->facts;
    const bool optional = facts->flags & VT_CMD_OPTIONAL, longer = facts->cdb_nbytes > 16;
    for (int i = 0; i < 2; i++)
        row->forbidden[i] = optional ? 0 : longer ? UINT64_MAX : ~row->usage[i];
    if (facts->op == VT_OP_SLOW)
        return;
    if (facts->lba_nbytes) {
        row->lba_shift = (uint8_t)(64 - 8 * facts->lba_nbytes);
        row->lba_mask = facts->lba_nbytes == 3 ? 0x1fffff : UINT64_MAX;
    }
    if (facts->length_nbytes) {
        row->length_shift = (uint8_t)(64 - 8 * facts->length_nbytes);
        row->length_mask = UINT64_MAX;
    }
}

int vt_command_add(struct vt_target *t, const struct vt_command *facts)
{
    const uint32_t op_known = VT_OP_SYNC;
    if (facts->op > op_known || facts->cdb_nbytes < 6 || facts->cdb_nbytes > sizeof facts->usage)
        return -EINVAL;
    if (facts->op != VT_OP_SLOW && (facts->lba_nbytes > 8 || facts->length_nbytes > 8 ||
                                    facts->lba_offset + facts->lba_nbytes > facts->cdb_nbytes ||
                                    facts->length_offset + facts->length_nbytes > facts->cdb_nbytes))
        return -EINVAL;
    if (facts->harmless_byte >= facts->cdb_nbytes)
        return -EINVAL;
    struct vt_row *row = calloc(1, sizeof *row);
    if (!row)
        return -ENOMEM;
    row->facts = *facts;
    uint8_t usage[32];
    memcpy(usage, facts->usage, sizeof usage);
    memset(usage + facts->cdb_nbytes, 0xff, sizeof usage - facts->cdb_nbytes);
    usage[0] = 0xff;
    if (facts->opcode == VARIABLE_LENGTH)
        usage[7] = usage[8] = usage[9] = 0xff;
    else if (facts->flags & VT_CMD_HAS_SA)
        usage[1] |= 0x1f;
    memcpy(row->usage, usage, sizeof row->usage);
    derive(row);
    pthread_mutex_lock(&t->control);
    int rc = 0;
    for (struct vt_row *other = atomic_load(&t->rows[facts->opcode]); other; other = atomic_load(&other->next))
        if (!(other->facts.flags & VT_CMD_HAS_SA) || !(facts->flags & VT_CMD_HAS_SA) ||
            other->facts.service_action == facts->service_action)
            rc = -EEXIST;
    if (rc == 0) {
        atomic_store(&row->next, atomic_load(&t->rows[facts->opcode]));
        atomic_store(&t->rows[facts->opcode], row);
    }
    pthread_mutex_unlock(&t->control);
    if (rc < 0)
        free(row);
    return rc;
}

const struct vt_row *vt_row_find_action(const struct vt_row *row, const uint8_t *cdb)
{
    while (row && row->facts.service_action != service_action(cdb))
        row = atomic_load_explicit(&row->next, memory_order_acquire);
    return row;
}

/* Single-level LUNs, peripheral device and flat space addressing (SAM-5 4.7). */
struct vt_lu *vt_lun_find(struct vt_target *t, uint32_t nexus, const uint8_t lun[8])
{
    const uint64_t field = vscsi_get_be(lun, 8), lower_levels = (1ull << 48) - 1;
    uint32_t method = (uint32_t)(field >> 62), number = (uint32_t)(field >> 48) & 0x3fff;
    if (method > 1 || (method == 0 && number > 0xff) || field & lower_levels)
        return NULL;
    struct vt_lu *lu = atomic_load_explicit(&t->by_lun[number], memory_order_acquire);
    return lu && vscsi_load_relaxed(&lu->it[nexus].access) & VT_ACCESS_HIDDEN ? NULL : lu;
}

struct vt_lu *vt_lun_find_anew(struct vt_task *task, const uint8_t lun[8])
{
    struct vt_channel *channel = task->channel;
    memcpy(&channel->seen_lun, lun, sizeof channel->seen_lun);
    channel->seen_lu = vt_lun_find(channel->target, task->nexus, lun);
    return channel->seen_lu;
}

/* ---- the checks ---- */

bool vt_fail(struct vt_cause *cause, uint8_t *status, uint32_t code)
{
    *status = CHECK_CONDITION;
    *cause = (struct vt_cause){ .code = code, .bit = 8 };
    return false;
}

bool vt_fail_field(struct vt_cause *cause, uint8_t *status, uint32_t byte, uint32_t bit)
{
    vt_fail(cause, status, VT_SENSE_INVALID_FIELD_IN_CDB);
    cause->has_field = true;
    cause->byte = (uint16_t)byte;
    cause->bit = (uint8_t)bit;
    return false;
}

static bool check_attribute(const struct vt_task *task, struct vt_cause *cause, uint8_t *status)
{
    uint8_t attribute = task->iu.cmd.task_attr & 7;
    /* Without an ACA condition the ACA attribute is as wrong as one that does not exist; it has entered as SIMPLE. */
    bool exists = attribute <= SRP_TSK_ORDERED || (attribute == task->attribute && task->lu);
    return exists ? true : vt_fail(cause, status, VT_SENSE_INVALID_MESSAGE_ERROR);
}

/* Unit attention and reservation: the slow half, entered only when there is something to look at. */
static bool check_nexus(struct vt_task *task, struct vt_cause *cause, uint8_t *status)
{
    struct vt_lu *lu = task->lu;
    const struct vt_command *facts = &task->row->facts;
    vt_lock_take(&lu->lock);
    uint32_t ua = facts->flags & VT_CMD_SKIPS_UA ? 0 : vt_ua_first(lu, task->nexus);
    uint32_t classes = facts->conflict;
    if ((vt_cdb(task)[facts->harmless_byte] & facts->harmless_mask) != facts->harmless_value)
        classes |= facts->otherwise;
    bool denied = (lu->it[task->nexus].deny | lu->it[task->nexus].deny_rare) & classes;
    if (denied && !(ua && vt_ua_is_reset(ua)))
        ua = 0;
    if (ua && !lu->policy.ua_intlck)
        task->attention = vt_ua_pop(lu, task->nexus);
    vt_lock_give(&lu->lock);
    if (ua)
        return vt_fail(cause, status, 0x060000 | ua);
    if (denied)
        *status = RESERVATION_CONFLICT;
    return !denied;
}

static bool check_usage(const struct vt_task *task, struct vt_cause *cause, uint8_t *status)
{
    const struct vt_row *row = task->row;
    const uint8_t *cdb = vt_cdb(task);
    if (row->facts.cdb_nbytes > task->cdb_nbytes)
        return vt_fail_field(cause, status, cdb[0] == VARIABLE_LENGTH ? 7 : 0, 8);
    uint64_t words[4] = { 0 }, bad = 0;
    memcpy(words, cdb, row->facts.cdb_nbytes);
    for (int i = 0; i < 4; i++)
        bad |= words[i] &= ~row->usage[i];
    if (!bad)
        return true;
    const uint8_t *bytes = (const uint8_t *)words;
    uint32_t at = 0;
    while (!bytes[at])
        at++;
    return vt_fail_field(cause, status, at, 31u - (uint32_t)__builtin_clz(bytes[at]));
}

static bool check_ready(const struct vt_task *task, struct vt_cause *cause, uint8_t *status)
{
    const struct vt_lu *lu = task->lu;
    uint32_t flags = task->row->facts.flags;
    uint32_t operation = vscsi_load_relaxed(&lu->operation);
    if (operation && !(flags & VT_CMD_DURING_OPERATION)) {
        vt_fail(cause, status, operation);
        cause->has_progress = true;
        cause->progress = (uint16_t)vscsi_load_relaxed(&lu->progress);
        return false;
    }
    if (!(flags & VT_CMD_NEEDS_READY))
        return true;
    uint32_t state = vscsi_load_relaxed(&lu->state_sense);
    if (state)
        return vt_fail(cause, status, state);
    return vscsi_load_relaxed(&lu->fenced) ? vt_fail(cause, status, VT_SENSE_LOGICAL_UNIT_NOT_READY) : true;
}

/* Those that need nothing but what stands here already. */
bool vt_checks_closely(struct vt_task *task, struct vt_cause *cause, uint8_t *status)
{
    const struct vt_command *facts = &task->row->facts;
    struct vt_lu *lu = task->lu;
    if (!check_attribute(task, cause, status))
        return false;
    if (!lu)
        return check_usage(task, cause, status);
    const struct vt_it *it = &lu->it[task->nexus];
    /* Not again after the wait for a turn at the device: what has come since then is not for an enabled command. */
    bool look = vscsi_load_relaxed(&it->ua_count) || vscsi_load_relaxed(&it->deny);
    if (look && !task->sched && !check_nexus(task, cause, status))
        return false;
    if ((!(facts->flags & VT_CMD_OPTIONAL) && !check_usage(task, cause, status)) || !check_ready(task, cause, status))
        return false;
    if (facts->flags & VT_CMD_WRITES) {
        uint32_t protect = vscsi_load_relaxed(&lu->write_protect);
        if (!protect && vscsi_load_relaxed(&it->access) & VT_ACCESS_READONLY)
            protect = VT_SENSE_WRITE_PROTECTED;
        if (protect)
            return vt_fail(cause, status, protect);
    }
    return true;
}
