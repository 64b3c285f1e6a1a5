/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A peer with a CPU of its own: a thread that rewrites shared memory while the product reads it. What it writes follows
 * from a seed; when, from nothing. Knows words of memory and what may stand in them; knows no protocol.
 */
#ifndef FUZZ_RACE_H
#define FUZZ_RACE_H

#include "fuzz.h"

enum race_kind {
    RACE_BYTES,         /* slots, tables, data: any value */
    RACE_INDEX,         /* a ring index: off by a little, and soon as it was */
    RACE_GRANTS         /* entries: permissions and frames of the pages that hold data */
};

struct race_area {
    void *at;
    uint32_t nbytes;
    enum race_kind kind;
};

enum { RACE_AREAS = 16 };

/* The thread runs. Hooks must not hold what they find in shared memory against the product. */
extern bool racing;
/* Rewrites so far, by all inputs. */
extern uint64_t fuzz_raced_writes;

/* The harness's: areas that the choices of `what` name; how many. */
uint32_t race_areas(uint8_t what, struct race_area areas[RACE_AREAS]);
/* False: one runs already, or has often enough in this input. */
bool race_begin(uint8_t what, uint32_t seed);
void race_end(void);
/* The product has just looked: lets the thread write before it looks again, even where there is one CPU. */
void race_pause(void);
/* From an input's start on. */
void race_reset(void);

#endif
