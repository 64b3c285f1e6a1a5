/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A command and what it holds, a row of the command table, and a logical unit with its task set.
 * Knows who may touch which field; knows no loop and no ring.
 */
#ifndef VSCSI_TASK_H
#define VSCSI_TASK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "target.h"

#include "barrier.h"
#include "be.h"
#include "blockio.h"
#include "grant.h"
#include "lock.h"
#include "ring.h"
#include "sched_queue.h"
#include "slow_queue.h"

enum {
    VT_INLINE_IOV = 12,
    VT_MAX_PAGES = 4224,            /* of one command's buffer: 8 MiB in descriptors that start anywhere */
    VT_MAX_DESCRIPTORS = 4096,
    VT_SCRATCH_PER_LOOP = 64,
    VT_TAG_BUCKETS = 256,
    VT_CACHE_LINE = 64,
    VT_NO_LU = -1
};

/* ---- a command and what it holds ---- */

enum vt_task_state {
    TASK_FREE,
    TASK_COLD,          /* an IU that Python answers */
    TASK_DORMANT,       /* in the task set, waits for others; leaves this state under the LU's lock */
    TASK_READY,         /* enabled, on its way to its loop */
    TASK_PARKED,        /* enabled, but its blocks are locked: in the LU's list; leaves this state under its lock */
    TASK_WAITING,       /* enabled, but its turn at the device has not come; leaves this state under the scheduler's lock */
    TASK_SETTLING,      /* durable, if those that ran beside it end well: in the LU's list; leaves under its lock */
    TASK_RUNNING,
    TASK_SLOW_QUEUED,   /* this and the next: under the slow queue's lock */
    TASK_SLOW_RUNNING,
    TASK_TMF            /* a task management function that waits for the commands it aborted */
};

/* What a task coming through a mailbox wants of its loop. */
enum vt_mail { MAIL_START, MAIL_SLOW_DONE, MAIL_TMF_DONE, MAIL_TMF_VISIT, MAIL_SETTLED };

/* What is known of the blocks that a command of the task set touches by itself, without Python (range.c). */
enum vt_extent {
    EXTENT_UNKNOWN,     /* it will not look for range locks, and has not said yet where it goes */
    EXTENT_KNOWN,       /* lba and blocks; stays so until it leaves the set */
    EXTENT_NONE,        /* it touches no blocks, or Python does it and locks them */
    EXTENT_LOOK,        /* it will look before it touches any; dormant ones, too */
    EXTENT_PARKED,      /* it waits for a range lock: claim_lba and claim_blocks */
    EXTENT_GRANTED      /* it has waited, and is on its way to begin anew */
};

/* What is left to do of a media command, in this order. */
enum vt_step { STEP_SYNC_BEFORE = 1, STEP_IO = 2, STEP_SYNC_AFTER = 4 };

struct vt_run {
    uint32_t gref;
    uint32_t pages;
};

struct vt_scratch {
    struct vt_scratch *next;
    struct iovec iov[VT_MAX_PAGES];
    struct vt_run runs[VT_MAX_DESCRIPTORS];
};

/* One direction's data buffer: the initiator's pages, mapped, as host addresses. Zeros: nothing is mapped. */
struct vt_buffer {
    uint64_t described;     /* bytes that the initiator's descriptors hold */
    uint64_t mapped;        /* bytes in iov */
    struct iovec *iov;
    struct vt_scratch *scratch;
    uint32_t iovcnt;
    uint32_t nruns;
    uint32_t pages;
};

/* Sense to be: code as in enum vt_sense, and what points at its cause. */
struct vt_cause {
    uint32_t code;
    bool has_information;
    bool has_field;
    bool has_progress;
    uint16_t progress;
    uint8_t bit;            /* 8: no bit pointer */
    uint16_t byte;
    uint64_t information;
};

struct vt_event_node {
    struct vt_event_node *next;
    uint32_t type;
    uint32_t channel;
    uint32_t error;
    uint32_t iu_nbytes;
    const uint8_t *iu;
    bool queued;
};

enum { BUF_OUT = 0, BUF_IN = 1 };

/* A slot's content, by what it may be. */
union vt_iu {
    uint64_t words[VSCSI_SRP_SLOT / 8];
    uint8_t bytes[VSCSI_SRP_SLOT];
    struct srp_cmd cmd;
    struct srp_tsk_mgmt tsk_mgmt;
    struct srp_rsp rsp;
    struct blkif_request blkif;
    struct blkif_request_discard discard;
    struct blkif_request_indirect indirect;
};

/* A running operation that makes data durable, or one that has ended and waits for those. Under the LU's lock. */
struct vt_durable {
    struct vt_durable *next;
    uint64_t started;
    uint64_t ended;
    bool sync;              /* of everything there is */
    bool all;
};

/*
 * By how often it is touched: a small command meets the first cache lines, the IU's first one, and the head of its bio.
 * What stands from `lu` to the head of `result` is zeros when a command comes.
 */
struct vt_task {
    _Alignas(VT_CACHE_LINE) struct vt_channel *channel;
    struct vt_task *q_next;         /* the one queue it stands in: free, ready, mailbox, cold, scratch wait */
    struct vt_task *set_next;       /* the LU's task set */
    struct vt_task *set_prev;
    struct vt_task *tag_next;
    struct vt_task **tag_link;      /* what points at it, in the LU's table of tags */
    uint64_t seq;
    uint64_t tag;

    uint64_t lba;
    uint64_t blocks;
    uint64_t offset;                /* byte in the image */
    _Atomic uint64_t id;            /* for Python; 0 when no worker may name it */
    uint32_t nexus;
    uint32_t desc_offset[2];
    uint32_t cdb_nbytes;
    _Atomic int state;
    _Atomic uint8_t extent;         /* enum vt_extent */
    _Atomic bool aborted;
    bool by_python;                 /* its media access, decided when it begins */
    uint8_t attribute;
    uint8_t operation;              /* blkif, echoed */
    int16_t response_code;          /* SRP: RSPVALID with this code instead of a status; -1: no */

    struct vt_lu *lu;
    const struct vt_row *row;
    struct vt_sched *sched;         /* has let it at the device, and is to be told of the end */
    uint64_t nbytes;                /* what the CDB asks to transfer */
    struct vt_buffer buf[2];
    uint32_t attention;             /* the unit attention that it reports; taken from its queue */
    int16_t blkif_status;
    bool in_set;
    bool in_flight;                 /* its bio is with the engine */
    bool cancelled;
    bool fua;
    bool tell_aborted;              /* TASK ABORTED; set before `aborted` */
    bool discard;
    bool holds;                     /* grants or scratch, in its buffers */
    uint8_t op;
    uint8_t ask;                    /* what Python is asked to do: enum vt_op */
    uint8_t steps;
    uint8_t step;
    struct vt_result result;

    _Alignas(VT_CACHE_LINE) struct bio bio;

    _Alignas(VT_CACHE_LINE) union vt_iu iu;                 /* the private copy of the slot */
    struct iovec iov[2][VT_INLINE_IOV];     /* of small buffers */
    struct vt_run runs[2][VT_INLINE_IOV];
    struct vt_task *q_prev;
    uint64_t deadline_ns;           /* TMF */
    uint64_t target_tag;            /* TMF */
    uint64_t ua_seen;               /* of the target's ua_changes, when Python got it */
    uint64_t dirty_seen;
    uint64_t losable_seen;
    uint64_t ticket;                /* parked: its place among those who want blocks */
    uint64_t claim_lba;
    uint64_t claim_blocks;
    uint64_t due_ns;                /* when the simulated disk is done with it */
    int refused;                    /* the error of a durable write, while the witness is asked what it means */
    bool detached;                  /* under the slow queue's lock: no worker is occupied by it */
    bool orphan;                    /* under the LU's lock: a write whose channel has stopped, on its way still */
    uint8_t mail;
    uint8_t function;               /* TMF */
    uint8_t visits;                 /* TMF: the loop that it is with */
    struct vt_durable durable;
    struct vt_event_node event;
    struct sq_item turn;            /* at the device; the scheduler's while it has the task */
    struct wq_item slow;            /* under the slow queue's lock */
};

/* ---- the command table ---- */

struct vt_row {
    /* What the facts say, for those who look at every command. */
    uint64_t forbidden[2];          /* bits of a CDB's first 16 bytes that need a closer look */
    uint64_t lba_mask;
    uint64_t length_mask;
    uint8_t lba_shift;
    uint8_t length_shift;
    struct vt_command facts;
    uint64_t usage[4];              /* facts.usage with opcode and service action free */
    _Atomic(struct vt_row *) next;  /* the next service action of this opcode */
};

/* ---- logical units ---- */

/* What a pass over a task set, oldest task first, has met so far (order.c). */
struct vt_older {
    uint64_t pass;                  /* of which pass it is */
    uint32_t tasks;
    uint32_t ordered;
    uint32_t hoq;                   /* in the whole task set */
};

/* Why entering and leaving a task set may take more than counting. */
enum vt_rule { RULE_ACA = 1, RULE_SETS = 2, RULE_RESTRICTED = 4, RULE_LIMIT = 8 };

struct vt_it {
    uint32_t deny;                  /* read without the lock: relaxed */
    uint32_t deny_rare;             /* VT_CONFLICT_RARE of it */
    uint32_t access;                /* enum vt_access; likewise */
    uint32_t ua_count;
    uint32_t ua[VT_MAX_UA];
    bool aca;                       /* it is a faulted I_T nexus: under the lock */
    struct vt_older older;          /* TST 001b, during one pass over the LU's tasks */
};

/* Blocks that somebody has, or waits to have, for himself. */
struct vt_range {
    struct vt_range *next;
    uint64_t id;                    /* a ticket */
    uint64_t owner;                 /* a task, or a thread; its ranges do not exclude each other */
    uint64_t lba;
    uint64_t blocks;
    bool held;
};

struct vt_lu {
    /* Facts: written under the lock, read without it, relaxed. */
    _Alignas(VT_CACHE_LINE) uint64_t blocks;
    struct vt_it *it;               /* VT_MAX_NEXUSES of them */
    uint32_t block_nbytes;
    uint32_t max_transfer_blocks;
    uint32_t flags;
    uint32_t write_protect;
    uint32_t state_sense;
    uint32_t operation;             /* sense of what has the LU for itself; 0: nothing */
    uint32_t fenced;                /* an aborted I/O will not end */
    int fd;
    uint16_t direct_align;
    uint8_t bio_flags;
    _Atomic bool removing;          /* set under the lock, and for good: the struct is never used again */
    _Atomic(struct vt_sched *) sched;   /* of its device: set once; NULL: no turns are taken */

    _Atomic(struct vt_disk *) disk; /* simulated: set once */
    uint64_t written;               /* counts writes begun and ended that are not durable by themselves */
    /* The task set, and what is looked at whenever one enters or leaves. */
    struct vt_task *first;
    struct vt_task *last;
    struct vt_task *tmfs;
    uint64_t next_seq;
    uint32_t nr_tasks;
    uint32_t nr_ordered;
    uint32_t nr_hoq;
    uint32_t nr_dormant;
    uint32_t rules;                 /* enum vt_rule; read without the lock, too: relaxed */
    uint32_t range_looks;           /* ranges, and orphans: whoever begins has to look */
    uint32_t range_waiting;         /* those not held, and orphans: whoever leaves has to tell */
    uint32_t preempting;            /* who waits for aborted tasks to leave */
    struct vt_lu_stats stats;
    struct vt_lock lock;

    struct vt_target *target;
    struct vt_lu *buried;
    uint64_t lun;
    uint32_t index;
    uint32_t progress;
    uint32_t sync_failed;
    int witness;                    /* -1: none; relaxed */
    uint32_t nr_aca;                /* faulted I_T nexuses */
    uint64_t synced;                /* value of `written` that the last good sync covers */
    uint64_t failed;                /* of `written`, durable writes that failed: nobody believes them written */
    uint64_t losable_synced;        /* `written` without `failed` that the last good sync covers */
    uint64_t durable_running;       /* writes durable by themselves, not ended: readable, not yet on the medium */
    uint64_t sched_base;            /* where the LU begins on its device */
    uint64_t disk_base;
    pthread_cond_t idle;
    uint64_t pass;
    struct vt_older older;          /* TST 000b */
    struct vt_task_policy policy;
    uint32_t deny_default;
    uint32_t access_default;
    struct wq_room workers[3];      /* of Python that it may occupy, by kind: under the slow queue's lock (slow.c) */
    struct vt_range *ranges;        /* by ticket */
    uint32_t orphans;
    struct vt_task *parked_first;   /* by ticket */
    struct vt_task *parked_last;
    struct vt_durable *durables;    /* running */
    struct vt_task *settling;
    uint64_t durable_clock;
    uint32_t durable_waiters;       /* Python's, on `idle` */
    struct vt_task *tags[VT_TAG_BUCKETS];
    /* SYNCHRONIZE CACHE with IMMED: one runs, one more may wait for it. */
    struct bio immed;
    struct vt_durable immed_durable;
    bool immed_running;
    bool immed_again;
    uint64_t immed_dirty;
    uint64_t immed_losable;
};

static inline bool vt_is_aborted(struct vt_task *task)
{
    return atomic_load_explicit(&task->aborted, memory_order_acquire);
}

/* Of READ, WRITE and SYNCHRONIZE CACHE. Both load 8 bytes: of the CDB, or of what stands behind it in the task's IU. */
static inline uint64_t vt_row_lba(const struct vt_row *row, const uint8_t *cdb)
{
    return vscsi_get_be(cdb + row->facts.lba_offset, 8) >> row->lba_shift & row->lba_mask;
}

static inline uint64_t vt_row_blocks(const struct vt_row *row, const uint8_t *cdb)
{
    uint64_t blocks = vscsi_get_be(cdb + row->facts.length_offset, 8) >> row->length_shift & row->length_mask;
    return __builtin_expect(blocks == 0, 0) && row->facts.flags & VT_CMD_ZERO_IS_256 ? 256 : blocks;
}

static inline bool vt_is_removing(const struct vt_lu *lu)
{
    return atomic_load_explicit(&lu->removing, memory_order_relaxed);
}

static inline const uint8_t *vt_cdb(const struct vt_task *task)
{
    return task->iu.bytes + offsetof(struct srp_cmd, cdb);
}

#endif
