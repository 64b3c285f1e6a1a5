/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The initiator's C half as Python sees it: one channel is one ring with its event channel. Submitting, reaping,
 * waiting, and the load generators. Login, logout and everything else that is conversation is Python.
 * A channel may be used by several threads: a mutex protects it, and one waiter at a time (the leader) looks at the
 * ring and completes for all. Functions return 0 or more, or negative errno.
 */

struct vi_channel;

enum vi_protocol { VI_PROTOCOL_SRP = 0, VI_PROTOCOL_BLKIF = 1 };

struct vi_config {
    uint32_t protocol;
    uint32_t ring_pages;
    uint8_t *ring;             /* in the initiator's memory, formatted, granted; contiguous */
    int32_t event_fd;          /* duplicated */
    uint32_t persistent;       /* every page of memory stays granted; otherwise pages are granted for each request */
    struct vscsi_granter *granter;
    uint8_t *memory;           /* region 0; frame n of it has grant reference gref_base + n */
    uint64_t memory_nbytes;
    uint32_t gref_base;
    uint32_t spin_ns;          /* how long a waiter looks at the ring before it sleeps; see vi_spin_ns */
    uint32_t indirect_pages;   /* blkif: frames for BLKIF_OP_INDIRECT, `indirect_per_slot` for every ring slot */
    uint32_t indirect_per_slot;
    uint64_t indirect_offset;  /* where they begin in memory */
    uint32_t max_indirect_segments;
    uint32_t timeout_ms;       /* default for waits; 0: none */
};

struct vi_channel *vi_channel_new(const struct vi_config *config, int *error);
void vi_channel_free(struct vi_channel *c);
/* Fails everything outstanding and every later call with `error` (e.g. -EPIPE, -ECONNRESET); wakes all waiters. */
void vi_channel_fail(struct vi_channel *c, int error);
/* Reaps what the target has published, then fails the rest: T_LOGOUT. */
void vi_channel_drain(struct vi_channel *c, int error);
uint32_t vi_channel_slots(struct vi_channel *c);

/* Before login and for I_LOGOUT: one IU without credit accounting. */
int vi_channel_send(struct vi_channel *c, const void *iu, uint32_t nbytes);
/* Waits for one IU (slot_nbytes) while nothing else is outstanding: 1, -ETIMEDOUT, -EPROTO, -EPIPE. */
int vi_channel_receive(struct vi_channel *c, void *iu, int timeout_ms);
/* After LOGIN_RSP: commands may be sent, up to this many unanswered. */
int vi_channel_live(struct vi_channel *c, uint32_t request_limit, uint32_t max_iu_nbytes);
/* CRED_REQ, AER_REQ: adds to the request limit. */
int vi_channel_credit(struct vi_channel *c, int32_t delta);

/* A run of bytes in the initiator's memory. */
struct vi_segment {
    uint64_t offset;
    uint64_t nbytes;
};

struct vi_request {
    uint64_t cookie;           /* given back in the completion */
    uint8_t lun[8];
    uint8_t cdb[200];
    uint16_t cdb_nbytes;
    uint8_t attribute;         /* enum srp_task_attribute */
    uint8_t operation;         /* blkif: enum blkif_op */
    uint32_t out_count;        /* segments */
    uint32_t in_count;
    const struct vi_segment *out;
    const struct vi_segment *in;
    uint64_t table_offset;     /* memory for an external descriptor table, when more segments than fit inline */
    uint64_t table_nbytes;     /* 0: the slot's indirect pages serve */
    uint64_t sector;           /* blkif */
    uint64_t sectors;          /* blkif DISCARD */
    uint32_t flags;            /* blkif DISCARD: BLKIF_DISCARD_SECURE */
    uint32_t reserved;
};

struct vi_completion {
    uint64_t cookie;
    uint64_t tag;
    int32_t error;             /* transport: 0, -EPIPE, -ECONNRESET, -EPROTO, -EBUSY (a page is still in use) ...;
                                  -ECANCELED (ended by a TMF), -EIO (refused without a status: response_code) */
    uint8_t status;            /* SCSI status */
    uint8_t response_code;     /* with `responded` */
    uint8_t responded;         /* RSPVALID */
    uint8_t sense_nbytes;
    int16_t blkif_status;
    uint16_t reserved;
    int64_t out_residual;      /* > 0: UNDER, < 0: OVER */
    int64_t in_residual;
    uint8_t sense[212];
};

/* Sends; 0, or -EAGAIN (no credit or slot), -EMSGSIZE (too many segments), -EINVAL, -EBUSY (page still in use), -EPIPE. */
int vi_submit(struct vi_channel *c, const struct vi_request *request, uint64_t *tag);
/* Publishes what vi_submit has queued and kicks if asked to. vi_reap and vi_execute do it by themselves. */
int vi_flush(struct vi_channel *c);
/*
 * Up to `max` completions, at least `min` unless the time (ms, -1 for ever) runs out: their number, or -EPIPE etc. when
 * the channel is dead and nothing is left. Completions of vi_execute are not among them.
 */
int vi_reap(struct vi_channel *c, struct vi_completion *completions, uint32_t max, uint32_t min, int timeout_ms);
/*
 * Sends one and waits for it. Waits for credit. -ETIMEDOUT leaves it outstanding: its tag is in the completion (0: it was
 * never sent) and vi_wait collects it. timeout_ms 0: the channel's default.
 */
int vi_execute(struct vi_channel *c, const struct vi_request *request, struct vi_completion *completion,
               int timeout_ms);
/*
 * Goes on waiting for a request that vi_execute or vi_task_management gave up with -ETIMEDOUT: 0, -ETIMEDOUT, or -ENOENT
 * (no such tag, or collected already). Until it returns 0 the request's memory belongs to the target. 0 ms: looks once.
 */
int vi_wait(struct vi_channel *c, uint64_t tag, struct vi_completion *completion, int timeout_ms);
/* A task management function, on the credit kept for it. completion->response_code tells. */
int vi_task_management(struct vi_channel *c, uint8_t function, const uint8_t lun[8], uint64_t task_tag,
                       struct vi_completion *completion, int timeout_ms);
uint32_t vi_outstanding(struct vi_channel *c);

/*
 * From now on without event suppression, for measuring what that is worth: an event with every publication, and one
 * asked for with every response.
 */
void vi_channel_eager_events(struct vi_channel *c);

struct vi_stats {
    uint64_t requests;
    uint64_t responses;
    uint64_t kicks_sent;
    uint64_t kicks_received;
    uint64_t sleeps;
    int32_t request_limit;
    uint32_t outstanding;
};

int vi_channel_stats(struct vi_channel *c, struct vi_stats *stats);

/*
 * Closed-loop load over `count` channels from the calling thread (releases the GIL), each with spec->queue_depth
 * requests outstanding on its LUN (SRP: `luns` holds 8 bytes for each) and buffers at `buffer_offset` in its memory,
 * queue_depth * block_nbytes of them for each channel, one behind the other. `logical_block_nbytes`: of all the LUs.
 * Payload is not touched.
 */
int vi_load(struct vi_channel **channels, uint32_t count, const uint8_t *luns, uint32_t logical_block_nbytes,
            uint64_t buffer_offset, const struct vscsi_load_spec *spec, struct vscsi_load_result *result);

const char *vi_stamp(void);
