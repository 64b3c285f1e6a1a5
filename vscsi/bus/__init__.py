# SPDX-License-Identifier: BSD-2-Clause
"""The bus: whatever supplies grants, event channels and the store. `local` is the first; real Xen would fit beside it.

A bus knows memory, events and key/value pairs; it knows no protocol that runs over them.
"""
