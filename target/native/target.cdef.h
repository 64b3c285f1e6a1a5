/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The target's C half as Python sees it. Loops serve channels: they take requests from rings, check them in SAM's
 * order, run media access through the block I/O engine, and hand everything else to Python, which decides.
 * No command fact stands here: the command table is filled from `vscsi/scsi` at start (vt_command_add).
 * Functions return 0 or more, or negative errno. Except where a comment says otherwise they may be called from any
 * Python thread; none waits for a peer.
 */

enum vt_limits {
    VT_MAX_LOOPS = 16,
    VT_MAX_LUS = 256,
    VT_MAX_NEXUSES = 1024,
    VT_MAX_CHANNELS = 4096,
    VT_MAX_UA = 16,
    VT_ALL = 0xffffffff
};

enum vt_engine { VT_ENGINE_AUTO = 0, VT_ENGINE_URING = 1, VT_ENGINE_POOL = 2 };

struct vt_config {
    uint32_t loops;
    uint32_t spin_ns;        /* how long a loop keeps looking after the last work; 0: it sleeps at once */
    uint32_t engine;         /* enum vt_engine */
    uint32_t pool_threads;
    uint32_t batch;          /* requests taken from one channel before the next has its turn */
    uint32_t nowait;         /* 1: inline RWF_NOWAIT where a probe found it works */
    uint32_t abort_limit_ms; /* a task management function waits so long for what it aborted, then fails; 0: 20 s */
    uint32_t workers_per_lu; /* that one LU may occupy with what touches its blocks, and as many else; 0: no limit */
};

struct vt_target;

struct vt_target *vt_new(const struct vt_config *config, int *error);
int vt_start(struct vt_target *t);
/* Stops taking requests, waits for I/O in flight, joins the loops, wakes every vt_request_next with -ESHUTDOWN. */
void vt_stop(struct vt_target *t);
/* The same, but -ETIMEDOUT if I/O does not end in that time: its loops go on, and nothing may be freed or unmapped. */
int vt_stop_within(struct vt_target *t, uint32_t ms);
void vt_free(struct vt_target *t);
/* The engine in use: enum vt_engine. */
int vt_engine_used(struct vt_target *t);

/* ---- sense: what C itself reports. key << 16 | asc << 8 | ascq; a test compares them with vscsi/scsi/sense.py ---- */

enum vt_sense {
    VT_SENSE_NONE = 0,
    VT_SENSE_LOGICAL_UNIT_NOT_READY = 0x020400, /* an aborted I/O does not end: media access is refused until it does */
    VT_SENSE_WRITE_ERROR = 0x030c00,
    VT_SENSE_UNRECOVERED_READ_ERROR = 0x031100,
    VT_SENSE_INTERNAL_TARGET_FAILURE = 0x044400,
    VT_SENSE_INVALID_COMMAND_OPERATION_CODE = 0x052000,
    VT_SENSE_LBA_OUT_OF_RANGE = 0x052100,
    VT_SENSE_INVALID_FIELD_IN_CDB = 0x052400,
    VT_SENSE_LOGICAL_UNIT_NOT_SUPPORTED = 0x052500,
    VT_SENSE_INVALID_MESSAGE_ERROR = 0x054900,
    VT_SENSE_WRITE_PROTECTED = 0x072700,
    VT_SENSE_SPACE_ALLOCATION_FAILED = 0x072707,
    VT_SENSE_DATA_BUFFER_ERROR = 0x0b4b00,
    VT_SENSE_INVALID_FIELD_IN_COMMAND_IU = 0x0b0e03,
    VT_SENSE_OVERLAPPED_COMMANDS_ATTEMPTED = 0x0b4e00
};

/* ---- the command table ---- */

enum vt_op {
    VT_OP_SLOW = 0,          /* a Python worker runs it */
    VT_OP_READ = 1,
    VT_OP_WRITE = 2,
    VT_OP_SYNC = 3,          /* SYNCHRONIZE CACHE */
    VT_OP_LU_RESET = 4,      /* no command: LOGICAL UNIT RESET has aborted all tasks; Python drops SPC-2 reservation,
                                prevention and changed mode pages, then completes it */
    VT_OP_DISCARD = 5        /* no command: blkif's, where fault rules have their say */
};

enum vt_command_flags {
    VT_CMD_HAS_SA = 1,       /* one row per service action */
    VT_CMD_SKIPS_UA = 2,     /* INQUIRY, REPORT LUNS, REQUEST SENSE */
    VT_CMD_NEEDS_READY = 4,  /* lu state sense applies */
    VT_CMD_WRITES = 8,       /* write protection applies */
    VT_CMD_ANY_LUN = 16,     /* runs (in Python) where there is no logical unit */
    VT_CMD_ZERO_IS_256 = 32, /* READ(6), WRITE(6) */
    VT_CMD_IMMED_BIT = 64,   /* byte 1 bit 1 is IMMED (SYNCHRONIZE CACHE) */
    VT_CMD_OPTIONAL = 256,   /* not every LU has it: Python looks at reserved bits, after it has looked at the LU */
    VT_CMD_DURING_OPERATION = 128   /* runs while an operation has the LU (vt_lu_operation) */
};

/* Reservation policy classes; an I_T nexus is denied a set of them on an LU. */
enum vt_conflict {
    VT_CONFLICT_READ = 1, VT_CONFLICT_WRITE = 2, VT_CONFLICT_SPC2 = 4, VT_CONFLICT_OTHER = 8,
    /* Of PERSISTENT RESERVE OUT alone, and only looked at beside a unit attention: Python finds the rest. */
    VT_CONFLICT_UNREGISTERED = 16, VT_CONFLICT_NOT_HOLDER = 32,
    VT_CONFLICT_RARE = VT_CONFLICT_UNREGISTERED | VT_CONFLICT_NOT_HOLDER
};

struct vt_command {
    uint8_t opcode;
    uint8_t cdb_nbytes;
    uint16_t service_action;
    uint8_t op;              /* enum vt_op */
    uint8_t conflict;        /* enum vt_conflict bits; any of them denied gives RESERVATION CONFLICT */
    uint16_t flags;          /* enum vt_command_flags */
    uint8_t lba_offset;      /* READ, WRITE, SYNC: where LBA and transfer length stand in the CDB */
    uint8_t lba_nbytes;      /* 3 (21 bits), 4 or 8 */
    uint8_t length_offset;
    uint8_t length_nbytes;
    uint8_t fua_mask;        /* bit of CDB byte 1, 0: none */
    uint8_t escape_mask;     /* READ, WRITE: any of these bits of CDB byte 1 set makes it VT_OP_SLOW, after the same checks */
    uint8_t otherwise;       /* further classes, unless byte `harmless_byte` of the CDB is harmless_value under its mask */
    uint8_t harmless_byte, harmless_mask, harmless_value;
    uint8_t reserved[2];
    uint8_t usage[32];       /* CDB usage map: a bit outside it is 5/24/00 with a field pointer */
};

int vt_command_add(struct vt_target *t, const struct vt_command *row);

const char *vt_stamp(void);
