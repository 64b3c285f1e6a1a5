/* SPDX-License-Identifier: BSD-2-Clause */
/* What cffi's generated wrapper includes for `target._native`. */
#ifndef VSCSI_TARGET_H
#define VSCSI_TARGET_H

#include "native.h"

#include "target.cdef.h"
#include "lu.cdef.h"
#include "channel.cdef.h"
#include "data.cdef.h"
#include "sched.cdef.h"
#include "slow.cdef.h"

#endif
