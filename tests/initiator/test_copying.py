# SPDX-License-Identifier: BSD-2-Clause
"""Steps of a copy between units of different block lengths; the methods' commands against canned answers."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator import copying
from initiator.copying import METHODS, Job
from initiator.errors import InitiatorError
from vscsi.scsi import cdb, copy, token, vpd, vpd_copy


@dataclass
class FakeLun:
    """Blocks in memory, and answers by the name of the command."""

    lun: int
    block_nbytes: int = 512
    data: bytearray = field(default_factory=lambda: bytearray(64 * 4096))
    answers: dict[str, bytes] = field(default_factory=dict)
    sent: list[tuple[str, dict[str, int], bytes]] = field(default_factory=list)

    def execute(self, raw: bytes, *, data_in: int = 0, data_out: bytes = b"", repeatable: bool = False) -> Any:
        row = cdb.lookup(raw)
        assert row is not None
        self.sent.append((row.name, row.parse(raw), bytes(data_out)))
        return SimpleNamespace(data_in=self.answers.get(row.name, b""))

    def read(self, lba: int, blocks: int) -> bytes:
        return bytes(self.data[lba * self.block_nbytes : (lba + blocks) * self.block_nbytes])

    def write(self, lba: int, data: bytes) -> None:
        self.data[lba * self.block_nbytes : lba * self.block_nbytes + len(data)] = data


def job(source: FakeLun, destination: FakeLun, source_lba: int = 0, destination_lba: int = 0, blocks: int = 8) -> Job:
    return Job(source, source_lba, destination, destination_lba, blocks)  # type: ignore[arg-type]


def designators(*values: bytes) -> bytes:
    return vpd.encode_identification(vpd.Designator(vpd.BINARY, 0, vpd.DesignatorType.NAA, v) for v in values)


sizes = st.sampled_from([512, 1024, 4096])


@given(sizes, sizes, st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 100), st.integers(1, 100_000))
def test_steps_cover_everything_once(one: int, two: int, at: int, to: int, count: int, most: int) -> None:
    blocks = count * max(one, two) // one
    whole = job(FakeLun(0, one), FakeLun(1, two), at, to, blocks)
    source, destination = at, to
    for source_lba, destination_lba, step, nbytes in whole.steps(most):
        assert (source_lba, destination_lba) == (source, destination)
        assert nbytes == step * one > 0
        assert nbytes % two == 0
        assert nbytes <= max(most, one, two)
        source, destination = source + step, destination + nbytes // two
    assert source == at + blocks
    assert destination == to + whole.nbytes // two


def test_through_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "CHUNK_NBYTES", 4096)
    source, destination = FakeLun(0), FakeLun(1, 4096)
    source.data[:] = bytes(range(256)) * (len(source.data) // 256)
    source.data[9000] = 0xEE
    whole = job(source, destination, 8, 2, 32)
    assert list(METHODS["host"](whole)) == [4096] * 4
    assert destination.data[8192 : 8192 + 16384] == source.data[4096 : 4096 + 16384]
    assert list(copying.first_difference(whole)) == [(4096, None)] * 4
    destination.data[8192 + 5000] ^= 1
    assert list(copying.first_difference(whole)) == [(4096, None), (4096, 904)]


@pytest.mark.parametrize(("name", "header_nbytes"), [("lid1", 16), ("lid4", 48)])
def test_extended_copy_sends_one_segment_a_command(name: str, header_nbytes: int) -> None:
    source, destination = FakeLun(0), FakeLun(1)
    source.answers["INQUIRY"] = designators(bytes(16))
    destination.answers["INQUIRY"] = designators(b"\x60" + bytes(15))
    operating = copy.encode_operating_parameters((0x02, 0xE4), maximum_segment_length=8 * 512)
    destination.answers["RECEIVE COPY OPERATING PARAMETERS"] = operating
    assert list(METHODS[name](job(source, destination, 100, 200, 20))) == [4096, 4096, 2048]
    lists = [data for row, _, data in destination.sent if row.startswith("EXTENDED COPY")]
    segments = [copy.SEGMENT_BLOCKS.numbers(data[header_nbytes + 64 :]) for data in lists]
    assert [(s["source_lba"], s["destination_lba"], s["number_of_blocks"]) for s in segments] == [
        (100, 200, 8), (108, 208, 8), (116, 216, 4)
    ]  # fmt: skip
    assert all(len(data) == header_nbytes + 64 + 28 for data in lists)


def test_a_unit_without_a_short_designator_cannot_be_named() -> None:
    source, destination = FakeLun(3), FakeLun(1)
    source.answers["INQUIRY"] = designators(bytes(21))
    with pytest.raises(InitiatorError, match="lun 3 has no designator"):
        list(METHODS["lid1"](job(source, destination)))


def test_tokens() -> None:
    source, destination = FakeLun(0), FakeLun(1)
    limits = vpd_copy.encode_fixed(
        vpd_copy.BLOCK_ROD_LIMITS, vpd_copy.Descriptor.BLOCK_ROD_LIMITS, maximum_token_transfer_size=4
    )
    made = token.TOKEN.build(rod_type=0x10000, rod_token_length=token.TOKEN_LENGTH, content=7)
    done = {"copy_operation_status": copy.Status.COMPLETED, "transfer_count": 4}
    source.answers = {
        "INQUIRY": vpd_copy.encode([limits]),
        "RECEIVE ROD TOKEN INFORMATION": copy.encode_status_lid4(tail=token.encode_token_descriptors(made), **done),
    }
    destination.answers = {"RECEIVE ROD TOKEN INFORMATION": copy.encode_status_lid4(**done)}
    assert list(METHODS["token"](job(source, destination, 10, 20, 8))) == [2048, 2048]
    asked = [token.decode_ranges(data[16:]) for row, _, data in source.sent if row == "POPULATE TOKEN"]
    assert asked == [[(10, 4)], [(14, 4)]]
    written = [data for row, _, data in destination.sent if row == "WRITE USING TOKEN"]
    assert [(data[16:528] == made, token.decode_ranges(data[536:])) for data in written] == [
        (True, [(20, 4)]), (True, [(24, 4)])
    ]  # fmt: skip


def test_a_token_that_does_not_come_or_writes_too_little() -> None:
    source, destination = FakeLun(0), FakeLun(1)
    with pytest.raises(InitiatorError, match="no token came back"):
        list(METHODS["token"](job(source, destination)))
    tail = token.encode_token_descriptors(token.BLOCK_ZERO_TOKEN)
    source.answers["RECEIVE ROD TOKEN INFORMATION"] = copy.encode_status_lid4(tail=tail)
    short = copy.encode_status_lid4(copy_operation_status=copy.Status.COMPLETED_RESIDUAL, transfer_count=7)
    destination.answers["RECEIVE ROD TOKEN INFORMATION"] = short
    with pytest.raises(InitiatorError, match="3584 of 4096 bytes"):
        list(METHODS["token"](job(source, destination)))
