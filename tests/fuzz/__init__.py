# SPDX-License-Identifier: BSD-2-Clause
"""Fuzz targets: programs in C that play a malicious peer, the inputs that they have met, and random tests in Python."""
