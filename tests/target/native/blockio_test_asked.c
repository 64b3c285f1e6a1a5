/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the kernel is asked for, seen by standing in front of the calls that ask: that durable means RWF_DSYNC and sync
 * means fdatasync cannot be told from the data. Also what the probe for RWF_NOWAIT finds, and that it leaves no trace.
 */
#include <dlfcn.h>
#include <liburing.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "blockio_test.h"

static atomic_int plain_writes;
static atomic_int durable_writes;
static atomic_int syncs;
static atomic_int inline_writes;

/* The inline attempt. */
long syscall(long number, ...)
{
    long (*real)(long, ...);
    *(void **)&real = dlsym(RTLD_NEXT, "syscall");
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_pwritev2)
        atomic_fetch_add(&inline_writes, 1);
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static void saw_write(int flags)
{
    atomic_fetch_add(flags == RWF_DSYNC ? &durable_writes : &plain_writes, 1);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    ssize_t (*real)(int, const struct iovec *, int, off_t, int);
    *(void **)&real = dlsym(RTLD_NEXT, "pwritev2");
    saw_write(flags);
    return real(fd, iov, count, offset, flags);
}

int fdatasync(int fd)
{
    int (*real)(int);
    *(void **)&real = dlsym(RTLD_NEXT, "fdatasync");
    atomic_fetch_add(&syncs, 1);
    return real(fd);
}

int io_uring_submit(struct io_uring *ring)
{
    int (*real)(struct io_uring *);
    *(void **)&real = dlsym(RTLD_NEXT, "io_uring_submit");
    for (unsigned i = ring->sq.sqe_head; i != ring->sq.sqe_tail; i++) {
        const struct io_uring_sqe *sqe = &ring->sq.sqes[i & *ring->sq.kring_mask];
        if (sqe->opcode == IORING_OP_WRITE || sqe->opcode == IORING_OP_WRITEV)
            saw_write(sqe->rw_flags);
        if (sqe->opcode == IORING_OP_FSYNC && sqe->fsync_flags == IORING_FSYNC_DATASYNC)
            atomic_fetch_add(&syncs, 1);
    }
    return real(ring);
}

static void expect(struct bio *bio, int plain, int durable, int sync)
{
    atomic_store(&plain_writes, 0);
    atomic_store(&durable_writes, 0);
    atomic_store(&syncs, 0);
    CHECK(!bio_submit(engine, bio));
    bio_flush(engine);
    while (bio_reap(engine) == NULL)
        bio_wait(engine, UINT64_MAX);
    CHECK(bio->error == 0);
    CHECK(plain_writes == plain && durable_writes == durable && syncs == sync);
}

void test_asks_for_durability(void)
{
    uint8_t *buffer = aligned_alloc(4096, 8192);
    memset(buffer, 1, 8192);
    struct iovec iov[2] = {{buffer, 4096}, {buffer + 4096, 4096}};
    int fd = image(8192, 0);
    struct bio bio = rw(BIO_WRITE, fd, iov, 1, 0);
    expect(&bio, 1, 0, 0);
    CHECK(inline_writes == 0);
    /* Durable writes never go inline, whatever the descriptor serves. */
    bio.flags = BIO_DURABLE | BIO_NOWAIT_WRITE | BIO_NOWAIT_READ;
    expect(&bio, 0, 1, 0);
    CHECK(inline_writes == 0);
    bio.flags = BIO_NOWAIT_WRITE;
    run(&bio);
    CHECK(bio.error == 0 && inline_writes == 1);
    bio = rw(BIO_WRITE, fd, iov, 2, 0);
    bio.flags = BIO_DURABLE;
    expect(&bio, 0, 1, 0);
    bio = rw(BIO_SYNC, fd, NULL, 0, 0);
    expect(&bio, 0, 0, 1);
    fd = image(8192, O_DIRECT);
    bio = rw(BIO_WRITE, fd, iov, 2, 0);
    bio.flags = BIO_DURABLE | BIO_DIRECT;
    bio.direct_align = 4096;
    expect(&bio, 0, 1, 0);
    iov[0].iov_len = 512;
    iov[1] = (struct iovec){buffer + 513, 4096 - 512};
    bio.nbytes = 4096;
    expect(&bio, 0, 1, 0);
    free(buffer);
}

void test_probe(void)
{
    for (uint64_t nbytes = 0; nbytes <= 8192; nbytes += 4096) {
        int fd = image(nbytes, 0);
        fill_image(fd, nbytes);
        uint8_t found = bio_probe_nowait(fd, true);
        CHECK(bio_probe_nowait(fd, false) == (found & BIO_NOWAIT_READ));
        struct stat now;
        CHECK(fstat(fd, &now) == 0 && now.st_size == (off_t)nbytes);
        uint8_t buffer[8192];
        CHECK(pread(fd, buffer, sizeof buffer, 0) == (ssize_t)nbytes);
        for (uint64_t i = 0; i < nbytes; i++)
            CHECK(buffer[i] == pattern(i));
        /* It tells the truth. */
        struct iovec iov = {buffer, 4096};
        ssize_t got = preadv2(fd, &iov, 1, 0, RWF_NOWAIT);
        CHECK((got >= 0 || errno == EAGAIN) == !!(found & BIO_NOWAIT_READ));
        got = pwritev2(fd, &iov, 1, 0, RWF_NOWAIT);
        CHECK((got >= 0 || errno == EAGAIN) == !!(found & BIO_NOWAIT_WRITE));
    }
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK(bio_probe_nowait(ends[0], true) == 0 && bio_probe_nowait(-1, true) == 0);
}
