/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Scheduling of a device that several nexuses share, and a simulated disk to see what it is worth, as Python sees them.
 * Policy stands in target/scheduling.py: who has which weight and limits, which logical units share a device.
 * Functions return 0 or more, or negative errno, and may be called from any thread; none waits.
 */

enum vt_sched_limits { VT_SCHED_MAX_WEIGHT = 10000, VT_SCHED_MAX_DEPTH = 65536, VT_SCHED_MAX_IDLE_US = 100000 };

/* ---- schedulers: one for each device ---- */

struct vt_sched_config {
    uint32_t depth;          /* requests at the device at once */
    uint32_t rotational;     /* it has a head to move: sorted, and charged by the time it takes. Fixed */
    uint32_t quantum_us;     /* rotational: device time by which a nexus may lead others while it runs sequentially */
    uint32_t idle_us;        /* rotational: so long the device may stay idle for the next request of a stream; 0: never */
    uint64_t seed;           /* any number that no peer knows */
};

/* What one nexus may have of a device. */
struct vt_sched_share {
    uint32_t weight;         /* 1 to VT_SCHED_MAX_WEIGHT; 100 unless set */
    uint32_t iops;           /* requests a second; 0: no limit */
    uint64_t bytes_per_s;    /* likewise */
};

struct vt_sched_stats {
    uint64_t requests;       /* let at the device so far */
    uint64_t bytes;
    uint64_t waited_ns;      /* all of them together, before that */
    uint32_t waiting;
    uint32_t running;
};

/* A new scheduler's number. It lives as long as the target. -EINVAL, -ENOSPC, -ENOMEM. */
int vt_sched_add(struct vt_target *t, const struct vt_sched_config *config);
/* Changes depth, quantum and idle_us. */
int vt_sched_update(struct vt_target *t, uint32_t sched, const struct vt_sched_config *config);
/* For one nexus, or VT_ALL: for every one and those to come. */
int vt_sched_share(struct vt_target *t, uint32_t sched, uint32_t nexus, const struct vt_sched_share *share);
/* Another initiator has that index from now on: what the former had is forgotten. */
int vt_sched_forget(struct vt_target *t, uint32_t sched, uint32_t nexus);
int vt_sched_stats(struct vt_target *t, uint32_t sched, uint32_t nexus, struct vt_sched_stats *stats);
/*
 * READs and WRITEs of the LU, blkif's too, take turns at this scheduler's device from now on. `base`: where the LU
 * begins on it, in bytes. For good: -EEXIST if it has one.
 */
int vt_lu_schedule(struct vt_target *t, uint32_t lu, uint32_t sched, uint64_t base);

/* ---- the queue of a scheduler without target and clock, for tests: requests by number ---- */

struct vt_sched_model;

struct vt_sched_model *vt_sched_model_new(const struct vt_sched_config *config, uint32_t nexuses);
void vt_sched_model_free(struct vt_sched_model *m);
int vt_sched_model_share(struct vt_sched_model *m, uint32_t nexus, const struct vt_sched_share *share);
int vt_sched_model_update(struct vt_sched_model *m, const struct vt_sched_config *config);
/* Numbers count from 0. */
int64_t vt_sched_model_put(struct vt_sched_model *m, uint32_t nexus, uint64_t at, uint64_t nbytes, uint32_t write,
                           uint32_t urgent, uint64_t now_ns);
/* The number of the next for the device, -EAGAIN and when to ask again. Bit 62: it goes with the one before. */
int64_t vt_sched_model_next(struct vt_sched_model *m, uint64_t now_ns, uint64_t *again_ns);
int vt_sched_model_drop(struct vt_sched_model *m, int64_t number);
int vt_sched_model_done(struct vt_sched_model *m, int64_t number, uint64_t now_ns);

/* ---- a simulated disk: one head, first come first served ---- */

struct vt_disk_config {
    uint64_t nbytes;
    uint64_t bytes_per_s;    /* under the head */
    uint32_t revolution_us;
    uint32_t seek_us;        /* on average: between random places */
    uint32_t step_us;        /* the shortest seek */
    uint32_t reserved;
};

struct vt_disk;

/* NULL: a number is 0, or memory is short. */
struct vt_disk *vt_disk_new(const struct vt_disk_config *config);
/* Another size: seeks over it take as long as over the former one. */
void vt_disk_resize(struct vt_disk *disk, uint64_t nbytes);
/* Nothing may use it any more. */
void vt_disk_free(struct vt_disk *disk);
/*
 * Takes a request at that time, behind all that were taken before, and says when it will be done. One that begins where
 * the last ended only has to be transferred: every disk reads ahead, and gathers what it has to write.
 */
uint64_t vt_disk_serve(struct vt_disk *disk, uint64_t offset, uint64_t nbytes, uint64_t now_ns);
/*
 * Media access of the LU's fast path takes as long as this disk would, `base` bytes from its start. For good; the disk
 * must outlive the target.
 */
int vt_lu_disk(struct vt_target *t, uint32_t lu, struct vt_disk *disk, uint64_t base);
