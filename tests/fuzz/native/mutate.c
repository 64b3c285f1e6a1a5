/* SPDX-License-Identifier: BSD-2-Clause */
/* See mutate.h. */
#include "mutate.h"

#include <string.h>

#include "program.h"

uint64_t fuzz_random_state = 1;

uint64_t fuzz_random(void)
{
    uint64_t z = (fuzz_random_state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t below(uint64_t n)
{
    return n ? fuzz_random() % n : 0;
}

struct input input_keep(const uint8_t *bytes, size_t nbytes)
{
    const size_t begins_nbytes = (program_length + 1) * sizeof *program_begins;
    struct input input = { malloc(nbytes + 1), nbytes, malloc(begins_nbytes), program_length };
    PROMISE(input.bytes && input.begins, "no memory");
    memcpy(input.bytes, bytes, nbytes);
    memcpy(input.begins, program_begins, begins_nbytes);
    return input;
}

void input_free(struct input *input)
{
    free(input->bytes);
    free(input->begins);
}

/* ---- bytes ---- */

static size_t change_byte(uint8_t *bytes, size_t nbytes, size_t room)
{
    static const uint8_t likely[] = { 0, 1, 2, 4, 7, 8, 0x10, 0x20, 0x40, 0x41, 0x7f, 0x80, 0xc0, 0xff };
    size_t at = below(nbytes);
    (void)room;
    if (!nbytes)
        return 0;
    switch (below(4)) {
    case 0:
        bytes[at] = (uint8_t)fuzz_random();
        break;
    case 1:
        bytes[at] = likely[below(sizeof likely)];
        break;
    case 2:
        bytes[at] = (uint8_t)(bytes[at] + below(9) - 4);
        break;
    default:
        bytes[at] ^= (uint8_t)(1 << below(8));
    }
    return nbytes;
}

static size_t cut(uint8_t *bytes, size_t nbytes, size_t at, size_t take)
{
    memmove(bytes + at, bytes + at + take, nbytes - at - take);
    return nbytes - take;
}

static size_t cut_bytes(uint8_t *bytes, size_t nbytes, size_t room)
{
    size_t at = below(nbytes);
    (void)room;
    return nbytes ? cut(bytes, nbytes, at, below((nbytes - at < 16 ? nbytes - at : 15) + 1)) : 0;
}

static size_t insert(uint8_t *bytes, size_t nbytes, size_t room, size_t at, const uint8_t *from, size_t take)
{
    if (nbytes + take > room)
        return nbytes;
    memmove(bytes + at + take, bytes + at, nbytes - at);
    memcpy(bytes + at, from, take);
    return nbytes + take;
}

static size_t insert_bytes(uint8_t *bytes, size_t nbytes, size_t room)
{
    uint8_t some[16];
    size_t take = below(sizeof some);
    for (size_t i = 0; i < take; i++)
        some[i] = (uint8_t)fuzz_random();
    return insert(bytes, nbytes, room, below(nbytes), some, take);
}

/* ---- operations ---- */

struct part {
    uint32_t begin;
    uint32_t end;
};

/* A few operations in a row. */
static struct part operations(const struct input *input)
{
    uint32_t first = (uint32_t)below(input->length), left = input->length - first;
    uint32_t count = 1 + (uint32_t)below(left < 6 ? left : 6);
    return (struct part){ input->begins[first], input->begins[first + (count < left ? count : left)] };
}

static size_t mutate_operations(uint8_t *bytes, size_t room, const struct input *from, const struct input *other)
{
    size_t nbytes = from->nbytes, at = from->begins[below(from->length + 1)];
    struct part mine = operations(from), theirs = operations(other);
    switch (below(4)) {
    case 0:
        return cut(bytes, nbytes, mine.begin, mine.end - mine.begin);
    case 1: /* once more */
        return insert(bytes, nbytes, room, at, from->bytes + mine.begin, mine.end - mine.begin);
    case 2: /* theirs instead */
        nbytes = cut(bytes, nbytes, mine.begin, mine.end - mine.begin);
        return insert(bytes, nbytes, room, mine.begin, other->bytes + theirs.begin, theirs.end - theirs.begin);
    default:
        return insert(bytes, nbytes, room, at, other->bytes + theirs.begin, theirs.end - theirs.begin);
    }
}

/* The tail of another. */
static size_t splice(uint8_t *bytes, size_t nbytes, size_t room, const struct input *other)
{
    size_t at = below(nbytes), take = other->nbytes ? other->nbytes - below(other->nbytes) : 0;
    if (take > room - at)
        take = room - at;
    memcpy(bytes + at, other->bytes + other->nbytes - take, take);
    return at + take;
}

size_t mutate(uint8_t *bytes, size_t room, const struct input *from, const struct input *other)
{
    static size_t (*const ways[])(uint8_t *bytes, size_t nbytes, size_t room) = { change_byte, change_byte, change_byte,
                                                                                  cut_bytes, insert_bytes };
    size_t nbytes = from->nbytes;
    if (from->length && other->length && below(2))
        nbytes = mutate_operations(bytes, room, from, other);
    else if (below(6) == 0)
        nbytes = splice(bytes, nbytes, room, other);
    for (uint64_t n = below(6); n > 0; n--)
        nbytes = ways[below(sizeof ways / sizeof *ways)](bytes, nbytes, room);
    return nbytes;
}
