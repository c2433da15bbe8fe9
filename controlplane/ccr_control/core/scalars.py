"""The single values of a configuration: how each is written, checked and shown.

Pure. A refusal never repeats the value: it may have come from a variable. Whoever reports it shows the text as written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)

from ccr_control.core.quantities import (
    format_duration,
    format_share,
    format_size,
    format_usd,
    parse_duration,
    parse_share,
    parse_size,
    parse_usd,
)

LONGEST = timedelta(days=365)

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # RFC 9110 section 5.6.2
_OWN_HEADERS = {  # RFC 9110 section 7.6.1, and what only the one who writes the message can know
    "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    "host", "content-length", "expect",
}  # fmt: skip
_CREDENTIAL_HEADERS = {"authorization", "proxy-authorization", "proxy-authenticate", "x-api-key", "api-key"}
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d))?")


@dataclass(frozen=True, slots=True)
class Pem:
    """Certificates, and the file they were read from."""

    file: str
    text: str

    def __str__(self) -> str:
        return self.file


def one_or_many() -> BeforeValidator:
    """A single text stands for a list of one."""
    return BeforeValidator(
        lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=str | list[str]
    )


def yaml_dates(value: Any) -> Any:
    """TOML has dates of its own; YAML's stay text."""
    return value.isoformat() if isinstance(value, date | datetime) else value


def _whole_number(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):  # from a variable
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("must be a whole number")


def _number(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", value):  # from a variable
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ValueError("must be a number")


def _flag(value: Any) -> Any:
    named = {"true": True, "false": False}
    found = named.get(value) if isinstance(value, str) else value  # from a variable
    if not isinstance(found, bool):
        raise ValueError("must be true or false")  # noqa: TRY004 - pydantic's protocol
    return found


def _positive(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be longer than 0")
    return value


def _bounded(value: timedelta) -> timedelta:
    if value > LONGEST:
        raise ValueError("must not be longer than 365d")
    return value


def _plain_text(what: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("must be text: put it in quotes")  # noqa: TRY004 - pydantic's protocol
        if not value or len(value) > 256 or re.search(r"[\s\x00-\x1f\x7f-\x9f]", value):
            raise ValueError(f"must be {what} of 1 to 256 characters without blanks")
        return value

    return check


def _serves_pattern(value: str) -> str:
    if value in ("!", "!*"):
        raise ValueError("excludes nothing or everything: name the models after the `!`")
    return value


def _header_name(value: Any) -> str:
    name = str(value).lower()
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("is not a header name")
    if name in _CREDENTIAL_HEADERS:
        raise ValueError("credentials go into `keys`, and how they are attached into `auth_style`")
    if name in _OWN_HEADERS:
        raise ValueError("is set by the relay itself, or ends at each hop: remove it")
    return name


def _printable(value: str) -> str:
    if not value.isprintable() or not 1 <= len(value) <= 200:
        raise ValueError("must be 1 to 200 printable characters")
    return value


def _timestamp(value: str) -> str:
    if not _RFC3339.fullmatch(value):
        raise ValueError("must be a time as in RFC 3339, such as 2026-10-21T00:00:00Z")
    try:
        datetime.fromisoformat(value.upper().replace("Z", "+00:00"))
    except ValueError:
        raise ValueError("there is no such day or time") from None
    return value if len(value) > 10 else f"{value}T00:00:00Z"


def _pem(value: Any, info: ValidationInfo) -> Pem:
    """Reads the file by the context's `read_file`, so that this stays pure."""
    if isinstance(value, Pem):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be the path of a PEM file")
    read_file = (info.context or {}).get("read_file")
    if read_file is None:
        raise ValueError("files cannot be read here")
    try:
        text = str(read_file(value))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or 'unknown reason'}") from None
    except ValueError:
        raise ValueError("is not a text file") from None
    if "PRIVATE KEY-----" in text:
        raise ValueError("holds a private key: it must hold certificates only")
    if "-----BEGIN CERTIFICATE-----" not in text or "-----END CERTIFICATE-----" not in text:
        raise ValueError("holds no PEM certificate (-----BEGIN CERTIFICATE-----)")
    return Pem(value, text)


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("must be the path of a file")
    return value


_TEXT = WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 256, "pattern": r"^\S+$"})
_DURATION_SCHEMA = WithJsonSchema(
    {"type": ["string", "integer"], "pattern": r"^0$|^(\d+(\.\d+)?(ms|s|m|h|d))+$", "maximum": 0}
)

Int = Annotated[int, BeforeValidator(_whole_number)]
Number = Annotated[float, BeforeValidator(_number)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)? ?([KMGkmg][iI]?)?[bB]$"}),
]
Share = Annotated[
    float,
    PlainValidator(parse_share),
    PlainSerializer(format_share, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d{1,3}(\.\d{1,3})? ?%$"}),
]
Usd = Annotated[
    Decimal,
    PlainValidator(parse_usd),
    PlainSerializer(format_usd, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^(\$\d+(\.\d+)?|\d+(\.\d+)? ?USD)$"}),
]
ZeroDuration = Annotated[
    timedelta,
    PlainValidator(parse_duration),
    AfterValidator(_bounded),
    PlainSerializer(format_duration, return_type=str),
    _DURATION_SCHEMA,
]
PositiveDuration = Annotated[ZeroDuration, AfterValidator(_positive)]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}$")]
ProviderName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
ModelName = Annotated[str, PlainValidator(_plain_text("a model name")), _TEXT]
Pattern = Annotated[str, PlainValidator(_plain_text("a model name or pattern")), _TEXT]
ServesPattern = Annotated[Pattern, AfterValidator(_serves_pattern)]
HeaderName = Annotated[str, PlainValidator(_header_name), _TEXT]
NamePattern = Annotated[str, AfterValidator(_printable)]
FilePath = Annotated[str, PlainValidator(_path), WithJsonSchema({"type": "string", "minLength": 1})]
DisplayName = Annotated[str, AfterValidator(_printable)]
Timestamp = Annotated[str, BeforeValidator(yaml_dates), AfterValidator(_timestamp)]
CaFile = Annotated[Pem, PlainValidator(_pem), PlainSerializer(str, return_type=str), WithJsonSchema({"type": "string"})]
