/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The usual half of checks.c, for READ and WRITE: nothing stands against the command, and one branch says so. Whatever
 * might is looked at there, one by one and in SAM's order. Knows the same things.
 */
#ifndef VSCSI_CHECKS_H
#define VSCSI_CHECKS_H

#include "path.h"

const struct vt_row *vt_row_find_action(const struct vt_row *row, const uint8_t *cdb);
/* NULL, too, for an LU that is hidden from this nexus. */
struct vt_lu *vt_lun_find(struct vt_target *t, uint32_t nexus, const uint8_t lun[8]);
/* The same, remembered for the next command. */
struct vt_lu *vt_lun_find_anew(struct vt_task *task, const uint8_t lun[8]);
bool vt_checks_closely(struct vt_task *task, struct vt_cause *cause, uint8_t *status);
bool vt_fail(struct vt_cause *cause, uint8_t *status, uint32_t code);
bool vt_fail_field(struct vt_cause *cause, uint8_t *status, uint32_t byte, uint32_t bit);

VT_INLINE const struct vt_row *vt_row_find(struct vt_target *t, const uint8_t *cdb, bool *opcode_known)
{
    const struct vt_row *row = atomic_load_explicit(&t->rows[cdb[0]], memory_order_acquire);
    *opcode_known = row != NULL;
    return row && row->facts.flags & VT_CMD_HAS_SA ? vt_row_find_action(row, cdb) : row;
}

/* An initiator names the same unit again and again. A unit that goes is removed before another gets its LUN. */
VT_INLINE struct vt_lu *vt_lun_find_again(struct vt_task *task, const uint8_t lun[8])
{
    const struct vt_channel *channel = task->channel;
    struct vt_lu *lu = channel->seen_lu;
    uint64_t field;
    memcpy(&field, lun, sizeof field);
    if (vt_usual(lu && field == channel->seen_lun && !vt_is_removing(lu) &&
                 !vscsi_load_relaxed(&lu->it[task->nexus].access)))
        return lu;
    return vt_lun_find_anew(task, lun);
}

/* Where it goes and how much it moves, by its CDB alone. */
VT_INLINE bool vt_check_media(struct vt_task *task, struct vt_cause *cause, uint8_t *status)
{
    const struct vt_row *row = task->row;
    struct vt_lu *lu = task->lu;
    const uint8_t *cdb = vt_cdb(task);
    const uint64_t lba = vt_row_lba(row, cdb), blocks = vt_row_blocks(row, cdb);
    const uint64_t capacity = vscsi_load64_relaxed(&lu->blocks);
    task->lba = lba;
    task->blocks = blocks;
    task->fua = cdb[1] & row->facts.fua_mask;
    if (!vt_usual(lba <= capacity && blocks <= capacity - lba))
        return vt_fail(cause, status, VT_SENSE_LBA_OUT_OF_RANGE);
    task->offset = lba * lu->block_nbytes;
    if (row->facts.op == VT_OP_SYNC)
        return true;
    if (!vt_usual(blocks <= vscsi_load_relaxed(&lu->max_transfer_blocks)))
        return vt_fail_field(cause, status, row->facts.length_offset, 7);
    task->nbytes = blocks * lu->block_nbytes;
    return true;
}

/* SAM's order. False: the command ends with *status, and with sense of *cause if that is CHECK CONDITION. */
VT_INLINE bool vt_checks(struct vt_task *task, struct vt_cause *cause, uint8_t *status)
{
    const struct vt_row *row = task->row;
    struct vt_lu *lu = task->lu;
    if (!lu)
        return vt_checks_closely(task, cause, status);
    const struct vt_it *it = &lu->it[task->nexus];
    uint64_t words[2];
    memcpy(words, vt_cdb(task), sizeof words);
    uint32_t odd = vscsi_load_relaxed(&it->ua_count) | vscsi_load_relaxed(&it->deny) |
                   vscsi_load_relaxed(&it->access) | vscsi_load_relaxed(&lu->operation) |
                   vscsi_load_relaxed(&lu->state_sense) | vscsi_load_relaxed(&lu->fenced) |
                   vscsi_load_relaxed(&lu->write_protect) | (task->iu.cmd.task_attr & 7);
    bool conforms = !((words[0] & row->forbidden[0]) | (words[1] & row->forbidden[1]));
    if (!vt_usual(!odd && conforms) && !vt_checks_closely(task, cause, status))
        return false;
    task->op = row->facts.op;
    if (row->facts.op == VT_OP_SLOW)
        return true;
    if (!vt_check_media(task, cause, status))
        return false;
    if (!vt_usual(!(vscsi_load_relaxed(&lu->flags) & (VT_LU_PROTECTED | VT_LU_FAULTS) ||
                    vt_cdb(task)[1] & row->facts.escape_mask)))
        task->op = VT_OP_SLOW;
    return true;
}

#endif
