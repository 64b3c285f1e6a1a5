/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the preloaded library and its parent (`vscsi-initiator run`) say to each other, one SOCK_SEQPACKET message each
 * way. Read by gcc and by cffi. Data does not stand here but in the link's window, a memfd that the parent makes:
 * data-out from byte 0, data-in from the next page boundary after it.
 */

enum door_limits {
    DOOR_TEXT_MAX = 264,          /* a CDB (252 at most), or a path with its zero byte */
    DOOR_SENSE_MAX = 256,
    DOOR_VALUES = 8,
    DOOR_PAGE = 4096,
    DOOR_WINDOW_FIRST = 262144,
    DOOR_WINDOW_MAX = 33554432,   /* both directions of the largest command, and room for more */
};

enum door_op {
    DOOR_HELLO = 1,    /* text: stamp. The answer brings the window */
    DOOR_WINDOW = 2,   /* nbytes. The answer brings a larger window */
    DOOR_FIND = 3,     /* text: path. values: kind, node */
    DOOR_OPEN = 4,     /* text: path. values: kind, node, number of the open file */
    DOOR_COMMAND = 5,  /* text: CDB. One SRP_CMD */
    DOOR_READ = 6,     /* offset, in_nbytes. values: bytes read */
    DOOR_WRITE = 7,    /* offset, out_nbytes. values: bytes written */
    DOOR_FLUSH = 8,
    DOOR_UNMAP = 9,    /* offset, nbytes */
    DOOR_ZERO = 10,    /* offset, nbytes */
    DOOR_FACT = 11,    /* offset: enum door_fact. values: it */
    DOOR_PLACE = 12,   /* values: host, channel, id, lun, peripheral device type */
    DOOR_SETTING = 13, /* offset: enum door_setting; nbytes: value, or UINT64_MAX to ask only. values: value before */
    DOOR_RESET = 14,   /* LOGICAL UNIT RESET */
};

enum door_kind { DOOR_GENERIC = 1, DOOR_BLOCK = 2 };

enum door_fact {
    DOOR_FACT_NBYTES = 0,
    DOOR_FACT_BLOCK_NBYTES = 1,
    DOOR_FACT_PHYSICAL_NBYTES = 2,
    DOOR_FACT_MAX_SECTORS = 3,    /* of 512 bytes in one command */
    DOOR_FACT_READ_ONLY = 4,
    DOOR_FACT_ROTATIONAL = 5,
    DOOR_FACT_OPTIMAL_NBYTES = 6,
};

enum door_setting {
    DOOR_SETTING_TIMEOUT_TICKS = 0, /* SG_SET_TIMEOUT, in USER_HZ (10 ms) */
    DOOR_SETTING_RESERVED_NBYTES = 1,
    DOOR_SETTING_FORCE_PACK_ID = 2,
    DOOR_SETTING_COMMAND_QUEUE = 3,
    DOOR_SETTING_KEEP_ORPHAN = 4,
    DOOR_SETTINGS = 5,
};

struct door_request {
    uint32_t op;
    uint32_t file;             /* number of the open file */
    uint64_t offset;
    uint64_t nbytes;
    uint32_t out_nbytes;
    uint32_t in_nbytes;
    uint32_t timeout_ms;
    uint32_t text_nbytes;
    uint8_t text[264];
};

struct door_answer {
    int32_t error;             /* errno, 0: the rest means something */
    uint32_t host_status;      /* enum of scsi_host.h: DID_TIME_OUT ... */
    uint32_t status;
    uint32_t sense_nbytes;
    int64_t out_residual;      /* > 0: UNDER, < 0: OVER */
    int64_t in_residual;
    uint64_t values[8];
    uint8_t sense[256];
};
