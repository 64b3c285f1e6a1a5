/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs a fuzz target without libFuzzer: `replay [-r RACES] [-m MUTATIONS] [-s SEED] [-o] FILE...`. Each file is an
 * input, or, if its name ends in .pack, many of them, each behind its length (4 bytes, little-endian). Then each of
 * them RACES times beside a thread that rewrites shared memory, and MUTATIONS inputs made of these, and of those
 * mutations that reach more code. -o prints the operations of what comes behind it, in hex.
 * Knows inputs; knows nothing of what they mean.
 */
#include <sanitizer/common_interface_defs.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "mutate.h"
#include "program.h"
#include "race.h"

enum { MOST_INPUTS = 65536, MOST_NBYTES = 4096, LONG = 1024, LONGEST_S = 30 };

static struct input inputs[MOST_INPUTS];
static size_t nr_inputs;
static const char *running;     /* what to name when it breaks */
static uint8_t now[2 * MOST_NBYTES];
static size_t now_nbytes;
static bool operations_shown;

/* ---- places in the code that were reached (-fsanitize-coverage=trace-pc), as far as a hash tells them apart ---- */

enum { PLACES = 1 << 18 };

static uint8_t reached[PLACES];
static uint64_t nr_reached;
static bool is_new;
extern const char __executable_start[];

void __sanitizer_cov_trace_pc(void);

__attribute__((no_sanitize_coverage)) void __sanitizer_cov_trace_pc(void)
{
    uint64_t at = (uint64_t)((const char *)__builtin_return_address(0) - __executable_start);
    uint8_t *place = &reached[at * 0x9e3779b97f4a7c15u >> (64 - 18)];
    if (__builtin_expect(!*place, 0)) {
        *place = 1;
        nr_reached++;
        is_new = true;
    }
}

/* ---- inputs ---- */

static void add(const uint8_t *bytes, size_t nbytes)
{
    if (nr_inputs < MOST_INPUTS)
        inputs[nr_inputs++] = input_keep(bytes, nbytes);
}

static void run(const uint8_t *bytes, size_t nbytes)
{
    now_nbytes = nbytes < sizeof now ? nbytes : sizeof now;
    memcpy(now, bytes, now_nbytes);
    /* As libFuzzer does: an exact copy, so that a read past its end is seen. */
    uint8_t *copy = malloc(now_nbytes ? now_nbytes : 1);
    memcpy(copy, now, now_nbytes);
    alarm(LONGEST_S);
    is_new = false;
    LLVMFuzzerTestOneInput(copy, now_nbytes);
    alarm(0);
    free(copy);
}

static void one_of_corpus(const uint8_t *bytes, size_t nbytes)
{
    nbytes = nbytes < MOST_NBYTES ? nbytes : MOST_NBYTES;
    running = "an input of the corpus broke it";
    run(bytes, nbytes);
    add(bytes, nbytes);
    for (uint32_t i = 0; operations_shown && i < program_length; i++) {
        for (uint32_t at = program_begins[i]; at < program_begins[i + 1]; at++)
            printf("%02x", bytes[at]);
        printf("\n");
    }
}

static void read_file(const char *name)
{
    FILE *file = fopen(name, "rb");
    if (!file) {
        perror(name);
        exit(2);
    }
    static uint8_t all[1 << 22];
    size_t nbytes = fread(all, 1, sizeof all, file), length = strlen(name);
    fclose(file);
    if (length < 5 || strcmp(name + length - 5, ".pack") != 0) {
        one_of_corpus(all, nbytes);
        return;
    }
    for (size_t at = 0; at + 4 <= nbytes;) {
        uint32_t one = all[at] | all[at + 1] << 8 | all[at + 2] << 16 | (uint32_t)all[at + 3] << 24;
        at += 4;
        if (one > nbytes - at)
            break;
        one_of_corpus(all + at, one);
        at += one;
    }
}

/* Asan and abort both come here last: what broke it is kept. */
static void keep(void)
{
    if (!running)
        return;
    FILE *file = fopen("broken.bin", "wb");
    if (file) {
        fwrite(now, 1, now_nbytes, file);
        fclose(file);
    }
    fprintf(stderr, "%s; the input is in broken.bin\n", running);
}

static void aborted(int number)
{
    (void)number;
    keep();
    _exit(1);
}

/* What reaches new places is changed further. */
static void one_mutation(void)
{
    static uint8_t bytes[MOST_NBYTES];
    const struct input *from = &inputs[fuzz_random() % nr_inputs], *other = &inputs[fuzz_random() % nr_inputs];
    running = "a mutation broke it";
    memcpy(bytes, from->bytes, from->nbytes);
    size_t nbytes = mutate(bytes, from->nbytes < LONG ? LONG : MOST_NBYTES, from, other);
    run(bytes, nbytes);
    if (is_new)
        add(bytes, nbytes);
}

/* The same beside a second thread that rewrites shared memory, in another way each time. */
static void one_race(const struct input *input)
{
    enum { EVERY = 4 };
    static uint8_t bytes[2 * MOST_NBYTES];
    size_t nbytes = input->length ? input->begins[0] : input->nbytes;
    running = "a race broke it: replay -r 1000 broken.bin, it may take some";
    memcpy(bytes, input->bytes, nbytes);
    for (uint32_t i = 0; i < input->length; i++) {
        uint64_t random = fuzz_random();
        const uint8_t race[] = { program_number(op_race), (uint8_t)random, EVERY, (uint8_t)(random >> 8),
                                 (uint8_t)(random >> 16) };
        size_t take = input->begins[i + 1] - input->begins[i];
        if (i % EVERY == 0) {
            memcpy(bytes + nbytes, race, sizeof race);
            nbytes += sizeof race;
        }
        memcpy(bytes + nbytes, input->bytes + input->begins[i], take);
        nbytes += take;
    }
    run(bytes, nbytes);
}

int main(int argc, char **argv)
{
    uint64_t mutations = 0, races = 0;
    __sanitizer_set_death_callback(keep);
    signal(SIGABRT, aborted);
    signal(SIGALRM, aborted);   /* it hangs */
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-m") == 0 && i + 1 < argc)
            mutations = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "-s") == 0 && i + 1 < argc)
            fuzz_random_state = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "-r") == 0 && i + 1 < argc)
            races = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "-o") == 0)
            operations_shown = true;
        else
            read_file(argv[i]);
    }
    size_t given = nr_inputs;
    if (!given)
        one_of_corpus((const uint8_t *)"", 0);
    for (uint64_t n = 0; n < races; n++)
        for (size_t i = 0; i < given; i++)
            one_race(&inputs[i]);
    for (uint64_t n = 0; n < mutations; n++)
        one_mutation();
    running = NULL;
    for (size_t i = 0; i < nr_inputs; i++)
        input_free(&inputs[i]);
    printf("%zu inputs, %llu mutations, %llu places, %llu raced writes\n", given, (unsigned long long)mutations,
           (unsigned long long)nr_reached, (unsigned long long)fuzz_raced_writes);
    return 0;
}
