/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The private structures of the target's C half, and who may touch what.
 * A loop owns its channels, their tasks and its engine; an LU's task set is shared by all loops and kept by its lock;
 * the queue of slow commands, the event queue and the waiters for ranges have locks of their own.
 * Order of locks: control, LU, slow, range, scheduler, mailbox.
 * Knows no command fact and no policy.
 */
#ifndef VSCSI_CORE_H
#define VSCSI_CORE_H

#include "task.h"

enum { VT_ABORT_LIMIT_MS = 20000 };

/* ---- channels ---- */

enum vt_channel_state {
    CHANNEL_COLD,       /* SRP before login */
    CHANNEL_LIVE,
    CHANNEL_QUIET,      /* takes nothing more: error or I_LOGOUT */
    CHANNEL_STOPPING,
    CHANNEL_STOPPED
};

struct vt_protocol_ops {
    uint32_t slot_nbytes;
    void (*take)(struct vt_task *task, const void *slot);   /* one request; may end at once */
    void (*start)(struct vt_task *task);                    /* enabled by the task set */
    void (*finish)(struct vt_task *task);                   /* writes the response of result */
    void (*abort_reply)(struct vt_task *task);              /* writes the response of an aborted command */
    /* Turns the end of media access into a result. */
    void (*media_done)(struct vt_task *task, int error, uint8_t step);
    void (*io_ended)(struct vt_task *task);                 /* vt_media_ended_as */
};

struct vt_channel {
    struct vt_target *target;
    struct vt_loop *loop;
    const struct vt_protocol_ops *ops;
    struct vscsi_mapper *mapper;
    struct vt_lu *lu;       /* blkif */
    uint64_t seen_lun;      /* SRP: what the last command named so, as it stands in the IU */
    struct vt_lu *seen_lu;
    struct vscsi_back_ring ring;
    struct vt_task *free_tasks;
    uint32_t in_flight;     /* tasks that are neither free nor cold */
    uint32_t request_limit;
    uint32_t nexus;
    _Atomic int state;
    bool persistent;
    bool ring_broken;
    bool active;            /* in the loop's list of channels to look at */
    bool dirty;             /* has responses to publish */
    bool watched;
    bool counted;           /* among those of its nexus that are logged in */
    bool hung_up;           /* the event channel is closed; an error once the ring is empty */
    bool logged_in;         /* under the control lock, as the next */
    bool stop_asked;
    bool kicked;            /* since the last look at the ring */
    struct vt_channel_stats stats;  /* relaxed */
    struct wq_owner *slow;  /* what its connection has at Python's workers */
    struct vt_channel_config config;
    uint32_t id;
    int event_fd;
    uint32_t spurious;      /* kicks in a row without work behind them */
    uint64_t quiet_until_ns;
    uint32_t nr_tasks;
    uint32_t tasks_begun;   /* those behind them have never been used: zeros, and no memory yet */
    struct vt_task *cold_first;
    struct vt_task *cold_last;
    _Atomic uint32_t cold_count;
    _Atomic uint32_t letters;   /* what still points here: letters not yet opened, the loop's last words */
    struct vt_task *tasks;
    void *tasks_memory;
    struct vt_channel *next_active;
    struct vt_channel *next_dirty;
    struct vt_event_node error_event;
    struct vt_event_node stopped_event;
};

/* ---- loops ---- */

enum vt_command_kind { MAIL_ADD, MAIL_LOGIN, MAIL_RESPOND, MAIL_CREDIT, MAIL_STOP };

struct vt_letter {
    struct vt_letter *next;
    uint32_t kind;
    struct vt_channel *channel;
    uint32_t nexus;
    int32_t value;
    uint32_t nbytes;
    uint64_t iu[VSCSI_SRP_SLOT / 8];
};

struct vt_loop {
    struct vt_target *target;
    uint32_t index;
    pthread_t thread;
    bool started;
    struct bio_engine *engine;
    int wake_fd;
    _Atomic bool sleeping;
    _Atomic bool mail_pending;
    _Atomic bool cancel_wanted;
    _Atomic bool stop;
    pthread_mutex_t mail_lock;
    struct vt_letter *letters_first;
    struct vt_letter *letters_last;
    struct vt_task *mail_first;
    struct vt_task *mail_last;
    struct vt_task *ready_first;        /* own thread only, from here on */
    struct vt_task *ready_last;
    struct vt_task *scratch_wait;
    struct vt_scratch *scratch;
    uint32_t scratch_made;
    struct vt_channel *active;
    struct vt_channel *dirty;
    uint32_t taken;                     /* requests since answers were last sent */
    uint32_t taken_before;              /* in the last pass */
    struct vt_channel **channels;
    uint32_t nr_channels;
    uint32_t tmfs_waiting;
    uint32_t quiet_channels;            /* unwatched for a while: they kicked without work */
    bool spinning;
    bool retry;                         /* look at scratch_wait again */
    struct vt_task *delayed_first;      /* what simulated disks are busy with, by the time when they are done */
    struct vt_task *delayed_last;
    _Atomic uint64_t sched_ns;          /* when a limit may let somebody at a device; UINT64_MAX: never */
    uint64_t moved_ns;                  /* when it last left a CPU to a peer */
    uint8_t *table;                     /* private copy of indirect tables and pages */
    clockid_t cpu_clock;
    _Atomic bool has_clock;
    struct vt_tap_ring *tap;            /* NULL unless a capture was asked for before the start */
    struct vt_loop_stats stats;         /* relaxed */
};

struct vt_target {
    struct vt_config config;
    pthread_mutex_t control;            /* channel, LU and nexus tables, letters' order */
    bool started;
    bool stopped;                       /* no new channels */
    bool joined;                        /* no loop runs any more */
    struct vt_lu *graveyard;            /* removed LUs: a loop may still hold a pointer to one */
    int engine_used;
    uint32_t nr_loops;
    uint32_t cpus;
    _Atomic uint32_t spinners;
    struct vt_loop loops[VT_MAX_LOOPS];
    pthread_mutex_t boot_lock;
    pthread_cond_t boot_cond;
    uint32_t booted;
    int boot_error;
    _Atomic(struct vt_row *) rows[256];
    _Atomic(struct vt_lu *) lus[VT_MAX_LUS];
    _Atomic(struct vt_lu *) by_lun[16384];
    struct {
        _Atomic bool used;
        uint32_t channels;              /* under the control lock */
        _Atomic uint32_t logged_in;     /* those of them that take commands; SRP only */
    } nexuses[VT_MAX_NEXUSES];
    struct vt_channel *channels[VT_MAX_CHANNELS];
    _Atomic uint64_t next_task_id;
    _Atomic uint64_t ua_changes;        /* unit attentions that Python has established */
    pthread_mutex_t event_lock;
    struct vt_event_node *event_first;
    struct vt_event_node *event_last;
    int event_fd;
    struct vt_event_node active_event;
    _Atomic bool tell_activity;
    pthread_mutex_t slow_lock;
    pthread_cond_t slow_cond;
    struct slow_queue slow;
    struct vt_leftover *leftovers;
    bool slow_stop;
    struct vt_tap *tap;
    _Atomic bool stopping;
    _Atomic uint64_t next_ticket;
    pthread_mutex_t range_lock;
    pthread_cond_t range_cond;
    uint64_t range_changes;             /* of anything that a waiter for a range may wait for */
    _Atomic(struct vt_sched *) scheds[VT_MAX_LUS];
    _Atomic uint32_t nr_scheds;
};

/* Counters that one loop writes and Python reads. */
static inline void vt_bump(uint64_t *counter, uint64_t by)
{
    vscsi_store64_relaxed(counter, vscsi_load64_relaxed(counter) + by);
}

/* loop.c */
int vt_loop_boot(struct vt_loop *loop);
void vt_loop_wake(struct vt_loop *loop);
void vt_loop_mail(struct vt_loop *loop, struct vt_task *task, enum vt_mail what);
void vt_loop_letter(struct vt_loop *loop, struct vt_letter *letter);
void vt_loop_ready(struct vt_loop *loop, struct vt_task *task);
/* Everything that this loop has written so far; in its thread. */
void vt_loop_publish(struct vt_loop *loop);
void vt_loop_wait_scratch(struct vt_loop *loop, struct vt_task *task);

/* channel.c: all in the loop's thread */
void vt_channel_letter(struct vt_letter *letter);
bool vt_channel_pass(struct vt_channel *channel);
void vt_channel_activate(struct vt_channel *channel);
void vt_channel_event(struct vt_channel *channel);
void vt_channel_unquiet(struct vt_channel *channel);
void vt_channel_error(struct vt_channel *channel, enum vt_error error);
bool vt_channel_rest(struct vt_channel *channel, uint32_t advice);
void vt_channel_publish(struct vt_channel *channel);
void vt_channel_write(struct vt_channel *channel, const void *response, uint32_t nbytes);
void vt_channel_mark_dirty(struct vt_channel *channel);
void vt_channel_free(struct vt_channel *channel);
/* Gives a task back whose response has been written (or that gets none). */
static inline void vt_task_release(struct vt_task *task)
{
    struct vt_channel *channel = task->channel;
    atomic_store_explicit(&task->state, TASK_FREE, memory_order_relaxed);
    atomic_store_explicit(&task->id, 0, memory_order_relaxed);
    task->q_next = channel->free_tasks;
    channel->free_tasks = task;
    channel->in_flight--;
    vscsi_store_relaxed(&channel->stats.outstanding, channel->in_flight);
    /* Whoever waits for this answer may have added requests without a kick: look again before sleeping. */
    if (!channel->active)
        vt_channel_activate(channel);
    if (channel->in_flight == 0)
        vt_channel_mark_dirty(channel);
}

/* buffer.c */
int vt_buffer_add(struct vt_task *task, struct vt_buffer *b, uint32_t gref, uint64_t offset, uint64_t nbytes);
void vt_buffer_unmap(struct vt_task *task, struct vt_buffer *b);
/* At the end of a task that holds something; pages mapped for good need nothing. */
void vt_buffers_release(struct vt_task *task);

/* Copies once from granted pages to private memory. */
int vt_copy_granted(struct vt_channel *channel, uint32_t gref, uint64_t offset, void *to, uint64_t nbytes);

/* taskset.c */
enum vt_enter { ENTER_ENABLED, ENTER_DORMANT, ENTER_OVERLAPPED, ENTER_REFUSED, ENTER_GONE };
struct vt_task *vt_set_find(struct vt_lu *lu, uint32_t nexus, uint64_t tag);
void vt_task_start(struct vt_task *task);
/* Ends a task: response, task set, grants. The result must be complete. */
void vt_task_end(struct vt_task *task);
/* The same for one that Python has run. */
void vt_task_end_slow(struct vt_task *task);
void vt_set_abort(struct vt_lu *lu, struct vt_task *task);
/* As vt_set_abort, by an action of `nexus`: TAS decides what another nexus is told; with `quiet` never 2F/00. */
void vt_set_abort_by(struct vt_lu *lu, struct vt_task *task, uint32_t nexus, bool quiet);
/* What may run now does. Under the LU's lock. */
void vt_set_enable(struct vt_lu *lu);
/* A task that has been enabled comes to its loop: it starts, unless an ACA condition has come first. */
void vt_task_resume(struct vt_task *task);

/* order.c: all decisions on order; under the LU's lock */
bool vt_order_on_arrival(struct vt_lu *lu, const struct vt_task *task);
/* Calls `enable` for every dormant task that may run. */
void vt_order_pass(struct vt_lu *lu, void (*enable)(struct vt_lu *, struct vt_task *));

/* aca.c: all under the LU's lock, but for vt_aca_ended and vt_aca_refuses_early */
enum vt_status { VT_GOOD = 0x00, VT_BUSY = 0x08, VT_RESERVATION_CONFLICT = 0x18, VT_TASK_SET_FULL = 0x28,
                 VT_ACA_ACTIVE = 0x30, VT_TASK_ABORTED = 0x40 };
/* The status with which a task may not even enter the task set; 0: it may. */
uint8_t vt_aca_refusal(struct vt_lu *lu, const struct vt_task *task);
/* The same for a command that is going to end before it enters. */
uint8_t vt_aca_refuses_early(struct vt_task *task);
bool vt_aca_blocks(const struct vt_lu *lu, const struct vt_task *task);
/* May it run whatever the others do: the ACA task, PREEMPT AND ABORT while there is an ACA condition. */
bool vt_aca_passes(const struct vt_lu *lu, const struct vt_task *task);
void vt_aca_clear(struct vt_lu *lu, uint32_t nexus);
void vt_aca_clear_all(struct vt_lu *lu);
/* Before the response of a SCSI command that does not end GOOD: QERR, NACA, UA_INTLCK_CTRL 11b. */
void vt_aca_ended(struct vt_task *task);
void vt_aca_nexus_lost(struct vt_target *t, uint32_t nexus);

/* tmf.c */
void vt_tmf_take(struct vt_task *task);
void vt_tmf_check(struct vt_lu *lu);
void vt_tmf_expire(struct vt_channel *channel, uint64_t now_ns);
void vt_tmf_quiesced(struct vt_task *task);
void vt_tmf_visit(struct vt_task *task);
void vt_tmf_reset_done(struct vt_task *task);

/* srp.c, blkif.c */
extern const struct vt_protocol_ops vt_srp_ops;
extern const struct vt_protocol_ops vt_blkif_ops;
/* SRP_RSP with RSPVALID and this code; the task is then given back. */
void vt_srp_respond_code(struct vt_task *task, uint8_t code);

/* sense.c */
uint8_t vt_sense_build(uint8_t *sense, const struct vt_cause *cause, bool descriptor);
void vt_result_sense(struct vt_task *task, const struct vt_cause *cause);
void vt_result_code(struct vt_task *task, uint32_t code);

/* media.c */
void vt_media_start(struct vt_task *task);
void vt_media_go(struct vt_task *task);
static inline void vt_media_done(struct vt_task *task)
{
    task->channel->ops->io_ended(task);
}
void vt_media_slow_done(struct vt_task *task);
void vt_media_immed(struct vt_lu *lu, struct vt_loop *loop);
void vt_media_immed_done(struct vt_lu *lu, struct vt_loop *loop);
void vt_media_wrote(struct vt_lu *lu);
void vt_media_settled(struct vt_task *task);

/* durable.c */
void vt_durable_begin(struct vt_lu *lu, struct vt_durable *d, bool sync, const struct vt_loop *loop);
/* True: nothing else is running. */
bool vt_durable_end(struct vt_lu *lu, struct vt_durable *d, const struct vt_loop *loop);
bool vt_durable_settle(struct vt_task *task, bool all);
void vt_durable_release(struct vt_lu *lu, struct vt_task *task);

/* lu.c */
void vt_lu_free(struct vt_lu *lu);
void vt_lu_set_denied(struct vt_lu *lu, uint32_t nexus, uint32_t classes);

/* ua.c */
uint32_t vt_ua_first(struct vt_lu *lu, uint32_t nexus);
uint32_t vt_ua_pop(struct vt_lu *lu, uint32_t nexus);
void vt_ua_put(struct vt_lu *lu, uint32_t nexus, uint32_t code);
void vt_ua_return(struct vt_lu *lu, uint32_t nexus, uint32_t code);
bool vt_ua_is_reset(uint32_t code);
void vt_ua_told(const struct vt_task *task);

/* range.c */
bool vt_range_claim(struct vt_task *task);
void vt_range_drop(struct vt_task *task, enum vt_extent extent);
void vt_range_abort(struct vt_lu *lu, struct vt_task *task);
void vt_range_left(struct vt_lu *lu, struct vt_task *task);
void vt_range_orphan(struct vt_task *task);
void vt_range_wake(struct vt_target *t);
void vt_range_forget(struct vt_lu *lu);
void vt_range_free(struct vt_lu *lu);

/* Before the first byte moves: false if the task has to wait for a range lock; it begins anew then. */
static inline bool vt_range_pass(struct vt_task *task)
{
    if (task->by_python || !(task->steps & STEP_IO)) {
        vt_range_drop(task, EXTENT_NONE);
        return true;
    }
    if (atomic_load_explicit(&task->extent, memory_order_relaxed) != EXTENT_UNKNOWN)
        return vt_range_claim(task);
    atomic_store_explicit(&task->extent, EXTENT_KNOWN, memory_order_release);
    return true;
}

/* sched.c */
bool vt_sched_enter(struct vt_task *task);
void vt_sched_leave(struct vt_task *task);
bool vt_sched_abort(struct vt_task *task);
void vt_sched_tick(struct vt_target *t, uint64_t now_ns);
void vt_sched_stop(struct vt_target *t);
void vt_sched_free(struct vt_sched *s);

/* Its position and size are known: false if the task has to wait for its turn at the device; it begins anew then. */
static inline bool vt_sched_pass(struct vt_task *task)
{
    return __builtin_expect(!atomic_load_explicit(&task->lu->sched, memory_order_relaxed), 1) || vt_sched_enter(task);
}

/* sched_disk.c */
void vt_disk_wait(struct vt_task *task);
uint64_t vt_disk_due(struct vt_loop *loop, uint64_t now_ns);
void vt_disk_cancel(struct vt_loop *loop);

/* spinning.c */
bool vt_spin_may(struct vt_loop *loop);
void vt_spin_end(struct vt_loop *loop);
uint32_t vt_spin_advice(const struct vt_loop *loop);

/* slow.c */
int vt_slow_join(struct vt_channel *channel);
void vt_slow_part(struct vt_channel *channel);
bool vt_slow_queue(struct vt_task *task);
void vt_slow_abort(struct vt_task *task);
bool vt_slow_abandon(struct vt_task *task);
void vt_slow_free(struct vt_target *t);
void vt_slow_stop(struct vt_target *t);

/* events.c */
void vt_event_post(struct vt_target *t, struct vt_event_node *node);

/* rest.c */
void vt_activity(struct vt_target *t);
void vt_event_forget(struct vt_target *t, struct vt_event_node *node);

#endif
