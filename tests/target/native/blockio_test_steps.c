/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The steps of one I/O against a kernel that moves as little as it likes: random iovecs, random short counts, EINTR and
 * EAGAIN between, and every byte must still end where it belongs. No engine and no file takes part.
 */
#include "blockio_engine.h"
#include "blockio_test.h"

enum { IMAGE_NBYTES = 1 << 20, MAX_IOV = 3000 };

static uint8_t disk[IMAGE_NBYTES];
static uint8_t memory[IMAGE_NBYTES];
static uint8_t filled[IMAGE_NBYTES];
static uint8_t inverted[IMAGE_NBYTES];
static struct iovec iov[MAX_IOV];
static uint64_t state = 20060417;

static uint32_t below(uint32_t limit)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 32) * limit >> 32);
}

/* What the kernel does with a chunk, up to `most` bytes. */
static int64_t transfer(const struct bio *bio, const struct bio_chunk *c, uint64_t most)
{
    uint64_t moved = 0;
    CHECK(c->count <= BIO_IOV_MAX);
    for (uint32_t i = 0; i < c->count && moved < most && c->offset + moved < IMAGE_NBYTES; i++) {
        uint64_t n = c->iov[i].iov_len;
        if (n > most - moved)
            n = most - moved;
        if (n > IMAGE_NBYTES - c->offset - moved)
            n = IMAGE_NBYTES - c->offset - moved;
        if (bio->kind == BIO_READ)
            memcpy(c->iov[i].iov_base, disk + c->offset + moved, n);
        else
            memcpy(disk + c->offset + moved, c->iov[i].iov_base, n);
        moved += n;
    }
    return (int64_t)moved;
}

/* As bio_submit leaves it. */
static struct bio fresh(uint8_t kind, uint32_t iovcnt, uint64_t offset)
{
    struct bio bio = rw(kind, -1, iov, iovcnt, offset);
    bio.bounce = NULL;
    bio.skip = bio.done = 0;
    bio.index = bio.state = bio.retries = 0;
    bio.error = 0;
    return bio;
}

static uint32_t crooked_iovecs(uint64_t nbytes)
{
    uint32_t count = 0;
    uint32_t largest = below(4) ? 1 + below(3000) : 1 + below(300000);
    uint64_t at = 0;
    while (at < nbytes && count < MAX_IOV - 1) {
        uint64_t n = below(20) ? 1 + below(largest) : 0;
        if (n > nbytes - at)
            n = nbytes - at;
        iov[count++] = (struct iovec){memory + at, n};
        at += n;
    }
    iov[count++] = (struct iovec){memory + at, nbytes - at};
    return count;
}

static void one(uint8_t kind, uint8_t *bounce)
{
    const uint32_t align = bounce ? 512 : 1;
    uint64_t nbytes = (1 + below(IMAGE_NBYTES / 2 / align)) * (uint64_t)align;
    uint64_t offset = below(IMAGE_NBYTES / 2 / align) * (uint64_t)align;
    struct bio bio = fresh(kind, crooked_iovecs(nbytes), offset);
    bio.bounce = bounce;
    bio.flags = bounce ? BIO_DIRECT : 0;
    bio.direct_align = 512;
    memcpy(disk, filled, IMAGE_NBYTES);
    memcpy(memory, inverted, IMAGE_NBYTES);
    bool lazy = below(2);
    for (bool ended = false; !ended;) {
        struct bio_chunk c = bio_next_chunk(&bio);
        uint64_t most = lazy ? 1 + below(5000) : UINT64_MAX;
        if (bounce)
            most = most < UINT64_MAX - 512 ? (most + 511) / 512 * 512 : most;
        uint32_t luck = bio.retries < 10 ? below(30) : 2;
        ended = bio_account(&bio, luck == 0 ? -EINTR : luck == 1 ? -EAGAIN : transfer(&bio, &c, most));
    }
    CHECK(bio.error == 0 && bio.done == nbytes);
    /* Those bytes and no others. */
    if (kind == BIO_READ) {
        CHECK(memcmp(memory, filled + offset, nbytes) == 0);
        CHECK(memcmp(memory + nbytes, inverted + nbytes, IMAGE_NBYTES - nbytes) == 0);
        CHECK(memcmp(disk, filled, IMAGE_NBYTES) == 0);
    } else {
        CHECK(memcmp(disk, filled, offset) == 0);
        CHECK(memcmp(disk + offset, inverted, nbytes) == 0);
        CHECK(memcmp(disk + offset + nbytes, filled + offset + nbytes, IMAGE_NBYTES - offset - nbytes) == 0);
    }
}

void test_steps(void)
{
    uint8_t *scratch = aligned_alloc(4096, BIO_BOUNCE_NBYTES);
    for (uint64_t i = 0; i < IMAGE_NBYTES; i++) {
        filled[i] = pattern(i);
        inverted[i] = inverse(i);
    }
    for (int i = 0; i < 60; i++) {
        one(BIO_READ, NULL);
        one(BIO_WRITE, NULL);
        one(BIO_READ, scratch);
        one(BIO_WRITE, scratch);
    }
    free(scratch);
    /* Every way to get nowhere ends. */
    iov[0] = (struct iovec){memory, 4096};
    static const struct { int64_t result; int error; int tries; } dead[] = {
        {0, -EIO, 1}, {-EIO, -EIO, 1}, {-ENOSPC, -ENOSPC, 1}, {-EAGAIN, -EAGAIN, BIO_RETRIES + 1},
        {-EINTR, -EINTR, BIO_RETRIES + 1},
    };
    for (size_t i = 0; i < sizeof dead / sizeof dead[0]; i++) {
        struct bio bio = fresh(BIO_READ, 1, 0);
        int tries = 1;
        while (!bio_account(&bio, dead[i].result))
            tries++;
        CHECK(bio.error == dead[i].error && tries == dead[i].tries && bio.done == 0);
    }
    struct bio bio = fresh(BIO_WRITE, 1, 0);
    CHECK(!bio_account(&bio, 100) && bio_account(&bio, -ENOSPC) && bio.error == -ENOSPC && bio.done == 100);
    bio = fresh(BIO_READ, 1, 0);
    bio.state = BIO_STATE_CANCEL;
    CHECK(bio_account(&bio, -EINTR) && bio.error == -ECANCELED);
}
