"""What the rate-limit headers and error bodies of answers say (docs/providers/anthropic.md, limits). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from ccr_data.core.amounts import Allowance
from ccr_data.core.http1 import AnswerHead
from ccr_data.core.shapes import error_of


class Rest(NamedTuple):
    """What a 429 asks for."""

    for_s: float
    is_of_scope: bool = False  # not only of the model's class


SPENT_CODES = frozenset(
    (
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "linked_organization_spend_limit_reached",
        "organization_on_hold",
    )
)
MAX_REST_S = 14 * 86_400.0
_PREFIX = b"anthropic-ratelimit-"
MARK = b"anthropic-ratelimit-requests-limit"
_KINDS = (b"requests", b"input-tokens", b"output-tokens", b"tokens")


def told_by(head: AnswerHead) -> dict[bytes, bytes]:
    """All that an answer says of limits, lower-case name → value; what the relay reads of any answer; and when it was made."""
    told = dict(head.special)
    for line in head.lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name.startswith(_PREFIX) or name == b"date":
            told[name] = value.strip(b" \t")
    return told


def limits_told(special: Mapping[bytes, bytes]) -> tuple[Allowance, Allowance | None]:
    """Limits and what is left, as an answer's headers say. A kind that they do not speak of has no limit.

    The plain `tokens` set repeats the tightest of the other two where those are given.
    """
    kinds = _KINDS[:3] if _PREFIX + b"input-tokens-limit" in special else _KINDS
    limits = [_count(special.get(b"%b%b-limit" % (_PREFIX, kind))) for kind in kinds]
    left = [special.get(b"%b%b-remaining" % (_PREFIX, kind)) for kind in kinds[:3]]
    is_complete = all(found is not None for limit, found in zip(limits, left, strict=False) if limit)
    return Allowance(*limits), Allowance(*map(_count, left)) if is_complete else None


def _count(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() and len(value) < 13 else 0


def rest_asked(special: Mapping[bytes, bytes], body: bytes, unix_s: float, spent_rest_s: float) -> Rest | None:
    """How long the answer with status 429 asks us to stay away; None if it does not say.

    A spent account asks for hours, without saying so (`spent_rest_s`); a subscription names its own reset. Where moments are named,
    the time is what the provider's clock says: this machine's (`unix_s`) may be wrong by hours.
    """
    if _error_code(body) in SPENT_CODES:
        return Rest(spent_rest_s, is_of_scope=True)
    unix_s = _made_s(special.get(b"date"), unix_s)
    unified = _count(special.get(b"anthropic-ratelimit-unified-reset"))
    if unified > unix_s:
        return Rest(min(unified - unix_s, MAX_REST_S), is_of_scope=True)
    retry_after = _count(special.get(b"retry-after"))
    if retry_after:
        return Rest(min(float(retry_after), MAX_REST_S))
    waits = [
        _until(special.get(b"%b%b-reset" % (_PREFIX, kind)), unix_s)
        for kind in _KINDS
        if special.get(b"%b%b-remaining" % (_PREFIX, kind)) == b"0"
    ]
    return Rest(min(max(waits), MAX_REST_S)) if waits and max(waits) > 0 else None


def _made_s(date: bytes | None, unix_s: float) -> float:
    """When an answer was made, as its `date` says (RFC 9110, section 6.6.1)."""
    try:
        return (
            datetime.strptime((date or b"").decode("ascii"), "%a, %d %b %Y %H:%M:%S GMT")
            .replace(tzinfo=UTC)
            .timestamp()
        )
    except (ValueError, OverflowError):
        return unix_s


def _until(moment: bytes | None, unix_s: float) -> float:
    try:
        return datetime.fromisoformat((moment or b"").decode("ascii")).timestamp() - unix_s
    except (ValueError, OverflowError):
        return 0.0


def _error_code(body: bytes) -> str | None:
    try:
        found = error_of(body).error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return found.details.error_code if found is not None and found.details is not None else None
