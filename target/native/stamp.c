/* SPDX-License-Identifier: BSD-2-Clause */
/* Which sources this binary was built from. */
#include "target.h"

const char *vt_stamp(void)
{
    return VSCSI_STAMP;
}
