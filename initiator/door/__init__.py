# SPDX-License-Identifier: BSD-2-Clause
"""The SG_IO door: a library preloaded into any program (C, in this folder) and the parent that it talks to (Python).

The library makes `/dev/vscsiN` look like a SCSI device; the parent owns login and rings, and turns each SG_IO into one
SRP_CMD. Neither answers a command by itself.
"""
