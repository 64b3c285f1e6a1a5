/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The queue of commands for Python's workers without target and worker, for tests: who waits and who runs, by number.
 * Knows owners and rooms (slow_queue.h) by number; must not know tasks.
 */

struct vt_slow_model;

/* NULL: no memory. At most `limit` of each room run at once, 0: any number. */
struct vt_slow_model *vt_slow_model_new(uint32_t owners, uint32_t rooms, uint32_t limit);
void vt_slow_model_free(struct vt_slow_model *m);
/* Its number, from 0 on, or -EINVAL, -ENOMEM. `room` == rooms: one without bounds. */
int64_t vt_slow_model_put(struct vt_slow_model *m, uint32_t owner, uint32_t room);
/* The number of the one that runs now, or -EAGAIN. */
int64_t vt_slow_model_next(struct vt_slow_model *m);
int vt_slow_model_drop(struct vt_slow_model *m, int64_t number);     /* one that waits; -ENOENT */
int vt_slow_model_done(struct vt_slow_model *m, int64_t number);     /* one that runs; -ENOENT */
/* What all choices and ends so far have looked at: lanes and levels. */
uint64_t vt_slow_model_steps(const struct vt_slow_model *m);
