# SPDX-License-Identifier: BSD-2-Clause
"""Standard INQUIRY data (SPC-4 6.6.2), and the names of device types, versions and version descriptors.

Knows where the fields stand and what their values are called. Must not know what a particular target answers.
"""

from vscsi.scsi.fields import Layout, Value, be8, be16, bit, bits, text

NBYTES = 96

STANDARD = Layout(
    NBYTES,
    peripheral_qualifier=bits(0, 7, 5), peripheral_device_type=bits(0, 4, 0), rmb=bit(1, 7), lu_cong=bit(1, 6),
    version=be8(2), normaca=bit(3, 5), hisup=bit(3, 4), response_data_format=bits(3, 3, 0),
    additional_length=be8(4), sccs=bit(5, 7), acc=bit(5, 6), tpgs=bits(5, 5, 4), third_party_copy=bit(5, 3),
    protect=bit(5, 0), encserv=bit(6, 6), vs=bit(6, 5), multip=bit(6, 4), addr16=bit(6, 0), wbus16=bit(7, 5),
    sync=bit(7, 4), cmdque=bit(7, 1), vendor_identification=text(8, 8), product_identification=text(16, 16),
    product_revision_level=text(32, 4),
    **{f"version_descriptor_{i + 1}": be16(58 + 2 * i) for i in range(8)},
)  # fmt: skip

NO_LOGICAL_UNIT = 0x7F
"""Byte 0 where no logical unit can be: qualifier 3, type 1Fh."""

DEVICE_TYPES = {
    0x00: "disk", 0x01: "tape", 0x03: "processor", 0x05: "cd/dvd", 0x07: "optical", 0x08: "medium changer",
    0x0C: "storage array controller", 0x0D: "enclosure services", 0x0E: "simplified disk", 0x11: "object based storage",
    0x14: "host managed zoned block", 0x1E: "well known logical unit", 0x1F: "no physical device on this lu",
}  # fmt: skip

VERSIONS = {
    0x00: "no conformance claimed", 0x03: "SPC", 0x04: "SPC-2", 0x05: "SPC-3", 0x06: "SPC-4", 0x07: "SPC-5",
    0x08: "SPC-6",
}  # fmt: skip

VERSION_DESCRIPTORS = {
    0x00A0: "SAM-5 (no version claimed)",
    0x00C0: "SAM-6 (no version claimed)",
    0x0460: "SPC-4 (no version claimed)",
    0x04C0: "SBC-3 (no version claimed)",
    0x05C0: "SPC-5 (no version claimed)",
    0x0600: "SBC-4 (no version claimed)",
    0x0940: "SRP (no version claimed)",
}


def encode(*, version_descriptors: tuple[int, ...] = (), **values: Value) -> bytes:
    """96 bytes of standard INQUIRY data; additional length and response data format are filled in."""
    descriptors = {f"version_descriptor_{i + 1}": code for i, code in enumerate(version_descriptors)}
    return STANDARD.build(additional_length=NBYTES - 5, response_data_format=2, **values, **descriptors)


def decode(data: bytes) -> dict[str, Value]:
    """The fields that `data` holds, cut short or not; version descriptors that are zero are left out."""
    fields = STANDARD.decode(data)
    return {name: value for name, value in fields.items() if value or not name.startswith("version_descriptor_")}
