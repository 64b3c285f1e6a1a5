/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Channels as Python sees them: rings that are served, events of the loops, commands that Python workers run.
 * Knows IUs as bytes; knows no command. What target.cdef.h says of functions holds here too.
 */

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
    VT_EVENT_STOPPED = 3,    /* everything the channel will ever send is published */
    VT_EVENT_ACTIVE = 4      /* of no channel: a loop has woken; asked for by vt_tell_activity */
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
/* VT_EVENT_ACTIVE, once, as soon as a loop wakes from its sleep. 1, and nothing is asked for: one is awake now. */
int vt_tell_activity(struct vt_target *t);

/* ---- files that others change: a descriptor that is readable once one of them has been ---- */

int vt_watch_open(void);                               /* -errno */
int vt_watch_once(int watch_fd, const char *path);     /* the next change of content or size of what is there now */
void vt_watch_drain(int watch_fd);

/* ---- slow commands: from the loops to Python workers and back ---- */

struct vt_request {
    uint64_t task;
    uint32_t nexus;
    int32_t lu;              /* index, or -1: no logical unit has that LUN */
    uint32_t channel;
    uint8_t lun[8];
    uint8_t op;              /* VT_OP_SLOW, LU_RESET (no CDB), or READ, WRITE, SYNC, DISCARD that Python carries out */
    uint8_t attribute;
    uint16_t cdb_nbytes;
    uint8_t cdb[200];
    uint64_t lba;            /* decoded when op is not VT_OP_SLOW */
    uint64_t blocks;
    uint32_t fua;
    uint32_t reserved;
    uint64_t data_out_nbytes;  /* what the initiator's descriptors hold; DISCARD: its size, maybe no whole blocks */
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
/*
 * Takes the first unit attention of the task's nexus on its LU, for the task to report (REQUEST SENSE): the code, or 0.
 * If the task is aborted before it is answered it goes back. -ENOENT.
 */
int vt_request_attention(struct vt_target *t, uint64_t task);
/* 1 once a task management function or the loss of its channel has aborted the task: stop soon. */
int vt_request_aborted(struct vt_target *t, uint64_t task);

struct vt_result {
    uint8_t status;
    uint8_t sense_nbytes;
    uint16_t reserved;
    uint32_t clears;           /* GOOD takes this unit attention (ASC << 8 | ASCQ) from the task's nexus, on every LU; 0: none */
    uint64_t data_out_nbytes;  /* what the command transfers by its CDB; residuals follow from these */
    uint64_t data_in_nbytes;
    uint8_t sense[208];
};

/* Ends a task. Data must have been stored before. */
int vt_request_complete(struct vt_target *t, uint64_t task, const struct vt_result *result);
