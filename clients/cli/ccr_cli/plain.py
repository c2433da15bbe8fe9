"""Messages as plain values for `--json`: numbers stay numbers, times are ISO 8601, enums are words.

Every field is there, also one that is empty, so that scripts need not guess. Durations are seconds and end in `_s`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from google.protobuf.message import Message

_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def plain(message: Message) -> dict[str, Any]:
    """A message as a dict that JSON can hold. `x_json` fields become what they hold, called `x`."""
    return {_name(field): _value(message, field) for field in message.DESCRIPTOR.fields}


def enum_word(message: Message, field: str) -> str:
    """The value of an enum field as a word: KEY_STATE_ACTIVE is `active`. Empty: not set."""
    described = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert described is not None, f"{field} is no enum"
    return word(described, getattr(message, field))


def word(described: Any, number: int) -> str:
    """An enum's value as a word; empty: not set."""
    found = described.values_by_number.get(number)
    if found is None:
        return str(number)
    prefix = f"{_CAPITAL.sub('_', described.name).upper()}_"
    short = str(found.name).removeprefix(prefix)
    return "" if short == "UNSPECIFIED" else short.lower().replace("_", "-")


def words(described: Any) -> dict[str, int]:
    """The values of an enum by their words, without the one for "not set"."""
    return {word(described, one.number): one.number for one in described.values if one.number}


def iso(at: Any) -> str:
    """A Timestamp as ISO 8601 in UTC, to the millisecond."""
    return f"{at.ToDatetime().isoformat(timespec='milliseconds')}Z"


def _name(field: Any) -> str:
    if field.message_type is not None and field.message_type.full_name == "google.protobuf.Duration":
        return f"{field.name}_s"
    return str(field.name).removesuffix("_json")


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        return [_one(one, field) for one in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _one(value, field)


def _one(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        match field.message_type.full_name:
            case "google.protobuf.Timestamp":
                return iso(value)
            case "google.protobuf.Duration":
                return value.ToTimedelta().total_seconds()
            case _:
                return plain(value)
    if field.enum_type is not None:
        return word(field.enum_type, value) or None
    if isinstance(value, bytes):
        return value.hex()
    if field.name.endswith("_json"):
        return json.loads(value) if value else None
    return value
