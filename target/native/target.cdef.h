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
};

struct vt_target;

struct vt_target *vt_new(const struct vt_config *config, int *error);
int vt_start(struct vt_target *t);
/* Stops taking requests, waits for I/O in flight, joins the loops, wakes every vt_request_next with -ESHUTDOWN. */
void vt_stop(struct vt_target *t);
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
    VT_OP_LU_RESET = 4       /* no command: LOGICAL UNIT RESET has aborted all tasks; Python drops SPC-2 reservation,
                                prevention and changed mode pages, then completes it */
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
enum vt_conflict { VT_CONFLICT_READ = 1, VT_CONFLICT_WRITE = 2, VT_CONFLICT_SPC2 = 4, VT_CONFLICT_OTHER = 8 };

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
    uint8_t reserved[2];
    uint8_t usage[32];       /* CDB usage map: a bit outside it is 5/24/00 with a field pointer */
};

int vt_command_add(struct vt_target *t, const struct vt_command *row);

/* ---- logical units ---- */

enum vt_lu_flags {
    VT_LU_WRITE_CACHE = 1,   /* WCE: GOOD before the data is durable; otherwise every write is RWF_DSYNC */
    VT_LU_DESCRIPTOR_SENSE = 2,
    VT_LU_NULL = 4,          /* no image: reads give zeros, writes go nowhere */
    VT_LU_SLOW_STORE = 8,    /* no descriptor: READ, WRITE and SYNC go to Python too, after the same checks */
    VT_LU_DIRECT = 16,       /* the descriptor is O_DIRECT: unaligned peers' buffers are bounced */
    VT_LU_DISCARD = 32,      /* fallocate(PUNCH_HOLE) or BLKDISCARD is allowed, for blkif DISCARD */
    VT_LU_PROTECTED = 64     /* READ, WRITE, SYNC are VT_OP_SLOW, after the same checks; blkif as with VT_LU_SLOW_STORE */
};

/* The control mode page's words on tasks (SPC-4 7.5.8) as it has them; limit: of SCSI tasks in a set, 0: none. */
struct vt_task_policy {
    uint8_t separate_sets /* TST */, restricted /* QUEUE ALGORITHM MODIFIER 0h */, qerr, tas, ua_intlck, reserved[3];
    uint32_t limit;
};

struct vt_lu_config {
    uint64_t lun;            /* 0..16383 */
    int32_t fd;              /* not closed by the target; -1 with VT_LU_NULL or VT_LU_SLOW_STORE */
    uint32_t block_nbytes;
    uint64_t blocks;
    uint32_t max_transfer_blocks;
    uint32_t flags;          /* enum vt_lu_flags */
    uint32_t is_block_device;
    uint32_t write_protect;  /* sense code (e.g. VT_SENSE_WRITE_PROTECTED) or 0 */
    struct vt_task_policy policy;
};

/* The index of the new LU (not its LUN), or -EEXIST, -ENOSPC, -EINVAL. Before or after vt_start. */
int vt_lu_add(struct vt_target *t, const struct vt_lu_config *config);
/*
 * Changes blocks, flags, write_protect and policy of a live LU. Once VT_LU_WRITE_CACHE is gone no write ends before its data is
 * durable, but what ended earlier is for the caller to flush.
 */
int vt_lu_update(struct vt_target *t, uint32_t lu, const struct vt_lu_config *config);
/* Sense given to every command with VT_CMD_NEEDS_READY, e.g. 0x020402; 0: ready. */
int vt_lu_state(struct vt_target *t, uint32_t lu, uint32_t sense);
enum vt_access { VT_ACCESS_HIDDEN = 1, VT_ACCESS_READONLY = 2 };
/* What the LU is to one nexus, or to VT_ALL and those to come: not there (SRP), or WRITE PROTECTED. */
int vt_lu_access(struct vt_target *t, uint32_t lu, uint32_t nexus, uint32_t access);
/* Denies conflict classes to one nexus (or VT_ALL). */
int vt_lu_deny(struct vt_target *t, uint32_t lu, uint32_t nexus, uint32_t classes);
/*
 * Denies `classes[i]` to `nexuses[i]`, and `others` to every other nexus and those to come. No nexus is ever seen with
 * anything between its old and its new classes. -EINVAL: no such nexus, and nothing has changed.
 */
int vt_lu_deny_many(struct vt_target *t, uint32_t lu, uint32_t others, const uint32_t *nexuses,
                    const uint32_t *classes, uint32_t count);
/*
 * A long operation (FORMAT UNIT, SANITIZE) has the LU: every command without VT_CMD_DURING_OPERATION ends with this
 * sense, e.g. 0x020404, and `progress` (65536ths) in its sense-key-specific bytes; a blkif request with ERROR. 0: it is
 * over. Commands that have passed their checks go on: a range lock on the whole LU waits for those in C.
 */
int vt_lu_operation(struct vt_target *t, uint32_t lu, uint32_t sense, uint32_t progress);
/*
 * Aborts every command of these nexuses on the LU, but not `task` (0: none), and waits until no byte of any can move.
 * By TAS they end with TASK ABORTED, or a nexus other than the task's that had one gets 2F/00. Ends their ACA. -ETIMEDOUT: one of them is stuck, and
 * the LU refuses media access until it returns; -ECANCELED: `task` has been aborted itself, or the target stops.
 */
int vt_nexus_abort_tasks(struct vt_target *t, uint32_t lu, const uint32_t *nexuses, uint32_t count, uint64_t task);
/* 1 after a failed fdatasync: data may be lost, and every later sync fails too. */
int vt_lu_sync_failed(struct vt_target *t, uint32_t lu);
/* READs [0] and WRITEs [1], blkif's too, that have ended since the LU was added; those with MEDIUM ERROR are errors. */
struct vt_lu_stats {
    uint64_t commands[2];
    uint64_t blocks[2];      /* of those that ended well */
    uint64_t errors[2];
};
int vt_lu_stats(struct vt_target *t, uint32_t lu, struct vt_lu_stats *stats);
/* Something other than a command on that LU writes to it: to be called before and after, so that no sync leaves it out. */
int vt_lu_wrote(struct vt_target *t, uint32_t lu);
/* Stops every command of the LU and forgets it when the last has ended; its descriptor may then be closed (blocks). */
int vt_lu_remove(struct vt_target *t, uint32_t lu);

/* ---- range locks: what makes a command atomic against all others on its blocks ---- */

/*
 * Waits until nobody else touches these blocks: no fast-path command that has begun, no other lock. Fast-path commands
 * and blkif requests that begin while it is waited for or held wait until it is given back (they may be aborted
 * meanwhile, and occupy nobody); SYNCHRONIZE CACHE does not. Commands that Python runs are held up only by locks of
 * their own. Among those who want the same blocks the first comes first. Locks of the same task (`task` 0: of the
 * same thread) do not exclude each other; whoever needs several takes them in the order of LU index, then LBA.
 * The lock's id (> 0), or -ECANCELED: the task was aborted or the LU is being removed; -ETIMEDOUT (timeout_ms; -1: no
 * limit; 0: only if it is free); -ESHUTDOWN; -ENOENT: no such LU; -EINVAL; -ENOMEM.
 */
int64_t vt_range_lock(struct vt_target *t, uint64_t task, uint32_t lu, uint64_t lba, uint64_t blocks, int timeout_ms);
/* Gives it back, whatever became of its task. -ENOENT: no such lock. The LU cannot be removed before. */
int vt_range_unlock(struct vt_target *t, uint32_t lu, int64_t id);

/* ---- nexuses and unit attentions ---- */

/* A new nexus; its unit attention queues are empty. The index, or -ENOSPC. */
int vt_nexus_add(struct vt_target *t);
/* Only when no channel uses it. */
int vt_nexus_remove(struct vt_target *t, uint32_t nexus);
/*
 * Establishes ASC << 8 | ASCQ for `nexus` (or VT_ALL) except `except` (or VT_ALL: nobody) on `lu` (or VT_ALL).
 * One code stands once in a queue; reset-class codes go first, in SAM's order; power on (29/00, 29/01) clears the rest.
 */
int vt_ua_establish(struct vt_target *t, uint32_t nexus, uint32_t except, uint32_t lu, uint32_t code);
/* Takes the first of a queue (REQUEST SENSE): the code, or 0. */
int vt_ua_take(struct vt_target *t, uint32_t nexus, uint32_t lu);
/* Takes one code away wherever it stands on that nexus (REPORT LUNS: 3F/0E). */
int vt_ua_clear(struct vt_target *t, uint32_t nexus, uint32_t lu, uint32_t code);

/* ---- channels ---- */

enum vt_protocol { VT_PROTOCOL_SRP = 0, VT_PROTOCOL_BLKIF = 1 };

struct vt_channel_config {
    uint32_t protocol;
    int32_t event_fd;        /* duplicated */
    struct vscsi_mapper *mapper;
    uint8_t *ring;           /* mapped by vscsi_mapper_map_ring; stays mapped until vt_channel_remove */
    uint32_t ring_pages;
    uint32_t persistent;
    int32_t loop;            /* -1: the least busy */
    uint32_t nexus;          /* blkif: its synthetic nexus. SRP: set by vt_channel_login */
    uint32_t lu;             /* blkif: the LU it serves */
    uint32_t readonly;       /* blkif */
    uint32_t max_indirect_segments; /* blkif; 0: no BLKIF_OP_INDIRECT */
    uint32_t barrier;        /* blkif: features that were advertised */
    uint32_t flush;
    uint32_t discard;
};

/*
 * A new channel. SRP: every IU goes to Python as an event until vt_channel_login. blkif: live at once.
 * The channel's id, or negative errno.
 */
int vt_channel_add(struct vt_target *t, const struct vt_channel_config *config);
/* After a good LOGIN_REQ: the channel belongs to that nexus and may have `request_limit` requests unanswered. */
int vt_channel_login(struct vt_target *t, uint32_t channel, uint32_t nexus, uint32_t request_limit);
/* Answers the oldest unanswered cold request with this IU (LOGIN_RSP, LOGIN_REJ). */
int vt_channel_respond(struct vt_target *t, uint32_t channel, const void *iu, uint32_t nbytes);
/* Raises (or lowers) the limit the target enforces, to go with a CRED_REQ sent on the reverse ring. */
int vt_channel_credit(struct vt_target *t, uint32_t channel, int32_t delta);
/*
 * Takes no more requests. Dormant commands are dropped, running ones end and their responses are published; then
 * VT_EVENT_STOPPED. Idempotent.
 */
int vt_channel_stop(struct vt_target *t, uint32_t channel);
/* Frees it, after VT_EVENT_STOPPED; ring and mapper are then free to be unmapped. */
int vt_channel_remove(struct vt_target *t, uint32_t channel);

struct vt_channel_stats {
    uint64_t requests, responses;
    uint64_t kicks_sent, kicks_received;
    uint64_t bytes_read, bytes_written;
    uint32_t outstanding;
    uint32_t request_limit;
};

int vt_channel_stats(struct vt_target *t, uint32_t channel, struct vt_channel_stats *stats);

struct vt_loop_stats {
    uint64_t cpu_ns, passes, sleeps, channels;
};

int vt_loop_stats(struct vt_target *t, uint32_t loop, struct vt_loop_stats *stats);

/* ---- events: from the loops to the one Python thread that holds conversations ---- */

enum vt_event_type {
    VT_EVENT_IU = 1,         /* an IU that Python handles; it holds its ring slot until answered (I_LOGOUT never is) */
    VT_EVENT_ERROR = 2,      /* the peer broke the protocol; the channel has stopped taking requests */
    VT_EVENT_STOPPED = 3     /* everything the channel will ever send is published */
};

enum vt_error {
    VT_ERROR_RING = 1,            /* ring indexes */
    VT_ERROR_EVENT_CHANNEL = 2,   /* the event channel's other end is closed */
    VT_ERROR_REQUEST_LIMIT = 3,   /* more requests than credits */
    VT_ERROR_IU_TYPE = 4,         /* T_LOGOUT reason 2 */
    VT_ERROR_OUT_FORMAT = 6,      /* T_LOGOUT reasons 6 to 9 */
    VT_ERROR_IN_FORMAT = 7,
    VT_ERROR_OUT_COUNT = 8,
    VT_ERROR_IN_COUNT = 9,
    VT_ERROR_IU_LENGTH = 10       /* descriptors or additional CDB run past the slot */
};

struct vt_event {
    uint32_t type;
    uint32_t channel;
    uint32_t error;          /* enum vt_error */
    uint32_t iu_nbytes;
    uint8_t iu[248];
};

/* Readable while events wait. */
int vt_event_fd(struct vt_target *t);
/* 1 and an event, or 0. */
int vt_event_next(struct vt_target *t, struct vt_event *event);

/* ---- slow commands: from the loops to Python workers and back ---- */

struct vt_request {
    uint64_t task;
    uint32_t nexus;
    int32_t lu;              /* index, or -1: no logical unit has that LUN */
    uint32_t channel;
    uint8_t lun[8];
    uint8_t op;              /* VT_OP_SLOW, VT_OP_LU_RESET (no CDB), or READ, WRITE, SYNC of a VT_LU_SLOW_STORE */
    uint8_t attribute;
    uint16_t cdb_nbytes;
    uint8_t cdb[200];
    uint64_t lba;            /* decoded when op is not VT_OP_SLOW */
    uint64_t blocks;
    uint32_t fua;
    uint32_t reserved;
    uint64_t data_out_nbytes;  /* what the initiator's descriptors hold */
    uint64_t data_in_nbytes;
};

/* Waits for work without the GIL: 1, 0 on time-out (ms; -1 for ever), -ESHUTDOWN. */
int vt_request_next(struct vt_target *t, struct vt_request *request, int timeout_ms);
/* Copies once from the initiator's data-out buffer: bytes copied, short at its end; -EFAULT, -ECANCELED. */
int64_t vt_request_fetch(struct vt_target *t, uint64_t task, uint64_t offset, void *to, uint64_t nbytes);
/* Copies into the initiator's data-in buffer; truncates silently at its end. */
int64_t vt_request_store(struct vt_target *t, uint64_t task, uint64_t offset, const void *from, uint64_t nbytes);
/*
 * The task leaves its worker: a thread of Python's own completes it, and it no longer counts when the turns of
 * connections are decided. All other functions go on as before. -ENOENT.
 */
int vt_request_detach(struct vt_target *t, uint64_t task);
/* 1 once a task management function or the loss of its channel has aborted the task: stop soon. */
int vt_request_aborted(struct vt_target *t, uint64_t task);

struct vt_result {
    uint8_t status;
    uint8_t sense_nbytes;
    uint16_t reserved;
    uint32_t reserved2;
    uint64_t data_out_nbytes;  /* what the command transfers by its CDB; residuals follow from these */
    uint64_t data_in_nbytes;
    uint8_t sense[208];
};

/* Ends a task. Data must have been stored before. */
int vt_request_complete(struct vt_target *t, uint64_t task, const struct vt_result *result);

/* ---- the tap: what passes the SRP channels, for a capture ---- */

enum vt_tap_kind {
    VT_TAP_REQUEST = 1,      /* an IU from the initiator (a whole slot), sizes of its buffers */
    VT_TAP_DATA_OUT = 2,     /* instead of an IU the 8 bytes of the tag, then data */
    VT_TAP_DATA_IN = 3,
    VT_TAP_RESPONSE = 4      /* an IU to the initiator */
};

/* iu_nbytes of IU and data_nbytes of data follow. */
struct vt_tap_record {
    uint64_t ns;             /* since the epoch */
    uint64_t out_nbytes;     /* REQUEST: what the descriptors hold; data: how much there was, captured or not */
    uint64_t in_nbytes;
    uint32_t kind;
    uint32_t channel;
    uint32_t iu_nbytes;
    uint32_t data_nbytes;
};

/* Before vt_start: a ring of so many bytes (a power of two) for each loop; at most data_limit bytes a data record. */
int vt_tap_start(struct vt_target *t, uint64_t ring_nbytes, uint64_t data_limit);
/* One thread only, these two. 1 if there is something to read, 0 on time-out, -ESHUTDOWN: nothing will ever come. */
int vt_tap_wait(struct vt_target *t, int timeout_ms);
/* Takes up to nbytes of a loop's stream of records, cut anywhere: how many. */
int64_t vt_tap_read(struct vt_target *t, uint32_t loop, void *to, uint64_t nbytes);

struct vt_tap_stats {
    uint64_t lost;           /* records that did not fit */
    uint64_t cut;            /* records whose data did not fit */
};

int vt_tap_stats(struct vt_target *t, struct vt_tap_stats *stats);

/* ---- protection information (SBC-3 4.22): 8 bytes, big-endian: guard 0-1, application tag 2-3, reference tag 4-7 ---- */

enum vt_pi_checks { VT_PI_GUARD = 1, VT_PI_APP = 2, VT_PI_REF = 4, VT_PI_INDEX_SHIFT = 3, VT_PI_NO_ESCAPE = 8 };

/* CRC16-T10DIF. */
uint16_t vt_pi_crc(const uint8_t *data, uint64_t nbytes);
/*
 * Here a block is a protection interval: with a PROTECTION INTERVAL EXPONENT a logical block is several. Reference tags
 * count from the low 32 bits of `lba_or_ref`; with type 3 (or for a tag that shall not count) all are the same.
 */
void vt_pi_generate(const uint8_t *data, uint8_t *pi, uint64_t blocks, uint32_t block_nbytes, uint32_t type,
                    uint64_t lba_or_ref, uint16_t app);
/*
 * 0: all good. Otherwise index << VT_PI_INDEX_SHIFT | the first of enum vt_pi_checks that failed there. Only `checks`
 * are made; the reference tag never with type 3. Application tag FFFFh (type 3: and reference tag FFFFFFFFh) exempts
 * a block from all of them, as it does when reading from the medium; not with VT_PI_NO_ESCAPE. `app_mask`: bits of
 * the application tag that are compared.
 */
int64_t vt_pi_check(const uint8_t *data, const uint8_t *pi, uint64_t blocks, uint32_t block_nbytes, uint32_t type,
                    uint64_t lba_or_ref, uint16_t app, uint16_t app_mask, uint32_t checks);
/* Each block with its 8 bytes behind it, as on the wire, and the way back. */
void vt_pi_join(uint8_t *joined, const uint8_t *data, const uint8_t *pi, uint64_t blocks, uint32_t block_nbytes);
void vt_pi_split(const uint8_t *joined, uint8_t *data, uint8_t *pi, uint64_t blocks, uint32_t block_nbytes);

/* ---- direct: the same block I/O engine in the calling thread, no ring; for the bench ---- */

/*
 * Runs `spec` on `fd` with this engine (releases the GIL, returns when done). `flags`: VT_LU_NULL (no image),
 * VT_LU_DIRECT, VT_LU_WRITE_CACHE (without it every write is durable). A first error ends the load.
 * Payload is neither written nor looked at by us. -EIO etc. if I/O failed.
 */
int vt_direct_load(int fd, uint32_t flags, uint32_t engine, uint32_t nowait, const struct vscsi_load_spec *spec,
                   struct vscsi_load_result *result);

/* Punches a hole (file) or discards (block device): 0, -EOPNOTSUPP, ... Blocks: Python workers only. */
int vt_discard(int fd, int is_block_device, uint64_t offset, uint64_t nbytes);

const char *vt_stamp(void);
