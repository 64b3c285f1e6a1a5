/* SPDX-License-Identifier: BSD-2-Clause */
/* Operations of the input that put requests into rings. Their first byte names the channel, and how: see requests.c. */
#ifndef FUZZ_REQUESTS_H
#define FUZZ_REQUESTS_H

#include "program.h"
#include "world.h"

/* A hostile channel, opened if need be; NULL where that is not possible now. */
struct peer_channel *hostile(uint8_t byte);

void op_raw(struct fuzz_in *in);
void op_command(struct fuzz_in *in);
void op_management(struct fuzz_in *in);
void op_blkif(struct fuzz_in *in);

/* A direct descriptor, and a blkif segment, into some of the pages that hold data. */
size_t put_direct(uint8_t *at, struct fuzz_in *in);
void put_segment(struct blkif_segment *s, struct fuzz_in *in);

#endif
