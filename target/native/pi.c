/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Protection information (SBC-3 4.22, T10 DIF): 8 bytes for each protection interval, made, checked, and put between
 * the blocks or taken from between them. Knows CRC and tags; knows no CDB, and not where the bytes are kept.
 */
#include "target.h"

#include "be.h"

enum { POLYNOMIAL = 0x8bb7, SLICES = 16, PI_NBYTES = 8, NO_APP = 0xffff, NO_REF = 0xffffffff };

/* slices[k][b]: the CRC of byte b with k zeros behind it. */
static uint16_t slices[SLICES][256];

__attribute__((constructor)) static void fill_slices(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b << 8;
        for (int i = 0; i < 8; i++)
            crc = crc << 1 ^ (crc & 0x8000 ? POLYNOMIAL : 0);
        slices[0][b] = (uint16_t)crc;
    }
    for (uint32_t k = 1; k < SLICES; k++)
        for (uint32_t b = 0; b < 256; b++)
            slices[k][b] = (uint16_t)(slices[k - 1][b] << 8) ^ slices[0][slices[k - 1][b] >> 8];
}

uint16_t vt_pi_crc(const uint8_t *data, uint64_t nbytes)
{
    uint32_t crc = 0;
    for (; nbytes >= SLICES; nbytes -= SLICES, data += SLICES) {
        uint32_t next = slices[15][data[0] ^ crc >> 8] ^ slices[14][data[1] ^ (crc & 0xff)];
        for (uint32_t i = 2; i < SLICES; i++)
            next ^= slices[SLICES - 1 - i][data[i]];
        crc = next;
    }
    for (; nbytes; nbytes--)
        crc = (crc << 8 & 0xffff) ^ slices[0][*data++ ^ crc >> 8];
    return (uint16_t)crc;
}

/* The reference tag of interval `i`: counted from the first one, except for type 3, which gives it no meaning. */
static uint32_t ref_of(uint32_t type, uint64_t first, uint64_t i)
{
    return (uint32_t)(type == 3 ? first : first + i);
}

void vt_pi_generate(const uint8_t *data, uint8_t *pi, uint64_t blocks, uint32_t block_nbytes, uint32_t type,
                    uint64_t lba_or_ref, uint16_t app)
{
    for (uint64_t i = 0; i < blocks; i++, data += block_nbytes, pi += PI_NBYTES) {
        vscsi_put_be(pi, vt_pi_crc(data, block_nbytes), 2);
        vscsi_put_be(pi + 2, app, 2);
        vscsi_put_be(pi + 4, ref_of(type, lba_or_ref, i), 4);
    }
}

int64_t vt_pi_check(const uint8_t *data, const uint8_t *pi, uint64_t blocks, uint32_t block_nbytes, uint32_t type,
                    uint64_t lba_or_ref, uint16_t app, uint16_t app_mask, uint32_t checks)
{
    if (type == 3)
        checks &= ~(uint32_t)VT_PI_REF;
    for (uint64_t i = 0; i < blocks; i++, data += block_nbytes, pi += PI_NBYTES) {
        uint32_t its_app = (uint32_t)vscsi_get_be(pi + 2, 2), its_ref = (uint32_t)vscsi_get_be(pi + 4, 4);
        if (!(checks & VT_PI_NO_ESCAPE) && its_app == NO_APP && (type != 3 || its_ref == NO_REF))
            continue;
        uint32_t bad = 0;
        if (checks & VT_PI_GUARD && vscsi_get_be(pi, 2) != vt_pi_crc(data, block_nbytes))
            bad = VT_PI_GUARD;
        else if (checks & VT_PI_APP && (its_app ^ app) & app_mask)
            bad = VT_PI_APP;
        else if (checks & VT_PI_REF && its_ref != ref_of(type, lba_or_ref, i))
            bad = VT_PI_REF;
        if (bad)
            return (int64_t)(i << VT_PI_INDEX_SHIFT | bad);
    }
    return 0;
}

void vt_pi_join(uint8_t *joined, const uint8_t *data, const uint8_t *pi, uint64_t blocks, uint32_t block_nbytes)
{
    for (; blocks; blocks--, data += block_nbytes, pi += PI_NBYTES, joined += block_nbytes + PI_NBYTES) {
        memcpy(joined, data, block_nbytes);
        memcpy(joined + block_nbytes, pi, PI_NBYTES);
    }
}

void vt_pi_split(const uint8_t *joined, uint8_t *data, uint8_t *pi, uint64_t blocks, uint32_t block_nbytes)
{
    for (; blocks; blocks--, data += block_nbytes, pi += PI_NBYTES, joined += block_nbytes + PI_NBYTES) {
        memcpy(data, joined, block_nbytes);
        memcpy(pi, joined + block_nbytes, PI_NBYTES);
    }
}
