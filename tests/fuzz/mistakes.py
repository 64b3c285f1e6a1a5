# SPDX-License-Identifier: BSD-2-Clause
"""Mistakes that a peer could profit from, for tests that the fuzz targets see them: file, text, what replaces it.

Knows lines of the product's C; test_native_fuzz.py puts each into a copy of it.
"""

Mistake = tuple[str, str, str]

RING, GRANT = "vscsi/native/ring.h", "vscsi/native/grant.c"
SRP, SRP_BUFFER, BLKIF = "target/native/srp.c", "target/native/srp_buffer.c", "target/native/blkif.c"
BUFFER, CHECKS = "target/native/buffer.c", "target/native/checks.c"
SCHED, PATH = "target/native/sched.c", "target/native/path.h"
MEDIA_CHECKS, SRP_REPLY = "target/native/checks.h", "target/native/srp_reply.c"
SLOTS, INITIATOR_SRP, PUMP = "initiator/native/slots.h", "initiator/native/srp.c", "initiator/native/pump.c"

MISTAKES: dict[str, dict[str, Mistake]] = {
    "target": {
        "indexes are not checked": (RING, "n > r->nr_ents || prod - r->rsp_published > r->nr_ents", "0"),
        "an IU is longer than its slot": (SRP, "nbytes > SLOT || sizeof cmd->cdb + add_cdb > VSCSI_CDB_MAX", "0"),
        "inline counts are not held against the table": (
            SRP_BUFFER,
            "table_nbytes % DESCRIPTOR || table_nbytes / DESCRIPTOR < count",
            "0",
        ),
        "an indirect request has any number of segments": (
            BLKIF,
            "left == 0 || left > most || left > BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST * BLKIF_SEGS_PER_INDIRECT_PAGE",
            "left == 0",
        ),
        "the opcode is read from the slot again": (
            BLKIF,
            "task->operation = r->operation;",
            "task->operation = vscsi_load_acquire(slot) & 0xff;",
        ),
        "the opcode is read from the slot again, and no hook hears it": (
            BLKIF,
            "task->operation = r->operation;",
            "task->operation = *(const volatile uint8_t *)slot;",
        ),
        "a turn at the device never ends": (SCHED, "    sq_done(&s->queue, &task->turn, now_ns);\n", ""),
        "pages are given back while their I/O is under way": (
            PATH,
            "    return vt_media_submit(task);\n}\n\n/* What the end of a step",
            "    int how = vt_media_submit(task);\n"
            "    if (how == BEGUN_RUNS && !task->channel->persistent)\n"
            "        vt_buffer_unmap(task, &task->buf[task->op == VT_OP_READ ? BUF_IN : BUF_OUT]);\n"
            "    return how;\n}\n\n/* What the end of a step",
        ),
        "read-only grants are written to": (GRANT, "write && e.flags & GTF_READONLY", "0"),
        "a frame outside the memory is mapped": (GRANT, "        if (!page)\n            return -EFAULT;\n", ""),
        "a page is not given back": (
            BUFFER,
            "k < runs[i].pages; k++)\n            vscsi_mapper_unmap",
            "k + 1 < runs[i].pages; k++)\n            vscsi_mapper_unmap",
        ),
        "a command is answered twice": (
            SRP_REPLY,
            "    vt_srp_write_code(task, SRP_RESP_COMPLETE);\n",
            "    vt_srp_write_code(task, SRP_RESP_COMPLETE);\n    vt_srp_write_code(task, SRP_RESP_COMPLETE);\n",
        ),
        "an overlapped command is not answered": (
            SRP,
            "    case ENTER_OVERLAPPED:\n        end_early(task, VT_SENSE_OVERLAPPED_COMMANDS_ATTEMPTED);\n",
            "    case ENTER_OVERLAPPED:\n        vt_task_release(task);\n",
        ),
        "a hidden unit is found": (CHECKS, "& VT_ACCESS_HIDDEN ? NULL : lu", "& VT_ACCESS_HIDDEN ? lu : lu"),
        "blocks are not checked": (MEDIA_CHECKS, "vt_usual(lba <= capacity && blocks <= capacity - lba)", "1"),
    },
    "initiator": {
        "a tag of any generation": (SLOTS, "slot->state != VI_SLOT_BUSY || slot->completion.tag != tag", "0"),
        "a slot beyond the ring": (SLOTS, "n >= c->ring.nr_ents", "0"),
        "sense of any length": (INITIATOR_SRP, "sense_nbytes > room - response_nbytes", "0"),
        "an index that goes back and forth": (PUMP, "if (vi_pump(c) == 0)", "if (0)"),
        "grants are not taken back": (SLOTS, "int rc = vi_revoke(c, slot);", "int rc = 0;"),
    },
}
