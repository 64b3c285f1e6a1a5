/* SPDX-License-Identifier: BSD-2-Clause */
/* Big-endian fields of SRP and SCSI to and from host integers. */
#ifndef VSCSI_BE_H
#define VSCSI_BE_H

#include <string.h>

#include "abi.h"

/* Four and eight bytes, which are nearly all there are, take one load. */
static inline uint64_t vscsi_get_be(const uint8_t *p, size_t nbytes)
{
    uint64_t v = 0;
    uint32_t half;
    if (nbytes == sizeof half) {
        memcpy(&half, p, sizeof half);
        return __builtin_bswap32(half);
    }
    if (nbytes == sizeof v) {
        memcpy(&v, p, sizeof v);
        return __builtin_bswap64(v);
    }
    for (size_t i = 0; i < nbytes; i++)
        v = v << 8 | p[i];
    return v;
}

static inline void vscsi_put_be(uint8_t *p, uint64_t v, size_t nbytes)
{
    if (nbytes == 4) {
        const uint32_t half = __builtin_bswap32((uint32_t)v);
        memcpy(p, &half, sizeof half);
        return;
    }
    if (nbytes == 8) {
        v = __builtin_bswap64(v);
        memcpy(p, &v, sizeof v);
        return;
    }
    for (size_t i = nbytes; i-- > 0; v >>= 8)
        p[i] = (uint8_t)v;
}

static inline uint16_t get_be16(be16_t f)
{
    uint16_t v;
    memcpy(&v, f.b, sizeof v);
    return __builtin_bswap16(v);
}

static inline uint32_t get_be32(be32_t f)
{
    uint32_t v;
    memcpy(&v, f.b, sizeof v);
    return __builtin_bswap32(v);
}

static inline uint64_t get_be64(be64_t f)
{
    uint64_t v;
    memcpy(&v, f.b, sizeof v);
    return __builtin_bswap64(v);
}

static inline be16_t put_be16(uint16_t v)
{
    be16_t f;
    v = __builtin_bswap16(v);
    memcpy(f.b, &v, sizeof v);
    return f;
}

static inline be32_t put_be32(uint32_t v)
{
    be32_t f;
    v = __builtin_bswap32(v);
    memcpy(f.b, &v, sizeof v);
    return f;
}

static inline be64_t put_be64(uint64_t v)
{
    be64_t f;
    v = __builtin_bswap64(v);
    memcpy(f.b, &v, sizeof v);
    return f;
}

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "vscsi supports little-endian machines"
#endif

#endif
