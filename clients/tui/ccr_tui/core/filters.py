"""The filter of live requests: words such as `provider=zai status>=400 failed-attempt` and back.

Pure. `parse(text_of(f)) == f` for every filter.
"""

from __future__ import annotations

import re
import shlex

from ccr_rpc.v1 import records_pb2, usage_pb2

HELP = (
    "client= session= provider= key= route= model=claude-* outcome=served|failed|broken|client-left|refused "
    "status>=400 total>=2s failed-attempt"
)
_NAMES = {
    "client": "client",
    "session": "session",
    "provider": "provider",
    "key": "key_label",
    "route": "route",
    "model": "model",
}
_OUTCOMES = {
    name.removeprefix("OUTCOME_").lower().replace("_", "-"): number
    for name, number in usage_pb2.Outcome.items()
    if number
}
_TOTAL = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m)?")
_UNITS = {"us": 1, "ms": 1000, "s": 1_000_000, "m": 60_000_000}
_MAX_US = 2**53


class BadFilter(Exception):
    """The text is no filter; says which word is wrong and what would be right."""


def parse(text: str) -> records_pb2.RecordFilter:
    """The filter that a text means. Empty: everything. Raises BadFilter."""
    try:
        given = shlex.split(text)
    except ValueError:
        raise BadFilter("a quotation mark is not closed") from None
    found = records_pb2.RecordFilter()
    for word in given:
        _take(found, word)
    return found


def _take(found: records_pb2.RecordFilter, word: str) -> None:
    if word == "failed-attempt":
        found.with_failed_attempt = True
    elif word.startswith("status>="):
        found.min_status = _status(word)
    elif word.startswith("total>="):
        found.min_total_us = _total_us(word)
    elif word.startswith("outcome="):
        if (outcome := _OUTCOMES.get(word.partition("=")[2])) is None:
            raise BadFilter(f"{word}: an outcome is one of {', '.join(_OUTCOMES)}")
        found.outcome = outcome
    else:
        name, is_set, value = word.partition("=")
        if name not in _NAMES or not is_set or not value:
            raise BadFilter(f"{word}: a filter is made of {HELP}")
        setattr(found, _NAMES[name], value)


def _status(word: str) -> int:
    digits = word.removeprefix("status>=")
    if not (digits.isascii() and digits.isdigit() and len(digits) == 3):
        raise BadFilter(f"{word}: a status has three digits, as in status>=400")
    return int(digits)


def _total_us(word: str) -> int:
    given = _TOTAL.fullmatch(word.removeprefix("total>="))
    us = round(float(given[1]) * _UNITS[given[2] or "s"]) if given else _MAX_US
    if us >= _MAX_US:
        raise BadFilter(f"{word}: a time is a number and us, ms, s or m, as in total>=2s")
    return us


def text_of(one: records_pb2.RecordFilter) -> str:
    """The words of a filter."""
    said = [f"{name}={getattr(one, field)}" for name, field in _NAMES.items() if getattr(one, field)]
    said += [f"outcome={name}" for name, number in _OUTCOMES.items() if number == one.outcome]
    if one.min_status:
        said.append(f"status>={one.min_status}")
    if one.min_total_us:
        said.append(f"total>={_time(one.min_total_us)}")
    if one.with_failed_attempt:
        said.append("failed-attempt")
    return " ".join(map(_quoted, said))


def _quoted(word: str) -> str:
    return word if re.fullmatch(r"[\w\-.*=>/:@]+", word, re.ASCII) else shlex.quote(word)


def _time(us: int) -> str:
    for unit in ("s", "ms"):
        if us % _UNITS[unit] == 0:
            return f"{us // _UNITS[unit]}{unit}"
    return f"{us}us"
