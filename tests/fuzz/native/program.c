/* SPDX-License-Identifier: BSD-2-Clause */
/* See program.h. */
#include "program.h"

#include "hooks.h"
#include "race.h"

uint32_t fuzz_countdown;
uint64_t fuzz_now_ns;
bool in_hook;
uint32_t program_begins[MOST_OPERATIONS + 1];
uint32_t program_length;

static const struct operation *table;
static uint8_t table_length;
static bool (*is_shared)(const void *at);
static struct fuzz_in *program;
static struct fuzz_in put_off;
static uint8_t spoil;               /* what comes over bytes that are read; 0: they stay */
static uint32_t spoil_period;
static uint32_t race_left;          /* operations that run beside the second thread */

static void one(struct fuzz_in *in)
{
    const struct operation *o = &table[in8(in) % table_length];
    if (!in_hook || o->hostile)
        o->run(in);
}

static void one_of_peer(struct fuzz_in *in)
{
    bool before = in_hook;
    in_hook = true;
    one(in);
    in_hook = before;
}

void op_when_read(struct fuzz_in *in)
{
    uint32_t countdown = in8(in) + 1u;
    put_off = in_part(in, in8(in) & 0x1f);
    spoil = 0;
    fuzz_countdown = countdown;
}

void op_spoil(struct fuzz_in *in)
{
    spoil = in8(in);
    put_off.left = 0;
    fuzz_countdown = spoil_period = spoil ? 1 + (in8(in) & 0xf) : 0;
}

void fuzz_fire(const void *at)
{
    if (spoil) {
        if (is_shared(at))
            *(uint8_t *)(uintptr_t)at ^= spoil;
        fuzz_countdown = spoil_period;
        return;
    }
    struct fuzz_in in = put_off;
    while (in.left)
        one_of_peer(&in);
}

void op_race(struct fuzz_in *in)
{
    uint8_t what = in8(in), count = in8(in);
    uint32_t seed = in16(in);
    if (!in_hook && race_begin(what, seed))
        race_left = 2 + (count & 7);
}

bool program_step_of_peer(void)
{
    if (!program || !program->left || !table[*program->at % table_length].hostile)
        return false;
    one_of_peer(program);
    return true;
}

uint8_t program_number(void (*run)(struct fuzz_in *in))
{
    uint8_t number = 0;
    while (number < table_length && table[number].run != run)
        number++;
    return number;
}

void program_calm(void)
{
    race_end();
    race_left = 0;
    fuzz_countdown = spoil = 0;
    put_off.left = 0;
}

void program_run(const uint8_t *first, struct fuzz_in *in, const struct operation *operations, uint8_t count,
                 bool (*shared)(const void *at))
{
    table = operations;
    table_length = count;
    is_shared = shared;
    program = in;
    program_calm();
    race_reset();
    for (program_length = 0; in->left && program_length < MOST_OPERATIONS; program_length++) {
        program_begins[program_length] = (uint32_t)(in->at - first);
        one(in);
        if (race_left && --race_left == 0)
            race_end();
    }
    program_begins[program_length] = (uint32_t)(in->at - first);
    program = NULL;
    program_calm();
}
