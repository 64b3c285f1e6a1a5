/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Put before the product's C (gcc's -include) when real sessions are recorded: the same functions, and what passes the
 * target's slots, and pages that it maps, also go to the file that VSCSI_FUZZ_RECORD names. See tests/fuzz/record.py.
 * Knows names of functions; knows nothing of what a slot holds.
 */
#ifndef FUZZ_RECORD_H
#define FUZZ_RECORD_H

#if __has_include("grant.h")

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

enum { RECORD_REQUEST = 1, RECORD_RESPONSE = 2, RECORD_PAGE = 3 };

/* One write each, so that records of several files stay whole. */
static inline void fuzz_record(uint32_t kind, uint64_t at, const void *bytes, size_t nbytes)
{
    static int fd = -2;
    if (fd == -2) {
        const char *name = strstr(__BASE_FILE__, "target/native") ? getenv("VSCSI_FUZZ_RECORD") : NULL;
        fd = name ? open(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    }
    if (fd < 0)
        return;
    struct { uint64_t at; uint32_t kind, nbytes; } head = { at, kind, (uint32_t)nbytes };
    const struct iovec both[] = { { &head, sizeof head }, { (void *)(uintptr_t)bytes, nbytes } };
    if (writev(fd, both, 2) < 0)
        abort();
}

#define vscsi_slot_read plain_slot_read
#define vscsi_slot_write plain_slot_write
#include "barrier.h"
#undef vscsi_slot_read
#undef vscsi_slot_write

static inline void vscsi_slot_read(void *dst, const void *slot, size_t nbytes)
{
    plain_slot_read(dst, slot, nbytes);
    fuzz_record(RECORD_REQUEST, (uint64_t)(uintptr_t)slot, dst, nbytes);
}

static inline void vscsi_slot_write(void *slot, const void *src, size_t nbytes)
{
    plain_slot_write(slot, src, nbytes);
    fuzz_record(RECORD_RESPONSE, (uint64_t)(uintptr_t)slot, src, nbytes);
}

#define vscsi_mapper_map plain_mapper_map
#include "grant.h"
#undef vscsi_mapper_map

static inline int vscsi_mapper_map(struct vscsi_mapper *m, uint32_t gref, bool write, bool persistent, uint8_t **addr)
{
    int rc = plain_mapper_map(m, gref, write, persistent, addr);
    if (rc == 0 && !write)
        fuzz_record(RECORD_PAGE, gref, *addr, VSCSI_PAGE_SIZE);
    return rc;
}

#endif
#endif
