# SPDX-License-Identifier: BSD-2-Clause
"""What each choice of the implementation is worth: SRP as it is against SRP with one thing done otherwise."""
