# SPDX-License-Identifier: BSD-2-Clause
"""What `bench/compare.py` is made of: workloads, lanes (one per protocol), rounds, statistics, report."""
