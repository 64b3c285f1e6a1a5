/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Drives the block I/O engines from C, one topic a run: `blockio_test ENGINE TOPIC [FOLDER]`.
 * Exit status 0 passed, 1 failed (the line is printed), 77 not possible here. FOLDER is where images are made.
 * The topics are the rows of a table, printed by `blockio_test topics`; they stand in the files beside this one.
 */
#include <liburing.h>

#include "blockio_test.h"

struct bio_engine *engine;
uint32_t engine_kind;
static const char *folder = ".";

int image(uint64_t nbytes, int flags)
{
    int fd = open(folder, O_TMPFILE | O_RDWR | flags, 0600);
    if (fd < 0)
        exit(77);
    CHECK(ftruncate(fd, (off_t)nbytes) == 0);
    return fd;
}

/* Byte `i` of every image: different in every block and in every byte of it. */
uint8_t pattern(uint64_t i)
{
    return (uint8_t)(i * 131 ^ i >> 8 ^ i >> 16);
}

uint8_t inverse(uint64_t i)
{
    return pattern(i) ^ 0xff;
}

void fill_image(int fd, uint64_t nbytes)
{
    uint8_t *all = malloc(nbytes);
    for (uint64_t i = 0; i < nbytes; i++)
        all[i] = pattern(i);
    CHECK(pwrite(fd, all, nbytes, 0) == (ssize_t)nbytes);
    free(all);
}

void open_engine(uint32_t depth)
{
    struct bio_config config = {.engine = engine_kind, .depth = depth, .pool_threads = 3};
    int error = 0;
    engine = bio_engine_new(&config, &error);
    if (engine == NULL && engine_kind == VT_ENGINE_URING)
        exit(77);
    CHECK(engine != NULL && error == 0);
    CHECK(bio_engine_kind(engine) == (int)engine_kind);
}

/* Submits and waits for this one I/O. */
void run(struct bio *bio)
{
    if (bio_submit(engine, bio))
        return;
    struct bio *got;
    while ((got = bio_reap(engine)) == NULL)
        bio_wait(engine, UINT64_MAX);
    CHECK(got == bio);
}

struct bio rw(uint8_t kind, int fd, const struct iovec *iov, uint32_t iovcnt, uint64_t offset)
{
    struct bio bio = {.kind = kind, .fd = fd, .iov = iov, .iovcnt = iovcnt, .offset = offset};
    /* What an earlier I/O may have left behind. */
    memset(bio.work, 0xee, sizeof bio.work);
    bio.bounce = (uint8_t *)8;
    bio.skip = 7;
    bio.index = 6;
    bio.state = bio.retries = UINT16_MAX;
    bio.done = 5;
    bio.error = 4;
    for (uint32_t i = 0; i < iovcnt; i++)
        bio.nbytes += iov[i].iov_len;
    return bio;
}

static const struct {
    const char *name;
    void (*run)(void);
} topics[] = {
    {"read-write", test_read_write},
    {"half-cached", test_half_cached},
    {"many-iovecs", test_many_iovecs},
    {"short-file", test_short_file},
    {"bad-descriptor", test_bad_descriptor},
    {"durable", test_durable},
    {"asks-for-durability", test_asks_for_durability},
    {"sync-discard", test_sync_discard},
    {"null-image", test_null_image},
    {"busy-turn", test_busy_turn},
    {"thousands", test_thousands},
    {"watch", test_watch},
    {"wake-up", test_wake_up},
    {"mixed", test_mixed},
    {"overflow", test_overflow},
    {"cancel", test_cancel},
    {"direct", test_direct},
    {"probe", test_probe},
    {"steps", test_steps},
    {"refused", test_refused},
};

int main(int argc, char **argv)
{
    const size_t count = sizeof topics / sizeof topics[0];
    if (argc == 2 && strcmp(argv[1], "topics") == 0) {
        for (size_t i = 0; i < count; i++)
            puts(topics[i].name);
        return 0;
    }
    CHECK(argc >= 3);
    engine_kind = strcmp(argv[1], "pool") == 0 ? VT_ENGINE_POOL : VT_ENGINE_URING;
    if (strcmp(argv[1], "uring-bare") == 0)
        refused_flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN;
    if (argc > 3)
        folder = argv[3];
    for (size_t i = 0; i < count; i++) {
        if (strcmp(argv[2], topics[i].name) != 0)
            continue;
        open_engine(32);
        topics[i].run();
        bio_engine_free(engine);
        return 0;
    }
    fprintf(stderr, "no topic %s\n", argv[2]);
    return 1;
}
