/* SPDX-License-Identifier: BSD-2-Clause */
/* How a consumer reads a hostile slot, for test_slot.py to look at the machine code of. Never run. */
#include "abi.h"
#include "barrier.h"

uint32_t consume(const void *slot, uint32_t limit);

/* Checks a length and then uses it, over and over: each a chance for a compiler to go back to the slot. */
uint32_t consume(const void *slot, uint32_t limit)
{
    struct srp_cmd cmd;
    vscsi_slot_read(&cmd, slot, sizeof cmd);
    uint32_t length = cmd.add_cdb_len & 0xfcu;
    if (length > limit || cmd.opcode != SRP_CMD || cmd.buf_fmt >> 4 > 2)
        return 0;
    uint32_t sum = 0;
    for (uint32_t i = 0; i < length; i++)
        sum += cmd.cdb[i % 16] + cmd.add_cdb_len + cmd.data_out_desc_cnt;
    return sum + cmd.buf_fmt + cmd.opcode + cmd.lun[cmd.data_in_desc_cnt % 8];
}

int main(void)
{
    return 0;
}
