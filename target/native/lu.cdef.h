/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Logical units as Python sees them: their facts and policy, who may do what there, range locks, unit attentions.
 * Knows indexes of LUs and nexuses; knows no ring. What target.cdef.h says of functions holds here too.
 */

/* ---- logical units ---- */

enum vt_lu_flags {
    VT_LU_WRITE_CACHE = 1,   /* WCE: GOOD before the data is durable; otherwise every write is RWF_DSYNC */
    VT_LU_DESCRIPTOR_SENSE = 2,
    VT_LU_NULL = 4,          /* no image: reads give zeros, writes go nowhere */
    VT_LU_SLOW_STORE = 8,    /* no descriptor: READ, WRITE and SYNC go to Python too, after the same checks */
    VT_LU_DIRECT = 16,       /* the descriptor is O_DIRECT: unaligned peers' buffers are bounced */
    VT_LU_DISCARD = 32,      /* fallocate(PUNCH_HOLE) or BLKDISCARD is allowed, for blkif DISCARD */
    VT_LU_PROTECTED = 64,    /* READ, WRITE, SYNC are VT_OP_SLOW, after the same checks; blkif as with VT_LU_SLOW_STORE */
    VT_LU_FAULTS = 128       /* the same, and blkif's DISCARD is Python's, too; may come and go */
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
 * Changes blocks, flags, write_protect and policy of a live LU. Once VT_LU_WRITE_CACHE is gone no write ends before
 * its data is durable, but what ended earlier is for the caller to flush.
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
 * By TAS they end with TASK ABORTED, or a nexus other than the task's that had one gets 2F/00. Ends their ACA.
 * -ETIMEDOUT: one of them is stuck, and the LU refuses media access until it returns; -ECANCELED: `task` has been
 * aborted itself, or the target stops.
 */
int vt_nexus_abort_tasks(struct vt_target *t, uint32_t lu, const uint32_t *nexuses, uint32_t count, uint64_t task);
/*
 * Another open file description of what the LU's descriptor opens, made before anything was written; not closed by the
 * target, and readable is enough. The kernel tells each description of lost data by itself: where a durable write has
 * found no space, this one says whether it was only that. -ENOENT. Without it such a failure counts as a loss.
 */
int vt_lu_witness(struct vt_target *t, uint32_t lu, int fd);
/* 1 after a failed fdatasync: data may be lost, and every later sync fails too. */
int vt_lu_sync_failed(struct vt_target *t, uint32_t lu);
/* Python is about to sync the LU's file itself: the id to end it with, or -ENOENT, -ENOMEM. */
int64_t vt_lu_sync_begin(struct vt_target *t, uint32_t lu);
/*
 * It has. `failed` is remembered. 0 once no other sync that ran beside it can have been told of its lost data instead
 * (waits for them); -EIO: data may be lost; -ENOENT.
 */
int vt_lu_sync_end(struct vt_target *t, uint32_t lu, int64_t sync, int failed);
/* READs [0] and WRITEs [1], blkif's too, that have ended since the LU was added; those with MEDIUM ERROR are errors. */
struct vt_lu_stats {
    uint64_t commands[2];
    uint64_t blocks[2];      /* of those that ended well */
    uint64_t errors[2];
    uint64_t tasks;          /* that have not ended yet */
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
/* Takes the first of a queue: the code, or 0. For a command that reports it: vt_request_attention. */
int vt_ua_take(struct vt_target *t, uint32_t nexus, uint32_t lu);
