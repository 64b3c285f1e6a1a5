/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands in for target/native/blockio*.c: the same functions (blockio.h), no kernel. Checks of every I/O that it lies
 * within its image, and that the memory it moves data to or from is granted at that moment.
 */
#include "engine.h"

#include <errno.h>
#include <string.h>

#include "blockio.h"
#include "fuzz.h"
#include "world.h"

enum { WATCHES = 16, HELD = 1024 };

struct engine_state engine_state;

struct bio_engine {
    struct bio *held[HELD];
    uint32_t nr_held;
    struct bio *done;
    uint32_t in_flight;
    struct { int fd; void *cookie; bool marked; bool used; } watches[WATCHES];
};

static struct bio_engine *the_engine;

struct bio_engine *bio_engine_new(const struct bio_config *config, int *error)
{
    (void)config;
    *error = 0;
    return the_engine = calloc(1, sizeof *the_engine);
}

void bio_engine_free(struct bio_engine *e)
{
    PROMISE(e->in_flight == 0, "the engine ends with %u I/Os in flight", e->in_flight);
    for (int i = 0; i < WATCHES; i++)
        PROMISE(!e->watches[i].used, "descriptor %d is still watched", e->watches[i].fd);
    free(e);
    the_engine = NULL;
}

int bio_engine_kind(const struct bio_engine *e)
{
    (void)e;
    return 1;
}

bool bio_may_block(int fd)
{
    (void)fd;
    return false;
}

uint8_t bio_probe_nowait(int fd, bool writable)
{
    (void)fd;
    (void)writable;
    return 0;
}

static uint64_t move(struct bio *bio, uint8_t *image, uint64_t nbytes)
{
    uint64_t done = 0;
    for (uint32_t i = 0; i < bio->iovcnt && done < nbytes; i++) {
        uint64_t take = bio->iov[i].iov_len < nbytes - done ? bio->iov[i].iov_len : nbytes - done;
        bool read = bio->kind == BIO_READ;
        world_moves(bio->iov[i].iov_base, bio->iov[i].iov_len, read);
        if (read)
            memcpy(bio->iov[i].iov_base, image + done, take);
        else
            memcpy(image + done, bio->iov[i].iov_base, take);
        done += take;
    }
    return done;
}

/* Carries it out as far as `most` bytes. */
static void run(struct bio *bio, int error, uint64_t most)
{
    bio->error = error;
    bio->done = 0;
    int index = bio->fd - IMAGE_FD;
    bool null = bio->flags & BIO_NULL;
    PROMISE(null || (index >= 0 && index < IMAGES), "no such image: %d", index);
    if (bio->kind == BIO_SYNC)
        return;
    PROMISE(bio->nbytes <= IMAGE_NBYTES && bio->offset <= IMAGE_NBYTES - bio->nbytes,
            "I/O beyond the end of the image");
    uint8_t *image = engine_state.images[null ? IMAGES - 1 : index] + bio->offset;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < bio->iovcnt; i++)
        sum += bio->iov[i].iov_len;
    PROMISE(bio->kind == BIO_DISCARD || sum == bio->nbytes, "an I/O's iovecs do not add up");
    if (bio->kind == BIO_DISCARD) {
        if (!error)
            memset(image, 0, bio->nbytes);
        return;
    }
    bio->done = move(bio, image, most < bio->nbytes ? most : bio->nbytes);
    if (bio->done < bio->nbytes && !error)
        bio->error = -EIO;
}

static void end(struct bio_engine *e, struct bio *bio)
{
    struct bio **link = &e->done;
    while (*link)
        link = &(*link)->next;
    bio->next = NULL;
    *link = bio;
}

bool bio_submit(struct bio_engine *e, struct bio *bio)
{
    bool early = bio->fd - IMAGE_FD < engine_state.held_image && !(bio->flags & BIO_NULL);
    if (early || engine_state.mode == ENGINE_INLINE) {
        run(bio, 0, UINT64_MAX);
        return true;
    }
    PROMISE(e->nr_held < HELD, "more I/Os than tasks");
    e->in_flight++;
    e->held[e->nr_held++] = bio;
    return false;
}

bool engine_end(uint32_t which, int error, uint64_t done)
{
    struct bio_engine *e = the_engine;
    if (!e->nr_held)
        return false;
    which %= e->nr_held;
    struct bio *bio = e->held[which];
    memmove(&e->held[which], &e->held[which + 1], (--e->nr_held - which) * sizeof *e->held);
    run(bio, error, done);
    end(e, bio);
    return true;
}

uint32_t engine_held(void)
{
    return the_engine->nr_held;
}

void bio_expect(struct bio_engine *e, uint32_t count)
{
    (void)e;
    (void)count;
}

void bio_flush(struct bio_engine *e)
{
    while (engine_state.mode != ENGINE_HELD && e->nr_held)
        engine_end(0, 0, UINT64_MAX);
}

struct bio *bio_reap(struct bio_engine *e)
{
    struct bio *bio = e->done;
    if (bio) {
        e->done = bio->next;
        e->in_flight--;
    }
    return bio;
}

uint32_t bio_in_flight(const struct bio_engine *e)
{
    return e->in_flight;
}

void bio_cancel(struct bio_engine *e, struct bio *bio)
{
    for (uint32_t i = 0; i < e->nr_held && engine_state.cancels; i++)
        if (e->held[i] == bio) {
            engine_end(i, -ECANCELED, 0);
            return;
        }
}

/* ---- descriptors ---- */

static int find(const struct bio_engine *e, int fd)
{
    for (int i = 0; i < WATCHES; i++)
        if (e->watches[i].used && e->watches[i].fd == fd)
            return i;
    return -1;
}

int bio_watch(struct bio_engine *e, int fd, void *cookie)
{
    if (find(e, fd) >= 0)
        return -EEXIST;
    int i = 0;
    while (i < WATCHES && e->watches[i].used)
        i++;
    PROMISE(i < WATCHES, "more descriptors are watched than there are channels");
    e->watches[i].used = e->watches[i].marked = true;   /* something may have come before */
    e->watches[i].fd = fd;
    e->watches[i].cookie = cookie;
    return 0;
}

void bio_unwatch(struct bio_engine *e, int fd)
{
    int i = find(e, fd);
    if (i >= 0)
        e->watches[i].used = false;
}

void engine_mark(int fd)
{
    int i = find(the_engine, fd);
    if (i >= 0)
        the_engine->watches[i].marked = true;
}

void bio_again(struct bio_engine *e, int fd)
{
    (void)e;
    engine_mark(fd);
}

void bio_wait(struct bio_engine *e, uint64_t timeout_ns)
{
    (void)timeout_ns;
    bio_flush(e);
}

void *bio_ready(struct bio_engine *e)
{
    for (int i = 0; i < WATCHES; i++)
        if (e->watches[i].used && e->watches[i].marked) {
            e->watches[i].marked = false;
            return e->watches[i].cookie;
        }
    return NULL;
}
