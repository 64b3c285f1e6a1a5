/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A channel from the inside: the ring, the slots (one for every request that may be outstanding), the credits, and who
 * waits. Knows no CDB and no store. Functions whose comment says "locked" are called with c->mutex held.
 * Everything read from the ring is the target's word: copied once, then checked; a lie fails the channel with -EPROTO.
 */
#ifndef VSCSI_INITIATOR_CHANNEL_H
#define VSCSI_INITIATOR_CHANNEL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "initiator.h"
#include "ring.h"
#include "spin.h"

/* A tag is: frame of the ring (22 bits: channels of one nexus differ), generation of the slot (32), slot (10). */
enum { VI_TAG_SLOT_BITS = 10, VI_TAG_RING_SHIFT = 42 };
enum { VI_SLOTS_MAX = 1 << VI_TAG_SLOT_BITS };
/* What every completion has, sense data apart. */
enum { VI_COMPLETION_HEAD = offsetof(struct vi_completion, sense) };

enum vi_slot_state { VI_SLOT_FREE, VI_SLOT_BUSY, VI_SLOT_DONE };
/* Who collects the completion: vi_reap, the thread in vi_execute or vi_wait, the load generator. */
enum vi_owner { VI_OWNER_REAP, VI_OWNER_WAITER, VI_OWNER_LOAD, VI_OWNERS };

/* Pages granted for one request. */
struct vi_run {
    uint32_t frame;
    uint32_t count;
    bool readonly;
};

/* What a command touches is one cache line: all up to the sense data, which few have. */
struct vi_slot {
    _Alignas(64) uint32_t out_nbytes; /* asked for: what the residuals are held against */
    uint32_t in_nbytes;
    uint32_t ring_index;       /* of its request: an answer to one that was not published yet is a lie */
    uint8_t state;
    uint8_t owner;
    uint8_t operation;         /* blkif: what the response must echo */
    bool management;           /* SRP_TSK_MGMT */
    struct vi_completion completion; /* its tag is the slot's, in every state */
    struct vi_run *runs;       /* not persistent: what to revoke */
    uint32_t run_count;
    uint32_t run_room;
};

_Static_assert(offsetof(struct vi_slot, completion.sense) == 64, "a line");

/* Numbers of slots in the order of their completion. */
struct vi_list {
    uint32_t head;             /* of the oldest: free-running */
    uint32_t count;
    uint16_t slots[VI_SLOTS_MAX];
};

/* A thread that waits, on its own stack. */
struct vi_waiter {
    pthread_cond_t cond;
    struct vi_waiter *prev;
    struct vi_waiter *next;
    bool (*ready)(const struct vi_channel *c, const struct vi_waiter *w); /* also true once the channel has failed */
    uint32_t wanted;           /* what `ready` compares with: a slot, a number of completions, ... */
};

/*
 * What differs between the two protocols. `build` writes the request to where it will stand in the ring, or fails, and
 * nothing has been sent; `take` copies a response and finds its slot.
 */
struct vi_codec {
    uint32_t slot_nbytes;
    bool credits;              /* requests are counted against a limit that the target sets */
    int (*build)(struct vi_channel *c, struct vi_slot *slot, const struct vi_request *q, uint64_t *to);
    int (*take)(struct vi_channel *c, const void *shared, struct vi_slot **slot);
};

extern const struct vi_codec vi_codec_srp;
extern const struct vi_codec vi_codec_blkif;

struct vi_channel {
    pthread_mutex_t mutex;
    pthread_cond_t left;       /* `inside` fell to 0 */
    struct vscsi_front_ring ring;
    const struct vi_codec *codec;
    struct vi_config config;
    uint64_t arena_offset;     /* memory below it is the grant table, never a buffer */
    uint64_t arena_nbytes;
    int event_fd;
    int wake_fd;               /* ours alone: gets the leader out of its sleep */
    int error;                 /* 0, or why the channel is dead */
    bool live;
    bool eager_events;         /* no event suppression */
    int32_t request_limit;
    int32_t kept_credits;      /* for task management */
    uint32_t max_iu_nbytes;

    struct vi_slot *slots;
    uint32_t free_count;
    uint32_t busy_count;
    uint16_t free[VI_SLOTS_MAX];    /* numbers of the free ones: the last used is used first */
    struct vi_list done[VI_OWNERS]; /* VI_OWNER_WAITER's is not used: its slot is named by the waiter */

    struct vi_waiter *waiters; /* all, the leader too */
    struct vi_waiter *leader;  /* the one that looks at the ring for all */
    struct vscsi_spin spin;    /* the leader's */
    bool polling;              /* the leader sleeps in the kernel, having asked for an event at rsp_event */
    uint32_t loads;            /* how many there have been: the upper half of their cookies */
    uint32_t inside;           /* threads that touch the ring without the mutex */

    bool inbox_full;           /* before the channel is live: the one IU that came */
    vscsi_word inbox[VSCSI_SRP_SLOT / 8];
    struct vi_stats stats;
};

/* ---- memory.c, all locked ---- */
/* Grants every page of the run for this request. */
int vi_grant_pages(struct vi_channel *c, struct vi_slot *slot, uint64_t offset, uint64_t nbytes, bool readonly);
/* Takes back what was granted for this request. -EBUSY if the target still uses a page: it then stays granted for ever. */
int vi_revoke_runs(struct vi_channel *c, struct vi_slot *slot);
/* Memory for a slot's external table or indirect segments, or -EMSGSIZE. */
int vi_slot_table(const struct vi_channel *c, const struct vi_slot *slot, uint64_t nbytes, uint64_t *offset);

/* ---- pump.c, all locked ---- */
/* Takes every published response, or at most so many: their number, or the channel's error. */
int vi_pump(struct vi_channel *c);
int vi_pump_some(struct vi_channel *c, uint32_t most);
/* Before sleeping: asks to be kicked for the next response. True: there is one by now, or the channel has failed. */
bool vi_ask(struct vi_channel *c);
void vi_fail_locked(struct vi_channel *c, int error);
/* Publishes; true if the caller must kick once it has let go of the mutex. */
bool vi_push(struct vi_channel *c);
/* Not locked. */
void vi_kick(struct vi_channel *c);
/* Reads the pending events; a dead peer drains and fails the channel. */
void vi_drain_event(struct vi_channel *c);
/* Wakes whoever has what it waits for. */
void vi_notify(struct vi_channel *c);
void vi_wake_leader(struct vi_channel *c);

/* ---- submit.c, locked ---- */
bool vi_may_send(const struct vi_channel *c, bool management);
int vi_enqueue(struct vi_channel *c, const struct vi_request *q, enum vi_owner owner, struct vi_slot **slot);

/* ---- srp.c, locked ---- */
void vi_build_management(struct vi_slot *slot, uint8_t function, const uint8_t lun[8], uint64_t task_tag,
                         struct srp_tsk_mgmt *iu);

/* ---- wait.c, locked ---- */
uint64_t vi_deadline(int timeout_ms);
/* How long to look for a response before sleeping, as things are now. Wants no lock. */
uint64_t vi_spin_ns(const struct vi_channel *c);
/* Waits, leading or following, until w->ready: 0 or -ETIMEDOUT. */
int vi_wait_for(struct vi_channel *c, struct vi_waiter *w, uint64_t deadline_ns);
/* Makes `w` the leader without waiting: -EBUSY if there is one. vi_resign hands over. */
int vi_take_lead(struct vi_channel *c, struct vi_waiter *w);
void vi_resign(struct vi_channel *c, struct vi_waiter *w);
/* Brackets of code that touches the ring without the mutex, which enter releases and leave takes. */
void vi_enter(struct vi_channel *c);
void vi_leave(struct vi_channel *c);

#include "slots.h"

#endif
