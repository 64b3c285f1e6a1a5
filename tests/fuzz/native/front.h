/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One channel of the initiator's C core with memory of its own, and what it promises whatever the target writes: a
 * request ends once, an answer belongs to a request that was sent, nothing is written but where a target expects it, grants
 * come back. Knows both protocols' tags; knows nothing of the input.
 */
#ifndef FUZZ_FRONT_H
#define FUZZ_FRONT_H

#include <errno.h>

#include "channel.h"
#include "fuzz.h"
#include "native.h"

enum {
    FRONT_RING = 1,
    FRONT_REVERSE = 2,
    FRONT_INDIRECT = 3,
    INDIRECT_PAGES = 32,
    FRONT_DATA = FRONT_INDIRECT + INDIRECT_PAGES,
    DATA_PAGES = 32,
    FRONT_FRAMES = FRONT_DATA + DATA_PAGES,
    GREF_BASE = 8,
    MOST_SENT = 4096
};

/* Of a tag: SENT until the initiator has taken an answer to it. */
enum sent_state { SENT, ANSWERED, OVER };

struct front {
    struct vi_channel *c;
    uint8_t *memory;
    struct vscsi_granter granter;
    struct vscsi_sring *sring;
    struct vscsi_back_ring reverse;
    bool reverse_broken;
    uint8_t protocol;
    uint8_t options[3];
    uint32_t nr_ents;
    uint32_t slot_nbytes;
    uint32_t published;
    uint32_t rsp;               /* the target's: answers written */
    int peer_fd;
    uint64_t cookie;
    bool raw;                   /* what is written just now is no request */
    bool scribbled;             /* the target wrote to the grant table */
    uint32_t nr_sent;
    struct { uint64_t tag; uint8_t operation, state; bool reaped; } sent[MOST_SENT];
};

extern struct front front;

void front_open(uint8_t protocol, uint8_t limit, uint8_t options, uint8_t more);
void front_close(void);
/* The channel has failed: a new one over the same memory, as after a new login. */
void front_again(void);
/* What vi_submit, and what vi_execute and vi_task_management returned. */
void front_submitted(int rc, uint64_t tag);
void front_waited(int rc, const struct vi_completion *done);
/* Goes on waiting for the `which`-th that was given up. */
void front_wait(uint32_t which, int timeout_ms);
void front_reap(uint32_t most, uint32_t least, int timeout_ms);
void front_load_over(void);
/* A tag that the target has seen and not answered, or one that it made up. */
uint64_t front_outstanding_tag(uint32_t which);
uint8_t front_operation(uint64_t tag);
bool front_is_shared(const void *at);
/* What of these descriptors has input, without waiting. */
int front_look(struct pollfd *fds, nfds_t count);

#endif
