"""Durations, sizes, shares and money as people write them: `30s`, `1h30m`, `32MiB`, `50%`, `5 USD`.

Pure. A number without a unit is refused: nobody remembers whether a timeout was in seconds.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal

_DURATION = re.compile(r"(?:\d{1,12}(?:\.\d{1,6})?(?:ms|s|m|h|d)){1,5}")
_DURATION_PART = re.compile(r"([\d.]+)(ms|s|m|h|d)")
_MICROSECONDS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000}

_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?) ?([A-Za-z]+)")
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,3})?) ?%")
_USD = re.compile(r"\$(\d{1,9}(?:\.\d{1,6})?)|(\d{1,9}(?:\.\d{1,6})?) ?USD")
_BYTES = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1}


def parse_duration(text: object) -> timedelta:
    """The duration of `250ms`, `15s`, `1h30m`, `1d`; a bare `0` needs no unit. Exact to the microsecond.

    Raises ValueError, saying how to write it.
    """
    if isinstance(text, timedelta):
        return text
    if text in ("0", 0) and not isinstance(text, bool):
        return timedelta()
    if isinstance(text, int | float) or (isinstance(text, str) and re.fullmatch(r"[\d.]+", text)):
        raise ValueError("a number alone has no unit: write a duration such as 250ms, 30s, 10m or 1h")
    if not isinstance(text, str) or not _DURATION.fullmatch(text):
        raise ValueError("not a duration: write a number and a unit, such as 250ms, 30s, 10m, 1h or 1d")
    parts = [Decimal(number) * _MICROSECONDS[unit] for number, unit in _DURATION_PART.findall(text)]
    try:
        return timedelta(microseconds=int(sum(parts)))
    except OverflowError:
        raise ValueError("longer than anybody can wait") from None


def format_duration(duration: timedelta) -> str:
    """A short text that `parse_duration` turns back into the same duration: one unit where that is exact."""
    microseconds = duration // timedelta(microseconds=1)
    if not microseconds:
        return "0s"
    for unit, size in _MICROSECONDS.items():
        if microseconds % size == 0:
            return f"{microseconds // size}{unit}"
    seconds, rest = divmod(microseconds, 1_000_000)
    return (f"{seconds}s" if seconds else "") + f"{Decimal(rest) / 1000}ms"


def parse_size(text: object) -> int:
    """The bytes of `1024B`, `10MB` (10⁶), `32MiB` (2²⁰).

    Raises ValueError, saying how to write it.
    """
    if isinstance(text, int | float) or (isinstance(text, str) and re.fullmatch(r"[\d.]+", text)):
        raise ValueError("a number alone has no unit: write a size such as 1024B, 512KiB, 10MB or 32MiB")
    found = _SIZE.fullmatch(text) if isinstance(text, str) else None
    unit = next((size for name, size in _BYTES.items() if found and name.lower() == found[2].lower()), None)
    if found is None or unit is None:
        raise ValueError("not a size: write a number and a unit, such as 1024B, 512KiB, 10MB or 32MiB")
    size = Decimal(found[1]) * unit
    if size != int(size):
        raise ValueError("not a whole number of bytes")
    return int(size)


def format_size(size_bytes: int) -> str:
    """The shortest text that `parse_size` turns back into the same number of bytes."""
    texts = [f"{size_bytes // size}{unit}" for unit, size in _BYTES.items() if size_bytes % size == 0]
    return min(texts, key=len)


def parse_share(text: object) -> float:
    """The share of `50%`, `2.5%`: above 0, up to 1.

    Raises ValueError, saying how to write it.
    """
    found = _SHARE.fullmatch(text) if isinstance(text, str) else None
    share = Decimal(found[1]) / 100 if found else Decimal(0)
    if not 0 < share <= 1:
        raise ValueError("not a share: write a percentage above 0% and up to 100%, such as 50%")
    return float(share)


def format_share(share: float) -> str:
    """The text that `parse_share` turns back into the same share."""
    return f"{share * 100:.5g}%"


def parse_usd(text: object) -> Decimal:
    """The US dollars of `5 USD`, `0.50 USD`, `$5`: above 0.

    Raises ValueError, saying how to write it.
    """
    if isinstance(text, Decimal):
        return text
    if isinstance(text, int | float) or (isinstance(text, str) and re.fullmatch(r"[\d.]+", text)):
        raise ValueError("a number alone has no currency: write an amount such as 5 USD or 0.50 USD")
    found = _USD.fullmatch(text) if isinstance(text, str) else None
    amount = Decimal(found[1] or found[2]) if found else Decimal(0)
    if amount <= 0:
        raise ValueError("not an amount above 0: write a number and the currency, such as 5 USD or 0.50 USD")
    return amount


def format_usd(amount: Decimal) -> str:
    """A short text that `parse_usd` turns back into the same amount."""
    return f"{amount.normalize():f} USD"
