/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ioctls of block devices, which tools ask of generic nodes too. Every size comes from the parent, which asks the
 * target.
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <linux/fs.h>
#include <string.h>

#include "door.h"
#include "ioctl.h"

static int put_int(void *to, uint64_t value)
{
    int narrow = value > INT32_MAX ? INT32_MAX : (int)value;

    memcpy(to, &narrow, sizeof(narrow));
    return 0;
}

static int fact(const struct door_file *file, enum door_fact which, uint64_t *value)
{
    struct door_request request = {.op = DOOR_FACT, .file = file->number, .offset = which};
    struct door_answer answer;
    int rc = door_ask(&request, &answer);

    *value = rc == 0 ? answer.values[0] : 0;
    return rc;
}

static int zero(const struct door_file *file, void *argument)
{
    int none = 0;

    (void)file;
    memcpy(argument, &none, sizeof(none));
    return 0;
}

static int nothing(const struct door_file *file, void *argument)
{
    (void)file, (void)argument;
    return 0;
}

#define FACT(name, which, put)                                                                                        \
    static int name(const struct door_file *file, void *argument)                                                     \
    {                                                                                                                 \
        uint64_t value;                                                                                               \
        int rc = fact(file, which, &value);                                                                           \
                                                                                                                      \
        return rc != 0 ? rc : put;                                                                                    \
    }

static int put_short(void *to, uint64_t value)
{
    unsigned short narrow = value > UINT16_MAX ? UINT16_MAX : (unsigned short)value;

    memcpy(to, &narrow, sizeof(narrow));
    return 0;
}

static int put_long(void *to, uint64_t value)
{
    memcpy(to, &value, sizeof(value));
    return 0;
}

FACT(block_nbytes, DOOR_FACT_BLOCK_NBYTES, put_int(argument, value))
FACT(physical_nbytes, DOOR_FACT_PHYSICAL_NBYTES, put_int(argument, value))
FACT(optimal_nbytes, DOOR_FACT_OPTIMAL_NBYTES, put_int(argument, value))
FACT(sectors, DOOR_FACT_NBYTES, put_long(argument, value / 512))
FACT(size_nbytes, DOOR_FACT_NBYTES, put_long(argument, value))
FACT(max_sectors, DOOR_FACT_MAX_SECTORS, put_short(argument, value))
FACT(rotational, DOOR_FACT_ROTATIONAL, put_short(argument, value))
FACT(read_only, DOOR_FACT_READ_ONLY, put_int(argument, value))

static int soft_block_nbytes(const struct door_file *file, void *argument)
{
    (void)file;
    return put_int(argument, DOOR_PAGE);
}

static int flush(const struct door_file *file, void *argument)
{
    (void)argument;
    return door_flush(file);
}

static int range(const struct door_file *file, const void *argument, enum door_op op)
{
    struct door_request request = {.op = op, .file = file->number};
    struct door_answer answer;
    uint64_t extent[2];

    memcpy(extent, argument, sizeof(extent));
    request.offset = extent[0];
    request.nbytes = extent[1];
    return door_ask(&request, &answer);
}

static int discard(const struct door_file *file, void *argument)
{
    return range(file, argument, DOOR_UNMAP);
}

static int zero_out(const struct door_file *file, void *argument)
{
    return range(file, argument, DOOR_ZERO);
}

const struct door_ioctl door_block_ioctls[] = {
    {BLKSECTGET, max_sectors, NEEDS_POINTER},
    {BLKSSZGET, block_nbytes, NEEDS_POINTER},
    {BLKPBSZGET, physical_nbytes, NEEDS_POINTER},
    {BLKBSZGET, soft_block_nbytes, NEEDS_POINTER},
    {BLKGETSIZE, sectors, NEEDS_POINTER},
    {BLKGETSIZE64, size_nbytes, NEEDS_POINTER},
    {BLKIOMIN, physical_nbytes, NEEDS_POINTER},
    {BLKIOOPT, optimal_nbytes, NEEDS_POINTER},
    {BLKALIGNOFF, zero, NEEDS_POINTER},
    {BLKDISCARDZEROES, zero, NEEDS_POINTER},
    {BLKROTATIONAL, rotational, NEEDS_POINTER},
    {BLKROGET, read_only, NEEDS_POINTER},
    {BLKFLSBUF, flush, 0},
    {BLKDISCARD, discard, NEEDS_POINTER | BLOCK_ONLY},
    {BLKZEROOUT, zero_out, NEEDS_POINTER | BLOCK_ONLY},
    {BLKRRPART, nothing, BLOCK_ONLY},
    {0, NULL, 0},
};
