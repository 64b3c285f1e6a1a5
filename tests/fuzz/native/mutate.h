/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Changes inputs: bytes, and whole operations of programs. Knows where a program's operations begin; knows nothing of
 * what they do.
 */
#ifndef FUZZ_MUTATE_H
#define FUZZ_MUTATE_H

#include "fuzz.h"

struct input {
    uint8_t *bytes;
    size_t nbytes;
    uint32_t *begins;       /* of its operations, and its end */
    uint32_t length;        /* operations */
};

/* With what program_run has seen of it last. */
struct input input_keep(const uint8_t *bytes, size_t nbytes);
void input_free(struct input *input);
uint64_t fuzz_random(void);
extern uint64_t fuzz_random_state;
/* `bytes` holds `from`: what it becomes, `room` bytes at most, with parts of `other`. */
size_t mutate(uint8_t *bytes, size_t room, const struct input *from, const struct input *other);

#endif
