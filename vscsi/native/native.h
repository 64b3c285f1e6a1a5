/* SPDX-License-Identifier: BSD-2-Clause */
/* What cffi's generated wrapper includes for `vscsi._native`. */
#ifndef VSCSI_NATIVE_H
#define VSCSI_NATIVE_H

#include <stdint.h>
#include <string.h>

#include "abi.h"
#include "native.cdef.h"

#endif
