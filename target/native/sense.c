/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sense data that C itself reports, in fixed and descriptor format (SPC-5 clause 4.5). Knows bytes; the codes and what
 * they mean stand in vscsi/scsi/sense.py, with which a test compares them.
 */
#include "core.h"

enum { SENSE_FIXED = 0x70, SENSE_DESCRIPTOR = 0x72, CHECK_CONDITION = 0x02 };

static void put_field_pointer(uint8_t *sks, const struct vt_cause *cause)
{
    sks[0] = 0x80 | 0x40;   /* SKSV, C/D: in the CDB */
    if (cause->bit < 8)
        sks[0] |= (uint8_t)(0x08 | cause->bit);
    vscsi_put_be(sks + 1, cause->byte, 2);
}

/* Sense-key-specific bytes: the pointer to a field of the CDB, or how far an operation has come. */
static void put_specific(uint8_t *sks, const struct vt_cause *cause)
{
    if (cause->has_field) {
        put_field_pointer(sks, cause);
        return;
    }
    sks[0] = 0x80;
    vscsi_put_be(sks + 1, cause->progress, 2);
}

uint8_t vt_sense_build(uint8_t *sense, const struct vt_cause *cause, bool descriptor)
{
    uint8_t key = (uint8_t)(cause->code >> 16), asc = (uint8_t)(cause->code >> 8), ascq = (uint8_t)cause->code;
    if (!descriptor) {
        memset(sense, 0, 18);
        sense[0] = SENSE_FIXED;
        sense[2] = key;
        sense[7] = 10;
        sense[12] = asc;
        sense[13] = ascq;
        if (cause->has_information && cause->information <= UINT32_MAX) {
            sense[0] |= 0x80;
            vscsi_put_be(sense + 3, cause->information, 4);
        }
        if (cause->has_field || cause->has_progress)
            put_specific(sense + 15, cause);
        return 18;
    }
    uint8_t n = 8;
    memset(sense, 0, 28);
    sense[0] = SENSE_DESCRIPTOR;
    sense[1] = key;
    sense[2] = asc;
    sense[3] = ascq;
    if (cause->has_information) {
        sense[n] = 0x00;
        sense[n + 1] = 0x0a;
        sense[n + 2] = 0x80;
        vscsi_put_be(sense + n + 4, cause->information, 8);
        n += 12;
    }
    if (cause->has_field || cause->has_progress) {
        sense[n] = 0x02;
        sense[n + 1] = 0x06;
        put_specific(sense + n + 4, cause);
        n += 8;
    }
    sense[7] = n - 8;
    return n;
}

void vt_result_sense(struct vt_task *task, const struct vt_cause *cause)
{
    bool descriptor = task->lu && vscsi_load_relaxed(&task->lu->flags) & VT_LU_DESCRIPTOR_SENSE;
    task->result.status = CHECK_CONDITION;
    task->result.sense_nbytes = vt_sense_build(task->result.sense, cause, descriptor);
}

void vt_result_code(struct vt_task *task, uint32_t code)
{
    vt_result_sense(task, &(struct vt_cause){ .code = code });
}
