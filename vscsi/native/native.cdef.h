/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What `vscsi._native` offers to Python beside the ABI, and the private structures that cross between the three
 * native modules. Errors are negative errno throughout.
 */

/* ---- grants ---- */

/* What one initiator may bring: 64 GiB of memory in all, and a grant table with an entry for each page of it. */
enum vscsi_grant_limits { VSCSI_MAX_FRAMES = 16777216, VSCSI_MAX_TABLE_PAGES = 32769 };

/* The initiator's view of its own grant table. */
struct vscsi_granter {
    uint64_t *table;
    uint32_t nr_grants;
};

struct vscsi_region {
    uint8_t *base;
    uint32_t first_frame;
    uint32_t nr_frames;
    int fd;
};

struct vscsi_mapping;

/* The target's view of one initiator's memory: its regions, its grant table, and what of it is in use. */
struct vscsi_mapper {
    struct vscsi_region regions[16];
    uint32_t nr_regions;
    uint32_t nr_frames;
    uint32_t nr_grants;
    uint16_t domid;
    uint64_t *table;
    struct vscsi_mapping *mappings;
};

int vscsi_granter_grant(struct vscsi_granter *g, uint32_t gref, uint16_t domid, uint32_t frame, int readonly);
int vscsi_granter_end(struct vscsi_granter *g, uint32_t gref);
/*
 * Grants `count` frames in a row under references in a row; one granted alike already stays as it is. -EEXIST, and
 * nothing is granted: one is granted otherwise, as `*at`th of the run. -ERANGE: not all references exist.
 */
int vscsi_granter_grant_run(struct vscsi_granter *g, uint32_t gref, uint16_t domid, uint32_t frame, uint32_t count,
                            int readonly, uint32_t *at);
/* Flags of an entry as they stand (enum vscsi_gtf), or -ERANGE. */
int vscsi_granter_flags(struct vscsi_granter *g, uint32_t gref);

/*
 * Maps `count` regions (memfds; every one must be an ordinary memfd, not hugetlb, sealed against shrinking, a multiple
 * of the page size long) and finds the grant table in `table_pages` frames from `table_frame`. Descriptors are
 * duplicated. NULL with *error set: -EINVAL, -EPERM (no seal), -EFBIG (beyond the limits), -ENOMEM, ...
 */
struct vscsi_mapper *vscsi_mapper_new(const int *fds, uint32_t count, uint32_t table_frame, uint32_t table_pages,
                                      uint16_t domid, int *error);
/* Clears every in-use bit that is set and unmaps everything; nothing may be using the mapper. */
void vscsi_mapper_free(struct vscsi_mapper *m);
/* As vscsi_mapper_map of grant.h: 0, -ERANGE, -EACCES or -EFAULT. put: with the arguments of a get that gave 0. */
int vscsi_mapper_get(struct vscsi_mapper *m, uint32_t gref, int write, int persistent, uint8_t **addr);
void vscsi_mapper_put(struct vscsi_mapper *m, uint32_t gref, int write, int persistent);
/* Grants in use at this moment. */
uint32_t vscsi_mapper_in_use(struct vscsi_mapper *m);
/* Maps `count` granted pages one behind the other, writable, in use until unmapped: a ring. */
int vscsi_mapper_map_ring(struct vscsi_mapper *m, const uint32_t *grefs, uint32_t count, uint8_t **addr);
void vscsi_mapper_unmap_ring(struct vscsi_mapper *m, const uint32_t *grefs, uint32_t count, uint8_t *addr);

/* ---- events ---- */

/* A new pair of ends, both close-on-exec, with the smallest queue. 0 or negative errno. */
int vscsi_event_pair(int ends[2]);
int vscsi_event_send_fd(int fd);
int vscsi_event_drain_fd(int fd);

/* ---- rings, for the reverse ring and for tests; the hot paths use ring.h ---- */

uint32_t vscsi_ring_capacity(uint32_t pages, uint32_t slot_nbytes);
void vscsi_ring_format(void *page);
int vscsi_ring_front(struct vscsi_front_ring *r, void *page, uint32_t pages, uint32_t slot_nbytes, uint32_t start);
int vscsi_ring_back(struct vscsi_back_ring *r, void *page, uint32_t pages, uint32_t slot_nbytes, uint32_t start);
/* Writes one request and publishes it: 1 = the peer wants a kick, 0 = it does not, -EAGAIN = full. */
int vscsi_ring_request(struct vscsi_front_ring *r, const void *iu, uint32_t nbytes);
/* Takes one response into `iu` (slot_nbytes long): 1 taken, 0 none (and the next one will kick), -EPROTO. */
int vscsi_ring_take_response(struct vscsi_front_ring *r, void *iu);
/* Takes one request into `iu`: 1 taken, 0 none (and the next one will kick), -EPROTO. */
int vscsi_ring_take_request(struct vscsi_back_ring *r, void *iu);
int vscsi_ring_respond(struct vscsi_back_ring *r, const void *iu, uint32_t nbytes);

/* ---- load: what the load generators of both protocols and of `direct` share ---- */

enum vscsi_hist { VSCSI_HIST_SUB_BITS = 6, VSCSI_HIST_BUCKETS = 2560 };

struct vscsi_load_spec {
    uint32_t block_nbytes;     /* multiple of 512 */
    uint32_t queue_depth;
    uint32_t read_percent;     /* 100 read, 0 write */
    uint32_t random;           /* 0 sequential */
    uint64_t span_nbytes;      /* of the LU, from 0; multiple of block_nbytes */
    uint64_t duration_ns;
    uint64_t max_ios;          /* 0: only the duration ends it */
    uint64_t seed;
    uint32_t scatter;          /* enum vscsi_scatter */
    uint32_t reserved;
    uint64_t rate_per_s;       /* 0: closed loop. Else an I/O is due every 1/rate s, and its latency counts from then */
};

/* What a request's buffer looks like: one run, adjacent pages told apart, pages that are not adjacent. */
enum vscsi_scatter { VSCSI_SCATTER_NONE = 0, VSCSI_SCATTER_PAGES = 1, VSCSI_SCATTER_APART = 2 };

struct vscsi_load_result {
    uint64_t ios;
    uint64_t errors;
    uint64_t elapsed_ns;
    uint64_t cpu_ns;           /* of the calling thread */
    uint64_t kicks;            /* events sent */
    uint64_t sleeps;
    uint64_t max_ns;
    uint64_t unsent;           /* open loop: due when the time was over, and never sent */
    uint64_t histogram[2560];  /* latency in ns: VSCSI_HIST_SUB_BITS sub-buckets a power of two */
};

uint32_t vscsi_hist_bucket_of(uint64_t ns);
/* The value in the middle of a bucket, in ns. */
uint64_t vscsi_hist_value(uint32_t bucket);
/* The value at fraction q (0..1) of a histogram, in ns; 0 if it is empty. */
uint64_t vscsi_hist_quantile(const struct vscsi_load_result *r, double q);
void vscsi_load_merge(struct vscsi_load_result *into, const struct vscsi_load_result *from);

/* Hash of every C and header file that this binary was built from. */
const char *vscsi_stamp(void);
