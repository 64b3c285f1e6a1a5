/* SPDX-License-Identifier: BSD-2-Clause */
/* The product's front of block I/O under other names, so that the harness can stand before it. Knows nothing else. */
#define bio_engine_new product_engine_new
#define bio_engine_free product_engine_free
#define bio_engine_kind product_engine_kind
#define bio_expect product_expect
#define bio_submit product_submit
#define bio_flush product_flush
#define bio_reap product_reap
#define bio_in_flight product_in_flight
#define bio_cancel product_cancel
#define bio_watch product_watch
#define bio_unwatch product_unwatch
#define bio_again product_again
#define bio_wait product_wait
#define bio_ready product_ready

#include "blockio.c"

#include "engine.h"

const struct engine_functions engine_of_product = {
    .create = bio_engine_new, .expect = bio_expect, .submit = bio_submit, .flush = bio_flush, .reap = bio_reap,
    .in_flight = bio_in_flight, .cancel = bio_cancel, .watch = bio_watch, .unwatch = bio_unwatch, .again = bio_again,
    .wait = bio_wait, .ready = bio_ready,
};
