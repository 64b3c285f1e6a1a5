# SPDX-License-Identifier: BSD-2-Clause
"""The file door: logical units as files, through FUSE.

`disk` makes bytes of blocks, `files` makes a folder of disks and knows no FUSE library, `fuse` is the only part that
does. Must not know the command line.
"""
