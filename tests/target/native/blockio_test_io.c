/* SPDX-License-Identifier: BSD-2-Clause */
/* Data: reads, writes, syncs and discards, of every shape, and what happens at the end of an image. */
#include "blockio_test.h"

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

void test_read_write(void)
{
    int fd = image(2 << 20, 0);
    fill_image(fd, 2 << 20);
    read_back(fd, 0);
    read_back(fd, BIO_DURABLE);
    fill_image(fd, 2 << 20);
    read_back(fd, flags_of(fd));
    fill_image(fd, 2 << 20);
    /* The descriptor does not serve it after all. */
    read_back(fd, BIO_NOWAIT_READ | BIO_NOWAIT_WRITE);
    uint8_t edge[2];
    CHECK(pread(fd, edge, 1, 4095) == 1 && pread(fd, edge + 1, 1, 4096 + (1 << 20)) == 1);
    CHECK(edge[0] == pattern(4095) && edge[1] == pattern(4096 + (1 << 20)));
}

/* More iovecs than one system call takes, forwards in the image and backwards in memory. */
void test_many_iovecs(void)
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
void test_short_file(void)
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

void test_bad_descriptor(void)
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

void test_sync_discard(void)
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

void test_null_image(void)
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

/* The first few cached reads of a turn are done at once, unless it is known that many come; the next turn begins anew. */
void test_busy_turn(void)
{
    enum { COUNT = 16 };
    int fd = image(COUNT * 512, 0);
    fill_image(fd, COUNT * 512);
    uint8_t buffer[512];
    struct iovec iov = {buffer, sizeof buffer};
    struct bio bio = rw(BIO_READ, fd, &iov, 1, 512);
    bio.flags = BIO_NOWAIT_READ;
    for (int round = 0; round < 2; round++) {
        CHECK(bio_submit(engine, &bio) && bio.error == 0);
        bio_flush(engine);
        bio_expect(engine, 1);
        CHECK(bio_submit(engine, &bio));
        bio_expect(engine, COUNT);
        /* The pool has no cheaper way for many. */
        const bool alone = bio_engine_kind(engine) == VT_ENGINE_POOL;
        CHECK(bio_submit(engine, &bio) == alone);
        bio_flush(engine);
        while (bio_in_flight(engine))
            if (!bio_reap(engine))
                bio_wait(engine, UINT64_MAX);
        CHECK(bio.error == 0 && bio.done == 512 && buffer[0] == pattern(512));
    }
}

/* Far more at once than the rings hold; every one comes back once, with its own data. */
void test_thousands(void)
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

/* Pages in the cache between pages that are not: the inline attempt ends short, and the rest follows. */
void test_half_cached(void)
{
    const uint64_t nbytes = 1 << 20;
    int fd = image(nbytes, 0);
    fill_image(fd, nbytes);
    CHECK(fdatasync(fd) == 0);
    uint8_t *buffer = malloc(nbytes);
    struct iovec iov[3] = {{buffer, 12345}, {buffer + 12345, 700000}, {buffer + 712345, nbytes - 712345}};
    for (uint64_t kept = 0; kept <= nbytes; kept += 256 * 1024) {
        CHECK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
        CHECK(readahead(fd, 0, kept) == 0 && (kept == 0 || pread(fd, buffer, kept, 0) == (ssize_t)kept));
        memset(buffer, 0, nbytes);
        struct bio bio = rw(BIO_READ, fd, iov, 3, 0);
        bio.flags = flags_of(fd);
        run(&bio);
        CHECK(bio.error == 0 && bio.done == nbytes);
        for (uint64_t i = 0; i < nbytes; i++)
            CHECK(buffer[i] == pattern(i));
    }
    free(buffer);
}

/* Many durable writes at once, with plain ones between, more than any queue holds. */
void test_durable(void)
{
    enum { COUNT = 300, PIECE = 4096 };
    int fd = image(COUNT * PIECE, 0);
    uint8_t *buffer = malloc(COUNT * PIECE);
    for (uint64_t i = 0; i < COUNT * PIECE; i++)
        buffer[i] = inverse(i);
    struct bio *bios = calloc(COUNT, sizeof *bios);
    struct iovec *iov = calloc(COUNT, sizeof *iov);
    for (uint64_t i = 0; i < COUNT; i++) {
        iov[i] = (struct iovec){buffer + i * PIECE, PIECE};
        bios[i] = rw(BIO_WRITE, fd, &iov[i], 1, i * PIECE);
        bios[i].flags = flags_of(fd) | (i % 3 ? BIO_DURABLE : 0);
        CHECK(!bio_submit(engine, &bios[i]) || i % 3 == 0);
    }
    while (bio_in_flight(engine) > 0) {
        bio_wait(engine, UINT64_MAX);
        while (bio_reap(engine) != NULL)
            ;
    }
    for (int i = 0; i < COUNT; i++)
        CHECK(bios[i].error == 0 && bios[i].done == PIECE);
    memset(buffer, 0, COUNT * PIECE);
    CHECK(pread(fd, buffer, COUNT * PIECE, 0) == COUNT * PIECE);
    for (uint64_t i = 0; i < COUNT * PIECE; i++)
        CHECK(buffer[i] == inverse(i));
    /* Called back before any thread had it, or done: nothing between. */
    bios[0].flags = BIO_DURABLE;
    CHECK(!bio_submit(engine, &bios[0]));
    bio_cancel(engine, &bios[0]);
    while (bio_reap(engine) == NULL)
        bio_wait(engine, UINT64_MAX);
    CHECK(bios[0].error == -ECANCELED && bios[0].done == 0);
    free(iov);
    free(bios);
    free(buffer);
}
