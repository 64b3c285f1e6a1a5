/* SPDX-License-Identifier: BSD-2-Clause */
/* Which sources this binary was built from. */
#include "initiator.h"

const char *vi_stamp(void)
{
    return VSCSI_STAMP;
}
