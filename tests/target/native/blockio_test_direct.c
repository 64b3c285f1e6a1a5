/* SPDX-License-Identifier: BSD-2-Clause */
/* O_DIRECT: buffers, lengths and offsets that the device would refuse. */
#include "blockio_test.h"

/* O_DIRECT with every kind of crooked buffer, in pieces larger and smaller than the scratch. */
void test_direct(void)
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
        {0, 4096, 8192, 0}, {1, 100, 4096, 4096}, {0, 1, 1 << 20, 8192}, {512, 512, 4096, 0},
        {3, 70000, 1 << 20, 1 << 20},
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
