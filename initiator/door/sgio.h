/* SPDX-License-Identifier: BSD-2-Clause */
/* A command between sending and its end, for SG_IO and for the asynchronous write and read of version 3. */
#ifndef VSCSI_DOOR_SGIO_H
#define VSCSI_DOOR_SGIO_H

#include <scsi/sg.h>

#include "door.h"

/* `count` 0: `at` is the buffer; else an array of as many iovecs. */
struct sg_area {
    void *at;
    uint32_t count;
    size_t nbytes;
};

struct sg_command {
    struct door_link *link;
    struct sg_area out, in;
    bool no_copy; /* SG_FLAG_NO_DXFER */
    uint64_t began_ms;
    uint32_t duration_ms;
    struct door_answer answer;
};

int sg_v3_send(struct sg_command *command, const struct door_file *file, const struct sg_io_hdr *header);
/* Waits for the answer; data to the caller; gives the link back. 0 or -errno. */
int sg_command_end(struct sg_command *command);
void sg_v3_result(const struct sg_command *command, struct sg_io_hdr *header);

#endif
