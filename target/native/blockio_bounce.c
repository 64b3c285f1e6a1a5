/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * O_DIRECT for peers whose buffers are not aligned: the I/O goes through aligned scratch, a piece at a time, and is
 * copied from or to the iovecs. Knows alignment and copying; where scratch comes from is the engine's matter.
 * A read may be widened to aligned ends; a write may not (the bytes beside it are not ours), so it is refused before.
 */
#include <errno.h>
#include <string.h>

#include "blockio_engine.h"

bool bio_needs_bounce(const struct bio *bio)
{
    uintptr_t odd = (uintptr_t)(bio->offset | bio->nbytes);
    for (uint32_t i = 0; i < bio->iovcnt; i++)
        odd |= (uintptr_t)bio->iov[i].iov_base | bio->iov[i].iov_len;
    return odd & (bio->direct_align - 1u);
}

/* Copies `nbytes` between the scratch and the iovecs, from where the I/O stands, without moving on. */
static void copy(const struct bio *bio, uint8_t *scratch, uint64_t nbytes, bool to_iov)
{
    uint64_t skip = bio->skip;
    for (uint32_t i = bio->index; nbytes > 0 && i < bio->iovcnt; i++) {
        uint8_t *base = (uint8_t *)bio->iov[i].iov_base + skip;
        uint64_t n = bio->iov[i].iov_len - skip;
        if (n > nbytes)
            n = nbytes;
        if (to_iov)
            memcpy(base, scratch, n);
        else
            memcpy(scratch, base, n);
        scratch += n;
        nbytes -= n;
        skip = 0;
    }
}

struct bio_chunk bio_bounce_chunk(struct bio *bio)
{
    const uint64_t mask = bio->direct_align - 1u;
    uint64_t at = bio->offset + bio->done;
    uint64_t head = at & mask;
    uint64_t nbytes = (head + (bio->nbytes - bio->done) + mask) & ~mask;
    if (nbytes > BIO_BOUNCE_NBYTES)
        nbytes = BIO_BOUNCE_NBYTES;
    if (bio->kind == BIO_WRITE)
        copy(bio, bio->bounce, nbytes, false);
    bio->work[0] = (struct iovec){bio->bounce, nbytes};
    return (struct bio_chunk){.iov = bio->work, .count = 1, .offset = at - head};
}

/* `moved` bytes went through the scratch. True: the I/O has ended with an error. */
bool bio_bounce_account(struct bio *bio, uint64_t moved)
{
    const uint64_t mask = bio->direct_align - 1u;
    uint64_t head = (bio->offset + bio->done) & mask;
    uint64_t wanted = bio->nbytes - bio->done;
    uint64_t useful = moved > head ? moved - head : 0;
    if (useful > wanted)
        useful = wanted;
    if (bio->kind == BIO_WRITE)
        useful &= ~mask;
    if (useful == 0) {
        bio->error = -EIO;
        return true;
    }
    if (bio->kind == BIO_READ)
        copy(bio, bio->bounce + head, useful, true);
    bio_advance(bio, useful);
    return false;
}
