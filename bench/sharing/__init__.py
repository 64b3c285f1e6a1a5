# SPDX-License-Identifier: BSD-2-Clause
"""What bench/scheduler.py measures and shows: initiators that share one disk with a head."""
