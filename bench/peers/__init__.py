# SPDX-License-Identifier: BSD-2-Clause
"""Other ways to the same image: other targets, the file itself, and this project's other doors. One file each.

`bench/compare.py --peers` runs them beside SRP over the ring, in the same rounds on the same image.
"""
