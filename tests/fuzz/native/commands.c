/* SPDX-License-Identifier: BSD-2-Clause */
/* A small command table with a row of each kind. Knows opcodes; what they mean is the C core's business. */
#include <string.h>

#include "world.h"

#define ROW(code, length, what, ...) { .opcode = code, .cdb_nbytes = length, .op = what, __VA_ARGS__ }
#define AT(lba, lba_n, length, length_n) \
    .lba_offset = lba, .lba_nbytes = lba_n, .length_offset = length, .length_nbytes = length_n

static const struct vt_command rows[] = {
    ROW(0x00, 6, VT_OP_SLOW, .flags = VT_CMD_NEEDS_READY),
    ROW(0x03, 6, VT_OP_SLOW, .flags = VT_CMD_SKIPS_UA | VT_CMD_DURING_OPERATION),
    ROW(0x12, 6, VT_OP_SLOW, .flags = VT_CMD_SKIPS_UA | VT_CMD_ANY_LUN | VT_CMD_DURING_OPERATION),
    ROW(0xa0, 12, VT_OP_SLOW, .flags = VT_CMD_SKIPS_UA | VT_CMD_ANY_LUN),
    ROW(0x08, 6, VT_OP_READ, AT(1, 3, 4, 1), .flags = VT_CMD_NEEDS_READY | VT_CMD_ZERO_IS_256,
        .conflict = VT_CONFLICT_READ),
    ROW(0x0a, 6, VT_OP_WRITE, AT(1, 3, 4, 1), .flags = VT_CMD_NEEDS_READY | VT_CMD_ZERO_IS_256 | VT_CMD_WRITES,
        .conflict = VT_CONFLICT_WRITE),
    ROW(0x28, 10, VT_OP_READ, AT(2, 4, 7, 2), .flags = VT_CMD_NEEDS_READY, .conflict = VT_CONFLICT_READ, .fua_mask = 8,
        .escape_mask = 0xe0),
    ROW(0x2a, 10, VT_OP_WRITE, AT(2, 4, 7, 2), .flags = VT_CMD_NEEDS_READY | VT_CMD_WRITES,
        .conflict = VT_CONFLICT_WRITE, .fua_mask = 8, .escape_mask = 0xe0),
    ROW(0x88, 16, VT_OP_READ, AT(2, 8, 10, 4), .flags = VT_CMD_NEEDS_READY, .conflict = VT_CONFLICT_READ,
        .fua_mask = 8),
    ROW(0x8a, 16, VT_OP_WRITE, AT(2, 8, 10, 4), .flags = VT_CMD_NEEDS_READY | VT_CMD_WRITES,
        .conflict = VT_CONFLICT_WRITE, .fua_mask = 8),
    ROW(0x35, 10, VT_OP_SYNC, AT(2, 4, 7, 2), .flags = VT_CMD_NEEDS_READY | VT_CMD_IMMED_BIT,
        .conflict = VT_CONFLICT_WRITE),
    ROW(0x41, 10, VT_OP_SLOW, .flags = VT_CMD_NEEDS_READY | VT_CMD_WRITES, .conflict = VT_CONFLICT_WRITE),
    ROW(0x1a, 6, VT_OP_SLOW, .flags = VT_CMD_DURING_OPERATION),
    ROW(0x25, 10, VT_OP_SLOW, .flags = VT_CMD_NEEDS_READY, .conflict = VT_CONFLICT_READ),
    ROW(0x42, 10, VT_OP_SLOW, .flags = VT_CMD_NEEDS_READY | VT_CMD_WRITES, .conflict = VT_CONFLICT_WRITE),
    ROW(0x5f, 10, VT_OP_SLOW, .flags = VT_CMD_HAS_SA, .service_action = 0),
    ROW(0x5f, 10, VT_OP_SLOW, .flags = VT_CMD_HAS_SA, .service_action = 1, .conflict = VT_CONFLICT_OTHER),
    ROW(0x5e, 10, VT_OP_SLOW, .flags = VT_CMD_HAS_SA | VT_CMD_OPTIONAL, .service_action = 1),
    ROW(0x9e, 16, VT_OP_SLOW, .flags = VT_CMD_HAS_SA | VT_CMD_NEEDS_READY, .service_action = 0x10),
    ROW(0x7f, 32, VT_OP_READ, AT(12, 8, 28, 4), .flags = VT_CMD_HAS_SA | VT_CMD_NEEDS_READY, .service_action = 0x0009,
        .conflict = VT_CONFLICT_READ),
};

void commands_add(struct vt_target *target)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct vt_command row = rows[i];
        memset(row.usage, 0xff, sizeof row.usage);
        if (row.opcode == 0x28)
            row.usage[6] = 0;   /* one row with reserved bits */
        int rc = vt_command_add(target, &row);
        PROMISE(rc == 0, "row %zu of the command table: %d", i, rc);
    }
}
