/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands before target/native/blockio*.c, with the same functions (blockio.h): either serves I/O itself, without a
 * kernel, or hands it to the product. Checks of every I/O that it lies within its image, and that the memory it moves
 * data to or from is granted from its begin to its end.
 */
#include "engine.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "blockio.h"
#include "fuzz.h"
#include "target.h"
#include "world.h"

enum { WATCHES = 16, HELD = 1024 };

struct engine_state engine_state;

struct bio_engine {
    struct bio_engine *product;     /* NULL: ours */
    struct bio *held[HELD];
    uint32_t nr_held;
    struct bio *done;
    uint32_t in_flight;
    struct { int fd; void *cookie; bool marked; bool used; } watches[WATCHES];
};

static struct bio_engine *the_engine;
static const struct engine_functions *const product = &engine_of_product;

/* ---- making ---- */

void engine_reset(void)
{
    engine_state.mode = ENGINE_INLINE;
    engine_state.kind = ENGINE_OURS;
    engine_state.cancels = false;
    for (int i = 0; i < IMAGES; i++) {
        if (engine_state.images[i]) {
            memset(engine_state.images[i], 0, IMAGE_NBYTES);
            continue;
        }
        engine_state.fds[i] = memfd_create("image", MFD_CLOEXEC);
        PROMISE(engine_state.fds[i] >= 0 && ftruncate(engine_state.fds[i], IMAGE_NBYTES) == 0, "no image");
        engine_state.images[i] = mmap(NULL, IMAGE_NBYTES, PROT_READ | PROT_WRITE, MAP_SHARED, engine_state.fds[i], 0);
        PROMISE(engine_state.images[i] != MAP_FAILED, "no image");
    }
}

/* Threads and rings of the kernel cost too much to make them for each input. */
static struct bio_engine *product_engine(enum engine_kind kind)
{
    static struct bio_engine *kept[ENGINE_KINDS];
    const struct bio_config config = { kind == ENGINE_POOL ? VT_ENGINE_POOL : VT_ENGINE_AUTO, 64, 2 };
    int error = 0;
    if (kind != ENGINE_OURS && !kept[kind]) {
        kept[kind] = product->create(&config, &error);
        PROMISE(kept[kind], "no engine: %d", error);
    }
    return kept[kind];
}

struct bio_engine *bio_engine_new(const struct bio_config *config, int *error)
{
    (void)config;
    *error = 0;
    the_engine = calloc(1, sizeof *the_engine);
    the_engine->product = product_engine(engine_state.kind);
    return the_engine;
}

void bio_engine_free(struct bio_engine *e)
{
    PROMISE(bio_in_flight(e) == 0, "the engine ends with %u I/Os in flight", bio_in_flight(e));
    for (int i = 0; i < WATCHES; i++)
        PROMISE(!e->watches[i].used, "descriptor %d is still watched", e->watches[i].fd);
    free(e);
    the_engine = NULL;
}

int bio_engine_kind(const struct bio_engine *e)
{
    (void)e;
    return VT_ENGINE_URING;
}

/* ---- I/O ---- */

static int image_of(const struct bio *bio)
{
    int i = 0;
    while (i < IMAGES && engine_state.fds[i] != bio->fd)
        i++;
    PROMISE(bio->flags & BIO_NULL || i < IMAGES, "no such image: %d", bio->fd);
    return bio->flags & BIO_NULL ? IMAGES - 1 : i;
}

static void check(const struct bio *bio)
{
    if (bio->kind == BIO_SYNC)
        return;
    PROMISE(bio->nbytes <= IMAGE_NBYTES && bio->offset <= IMAGE_NBYTES - bio->nbytes,
            "I/O beyond the end of the image");
    uint64_t sum = 0;
    for (uint32_t i = 0; i < bio->iovcnt && bio->kind != BIO_DISCARD; i++) {
        sum += bio->iov[i].iov_len;
        world_moves(bio->iov[i].iov_base, bio->iov[i].iov_len, bio->kind == BIO_READ);
    }
    PROMISE(bio->kind == BIO_DISCARD || sum == bio->nbytes, "an I/O's iovecs do not add up");
}

static uint64_t move(struct bio *bio, uint8_t *image, uint64_t nbytes)
{
    uint64_t done = 0;
    for (uint32_t i = 0; i < bio->iovcnt && done < nbytes; i++) {
        uint64_t take = bio->iov[i].iov_len < nbytes - done ? bio->iov[i].iov_len : nbytes - done;
        if (bio->kind == BIO_READ)
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
    check(bio);
    uint8_t *image = engine_state.images[image_of(bio)] + bio->offset;
    if (bio->kind == BIO_SYNC)
        return;
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
    if (e->product) {
        check(bio);
        image_of(bio);
        return product->submit(e->product, bio);
    }
    bool early = !(bio->flags & BIO_NULL) && image_of(bio) < engine_state.held_image;
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
    return bio_in_flight(the_engine);
}

void bio_expect(struct bio_engine *e, uint32_t count)
{
    if (e->product)
        product->expect(e->product, count);
}

void bio_flush(struct bio_engine *e)
{
    if (e->product)
        product->flush(e->product);
    while (engine_state.mode != ENGINE_HELD && e->nr_held)
        engine_end(0, 0, UINT64_MAX);
}

/* What the product has done. The memory is granted still. */
static bool collect(struct bio_engine *e)
{
    struct bio *bio = product->reap(e->product);
    if (!bio)
        return false;
    check(bio);
    end(e, bio);
    e->in_flight++;
    return true;
}

struct bio *bio_reap(struct bio_engine *e)
{
    if (!e->done && e->product)
        collect(e);
    struct bio *bio = e->done;
    if (bio) {
        e->done = bio->next;
        e->in_flight--;
    }
    return bio;
}

uint32_t bio_in_flight(const struct bio_engine *e)
{
    return e->in_flight + (e->product ? product->in_flight(e->product) : 0);
}

void bio_cancel(struct bio_engine *e, struct bio *bio)
{
    if (e->product)
        product->cancel(e->product, bio);
    for (uint32_t i = 0; i < e->nr_held && engine_state.cancels; i++)
        if (e->held[i] == bio) {
            engine_end(i, -ECANCELED, 0);
            return;
        }
}

void engine_wait(void)
{
    struct bio_engine *e = the_engine;
    if (!e->product || e->done || !product->in_flight(e->product))
        return;
    struct timespec now, pause = { .tv_nsec = 10000 };
    clock_gettime(CLOCK_MONOTONIC, &now);
    for (time_t until = now.tv_sec + ENGINE_PATIENCE_MS / 1000; !collect(e) && now.tv_sec <= until;) {
        /* It returns at once if a descriptor has something, of which the loop hears later. */
        product->wait(e->product, 1000000);
        nanosleep(&pause, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
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
    int rc = e->product ? product->watch(e->product, fd, cookie) : 0;
    PROMISE(rc == 0, "a descriptor cannot be watched: %d", rc);
    e->watches[i].used = true;
    e->watches[i].fd = fd;
    e->watches[i].cookie = cookie;
    engine_mark(fd);    /* something may have come before */
    return 0;
}

void bio_unwatch(struct bio_engine *e, int fd)
{
    int i = find(e, fd);
    if (i >= 0)
        e->watches[i].used = false;
    if (e->product)
        product->unwatch(e->product, fd);
}

void engine_mark(int fd)
{
    int i = find(the_engine, fd);
    if (i >= 0)
        the_engine->watches[i].marked = true;
    if (i >= 0 && the_engine->product)
        product->again(the_engine->product, fd);
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
    if (e->product)
        return product->ready(e->product);
    for (int i = 0; i < WATCHES; i++)
        if (e->watches[i].used && e->watches[i].marked) {
            e->watches[i].marked = false;
            return e->watches[i].cookie;
        }
    return NULL;
}
