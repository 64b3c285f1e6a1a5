/* SPDX-License-Identifier: BSD-2-Clause */
/* The ABI as C sees it: the shared declarations, and the proof that their layout is the standards'. */
#ifndef VSCSI_ABI_H
#define VSCSI_ABI_H

#include <stddef.h>
#include <stdint.h>

#include "abi.cdef.h"

_Static_assert(sizeof(struct vscsi_sring) == VSCSI_RING_HEADER, "Xen ring header");
_Static_assert(offsetof(struct vscsi_sring, rsp_event) == 12, "Xen ring header");
_Static_assert(sizeof(struct vscsi_grant_entry) == 8, "grant v1");
_Static_assert(sizeof(struct srp_direct_buf) == 16, "SRP direct descriptor");
_Static_assert(sizeof(struct srp_indirect_buf) == 20, "SRP indirect descriptor");
_Static_assert(sizeof(struct srp_login_req) == 64, "SRP_LOGIN_REQ");
_Static_assert(sizeof(struct srp_login_rsp) == 52, "SRP_LOGIN_RSP");
_Static_assert(sizeof(struct srp_login_rej) == 32, "SRP_LOGIN_REJ");
_Static_assert(sizeof(struct srp_i_logout) == 16, "SRP_I_LOGOUT");
_Static_assert(sizeof(struct srp_t_logout) == 16, "SRP_T_LOGOUT");
_Static_assert(sizeof(struct srp_tsk_mgmt) == 48, "SRP_TSK_MGMT");
_Static_assert(offsetof(struct srp_tsk_mgmt, tsk_mgmt_func) == 30, "SRP_TSK_MGMT");
_Static_assert(sizeof(struct srp_cmd) == 48, "SRP_CMD");
_Static_assert(offsetof(struct srp_cmd, lun) == 20, "SRP_CMD");
_Static_assert(offsetof(struct srp_cmd, cdb) == 32, "SRP_CMD");
_Static_assert(sizeof(struct srp_rsp) == 36, "SRP_RSP");
_Static_assert(offsetof(struct srp_rsp, flags) == 18, "SRP_RSP");
_Static_assert(sizeof(struct srp_cred_req) == 16, "SRP_CRED_REQ");
_Static_assert(sizeof(struct srp_cred_rsp) == 16, "SRP_CRED_RSP");
_Static_assert(sizeof(struct srp_aer_req) == 36, "SRP_AER_REQ");
_Static_assert(sizeof(struct srp_aer_rsp) == 16, "SRP_AER_RSP");
_Static_assert(sizeof(struct blkif_segment) == 8, "blkif segment");
_Static_assert(sizeof(struct blkif_request) == VSCSI_BLKIF_SLOT, "blkif request");
_Static_assert(sizeof(struct blkif_request_discard) == 32, "blkif discard");
_Static_assert(sizeof(struct blkif_request_indirect) == 64, "blkif indirect");
_Static_assert(offsetof(struct blkif_request_indirect, indirect_grefs) == 28, "blkif indirect");
_Static_assert(sizeof(struct blkif_response) == 16, "blkif response");

#endif
