# SPDX-License-Identifier: BSD-2-Clause
"""Mistakes that a peer could profit from, for tests that the fuzz targets see them: target, module, text, replacement.

Knows lines of the product's Python; test_python_fuzz.py has each put into the module when it is imported.
"""

MISTAKES: dict[str, tuple[str, str, str, str]] = {
    "hello's regions are not looked at": (
        "conversation", "vscsi.bus.local_target",
        "if not isinstance(sizes, list) or not 1 <= len(sizes) <= lib.VSCSI_MAX_REGIONS:", "if False:",
    ),
    "too deep for the parser is another exception": (
        "conversation", "vscsi.bus.wire", "except (ValueError, RecursionError) as error:",
        "except ValueError as error:",
    ),
    "a number in digits of any kind": (
        "conversation", "vscsi.nodes", "if not text.isascii() or not text.isdigit() or len(text) > 20:",
        "if not text.isdigit():",
    ),
    "a nexus that is not given back": (
        "conversation", "target.srp_device",
        "            self.server.nexuses.leave(nexus, self)\n            self._give_back(nexus)\n",
        "            self.server.nexuses.leave(nexus, self)\n",
    ),
    "descriptors that stay open": (
        "conversation", "vscsi.bus.connection",
        "        self._drop_received()\n        self._sock.close()", "        self._sock.close()",
    ),
    "a state that is none": (
        "nodes", "vscsi.bus.xenbus", 'if len(text) != 1 or text not in "012345678":', "if not text:",
    ),
    "states that lead anywhere": (
        "nodes", "vscsi.bus.xenbus", "(_S.CONNECTED, _S.INIT_WAIT): _LOST,",
        "(_S.CONNECTED, _S.INIT_WAIT): _PUBLISH,\n        (_S.CLOSED, _S.INIT_WAIT): _PUBLISH,",
    ),
    "a parameter list that is not all there": (
        "commands", "target.commands.task", "if self.port.data_out_nbytes < nbytes:", "if False:",
    ),
    "blocks behind the end": (
        "commands", "target.commands.task", "if not self.unit.contains(lba, blocks):", "if False:",
    ),
    "a mode page that is cut": (
        "commands", "target.commands.mode_select",
        "    if len(data) < at + head:\n        raise sense.PARAMETER_LIST_LENGTH_ERROR.error()\n", "",
    ),
    "a copy's list that is too short": (
        "commands", "target.commands.extended_copy", "if len(data) < layout.nbytes or len(data) > MAX_LIST_NBYTES:",
        "if len(data) > MAX_LIST_NBYTES:",
    ),
    "a lock that is not given back": (
        "commands", "target.scsi_device", "            if number:\n                self.unlock(unit, number)",
        "            if number and blocks != 1:\n                self.unlock(unit, number)",
    ),
    "kept reservations of any shape": (
        "documents", "target.reservations", "except (KeyError, TypeError, ValueError) as error:",
        "except (KeyError, ValueError) as error:",
    ),
    "an operation of any shape": (
        "documents", "target.operation", "except (LookupError, TypeError, ValueError) as error:",
        "except LookupError as error:",
    ),
    "damaged documents in silence": (
        "documents", "target.state",
        '        log.error("%s cannot be understood (%s): kept as %s", path, why, aside.name)\n', "",
    ),
    "a table that is none": (
        "configuration", "target.config",
        "if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):", "if False:",
    ),
    "a reason that is no text": (
        "answers-on-the-bus", "vscsi.bus.local_initiator", "isinstance(reason, str) and reason.isprintable()",
        "reason.isprintable()",
    ),
    "an event channel that nobody wanted stays open": (
        "answers-on-the-bus", "vscsi.bus.local_initiator",
        "            os.close(fd)\n            raise\n        self._events", "            raise\n        self._events",
    ),
    "an IU where it does not belong": (
        "login", "vscsi.srp", "        if rule is None:\n", "        if False:\n",
    ),
    "sense data that is too short": (
        "pages", "vscsi.scsi.sense_data", "if len(specific) < 3 or not specific[0] & 0x80:",
        "if not specific[0] & 0x80:",
    ),
    "a target that says it goes on and does not": (
        "programs", "initiator.commands.lbas", "if not more or more[-1].lba + more[-1].blocks <= next_lba:",
        "if not more:",
    ),
    "blocks of any length": (
        "disks", "initiator.lun", " or block > BLOCK_NBYTES_MAX:", ":",
    ),
    "all of a disk in one list": (
        "disks", "initiator.lun", "extents = ((lba + at, min(most, blocks - at)) for at in range(0, blocks, most))",
        "extents = iter([(lba + at, min(most, blocks - at)) for at in range(0, blocks, most)])",
    ),
    "a setting that there is not": (
        "door", "initiator.door.server", "if which >= len(settings):", "if False:",
    ),
    "data for a command that nobody knows": (
        "capture", "vscsi.pcap", "        if task is None or task.out_done:", "        if task.out_done:",
    ),
    "a size that no file has": (
        "admin", "target.admin", "if nbytes > FILE_NBYTES_MAX:", "if False:",
    ),
}  # fmt: skip
