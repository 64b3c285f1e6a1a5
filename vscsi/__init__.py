# SPDX-License-Identifier: BSD-2-Clause
"""What initiator and target share: native ring layer, local bus, SRP, blkif, SCSI facts.

Knows no image and no command line.
"""

__version__ = "0.1.0"
