/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The target's C core with one loop that runs only when told to, two hostile initiators, and a well-behaved neighbour.
 * Knows what the target has promised each of them; knows nothing of the input that drives it.
 */
#ifndef FUZZ_WORLD_H
#define FUZZ_WORLD_H

#include "core.h"
#include "engine.h"
#include "fuzz.h"

enum { PEERS = 2, NEIGHBOUR_DOMAIN = PEERS, DOMAINS, CHANNELS = 5, NEIGHBOUR = 4, MAX_SLOTS = 64 };
enum { LOCKS = 4, TAKEN = 8, INDIRECT_SEGMENTS = 64 };
enum { LUN_SHARED, LUN_NEIGHBOUR, LUN_SLOW, LUN_BIG_BLOCKS, LUN_NULL, LUNS };

/* A channel as its initiator sees it, and what the target owes it. */
struct peer_channel {
    uint32_t id;
    struct domain *domain;
    struct vt_channel *channel;     /* the target's own; NULL when there is none */
    uint32_t protocol;
    uint32_t slot_nbytes;
    uint32_t nexus;
    uint8_t *ring;                  /* as the initiator sees it */
    uint8_t *mapped;
    uint32_t gref;
    uint32_t prod;                  /* requests written; may be more than published */
    uint32_t published;             /* the response index that the target last published */
    int fd;                         /* of the event channel; -1: closed */
    bool nexus_used;
    bool error;                     /* the target said that this channel broke the protocol */
    bool stopped;
    uint32_t cold;                  /* IUs for Python that are not answered */
    uint64_t cold_tag[MAX_SLOTS];
    uint32_t nr_owed;
    struct {
        uint64_t tag;
        bool wrong;                 /* it breaks the protocol's limits: no answer may say that all is well */
    } owed[MAX_SLOTS];              /* requests that were taken and not answered */
    uint32_t answered;
    uint8_t last[VSCSI_SRP_SLOT];   /* the last response as it was written */
};

struct world {
    struct vt_target *target;
    struct vt_loop *loop;
    struct domain domains[DOMAINS];
    struct peer_channel channels[CHANNELS];
    int lus[LUNS];
    uint32_t persistent;            /* bits by domain */
    bool was_persistent[DOMAINS];
    bool cold;                      /* SRP channels have to log in */
    uint32_t request_limit;
    int64_t locks[LOCKS];
    int lock_lu[LOCKS];
    uint32_t nr_taken;
    struct vt_request taken[TAKEN]; /* slow commands that are being worked on */
    uint32_t rounds;                /* of the neighbour */
    uint64_t neighbour_tag;
    int sched;                      /* of the device that the shared and the big-block unit lie on; -1: no turns */
    struct vt_sched_config sched_config;
    struct vt_disk *disk;           /* simulated, of the big-block unit; may be NULL */
};

extern struct world world;

/* Choices of the first bytes of the input. */
struct world_config {
    uint8_t persistent;     /* bits 0-1: by domain; 2: blkif has the big blocks; 3: for reading only */
    uint8_t engine;         /* WORLD_MODE, and the bits behind it */
    uint8_t lu_flags;       /* WORLD_LU_FLAGS, and the bits beside it */
    uint8_t misc;
    uint8_t request_limit;  /* bits 0-4; 5-7: depth of the scheduler */
    uint8_t batch;
};

enum {
    WORLD_MODE = 0x1f, WORLD_SCHEDULED = 0x20, WORLD_PRODUCT_ENGINE = 0x40, WORLD_CANCELS = 0x80,
    WORLD_LU_FLAGS = VT_LU_WRITE_CACHE | VT_LU_DESCRIPTOR_SENSE | VT_LU_DISCARD | VT_LU_PROTECTED,
    WORLD_DISK = 0x04, WORLD_NOWAIT = 0x08, WORLD_DIRECT = 0x10, WORLD_ROTATES = 0x80
};

void world_open(const struct world_config *config);
/* Everything is ended, answered and given back; breaks with a message if something is not. */
void world_close(void);
/* The channel, opened if it is not. */
struct peer_channel *world_channel(uint32_t index);
void world_stop(struct peer_channel *p);
/* After its last event (world_end.c). */
void world_remove(struct peer_channel *p);
/* What Python does with the events that there are. */
void world_python(void);
/* `count` rounds of the loop and of what Python does with its events. */
void world_run(uint32_t count);
void world_kick(struct peer_channel *p);
/* Publishes everything written, and kicks if the target asked for it. */
void world_push(struct peer_channel *p, bool kick);
void *world_slot(struct peer_channel *p, uint32_t index);
/* Writes and reads on its own unit, and compares. */
void world_neighbour(void);
/* Data is moved to (write) or from memory of some domain. */
void world_moves(const void *address, size_t nbytes, bool write);
/* The target's address of something that a hostile initiator can write to. */
bool world_is_hostile(const void *address);
/* Slow commands: takes one; ends the `which`-th. */
bool world_take_slow(void);
void world_end_slow(uint32_t which, const struct vt_result *result);

/* loop.c, seen from inside (loop_inside.c) */
bool loop_round(struct vt_loop *loop);
/* commands.c */
void commands_add(struct vt_target *target);

#endif
