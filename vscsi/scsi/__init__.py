# SPDX-License-Identifier: BSD-2-Clause
"""Facts of the SCSI standards as tables, for both ends: commands, sense, status, LUNs, INQUIRY, VPD and mode pages.

Knows how bits are laid out and what they are called; encodes and decodes. Must not know a logical unit, an image,
a transport, a clock, a socket or a thread.
"""
