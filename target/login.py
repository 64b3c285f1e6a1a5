# SPDX-License-Identifier: BSD-2-Clause
"""Who may log in: the target's rules for SRP_LOGIN_REQ, in the order in which they are looked at.

Each row is a rule and the SRP_LOGIN_REJ reason of breaking it. Knows no ring, store or session.

A target port identifier must be exactly the published one. All zeroes means nothing special: SRP knows no "any".
"""

from collections.abc import Callable
from dataclasses import dataclass

from target.access import fits
from vscsi.native import lib
from vscsi.srp import MIN_IT_IU_NBYTES, LoginReq


@dataclass(frozen=True)
class LoginRules:
    """`max_channels` of one nexus; 1 means that several are not supported at all.

    `allow_initiators`: patterns of `target.access`, none for everybody.
    """

    target_port_id: bytes
    max_channels: int = 16
    allow_initiators: tuple[str, ...] = ()
    max_it_iu_nbytes: int = lib.VSCSI_SRP_SLOT
    max_ti_iu_nbytes: int = lib.VSCSI_SRP_SLOT
    formats: int = lib.SRP_BUF_DIRECT | lib.SRP_BUF_INDIRECT


def action(request: LoginReq) -> int:
    """MULTI-CHANNEL ACTION."""
    return request.req_flags & int(lib.SRP_MULTICHAN_MASK)


def _iu_length_fits(request: LoginReq, rules: LoginRules, others: int) -> bool:
    return MIN_IT_IU_NBYTES <= request.req_it_iu_len <= rules.max_it_iu_nbytes


def _port_is_ours(request: LoginReq, rules: LoginRules, others: int) -> bool:
    return request.target_port_id == rules.target_port_id


def _formats_are_known(request: LoginReq, rules: LoginRules, others: int) -> bool:
    return not request.req_buf_fmt & ~rules.formats


def _action_is_defined(request: LoginReq, rules: LoginRules, others: int) -> bool:
    return action(request) in (lib.SRP_MULTICHAN_SINGLE, lib.SRP_MULTICHAN_MULTI)


def _several_are_supported(request: LoginReq, rules: LoginRules, others: int) -> bool:
    return action(request) == lib.SRP_MULTICHAN_SINGLE or rules.max_channels > 1


def _room_for_one_more(request: LoginReq, rules: LoginRules, others: int) -> bool:
    return action(request) == lib.SRP_MULTICHAN_SINGLE or others < rules.max_channels


def _initiator_is_allowed(request: LoginReq, rules: LoginRules, others: int) -> bool:
    return not rules.allow_initiators or fits(request.initiator_port_id, rules.allow_initiators)


CHECKS: tuple[tuple[Callable[[LoginReq, LoginRules, int], bool], int], ...] = (
    (_iu_length_fits, lib.SRP_REJ_IT_IU_LENGTH_TOO_LARGE),
    (_port_is_ours, lib.SRP_REJ_UNABLE_ASSOCIATE_CHANNEL),
    (_initiator_is_allowed, lib.SRP_REJ_UNABLE_TO_ESTABLISH_CHANNEL),
    (_formats_are_known, lib.SRP_REJ_UNSUPPORTED_DESCRIPTOR_FMT),
    (_action_is_defined, lib.SRP_REJ_UNABLE_TO_ESTABLISH_CHANNEL),
    (_several_are_supported, lib.SRP_REJ_MULTI_CHANNEL_UNSUPPORTED),
    (_room_for_one_more, lib.SRP_REJ_CHANNEL_LIMIT_REACHED),
)


def refusal(request: LoginReq, rules: LoginRules, others: int) -> int | None:
    """The reason to reject, or None. `others`: channels the nexus has already."""
    return next((reason for holds, reason in CHECKS if not holds(request, rules, others)), None)
