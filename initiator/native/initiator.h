/* SPDX-License-Identifier: BSD-2-Clause */
/* What cffi's generated wrapper includes for `initiator._native`. */
#ifndef VSCSI_INITIATOR_H
#define VSCSI_INITIATOR_H

#include "native.h"

#include "initiator.cdef.h"
#include "../door/door.cdef.h"

#endif
