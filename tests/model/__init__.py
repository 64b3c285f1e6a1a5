# SPDX-License-Identifier: BSD-2-Clause
"""Models of the ring, the task set and the range locks, and the checker that looks at every state of them."""
