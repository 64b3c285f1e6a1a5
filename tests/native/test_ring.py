# SPDX-License-Identifier: BSD-2-Clause
"""The ring against a model of Xen's public io/ring.h in Python, and against Xen's own macros where they are installed.

The model is written from the protocol's rules with numbers that never wrap; only its view of shared memory does.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscsi.native import ffi, lib

WRAP = 1 << 32
EPROTO, EAGAIN, EINVAL = -71, -11, -22

CAPACITY = {
    112: (32, 64, 128, 256, 512),
    252: (16, 32, 64, 128, 256),
    64: (32, 64, 128, 256, 512),
    128: (16, 32, 64, 128, 256),
    256: (8, 16, 32, 64, 128),
    248: (16, 32, 64, 128, 256),
    120: (32, 64, 128, 256, 512),
    504: (8, 16, 32, 64, 128),
}

starts = st.one_of(
    st.integers(WRAP - 40, WRAP - 1), st.sampled_from([0, 1 << 31, (1 << 31) - 3]), st.integers(0, WRAP - 1)
)
indexes = st.integers(0, WRAP - 1)


def test_capacity_is_the_tables() -> None:
    """The table of ring sizes: the largest power of two of slots that fit behind the 64-byte header."""
    for slot_nbytes, row in CAPACITY.items():
        assert tuple(lib.vscsi_ring_capacity(1 << order, slot_nbytes) for order in range(5)) == row


@given(st.integers(0, 40), st.integers(0, 20000))
def test_capacity(pages: int, slot_nbytes: int) -> None:
    fit = (pages * 4096 - 64) // slot_nbytes if 1 <= pages <= 16 and slot_nbytes else 0
    assert lib.vscsi_ring_capacity(pages, slot_nbytes) == (1 << fit.bit_length() - 1 if fit > 0 else 0)


@pytest.mark.parametrize(("pages", "slot_nbytes"), [(0, 112), (17, 112), (1, 0), (1, 4040), (1, 250), (16, 4104)])
def test_impossible_ring_is_refused(pages: int, slot_nbytes: int) -> None:
    page = ffi.new("uint8_t[65536]")
    assert lib.vscsi_ring_front(ffi.new("struct vscsi_front_ring *"), page, pages, slot_nbytes, 0) == EINVAL
    assert lib.vscsi_ring_back(ffi.new("struct vscsi_back_ring *"), page, pages, slot_nbytes, 0) == EINVAL


def test_format_is_xens() -> None:
    page = ffi.new("uint8_t[4096]", b"\xff" * 4096)
    lib.vscsi_ring_format(page)
    head = b"".join(n.to_bytes(4, "little") for n in (0, 1, 0, 1)) + bytes(48)
    assert bytes(ffi.buffer(page, 64)) == head
    assert bytes(ffi.buffer(page + 64, 4032)) == b"\xff" * 4032, "slots are the requester's business"


class Pair:
    """Both sides of one real ring, in private memory with a guard behind it."""

    def __init__(self, pages: int, slot_nbytes: int, start: int) -> None:
        self.nbytes = pages * 4096
        self.memory = ffi.new("uint8_t[]", b"\xa5" * (self.nbytes + 4096))
        self.slot_nbytes = slot_nbytes
        lib.vscsi_ring_format(self.memory)
        self.shared = ffi.cast("struct vscsi_sring *", self.memory)
        self.shared.req_prod = self.shared.rsp_prod = start
        self.shared.req_event = self.shared.rsp_event = (start + 1) % WRAP
        self.front = ffi.new("struct vscsi_front_ring *")
        self.back = ffi.new("struct vscsi_back_ring *")
        assert lib.vscsi_ring_front(self.front, self.memory, pages, slot_nbytes, start) == 0
        assert lib.vscsi_ring_back(self.back, self.memory, pages, slot_nbytes, start) == 0
        self.slots = lib.vscsi_ring_capacity(pages, slot_nbytes)
        self.iu = ffi.new("uint8_t[]", slot_nbytes)

    def request(self, iu: bytes) -> int:
        return lib.vscsi_ring_request(self.front, iu, len(iu))

    def respond(self, iu: bytes) -> int:
        return lib.vscsi_ring_respond(self.back, iu, len(iu))

    def take_request(self) -> tuple[int, bytes]:
        return lib.vscsi_ring_take_request(self.back, self.iu), bytes(ffi.buffer(self.iu))

    def take_response(self) -> tuple[int, bytes]:
        return lib.vscsi_ring_take_response(self.front, self.iu), bytes(ffi.buffer(self.iu))

    def header(self) -> tuple[int, int, int, int]:
        return self.shared.req_prod, self.shared.req_event, self.shared.rsp_prod, self.shared.rsp_event

    def check_guard(self) -> None:
        assert bytes(ffi.buffer(self.memory + 16, 48)) == bytes(48), "private and pad of the header stay zero"
        end = 64 + self.slots * self.slot_nbytes
        rest = self.nbytes + 4096 - end
        assert bytes(ffi.buffer(self.memory + end, rest)) == b"\xa5" * rest, "wrote behind the last slot"


@dataclass
class Model:
    """What Xen's rules say. Indexes count up for ever."""

    slots: int
    start: int
    req_prod: int = field(init=False)
    rsp_prod: int = field(init=False)
    req_cons: int = field(init=False)
    rsp_cons: int = field(init=False)
    req_event: int = field(init=False)
    rsp_event: int = field(init=False)
    requests: list[bytes] = field(default_factory=list)
    responses: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.req_prod = self.rsp_prod = self.req_cons = self.rsp_cons = self.start
        self.req_event = self.rsp_event = self.start + 1

    def request(self, iu: bytes) -> int:
        if self.req_prod - self.rsp_cons == self.slots:
            return EAGAIN
        self.requests.append(iu)
        self.req_prod += 1
        return int(self.req_event == self.req_prod)

    def take_request(self) -> bytes | None:
        if self.req_cons == self.req_prod:
            self.req_event = self.req_cons + 1
            return None
        self.req_cons += 1
        return self.requests.pop(0)

    def respond(self, iu: bytes) -> int:
        if self.rsp_prod == self.req_cons:
            return EAGAIN
        self.responses.append(iu)
        self.rsp_prod += 1
        return int(self.rsp_event == self.rsp_prod)

    def take_response(self) -> bytes | None:
        if self.rsp_cons == self.rsp_prod:
            self.rsp_event = self.rsp_cons + 1
            return None
        self.rsp_cons += 1
        return self.responses.pop(0)

    def header(self) -> tuple[int, int, int, int]:
        return tuple(n % WRAP for n in (self.req_prod, self.req_event, self.rsp_prod, self.rsp_event))  # type: ignore[return-value]


@given(
    st.sampled_from([(1, 504), (1, 248), (1, 112), (2, 1000), (1, 2016), (1, 4032)]),
    starts,
    st.lists(
        st.tuples(st.sampled_from(["request", "respond", "take_request", "take_response"]), st.integers(1, 20)),
        max_size=60,
    ),
    st.randoms(use_true_random=False),
)
def test_both_sides_follow_the_model(shape: tuple[int, int], start: int, steps: list[tuple[str, int]], random) -> None:  # type: ignore[no-untyped-def]
    """Header, decisions to kick, and contents are the model's after every step, whatever the order of steps."""
    pair, model = Pair(*shape, start), Model(lib.vscsi_ring_capacity(*shape), start)
    for what, times in steps:
        for _ in range(times):
            if what in ("request", "respond"):
                iu = random.randbytes(random.randrange(shape[1]) + 1)
                assert getattr(pair, what)(iu) == getattr(model, what)(iu)
            else:
                rc, iu = getattr(pair, what)()
                expected = getattr(model, what)()
                assert rc == (expected is not None)
                # What stands behind the sender's last byte, rounded up to words, is nobody's promise.
                assert expected is None or iu[: len(expected)] == expected
            assert pair.header() == model.header()
    pair.check_guard()


@given(indexes, st.integers(1, 16), indexes, st.booleans())
def test_kick_is_asked_for_by_the_event_index(start: int, batch: int, event: int, near: bool) -> None:
    """A batch published at once is worth a kick if, and only if, the event index lies in (old, new]."""
    pair = Pair(1, 248, start)
    wanted = (start + event % 40 - 20) % WRAP if near else event
    expected = wanted in [(start + i) % WRAP for i in range(1, batch + 1)]
    pair.front.req_prod_pvt = (start + batch - 1) % WRAP
    pair.shared.req_event = wanted
    assert pair.request(b"x") == expected
    pair.back.req_cons = (start + batch) % WRAP
    pair.back.rsp_prod_pvt = (start + batch - 1) % WRAP
    pair.shared.rsp_event = wanted
    assert pair.respond(b"x") == expected


@given(starts, st.integers(0, 16), st.integers(0, 16), indexes, st.booleans())
def test_request_index_of_a_hostile_initiator(start: int, sent: int, answered: int, lie: int, near: bool) -> None:
    """Past the free slots or backwards: -EPROTO; else exactly so many requests as it says, and never a wild slot."""
    pair = Pair(1, 248, start)
    answered = min(sent, answered)
    for _ in range(sent):
        assert pair.request(b"q") >= 0
        assert pair.take_request()[0] == 1
    for _ in range(answered):
        assert pair.respond(b"a") >= 0
    lie = (pair.back.req_cons + lie % 60 - 30) % WRAP if near else lie
    pair.shared.req_prod = lie
    new = (lie - pair.back.req_cons) % WRAP
    unanswered = sent - answered
    if new > pair.slots - unanswered:
        assert pair.take_request()[0] == EPROTO
        assert pair.back.req_cons == (start + sent) % WRAP
        return
    for _ in range(new):
        assert pair.take_request()[0] == 1
    assert pair.take_request()[0] == 0


@given(starts, st.integers(0, 16), st.integers(0, 16), indexes, st.booleans())
def test_response_index_of_a_hostile_target(start: int, sent: int, reaped: int, lie: int, near: bool) -> None:
    """More responses than requests, or an index that runs backwards: -EPROTO."""
    pair = Pair(1, 248, start)
    reaped = min(sent, reaped)
    for _ in range(sent):
        assert pair.request(b"q") >= 0
    for _ in range(reaped):
        assert pair.take_request()[0] == 1
        assert pair.respond(b"a") >= 0
        assert pair.take_response()[0] == 1
    lie = (pair.front.rsp_cons + lie % 60 - 30) % WRAP if near else lie
    pair.shared.rsp_prod = lie
    new = (lie - pair.front.rsp_cons) % WRAP
    if new > sent - reaped:
        assert pair.take_response()[0] == EPROTO
        assert pair.front.rsp_cons == (start + reaped) % WRAP
        return
    for _ in range(new):
        assert pair.take_response()[0] == 1
    assert pair.take_response()[0] == 0


@given(starts, indexes, indexes)
def test_own_indexes_are_never_read_back(start: int, req_prod: int, rsp_prod: int) -> None:
    """A peer that overwrites our producer index confuses itself: we go on from our own count."""
    pair = Pair(1, 248, start)
    pair.request(b"one")
    pair.shared.req_prod = req_prod
    pair.request(b"two")
    assert pair.shared.req_prod == (start + 2) % WRAP
    assert [pair.take_request()[1][:3] for _ in range(2)] == [b"one", b"two"]
    pair.respond(b"1st")
    pair.shared.rsp_prod = rsp_prod
    pair.respond(b"2nd")
    assert pair.shared.rsp_prod == (start + 2) % WRAP
    assert [pair.take_response()[1][:3] for _ in range(2)] == [b"1st", b"2nd"]


def test_iu_longer_than_a_slot_is_refused_and_costs_nothing() -> None:
    pair = Pair(1, 248, 0)
    assert pair.request(bytes(249)) == EINVAL
    assert pair.header() == (0, 1, 0, 1)
    pair.request(b"q")
    pair.take_request()
    assert pair.respond(bytes(249)) == EINVAL
    assert pair.respond(b"a") == 1


def test_slots_are_only_written_as_far_as_the_iu_reaches() -> None:
    """Rounded up to words, the rest of the last word zero: nothing private leaks, and short IUs stay cheap."""
    pair = Pair(1, 248, 0)
    ffi.memmove(pair.memory + 64, b"\x77" * 248, 248)
    pair.request(b"\x01" * 17)
    assert bytes(ffi.buffer(pair.memory + 64, 248)) == b"\x01" * 17 + bytes(7) + b"\x77" * 224


def test_ring_against_xens_own_macros(compile_c, run_c) -> None:  # type: ignore[no-untyped-def]
    """Three million random steps on two rings at once, ours and one driven by <xen/io/ring.h>."""
    done = run_c(compile_c("ring_xen.c", flags=("-Wno-error",)), 3_000_000)
    assert (done.returncode, done.stderr) == (0, "")
    assert "kicks=" in done.stdout
