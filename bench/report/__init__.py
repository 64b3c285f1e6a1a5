# SPDX-License-Identifier: BSD-2-Clause
"""What `bench/compare.py --report` writes: pictures, claims and one page, from the bench's JSON alone."""
