/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The input as a program: operations, each one byte (its number in the harness's table, modulo their count) and its
 * operands. Those of the peer may also run while the product looks at shared memory. Knows operations by number; knows
 * no protocol and no promise.
 */
#ifndef FUZZ_PROGRAM_H
#define FUZZ_PROGRAM_H

#include "fuzz.h"

struct operation {
    void (*run)(struct fuzz_in *in);
    bool hostile;       /* the peer's memory and kicks only: may happen while the product looks */
};

/* The product is looking at shared memory just now: it cannot run. */
extern bool in_hook;

/* What is left of the input that begins at `first`. `shared`: whether the peer can write there. */
void program_run(const uint8_t *first, struct fuzz_in *in, const struct operation *operations, uint8_t count,
                 bool (*shared)(const void *at));
/* While the product sleeps: the program's next operation, if it is the peer's. False: it is not. */
bool program_step_of_peer(void);
/* From now on nothing changes while it is looked at. */
void program_calm(void);

/* Of the program that ran last: where in the input its operations began, and the last one ended. For mutators. */
enum { MOST_OPERATIONS = 400 };
extern uint32_t program_begins[MOST_OPERATIONS + 1];
extern uint32_t program_length;
/* The number of an operation in the table of the harness that ran last. */
uint8_t program_number(void (*run)(struct fuzz_in *in));

/* Operations of either harness: others are put off until the n-th look at shared memory from now. */
void op_when_read(struct fuzz_in *in);
/* From now on every n-th byte that is about to be read changes, again and again. */
void op_spoil(struct fuzz_in *in);
/* A second thread rewrites shared memory (race_areas) while the next operations run. Four bytes of operands. */
void op_race(struct fuzz_in *in);

#endif
