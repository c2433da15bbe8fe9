"""A credential that cannot be shown by accident.

Pure. Only `reveal()` gives it away; `repr`, `str`, f-strings, pydantic dumps and JSON say "***".
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Final

from pydantic import PlainSerializer, PlainValidator, SerializationInfo, WithJsonSchema

SHOWN: Final = "***"

_BLANK_OR_CONTROL = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")


class Secret:
    """A credential. Equal to another with the same value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The credential itself, for the one place that must send or hash it."""
        return self._value

    def sha256(self) -> bytes:
        """SHA-256 of its UTF-8 bytes: 32 bytes."""
        return hashlib.sha256(self._value.encode()).digest()

    def __repr__(self) -> str:
        return f"Secret('{SHOWN}')"

    def __str__(self) -> str:
        return SHOWN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


def _credential(value: object) -> Secret:
    """Raises ValueError, without a word of the value."""
    text = value.reveal() if isinstance(value, Secret) else value
    if not isinstance(text, str):
        raise ValueError("must be text: put it in quotes, or write ${VARIABLE}")  # noqa: TRY004 - pydantic's protocol
    if not text:
        raise ValueError("is empty: set the variable it comes from, or remove the key")
    if text == SHOWN:
        raise ValueError("is '***', which stands for a hidden secret: write the secret itself, or ${VARIABLE}")
    if _BLANK_OR_CONTROL.search(text):
        what = "a line break" if "\n" in text or "\r" in text else "a blank or control character"
        raise ValueError(f"holds {what}, probably pasted along: remove it")
    if not text.isascii():
        raise ValueError("holds a character outside ASCII, which no HTTP header can carry")
    return Secret(text)


def _header_value(value: object) -> Secret:
    """Raises ValueError, without a word of the value."""
    text = value.reveal() if isinstance(value, Secret) else value
    if not isinstance(text, str):
        raise ValueError("must be text: put it in quotes")  # noqa: TRY004 - pydantic's protocol
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
        raise ValueError("holds a line break or control character, which would end the header")
    if not text.isascii() or text != text.strip():
        raise ValueError("must be ASCII without blanks at its ends")
    return Secret(text)


def _dumped(secret: Secret, info: SerializationInfo) -> str:
    """As `context={"secret": f}` wants it; hidden without one."""
    show = (info.context or {}).get("secret")
    return str(show(secret)) if show else SHOWN


_AS_TEXT = PlainSerializer(_dumped, return_type=str)
_SCHEMA = WithJsonSchema({"type": "string", "minLength": 1})

Credential = Annotated[Secret, PlainValidator(_credential), _AS_TEXT, _SCHEMA]
HeaderValue = Annotated[Secret, PlainValidator(_header_value), _AS_TEXT, WithJsonSchema({"type": "string"})]
