/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Block I/O of the fuzz targets: images in memory, served by an engine of the harness's, with an order and an outcome
 * that the input chooses, or by the product's own. Knows images by number; knows no unit.
 */
#ifndef FUZZ_ENGINE_H
#define FUZZ_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { IMAGES = 4, IMAGE_NBYTES = 65536, ENGINE_PATIENCE_MS = 5000 };
enum engine_mode { ENGINE_INLINE, ENGINE_FLUSH, ENGINE_HELD, ENGINE_MODES };
/* Who serves: the harness, or blockio*.c with its pool or with what it prefers. */
enum engine_kind { ENGINE_OURS, ENGINE_POOL, ENGINE_PREFERRED, ENGINE_KINDS };

struct engine_state {
    enum engine_mode mode;      /* of ours, as the next two */
    bool cancels;               /* what is held can be cancelled */
    int held_image;             /* mode applies to this and the later images; those before are served at once */
    enum engine_kind kind;      /* before bio_engine_new */
    int fds[IMAGES];
    uint8_t *images[IMAGES];
};

extern struct engine_state engine_state;

/* Images of zeros, and ours to serve them at once. */
void engine_reset(void);
/* Ends the `which`-th I/O that is held: 0 or an error, after `done` bytes at most. False: none is held. */
bool engine_end(uint32_t which, int error, uint64_t done);
/* The descriptor has input, as the kernel would say. */
void engine_mark(int fd);
/* I/Os under way. */
uint32_t engine_held(void);
/* While the product's own engine has I/O under way: until some of it has ended. */
void engine_wait(void);

/* blockio.c, seen from inside (blockio_inside.c) */
struct bio;
struct bio_engine;
struct bio_config;

struct engine_functions {
    struct bio_engine *(*create)(const struct bio_config *config, int *error);
    void (*expect)(struct bio_engine *e, uint32_t count);
    bool (*submit)(struct bio_engine *e, struct bio *bio);
    void (*flush)(struct bio_engine *e);
    struct bio *(*reap)(struct bio_engine *e);
    uint32_t (*in_flight)(const struct bio_engine *e);
    void (*cancel)(struct bio_engine *e, struct bio *bio);
    int (*watch)(struct bio_engine *e, int fd, void *cookie);
    void (*unwatch)(struct bio_engine *e, int fd);
    void (*again)(struct bio_engine *e, int fd);
    void (*wait)(struct bio_engine *e, uint64_t timeout_ns);
    void *(*ready)(struct bio_engine *e);
};

extern const struct engine_functions engine_of_product;

#endif
