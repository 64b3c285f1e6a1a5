/* SPDX-License-Identifier: BSD-2-Clause */
/* The block I/O engine of the fuzz targets: images in memory, and an order and an outcome that the input chooses. */
#ifndef FUZZ_ENGINE_H
#define FUZZ_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { IMAGES = 4, IMAGE_NBYTES = 65536, IMAGE_FD = 100000 };
enum engine_mode { ENGINE_INLINE, ENGINE_FLUSH, ENGINE_HELD, ENGINE_MODES };

struct engine_state {
    enum engine_mode mode;
    bool cancels;               /* what is held can be cancelled */
    int held_image;             /* mode applies to this and the later images; those before are served at once */
    uint8_t images[IMAGES][IMAGE_NBYTES];
};

extern struct engine_state engine_state;

/* Ends the `which`-th I/O that is held: 0 or an error, after `done` bytes at most. False: none is held. */
bool engine_end(uint32_t which, int error, uint64_t done);
/* The descriptor has input, as the kernel would say. */
void engine_mark(int fd);
uint32_t engine_held(void);

#endif
