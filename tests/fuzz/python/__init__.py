# SPDX-License-Identifier: BSD-2-Clause
"""Fuzz targets for Python: bytes go in, and nothing but what is declared may come out.

`registry` lists them; the files beside it hold them. What a hostile one of these may say, where it is met, by which
target it is tried:

| Who | What | Where | Target |
| --- | --- | --- | --- |
| initiator | frames, JSON, any descriptors with any of them | `vscsi/bus` | conversation |
| initiator | store batches, nodes, XenBus states in any order | `vscsi/bus/store`, `target/device` | conversation |
| initiator | logins, logouts, junk on its rings; pages and indexes | `target/srp_device`, `vscsi/srp*` | conversation |
| initiator | answers on the reverse ring, kicks | `target/srp_device` | conversation |
| initiator | blkif's negotiation | `target/blkif_device`, `vscsi/blkif` | conversation, nodes |
| initiator | requests `stats`, `info` | `target/report` | conversation |
| initiator | sequences of any CDBs with any parameter lists | `target/commands`, parts of units | commands |
| initiator | whatever comes into a capture | `target/pcap`, `vscsi/pcap`, `vscsi/iscsi` | capture |
| owner | questions to a running target | `target/admin`, `target/*_admin` | admin |
| target | frames, answers, descriptors | `vscsi/bus/local_initiator` | answers-on-the-bus |
| target | backend nodes and states, at any time | `initiator/xenbus`, `vscsi/nodes`, `vscsi/blkif` | nodes |
| target | answers to the login, logouts, credit, events | `initiator/hba`, `vscsi/srp*` | login |
| target | sense, VPD, mode and log pages, lists | `vscsi/scsi`, `initiator/text` | pages |
| target | answers to all that a command of ours asks | `initiator/commands`, `initiator/copying` | programs |
| target | capacities, limits, residuals, data | `initiator/lun`, the disks of door and mount | disks |
| program | messages of the preloaded library | `initiator/door` | door |
| file | documents and journals beside an image | `target/state` and the parts that load | documents |
| file | configuration, LUN specifications, fault rules | `target/config`, `target/lunspec` | configuration |

The native cores have targets of their own (`tests/fuzz/native`). `initiator mount` has no socket: what reaches it is
the kernel's, and its disk is under `disks`.
"""
