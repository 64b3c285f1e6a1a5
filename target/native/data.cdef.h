/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What Python has done to bytes in C: captures, protection information, the engine without a ring, holes.
 * Knows no logical unit. What target.cdef.h says of functions holds here too.
 */

/* ---- the tap: what passes the SRP channels, for a capture ---- */

enum vt_tap_kind {
    VT_TAP_REQUEST = 1,      /* an IU from the initiator (a whole slot), sizes of its buffers */
    VT_TAP_DATA_OUT = 2,     /* instead of an IU the 8 bytes of the tag, then data */
    VT_TAP_DATA_IN = 3,
    VT_TAP_RESPONSE = 4      /* an IU to the initiator */
};

/* iu_nbytes of IU and data_nbytes of data follow. */
struct vt_tap_record {
    uint64_t ns;             /* since the epoch */
    uint64_t out_nbytes;     /* REQUEST: what the descriptors hold; data: how much there was, captured or not */
    uint64_t in_nbytes;
    uint32_t kind;
    uint32_t channel;
    uint32_t iu_nbytes;
    uint32_t data_nbytes;
};

/* Before vt_start: a ring of so many bytes (a power of two) for each loop; at most data_limit bytes a data record. */
int vt_tap_start(struct vt_target *t, uint64_t ring_nbytes, uint64_t data_limit);
/* One thread only, these two. 1 if there is something to read, 0 on time-out, -ESHUTDOWN: nothing will ever come. */
int vt_tap_wait(struct vt_target *t, int timeout_ms);
/* Takes up to nbytes of a loop's stream of records, cut anywhere: how many. */
int64_t vt_tap_read(struct vt_target *t, uint32_t loop, void *to, uint64_t nbytes);

struct vt_tap_stats {
    uint64_t lost;           /* records that did not fit */
    uint64_t cut;            /* records whose data did not fit */
};

int vt_tap_stats(struct vt_target *t, struct vt_tap_stats *stats);

/* ---- protection information (SBC-3 4.22): 8 bytes, big-endian: guard 0-1, application tag 2-3, reference tag 4-7 ---- */

enum vt_pi_checks { VT_PI_GUARD = 1, VT_PI_APP = 2, VT_PI_REF = 4, VT_PI_INDEX_SHIFT = 3, VT_PI_NO_ESCAPE = 8 };

/* CRC16-T10DIF. */
uint16_t vt_pi_crc(const uint8_t *data, uint64_t nbytes);
/*
 * Here a block is a protection interval: with a PROTECTION INTERVAL EXPONENT a logical block is several. Reference tags
 * count from the low 32 bits of `lba_or_ref`; with type 3 (or for a tag that shall not count) all are the same.
 */
void vt_pi_generate(const uint8_t *data, uint8_t *pi, uint64_t blocks, uint32_t block_nbytes, uint32_t type,
                    uint64_t lba_or_ref, uint16_t app);
/*
 * 0: all good. Otherwise index << VT_PI_INDEX_SHIFT | the first of enum vt_pi_checks that failed there. Only `checks`
 * are made; the reference tag never with type 3. Application tag FFFFh (type 3: and reference tag FFFFFFFFh) exempts
 * a block from all of them, as it does when reading from the medium; not with VT_PI_NO_ESCAPE. `app_mask`: bits of
 * the application tag that are compared.
 */
int64_t vt_pi_check(const uint8_t *data, const uint8_t *pi, uint64_t blocks, uint32_t block_nbytes, uint32_t type,
                    uint64_t lba_or_ref, uint16_t app, uint16_t app_mask, uint32_t checks);
/* Each block with its 8 bytes behind it, as on the wire, and the way back. */
void vt_pi_join(uint8_t *joined, const uint8_t *data, const uint8_t *pi, uint64_t blocks, uint32_t block_nbytes);
void vt_pi_split(const uint8_t *joined, uint8_t *data, uint8_t *pi, uint64_t blocks, uint32_t block_nbytes);

/* ---- direct: the same block I/O engine in the calling thread, no ring; for the bench ---- */

/*
 * Runs `spec` on `fd` with this engine (releases the GIL, returns when done). `flags`: VT_LU_NULL (no image),
 * VT_LU_DIRECT, VT_LU_WRITE_CACHE (without it every write is durable). A first error ends the load.
 * Payload is neither written nor looked at by us. -EIO etc. if I/O failed.
 */
int vt_direct_load(int fd, uint32_t flags, uint32_t engine, uint32_t nowait, const struct vscsi_load_spec *spec,
                   struct vscsi_load_result *result);

/* Punches a hole (file) or discards (block device): 0, -EOPNOTSUPP, ... Blocks: Python workers only. */
int vt_discard(int fd, int is_block_device, uint64_t offset, uint64_t nbytes);
