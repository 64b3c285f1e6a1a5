/* SPDX-License-Identifier: BSD-2-Clause */
/* A row of the tables of ioctls. */
#ifndef VSCSI_DOOR_IOCTL_H
#define VSCSI_DOOR_IOCTL_H

#include "door.h"

enum { NEEDS_POINTER = 1, BLOCK_ONLY = 2 };

struct door_ioctl {
    unsigned long request;
    int (*run)(const struct door_file *file, void *argument); /* NULL ends a table */
    int flags;
};

extern const struct door_ioctl door_block_ioctls[];

#endif
