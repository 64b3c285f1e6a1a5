/* SPDX-License-Identifier: BSD-2-Clause */
/* What the C tests of block I/O share: images, one I/O at a time, and the check that names its line. */
#ifndef BLOCKIO_TEST_H
#define BLOCKIO_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "blockio.h"
#include "target.h"

#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);  \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

/* The engine under test: open when a topic begins, closed after it. */
extern struct bio_engine *engine;
extern uint32_t engine_kind;
/* io_uring set-up flags that the kernel is made not to know. */
extern unsigned refused_flags;

/* Another engine of the same kind; ends the run with 77 where it is refused. */
void open_engine(uint32_t depth);
/* An unnamed file of zeros in the folder given. */
int image(uint64_t nbytes, int flags);
/* Byte `i` of a filled image, and what a test writes over it. */
uint8_t pattern(uint64_t i);
uint8_t inverse(uint64_t i);
void fill_image(int fd, uint64_t nbytes);
struct bio rw(uint8_t kind, int fd, const struct iovec *iov, uint32_t iovcnt, uint64_t offset);
/* Submits and waits for this one I/O. */
void run(struct bio *bio);

void test_read_write(void);
void test_half_cached(void);
void test_many_iovecs(void);
void test_short_file(void);
void test_bad_descriptor(void);
void test_durable(void);
void test_asks_for_durability(void);
void test_sync_discard(void);
void test_null_image(void);
void test_busy_turn(void);
void test_thousands(void);
void test_watch(void);
void test_wake_up(void);
void test_mixed(void);
void test_overflow(void);
void test_cancel(void);
void test_direct(void);
void test_probe(void);
void test_steps(void);
void test_refused(void);

#endif
