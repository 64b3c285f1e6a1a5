/* SPDX-License-Identifier: BSD-2-Clause */
/* Sleeping: descriptors that wake the loop, time, I/O beside them, and calling an I/O back. */
#include "blockio_test.h"

static void drain(int fd)
{
    char buffer[8];
    while (recv(fd, buffer, sizeof buffer, MSG_DONTWAIT) > 0)
        ;
}

/* The next cookie, waiting at most a second. */
static void *next_ready(void)
{
    for (int i = 0; i < 20; i++) {
        void *cookie = bio_ready(engine);
        if (cookie != NULL)
            return cookie;
        bio_wait(engine, 50000000);
    }
    return bio_ready(engine);
}

/* Nothing is ready, and waiting for a moment does not change that. */
static bool quiet(void)
{
    for (int i = 0; i < 3; i++) {
        if (bio_ready(engine) != NULL)
            return false;
        bio_wait(engine, 2000000);
    }
    return bio_ready(engine) == NULL;
}

void test_watch(void)
{
    enum { PAIRS = 40 };
    int pair[PAIRS][2];
    for (int i = 0; i < PAIRS; i++) {
        CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair[i]) == 0);
        CHECK(bio_watch(engine, pair[i][0], &pair[i]) == 0);
    }
    CHECK(bio_watch(engine, pair[0][0], &pair[0]) == -EEXIST);
    CHECK(quiet());
    /* Many rounds: a poll that does not come again would show. */
    for (int round = 0; round < 300; round++) {
        int i = round * 7 % PAIRS;
        CHECK(send(pair[i][1], "x", 1, 0) == 1);
        if (round % 3 == 0)
            CHECK(send(pair[i][1], "x", 1, 0) == 1);
        CHECK(next_ready() == &pair[i]);
        drain(pair[i][0]);
    }
    CHECK(quiet());
    /* Input that comes before the watch is seen too. */
    bio_unwatch(engine, pair[3][0]);
    CHECK(send(pair[3][1], "x", 1, 0) == 1);
    CHECK(quiet());
    CHECK(bio_watch(engine, pair[3][0], &pair[3]) == 0);
    CHECK(next_ready() == &pair[3]);
    drain(pair[3][0]);
    CHECK(quiet());
    bio_again(engine, pair[3][0]);
    bio_again(engine, pair[3][0]);
    CHECK(next_ready() == &pair[3]);
    CHECK(quiet());
    /* In order, without the one that has left the end of the queue. */
    bio_again(engine, pair[10][0]);
    bio_again(engine, pair[11][0]);
    bio_unwatch(engine, pair[11][0]);
    bio_again(engine, pair[12][0]);
    CHECK(next_ready() == &pair[10] && next_ready() == &pair[12]);
    CHECK(quiet());
    /* A cookie that waits to be given is not given after unwatch, whether the engine has seen the input or not. */
    for (int look = 0; look < 2; look++) {
        for (int i = 4; i < 8; i++)
            CHECK(send(pair[i][1], "x", 1, 0) == 1);
        if (look)
            bio_wait(engine, 1000000);
        bio_unwatch(engine, pair[4][0]);
        bio_unwatch(engine, pair[6][0]);
        bio_unwatch(engine, pair[7][0]);
        CHECK(next_ready() == &pair[5]);
        drain(pair[5][0]);
        CHECK(quiet());
        for (int i = 4; i < 8; i++) {
            drain(pair[i][0]);
            if (i != 5)
                CHECK(bio_watch(engine, pair[i][0], &pair[i]) == 0);
        }
        CHECK(quiet());
    }
    /* The slot's next owner gets its own cookie only, and the old descriptor is let go. */
    CHECK(send(pair[9][1], "x", 1, 0) == 1);
    bio_unwatch(engine, pair[9][0]);
    close(pair[9][0]);
    char byte;
    bio_unwatch(engine, pair[13][0]);
    close(pair[13][0]);
    CHECK(recv(pair[13][1], &byte, 1, MSG_DONTWAIT) == 0);
    CHECK(recv(pair[9][1], &byte, 1, MSG_DONTWAIT) <= 0 && errno != EAGAIN);
    int other[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, other) == 0);
    CHECK(bio_watch(engine, other[0], &other) == 0);
    CHECK(quiet());
    close(other[1]);
    CHECK(next_ready() == &other);
    bio_unwatch(engine, other[0]);
    CHECK(quiet());
    bio_unwatch(engine, 9999);
}

static void *send_later(void *fd)
{
    usleep(30000);
    CHECK(send(*(int *)fd, "x", 1, 0) == 1);
    return NULL;
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* One sleep ends by time, by a descriptor, and by an I/O. */
void test_wake_up(void)
{
    uint64_t start = now();
    bio_wait(engine, 40000000);
    CHECK(now() - start >= 39000000);
    start = now();
    bio_wait(engine, 0);
    CHECK(now() - start < 1000000000);
    int pair[2];
    pthread_t thread;
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    CHECK(bio_watch(engine, pair[0], pair) == 0);
    for (int i = 0; i < 5; i++) {
        pthread_create(&thread, NULL, send_later, &pair[1]);
        void *cookie;
        while ((cookie = bio_ready(engine)) == NULL)
            bio_wait(engine, UINT64_MAX);
        CHECK(cookie == pair);
        pthread_join(thread, NULL);
        drain(pair[0]);
    }
    int fd = image(1 << 20, 0);
    fill_image(fd, 1 << 20);
    for (int i = 0; i < 200; i++) {
        struct bio bio = rw(BIO_SYNC, fd, NULL, 0, 0);
        run(&bio);
        CHECK(bio.error == 0);
        CHECK(bio_ready(engine) == NULL);
    }
    /* Nothing of that keeps the loop awake. */
    uint8_t block[512] = {0};
    struct iovec iov = {block, sizeof block};
    struct bio bio = rw(BIO_WRITE, fd, &iov, 1, 0);
    bio.flags = BIO_DURABLE;
    run(&bio);
    CHECK(bio.error == 0);
    start = now();
    int sleeps = 0;
    for (; now() - start < 40000000; sleeps++)
        bio_wait(engine, 40000000);
    CHECK(sleeps <= 4);
}

/* Both at once: I/O and descriptors do not hide each other. */
void test_mixed(void)
{
    enum { DEPTH = 64, PIECE = 4096, BLOCKS = 256 };
    int fd = image(BLOCKS * PIECE, 0);
    fill_image(fd, BLOCKS * PIECE);
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    CHECK(bio_watch(engine, pair[0], pair) == 0);
    static uint8_t buffer[DEPTH][PIECE];
    struct iovec iov[DEPTH];
    struct bio bios[DEPTH];
    uint32_t started = 0;
    uint32_t ended = 0;
    uint32_t kicks = 0;
    for (uint32_t i = 0; i < DEPTH; i++) {
        iov[i] = (struct iovec){buffer[i], PIECE};
        bios[i] = rw(BIO_READ, fd, &iov[i], 1, i % BLOCKS * PIECE);
        started += !bio_submit(engine, &bios[i]);
    }
    CHECK(send(pair[1], "x", 1, 0) == 1);
    while (kicks < 1000) {
        bio_wait(engine, UINT64_MAX);
        /* A bounded turn: each is started again and may end while we look. */
        struct bio *bio;
        for (int turn = 0; turn < DEPTH && (bio = bio_reap(engine)) != NULL; turn++, ended++) {
            CHECK(bio->error == 0 && ((uint8_t *)bio->iov->iov_base)[1] == pattern(bio->offset + 1));
            bio->offset = started++ * 13 % BLOCKS * PIECE;
            CHECK(!bio_submit(engine, bio));
        }
        while (bio_ready(engine) != NULL) {
            drain(pair[0]);
            kicks++;
            CHECK(send(pair[1], "x", 1, 0) == 1);
        }
    }
    while (bio_in_flight(engine) > 0) {
        bio_wait(engine, UINT64_MAX);
        while (bio_reap(engine) != NULL)
            ended++;
    }
    CHECK(started == ended);
}

/* Far more descriptors with input at once than completions fit: each is told of, again and again, seldom twice. */
void test_overflow(void)
{
    enum { PAIRS = 300, ROUNDS = 5 };
    static int pair[PAIRS][2];
    bio_engine_free(engine);
    open_engine(8);
    for (int i = 0; i < PAIRS; i++) {
        CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair[i]) == 0);
        CHECK(bio_watch(engine, pair[i][0], &pair[i]) == 0);
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < PAIRS; i++)
            CHECK(send(pair[i][1], "x", 1, 0) == 1);
        bool seen[PAIRS] = {false};
        int distinct = 0;
        for (int n = 0; distinct < PAIRS; n++) {
            int (*cookie)[2] = next_ready();
            CHECK(cookie != NULL && n < 2 * PAIRS);
            distinct += !seen[cookie - pair];
            seen[cookie - pair] = true;
            drain((*cookie)[0]);
        }
        for (int n = 0; !quiet(); n++)
            CHECK(n < PAIRS);
    }
    for (int i = 0; i < PAIRS; i++) {
        bio_unwatch(engine, pair[i][0]);
        close(pair[i][0]);
        close(pair[i][1]);
    }
    CHECK(quiet());
}

/* A read that never ends by itself (an empty pipe at the descriptor's own position) and some that wait behind it. */
void test_cancel(void)
{
    enum { COUNT = 12 };
    int ends[2];
    CHECK(pipe(ends) == 0);
    static uint8_t buffer[COUNT][64];
    struct iovec iov[COUNT];
    struct bio bios[COUNT];
    for (int i = 0; i < COUNT; i++) {
        iov[i] = (struct iovec){buffer[i], 64};
        bios[i] = rw(BIO_READ, ends[0], &iov[i], 1, UINT64_MAX);
        CHECK(!bio_submit(engine, &bios[i]));
        if (i < COUNT / 2)
            bio_flush(engine);
    }
    bio_wait(engine, 20000000);
    CHECK(bio_reap(engine) == NULL);
    for (int i = COUNT - 1; i >= 0; i--)
        bio_cancel(engine, &bios[i]);
    /* What a thread has begun cannot be called back: feed it. */
    if (engine_kind == VT_ENGINE_POOL)
        CHECK(write(ends[1], buffer, 3 * 64) == 3 * 64);
    int cancelled = 0;
    for (int ended = 0; ended < COUNT; ended++) {
        struct bio *bio;
        while ((bio = bio_reap(engine)) == NULL)
            bio_wait(engine, UINT64_MAX);
        CHECK(bio->error == -ECANCELED || (bio->error == 0 && bio->done == 64));
        cancelled += bio->error == -ECANCELED;
    }
    CHECK(cancelled == (engine_kind == VT_ENGINE_POOL ? COUNT - 3 : COUNT));
    CHECK(bio_in_flight(engine) == 0);
    /* The same structs serve again. */
    CHECK(write(ends[1], buffer, 64) == 64);
    run(&bios[0]);
    CHECK(bios[0].error == 0 && bios[0].done == 64);
}
