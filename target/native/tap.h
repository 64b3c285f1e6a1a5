/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where SRP channels show what passes them, for a capture. Off, a hook is one predictable branch; on, it copies into
 * its loop's own ring and never waits: what does not fit is counted and lost. Knows IUs as bytes, and data buffers.
 */
#ifndef VSCSI_TAP_H
#define VSCSI_TAP_H

#include "core.h"

void vt_tap_put_request(struct vt_task *task);
void vt_tap_put_data(struct vt_task *task, uint32_t direction);
void vt_tap_put_response(struct vt_channel *channel, const void *iu, uint32_t nbytes);
/* After the loops have been joined: whoever reads is told that nothing more comes. */
void vt_tap_stop(struct vt_target *t);
void vt_tap_free(struct vt_target *t);

static inline bool vt_tapped(const struct vt_channel *channel)
{
    return __builtin_expect(channel->loop->tap != NULL, 0) && channel->ops == &vt_srp_ops;
}

/* An IU from the initiator, once the private copy is whole and the sizes of its buffers are known. */
static inline void vt_tap_request(struct vt_task *task)
{
    if (vt_tapped(task->channel))
        vt_tap_put_request(task);
}

/* Data-out, once it is mapped. */
static inline void vt_tap_data_out(struct vt_task *task)
{
    if (vt_tapped(task->channel))
        vt_tap_put_data(task, BUF_OUT);
}

/* Data-in, while it is still mapped. */
static inline void vt_tap_data_in(struct vt_task *task)
{
    if (vt_tapped(task->channel))
        vt_tap_put_data(task, BUF_IN);
}

static inline void vt_tap_response(struct vt_channel *channel, const void *iu, uint32_t nbytes)
{
    if (vt_tapped(channel))
        vt_tap_put_response(channel, iu, nbytes);
}

#endif
