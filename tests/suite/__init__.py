# SPDX-License-Identifier: BSD-2-Clause
"""Libiscsi's conformance suite through the SG_IO door: what runs, on what, and what its results mean."""
