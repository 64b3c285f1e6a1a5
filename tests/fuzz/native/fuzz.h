/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the fuzz targets share: the input as a stream of small numbers, memory of a peer as both sides see it, and how a
 * broken promise is told. Knows memory and grants; knows neither protocol.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "abi.h"
#include "grant.h"

/* ---- the input: a program. What is missing at its end reads as 0. ---- */

struct fuzz_in {
    const uint8_t *at;
    size_t left;
};

static inline uint8_t in8(struct fuzz_in *in)
{
    if (!in->left)
        return 0;
    in->left--;
    return *in->at++;
}

static inline uint16_t in16(struct fuzz_in *in)
{
    uint16_t low = in8(in);
    return (uint16_t)(in8(in) << 8 | low);
}

static inline uint32_t in32(struct fuzz_in *in)
{
    uint32_t low = in16(in);
    return (uint32_t)in16(in) << 16 | low;
}

/* The next `nbytes`, or what there is of them, as an input of its own. */
static inline struct fuzz_in in_part(struct fuzz_in *in, size_t nbytes)
{
    struct fuzz_in part = { in->at, nbytes < in->left ? nbytes : in->left };
    in->at += part.left;
    in->left -= part.left;
    return part;
}

/* ---- promises ---- */

#define PROMISE(condition, ...)                                                      \
    do {                                                                             \
        if (__builtin_expect(!(condition), 0)) {                                     \
            fprintf(stderr, "%s:%d: broken promise: ", __FILE__, __LINE__);          \
            fprintf(stderr, __VA_ARGS__);                                            \
            fprintf(stderr, "\n");                                                   \
            abort();                                                                 \
        }                                                                            \
    } while (0)

/* ---- the memory that an initiator brings ---- */

enum {
    FRAMES = 48,
    TABLE_FRAME = 0,        /* the grant table: references 8 to 511 */
    RING_FRAME = 1,         /* one page for each ring, and one for a reverse ring */
    RINGS = 4,
    SECRET_A = 5,           /* never granted: whoever reads or writes it went astray */
    DATA_FRAME = 6,
    DATA_FRAMES = 24,
    SECRET_B = 30,
    MORE_FRAME = 31,        /* not granted at first */
    MORE_FRAMES = 15,
    SECRET_C = 46,
    LAST_FRAME = 47,
    GREF = 8,               /* reference of frame n when it is granted as at first: GREF + n */
    GREFS = VSCSI_PAGE_SIZE / 8,
    SECRET_BYTE = 0xa5
};

struct domain {
    int fd;
    uint8_t *base;          /* as the initiator sees it */
    struct vscsi_granter granter;
    struct vscsi_mapper *mapper;
    /* Uses of frames, and of references with the frame that they led to. */
    uint32_t readers[FRAMES];
    uint32_t writers[FRAMES];
    uint32_t uses[GREFS];
    uint8_t frame_of[GREFS];
    bool open;
    bool table_granted;     /* its own grant table is a buffer: no page of it is secret any more */
    bool ambiguous;         /* a reference leads to two frames at once: whose use ends is not known */
};

/* Zeroed memory with its first grants, and the target's view of it. */
void domain_open(struct domain *d, uint16_t domid);
/* Checks that no page is in use but those granted for good, and that nobody wrote to the secret ones. */
void domain_close(struct domain *d, bool persistent);
/* The frame of an address as the target sees it, or -1. */
int domain_frame(const struct domain *d, const void *address);
static inline uint8_t *domain_page(struct domain *d, uint32_t frame)
{
    return d->base + (size_t)frame * VSCSI_PAGE_SIZE;
}
/* From the hooks: what is in use. */
void domain_mapped(struct domain *d, uint32_t gref, int write, int persistent, const uint8_t *page);
void domain_unmapped(struct domain *d, uint32_t gref, int write, int persistent);
/* Somebody moves data from or to this memory (write: into it): it must be in use for that. */
void domain_moves(const struct domain *d, const void *address, size_t nbytes, bool write);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

#endif
