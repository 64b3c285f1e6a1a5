# SPDX-License-Identifier: BSD-2-Clause
"""To be written."""
