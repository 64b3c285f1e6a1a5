# SPDX-License-Identifier: BSD-2-Clause
"""How SCSI data looks to people: the texts of sg_inq and sg_vpd, and the same data for JSON.

Knows bytes that came from a device and the words sg3_utils has for them. Must not know how they were fetched.
"""
