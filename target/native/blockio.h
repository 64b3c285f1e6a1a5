/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Block I/O for one loop: the only part of the target that reads or writes images, and the place where a loop sleeps.
 * Knows descriptors, offsets and buffers; knows no LU, no SCSI, no ring.
 * An engine belongs to the thread that made it; nothing here blocks except bio_wait. Two engines stand behind these
 * functions: io_uring, and a pool of threads where io_uring is refused (a third is one file and one row in blockio.c).
 * On top of either, reads and writes first try preadv2/pwritev2 with RWF_NOWAIT where a probe found that it works.
 */
#ifndef VSCSI_BLOCKIO_H
#define VSCSI_BLOCKIO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

enum bio_kind { BIO_READ, BIO_WRITE, BIO_SYNC, BIO_DISCARD };

enum bio_flags {
    BIO_DURABLE = 1,      /* WRITE: RWF_DSYNC */
    BIO_NULL = 2,         /* no image: READ gives zeros, the rest does nothing */
    BIO_DIRECT = 4,       /* O_DIRECT descriptor: buffers and lengths that are not aligned are bounced */
    BIO_BLOCK_DEVICE = 8, /* DISCARD: BLKDISCARD instead of punching a hole */
    BIO_NOWAIT_READ = 16, /* this descriptor serves RWF_NOWAIT (bio_probe_nowait) */
    BIO_NOWAIT_WRITE = 32,
    BIO_MAY_BLOCK = 64    /* bio_may_block: only threads may touch it */
};

/*
 * One I/O, the engine's from bio_submit until it has ended. The caller fills the first part; the engine sets the rest,
 * so a struct bio may be used again as it is.
 */
struct bio {
    struct bio *next;           /* the caller's again once ended */
    void *owner;                /* caller's */
    const struct iovec *iov;    /* stays valid until ended; any count (the engine splits at IOV_MAX) */
    uint32_t iovcnt;
    int fd;
    uint8_t kind;
    uint8_t flags;
    uint16_t direct_align;      /* with BIO_DIRECT: 512 or 4096 */
    uint64_t offset;
    uint64_t nbytes;            /* READ, WRITE: the sum of the iovecs */
    /* result */
    int32_t error;              /* 0 or negative errno; a read past the end of the image is -EIO */
    uint64_t done;              /* bytes moved, from the start */
    /* engine's */
    uint8_t *bounce;
    uint64_t skip;              /* bytes of iov[index] that are done */
    uint32_t index;             /* the first iovec not wholly done */
    uint16_t state;
    uint16_t retries;
    struct iovec work[16];      /* what is handed to the kernel when it is not the caller's own array */
};

struct bio_config {
    uint32_t engine;            /* enum vt_engine */
    uint32_t depth;             /* I/Os in flight expected */
    uint32_t pool_threads;
};

struct bio_engine;

/* In the thread that will use it. NULL with *error. VT_ENGINE_AUTO falls back to the pool where io_uring is refused. */
struct bio_engine *bio_engine_new(const struct bio_config *config, int *error);
/* Nothing may be in flight. */
void bio_engine_free(struct bio_engine *e);
/* VT_ENGINE_URING or VT_ENGINE_POOL. */
int bio_engine_kind(const struct bio_engine *e);

/* Which of BIO_NOWAIT_READ and BIO_NOWAIT_WRITE this descriptor serves. Harmless to the image. */
uint8_t bio_probe_nowait(int fd, bool writable);

/* Whether I/O on this descriptor may block whoever submits it, io_uring or not: it lies on FUSE or a network, say. */
bool bio_may_block(int fd);

/* About so many I/Os are coming before the next flush: whether they share a submission is decided by that. */
void bio_expect(struct bio_engine *e, uint32_t count);
/* Starts an I/O. True: it ended at once (do not reap it). False: it is queued; bio_flush or bio_wait sends it off. */
bool bio_submit(struct bio_engine *e, struct bio *bio);
/* Hands all queued I/O to the kernel or the pool. */
void bio_flush(struct bio_engine *e);
/* The next I/O that has ended, or NULL. A partly done I/O may have been queued again: flush or wait before sleeping. */
struct bio *bio_reap(struct bio_engine *e);
/* Submitted and not reaped. */
uint32_t bio_in_flight(const struct bio_engine *e);
/* Asks for an I/O in flight to be given up; it is reaped as always, with -ECANCELED if that worked. */
void bio_cancel(struct bio_engine *e, struct bio *bio);

/*
 * Watches a descriptor for input (and hang-up); `cookie` comes back from bio_ready each time some arrives. Take it all
 * until the descriptor would block, or call bio_again: io_uring tells of arrivals, not of what was left behind. Now and
 * then a cookie comes once too often.
 * -EEXIST: it is watched already.
 */
int bio_watch(struct bio_engine *e, int fd, void *cookie);
/* No cookie of this descriptor is given after return. */
void bio_unwatch(struct bio_engine *e, int fd);
/* Gives the cookie of a watched descriptor once more: for a caller that has left input behind. */
void bio_again(struct bio_engine *e, int fd);
/*
 * Sleeps until an I/O ends, a watched descriptor has input, or the time is over (ns; UINT64_MAX: no limit).
 * With timeout 0 it only looks. May return early. Sends queued I/O off first.
 */
void bio_wait(struct bio_engine *e, uint64_t timeout_ns);
/* The cookie of a watched descriptor that has input, or NULL. */
void *bio_ready(struct bio_engine *e);

#endif
