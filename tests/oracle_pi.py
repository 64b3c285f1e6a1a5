# SPDX-License-Identifier: BSD-2-Clause
"""Protection information in plain Python, bit by bit: the oracle for the target's, which is in C."""


def crc(data: bytes) -> int:
    """CRC-16/T10-DIF."""
    value = 0
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ (0x8BB7 if value & 0x8000 else 0)) & 0xFFFF
    return value


def info(data: bytes, ref: int, app: int = 0) -> bytes:
    """The 8 bytes of one block."""
    return crc(data).to_bytes(2, "big") + app.to_bytes(2, "big") + (ref & 0xFFFFFFFF).to_bytes(4, "big")


def wire(blocks: list[bytes], ref: int, app: int = 0, *, count: bool = True) -> bytes:
    """Blocks with their information, as they travel."""
    return b"".join(block + info(block, ref + count * i, app) for i, block in enumerate(blocks))
