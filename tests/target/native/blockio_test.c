/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Drives the block I/O engines from C, one topic a run: `blockio_test ENGINE TOPIC [FOLDER]`.
 * Exit status 0 passed, 1 failed (the line is printed), 77 not possible here. FOLDER is where images are made.
 * Knows only blockio.h; the topics are the rows of a table, printed by `blockio_test topics`.
 */
#include "blockio_test.h"

static struct bio_engine *engine;
static uint32_t engine_kind;
static const char *folder = ".";

static int image(uint64_t nbytes, int flags)
{
    int fd = open(folder, O_TMPFILE | O_RDWR | flags, 0600);
    if (fd < 0)
        exit(77);
    CHECK(ftruncate(fd, (off_t)nbytes) == 0);
    return fd;
}

/* Byte `i` of every image: different in every block and in every byte of it. */
static uint8_t pattern(uint64_t i)
{
    return (uint8_t)(i * 131 ^ i >> 8 ^ i >> 16);
}

static uint8_t inverse(uint64_t i)
{
    return pattern(i) ^ 0xff;
}

static void fill_image(int fd, uint64_t nbytes)
{
    uint8_t *all = malloc(nbytes);
    for (uint64_t i = 0; i < nbytes; i++)
        all[i] = pattern(i);
    CHECK(pwrite(fd, all, nbytes, 0) == (ssize_t)nbytes);
    free(all);
}

static void open_engine(uint32_t depth)
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
static void run(struct bio *bio)
{
    if (bio_submit(engine, bio))
        return;
    struct bio *got;
    while ((got = bio_reap(engine)) == NULL)
        bio_wait(engine, UINT64_MAX);
    CHECK(got == bio);
}

static struct bio rw(uint8_t kind, int fd, const struct iovec *iov, uint32_t iovcnt, uint64_t offset)
{
    struct bio bio = {.kind = kind, .fd = fd, .iov = iov, .iovcnt = iovcnt, .offset = offset};
    memset(bio.work, 0xee, sizeof bio.work);
    for (uint32_t i = 0; i < iovcnt; i++)
        bio.nbytes += iov[i].iov_len;
    return bio;
}

static uint8_t flags_of(int fd)
{
    return bio_probe_nowait(fd, true);
}

static void read_back(int fd, uint8_t flags)
{
    const uint64_t nbytes = 1 << 20;
    uint8_t *buffer = malloc(nbytes);
    struct iovec iov[5];
    uint64_t at = 0;
    /* Odd lengths, an empty one in the middle. */
    const uint64_t lengths[5] = {1, 4095, 0, 300000, nbytes - 1 - 4095 - 300000};
    for (int i = 0; i < 5; i++) {
        iov[i] = (struct iovec){buffer + at, lengths[i]};
        at += lengths[i];
    }
    for (uint64_t i = 0; i < nbytes; i++)
        buffer[i] = inverse(i);
    struct bio bio = rw(BIO_WRITE, fd, iov, 5, 4096);
    bio.flags = flags;
    run(&bio);
    CHECK(bio.error == 0 && bio.done == nbytes);
    memset(buffer, 0, nbytes);
    CHECK(pread(fd, buffer, nbytes, 4096) == (ssize_t)nbytes);
    for (uint64_t i = 0; i < nbytes; i++)
        CHECK(buffer[i] == inverse(i));
    memset(buffer, 0, nbytes);
    bio = rw(BIO_READ, fd, iov, 5, 4096);
    bio.flags = flags & ~BIO_DURABLE;
    run(&bio);
    CHECK(bio.error == 0 && bio.done == nbytes);
    for (uint64_t i = 0; i < nbytes; i++)
        CHECK(buffer[i] == inverse(i));
    free(buffer);
}

static void read_write(void)
{
    int fd = image(2 << 20, 0);
    fill_image(fd, 2 << 20);
    read_back(fd, 0);
    read_back(fd, BIO_DURABLE);
    fill_image(fd, 2 << 20);
    read_back(fd, flags_of(fd));
    uint8_t edge[2];
    CHECK(pread(fd, edge, 1, 4095) == 1 && pread(fd, edge + 1, 1, 4096 + (1 << 20)) == 1);
    CHECK(edge[0] == pattern(4095) && edge[1] == pattern(4096 + (1 << 20)));
}

/* More iovecs than one system call takes, forwards in the image and backwards in memory. */
static void many_iovecs(void)
{
    enum { COUNT = 4096, PIECE = 512 };
    int fd = image(COUNT * PIECE, 0);
    fill_image(fd, COUNT * PIECE);
    uint8_t *buffer = calloc(COUNT, PIECE);
    struct iovec *iov = malloc(COUNT * sizeof *iov);
    for (int i = 0; i < COUNT; i++)
        iov[i] = (struct iovec){buffer + (COUNT - 1 - i) * PIECE, PIECE};
    for (int pass = 0; pass < 2; pass++) {
        memset(buffer, 0, COUNT * PIECE);
        struct bio bio = rw(BIO_READ, fd, iov, COUNT, 0);
        bio.flags = pass ? flags_of(fd) : 0;
        run(&bio);
        CHECK(bio.error == 0 && bio.done == COUNT * PIECE);
        for (uint64_t i = 0; i < COUNT * PIECE; i++)
            CHECK(buffer[(COUNT - 1 - i / PIECE) * PIECE + i % PIECE] == pattern(i));
    }
    struct bio bio = rw(BIO_WRITE, fd, iov, COUNT, 0);
    CHECK(ftruncate(fd, 0) == 0 && ftruncate(fd, COUNT * PIECE) == 0);
    run(&bio);
    CHECK(bio.error == 0 && bio.done == COUNT * PIECE);
    CHECK(pread(fd, buffer, COUNT * PIECE, 0) == COUNT * PIECE);
    for (uint64_t i = 0; i < COUNT * PIECE; i++)
        CHECK(buffer[i] == pattern(i));
    free(iov);
    free(buffer);
}

/* An image that shrank: -EIO, and what was there is there. */
static void short_file(void)
{
    int fd = image(10000, 0);
    fill_image(fd, 10000);
    uint8_t buffer[16384];
    struct iovec iov[2] = {{buffer, 5000}, {buffer + 5000, sizeof buffer - 5000}};
    for (int pass = 0; pass < 2; pass++) {
        memset(buffer, 0, sizeof buffer);
        struct bio bio = rw(BIO_READ, fd, iov, 2, 0);
        bio.flags = pass ? flags_of(fd) : 0;
        run(&bio);
        CHECK(bio.error == -EIO && bio.done == 10000);
        for (uint64_t i = 0; i < 10000; i++)
            CHECK(buffer[i] == pattern(i));
        bio = rw(BIO_READ, fd, iov, 1, 1 << 20);
        bio.flags = pass ? flags_of(fd) : 0;
        run(&bio);
        CHECK(bio.error == -EIO && bio.done == 0);
    }
}

static void bad_descriptor(void)
{
    uint8_t buffer[512];
    struct iovec iov = {buffer, sizeof buffer};
    int readonly = open("/proc/self/exe", O_RDONLY);
    struct bio bio = rw(BIO_WRITE, readonly, &iov, 1, 0);
    run(&bio);
    CHECK(bio.error == -EBADF && bio.done == 0);
    bio = rw(BIO_READ, 9999, &iov, 1, 0);
    run(&bio);
    CHECK(bio.error == -EBADF);
    bio = rw(BIO_SYNC, 9999, NULL, 0, 0);
    run(&bio);
    CHECK(bio.error == -EBADF);
    bio = rw(99, readonly, NULL, 0, 0);
    run(&bio);
    CHECK(bio.error == -EINVAL);
    bio = rw(BIO_READ, 9999, NULL, 0, 0);
    CHECK(bio_submit(engine, &bio) && bio.error == 0);
    close(readonly);
}

static void sync_discard(void)
{
    int fd = image(4 << 20, 0);
    fill_image(fd, 4 << 20);
    struct bio bio = rw(BIO_SYNC, fd, NULL, 0, 0);
    CHECK(!bio_submit(engine, &bio));
    while (bio_reap(engine) == NULL)
        bio_wait(engine, UINT64_MAX);
    CHECK(bio.error == 0);
    struct stat before;
    struct stat after;
    CHECK(fstat(fd, &before) == 0);
    bio = (struct bio){.kind = BIO_DISCARD, .fd = fd, .offset = 1 << 20, .nbytes = 2 << 20};
    run(&bio);
    CHECK(bio.error == 0 && fstat(fd, &after) == 0);
    CHECK(after.st_size == before.st_size);
    CHECK((before.st_blocks - after.st_blocks) * 512 == 2 << 20);
    uint8_t edge[4];
    CHECK(pread(fd, edge, 2, (1 << 20) - 1) == 2 && pread(fd, edge + 2, 2, (3 << 20) - 1) == 2);
    CHECK(edge[0] == pattern((1 << 20) - 1) && edge[1] == 0 && edge[2] == 0 && edge[3] == pattern(3 << 20));
    /* Not a block device: the ioctl is refused, by a thread, and comes back as any other I/O. */
    bio.flags = BIO_BLOCK_DEVICE;
    for (int i = 0; i < 3; i++) {
        run(&bio);
        CHECK(bio.error == -ENOTTY);
    }
}

static void null_image(void)
{
    uint8_t buffer[300];
    memset(buffer, 1, sizeof buffer);
    struct iovec iov[2] = {{buffer, 100}, {buffer + 200, 100}};
    struct bio bio = rw(BIO_READ, -1, iov, 2, 0);
    bio.flags = BIO_NULL;
    CHECK(bio_submit(engine, &bio) && bio.error == 0 && bio.done == 200);
    for (int i = 0; i < 300; i++)
        CHECK(buffer[i] == (i >= 100 && i < 200));
    for (uint8_t kind = BIO_WRITE; kind <= BIO_DISCARD; kind++) {
        bio.kind = kind;
        CHECK(bio_submit(engine, &bio) && bio.error == 0);
    }
}

/* Far more at once than the rings hold; every one comes back once, with its own data. */
static void thousands(void)
{
    enum { COUNT = 5000, PIECE = 512, BLOCKS = 1024 };
    int fd = image(BLOCKS * PIECE, 0);
    fill_image(fd, BLOCKS * PIECE);
    bio_engine_free(engine);
    open_engine(8);
    struct bio *bios = calloc(COUNT, sizeof *bios);
    struct iovec *iov = calloc(COUNT, sizeof *iov);
    uint8_t *buffer = calloc(COUNT, PIECE);
    for (uint64_t i = 0; i < COUNT; i++) {
        iov[i] = (struct iovec){buffer + i * PIECE, PIECE};
        bios[i] = rw(BIO_READ, fd, &iov[i], 1, i * 7 % BLOCKS * PIECE);
        CHECK(!bio_submit(engine, &bios[i]));
    }
    CHECK(bio_in_flight(engine) == COUNT);
    bio_flush(engine);
    uint32_t ended = 0;
    while (ended < COUNT) {
        struct bio *bio = bio_reap(engine);
        if (bio == NULL) {
            bio_wait(engine, UINT64_MAX);
            continue;
        }
        CHECK(bio->error == 0 && bio->done == PIECE && bio->owner == NULL);
        bio->owner = bio;
        for (uint64_t i = 0; i < PIECE; i++)
            CHECK(((uint8_t *)bio->iov->iov_base)[i] == pattern(bio->offset + i));
        ended++;
    }
    CHECK(bio_in_flight(engine) == 0 && bio_reap(engine) == NULL);
    free(buffer);
    free(iov);
    free(bios);
}

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

static void watch(void)
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
    bio_again(engine, pair[3][0]);
    CHECK(next_ready() == &pair[3]);
    drain(pair[3][0]);
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
static void wake_up(void)
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
}

/* Both at once: I/O and descriptors do not hide each other. */
static void mixed(void)
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

/* A read that never ends by itself (an empty pipe at the descriptor's own position) and some that wait behind it. */
static void cancel(void)
{
    enum { COUNT = 12 };
    int ends[2];
    CHECK(pipe(ends) == 0);
    uint8_t buffer[COUNT][64];
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

/* O_DIRECT with every kind of crooked buffer, in pieces larger and smaller than the scratch. */
static void direct(void)
{
    const uint64_t size = 2 << 20;
    int fd = image(size, O_DIRECT);
    uint8_t *aligned = aligned_alloc(4096, size);
    for (uint64_t i = 0; i < size; i++)
        aligned[i] = pattern(i);
    struct iovec whole = {aligned, size};
    struct bio bio = rw(BIO_WRITE, fd, &whole, 1, 0);
    bio.flags = BIO_DIRECT;
    bio.direct_align = 4096;
    run(&bio);
    if (bio.error == -EINVAL)
        exit(77);
    CHECK(bio.error == 0 && bio.done == size);
    CHECK(bio_probe_nowait(fd, true) == 0);
    static const struct { uint64_t shift, first, nbytes, offset; } cases[] = {
        {0, 4096, 8192, 0}, {1, 100, 4096, 4096}, {0, 1, 1 << 20, 8192}, {512, 512, 4096, 0}, {3, 70000, 1 << 20, 1 << 20},
    };
    uint8_t *crooked = malloc(size + 4096);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        uint8_t *base = crooked + cases[c].shift;
        struct iovec iov[2] = {{base, cases[c].first}, {base + cases[c].first, cases[c].nbytes - cases[c].first}};
        memset(crooked, 0, size);
        bio = rw(BIO_READ, fd, iov, 2, cases[c].offset);
        bio.flags = BIO_DIRECT;
        bio.direct_align = 4096;
        run(&bio);
        CHECK(bio.error == 0 && bio.done == cases[c].nbytes);
        for (uint64_t i = 0; i < cases[c].nbytes; i++)
            CHECK(base[i] == pattern(cases[c].offset + i));
        for (uint64_t i = 0; i < cases[c].nbytes; i++)
            base[i] = (uint8_t)(pattern(i) + c);
        bio = rw(BIO_WRITE, fd, iov, 2, cases[c].offset);
        bio.flags = BIO_DIRECT;
        bio.direct_align = 4096;
        run(&bio);
        CHECK(bio.error == 0 && bio.done == cases[c].nbytes);
        CHECK(pread(fd, aligned, cases[c].nbytes, (off_t)cases[c].offset) == (ssize_t)cases[c].nbytes);
        for (uint64_t i = 0; i < cases[c].nbytes; i++) {
            CHECK(aligned[i] == (uint8_t)(pattern(i) + c));
            aligned[i] = pattern(cases[c].offset + i);
        }
        CHECK(pwrite(fd, aligned, cases[c].nbytes, (off_t)cases[c].offset) == (ssize_t)cases[c].nbytes);
    }
    /* A block smaller than the device's: a read is widened, a write refused, both ends of the range right. */
    struct iovec small = {crooked + 1, 512 * 3};
    bio = rw(BIO_READ, fd, &small, 1, 4096 - 512);
    bio.flags = BIO_DIRECT;
    bio.direct_align = 4096;
    run(&bio);
    CHECK(bio.error == 0 && bio.done == 512 * 3);
    for (uint64_t i = 0; i < 512 * 3; i++)
        CHECK(crooked[1 + i] == pattern(4096 - 512 + i));
    bio.kind = BIO_WRITE;
    run(&bio);
    CHECK(bio.error == -EINVAL);
    bio.direct_align = 3;
    run(&bio);
    CHECK(bio.error == -EINVAL);
    /* An image that shrank to no multiple of anything. */
    CHECK(ftruncate(fd, 10000) == 0);
    for (uint64_t shift = 0; shift < 2; shift++) {
        struct iovec past = {shift ? crooked + 1 : aligned, 16384};
        bio = rw(BIO_READ, fd, &past, 1, 0);
        bio.flags = BIO_DIRECT;
        bio.direct_align = 4096;
        run(&bio);
        CHECK(bio.error == -EIO && bio.done <= 10000);
    }
    free(crooked);
    free(aligned);
}

static const struct topic topics[] = {
    {"read-write", read_write}, {"many-iovecs", many_iovecs}, {"short-file", short_file},
    {"bad-descriptor", bad_descriptor}, {"sync-discard", sync_discard}, {"null-image", null_image},
    {"thousands", thousands}, {"watch", watch}, {"wake-up", wake_up}, {"mixed", mixed}, {"cancel", cancel},
    {"direct", direct},
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
