/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The steps of one I/O, the same for every engine: which iovecs to hand to the kernel next, what its answer means, when
 * the I/O has ended. Knows no queue, no thread and no ring. Every step moves at least one byte or ends the I/O, so that
 * an image which shrank, or a device which answers nonsense, ends in -EIO and never in a loop.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "blockio_engine.h"
#include "target.h"

void bio_advance(struct bio *bio, uint64_t nbytes)
{
    bio->done += nbytes;
    if (bio->done >= bio->nbytes)
        return;
    bio->skip += nbytes;
    while (bio->index < bio->iovcnt && bio->skip >= bio->iov[bio->index].iov_len)
        bio->skip -= bio->iov[bio->index++].iov_len;
}

struct bio_chunk bio_next_chunk(struct bio *bio)
{
    if (bio->bounce != NULL)
        return bio_bounce_chunk(bio);
    const struct iovec *iov = bio->iov + bio->index;
    uint32_t count = bio->iovcnt - bio->index;
    if (bio->skip == 0) {
        if (count > BIO_IOV_MAX)
            count = BIO_IOV_MAX;
    } else {
        /* A call ended inside an iovec: a few come from our array, then the caller's serves again. No allocation. */
        const uint32_t room = sizeof bio->work / sizeof bio->work[0];
        if (count > room)
            count = room;
        memcpy(bio->work, iov, count * sizeof *iov);
        bio->work[0].iov_base = (uint8_t *)bio->work[0].iov_base + bio->skip;
        bio->work[0].iov_len -= bio->skip;
        iov = bio->work;
    }
    return (struct bio_chunk){.iov = iov, .count = count, .offset = bio->offset + bio->done};
}

static bool end(struct bio *bio, int error)
{
    bio->error = error;
    return true;
}

bool bio_account(struct bio *bio, int64_t result)
{
    bool cancelled = bio->state & BIO_STATE_CANCEL;
    if (result == -EINTR || result == -EAGAIN) {
        if (cancelled)
            return end(bio, -ECANCELED);
        return ++bio->retries > BIO_RETRIES ? end(bio, (int)result) : false;
    }
    if (result < 0)
        return end(bio, (int)result);
    if (bio->kind == BIO_SYNC || bio->kind == BIO_DISCARD)
        return end(bio, 0);
    if (result == 0)
        return end(bio, -EIO);
    if (bio->bounce != NULL) {
        if (bio_bounce_account(bio, (uint64_t)result))
            return true;
    } else {
        bio_advance(bio, (uint64_t)result);
    }
    if (bio->done >= bio->nbytes)
        return end(bio, 0);
    /* O_DIRECT cannot go on from the middle of a block; only the end of the image stops it there. */
    if (bio->flags & BIO_DIRECT && bio->bounce == NULL && bio->done & (bio->direct_align - 1u))
        return end(bio, -EIO);
    return cancelled ? end(bio, -ECANCELED) : false;
}

static int64_t or_errno(int64_t result)
{
    return result < 0 ? -errno : result;
}

static int64_t run_read(struct bio *bio)
{
    struct bio_chunk c = bio_next_chunk(bio);
    return or_errno(preadv2(bio->fd, c.iov, (int)c.count, (off_t)c.offset, 0));
}

static int64_t run_write(struct bio *bio)
{
    struct bio_chunk c = bio_next_chunk(bio);
    return or_errno(
        pwritev2(bio->fd, c.iov, (int)c.count, (off_t)c.offset, bio->flags & BIO_DURABLE ? RWF_DSYNC : 0));
}

static int64_t run_sync(struct bio *bio)
{
    return or_errno(fdatasync(bio->fd));
}

int vt_discard(int fd, int is_block_device, uint64_t offset, uint64_t nbytes)
{
    if (nbytes == 0)
        return 0;
    if (offset > INT64_MAX || nbytes > INT64_MAX - offset)
        return -EINVAL;
    if (is_block_device) {
        uint64_t range[2] = {offset, nbytes};
        return (int)or_errno(ioctl(fd, BLKDISCARD, range));
    }
    return (int)or_errno(
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)nbytes));
}

static int64_t run_discard(struct bio *bio)
{
    return vt_discard(bio->fd, bio->flags & BIO_BLOCK_DEVICE, bio->offset, bio->nbytes);
}

void bio_run(struct bio *bio)
{
    static int64_t (*const run[])(struct bio *) = {
        [BIO_READ] = run_read, [BIO_WRITE] = run_write, [BIO_SYNC] = run_sync, [BIO_DISCARD] = run_discard};
    while (!bio_account(bio, run[bio->kind](bio)))
        ;
}

static bool nowait_works(int64_t result)
{
    return result >= 0 || result == -EAGAIN;
}

/*
 * io_uring hands I/O on a file without RWF_NOWAIT to a few kernel threads, which such files could occupy all together;
 * and if it has a poll method, as FUSE's have, takes that for a promise not to block, which FUSE does not keep.
 */
bool bio_may_block(int fd)
{
    enum { TMPFS = 0x01021994 };
    uint8_t buffer[512];
    struct iovec iov = {buffer, sizeof buffer};
    struct stat st;
    struct statfs fs;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS))
        return false;
    return or_errno(preadv2(fd, &iov, 1, 0, RWF_NOWAIT)) == -EOPNOTSUPP;
}

uint8_t bio_probe_nowait(int fd, bool writable)
{
    uint8_t found = 0;
    uint8_t buffer[512];
    struct iovec iov = {buffer, sizeof buffer};
    int mode = fcntl(fd, F_GETFL);
    /* With O_DIRECT the flag spares locks, not the wait for the device. */
    if (mode < 0 || mode & O_DIRECT)
        return 0;
    if (nowait_works(or_errno(preadv2(fd, &iov, 1, 0, RWF_NOWAIT))))
        found |= BIO_NOWAIT_READ;
    if (writable) {
        /* A write from a page that cannot be read: -EFAULT is as far as a file system gets that takes the flag. */
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        void *nothing = mmap(NULL, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (nothing != MAP_FAILED) {
            struct iovec bad = {nothing, sizeof buffer};
            if (or_errno(pwritev2(fd, &bad, 1, 0, RWF_NOWAIT)) == -EFAULT)
                found |= BIO_NOWAIT_WRITE;
            munmap(nothing, page);
        }
    }
    return found;
}
