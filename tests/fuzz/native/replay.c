/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs a fuzz target without libFuzzer: `replay [-m MUTATIONS] [-s SEED] FILE...`. Each file is an input, or, if its
 * name ends in .pack, many of them, each behind its length (4 bytes, little-endian). Then MUTATIONS inputs made of
 * these by a simple mutator. Knows bytes; knows nothing of what they mean.
 */
#include <sanitizer/common_interface_defs.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "fuzz.h"

enum { MOST_INPUTS = 65536, MOST_NBYTES = 4096, LONGEST_S = 30 };

struct input {
    uint8_t *bytes;
    size_t nbytes;
};

static struct input inputs[MOST_INPUTS];
static size_t nr_inputs;
static uint64_t state;
static const char *running;     /* what to name when it breaks */
static uint8_t now[MOST_NBYTES];
static size_t now_nbytes;

static uint64_t next(void)
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void add(const uint8_t *bytes, size_t nbytes)
{
    if (nr_inputs == MOST_INPUTS)
        return;
    uint8_t *copy = malloc(nbytes + 1);
    PROMISE(copy, "no memory");
    memcpy(copy, bytes, nbytes);
    inputs[nr_inputs++] = (struct input){ copy, nbytes };
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
        add(all, nbytes);
        return;
    }
    for (size_t at = 0; at + 4 <= nbytes;) {
        uint32_t one = all[at] | all[at + 1] << 8 | all[at + 2] << 16 | (uint32_t)all[at + 3] << 24;
        at += 4;
        if (one > nbytes - at)
            break;
        add(all + at, one);
        at += one;
    }
}

static void run(const uint8_t *bytes, size_t nbytes)
{
    now_nbytes = nbytes < sizeof now ? nbytes : sizeof now;
    memcpy(now, bytes, now_nbytes);
    /* As libFuzzer does: an exact copy, so that a read past its end is seen. */
    uint8_t *copy = malloc(now_nbytes ? now_nbytes : 1);
    memcpy(copy, now, now_nbytes);
    alarm(LONGEST_S);
    LLVMFuzzerTestOneInput(copy, now_nbytes);
    alarm(0);
    free(copy);
}

static size_t mutate(uint8_t *bytes, size_t nbytes, size_t room)
{
    for (uint64_t n = 1 + next() % 6; n-- > 0;) {
        size_t at = nbytes ? next() % nbytes : 0, take;
        const struct input *other = &inputs[next() % nr_inputs];
        switch (next() % 6) {
        case 0:
            if (nbytes)
                bytes[at] = (uint8_t)next();
            break;
        case 1:
            if (nbytes)
                bytes[at] ^= (uint8_t)(1 << next() % 8);
            break;
        case 2: /* take something out */
            take = nbytes ? next() % (nbytes - at < 16 ? nbytes - at + 1 : 16) : 0;
            memmove(bytes + at, bytes + at + take, nbytes - at - take);
            nbytes -= take;
            break;
        case 3: /* put something in */
            take = next() % 16;
            if (nbytes + take > room)
                break;
            memmove(bytes + at + take, bytes + at, nbytes - at);
            for (size_t i = 0; i < take; i++)
                bytes[at + i] = (uint8_t)next();
            nbytes += take;
            break;
        default: /* the tail of another */
            if (!other->nbytes)
                break;
            take = other->nbytes - next() % other->nbytes;
            if (take > room - at)
                take = room - at;
            memcpy(bytes + at, other->bytes + other->nbytes - take, take);
            nbytes = at + take;
        }
    }
    return nbytes;
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

int main(int argc, char **argv)
{
    uint64_t mutations = 0;
    state = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-m") == 0 && i + 1 < argc)
            mutations = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "-s") == 0 && i + 1 < argc)
            state = strtoull(argv[++i], NULL, 10);
        else
            read_file(argv[i]);
    }
    __sanitizer_set_death_callback(keep);
    signal(SIGABRT, aborted);
    signal(SIGALRM, aborted);   /* it hangs */
    for (size_t i = 0; i < nr_inputs; i++) {
        running = "an input of the corpus broke it";
        run(inputs[i].bytes, inputs[i].nbytes);
    }
    if (!nr_inputs)
        add((const uint8_t *)"", 0);
    static uint8_t bytes[MOST_NBYTES];
    for (uint64_t n = 0; n < mutations; n++) {
        running = "a mutation broke it";
        const struct input *from = &inputs[next() % nr_inputs];
        size_t nbytes = from->nbytes < sizeof bytes ? from->nbytes : sizeof bytes;
        memcpy(bytes, from->bytes, nbytes);
        nbytes = mutate(bytes, nbytes, sizeof bytes);
        run(bytes, nbytes);
    }
    running = NULL;
    for (size_t i = 0; i < nr_inputs; i++)
        free(inputs[i].bytes);
    printf("%zu inputs, %llu mutations\n", nr_inputs, (unsigned long long)mutations);
    return 0;
}
