"""Figures in few characters: counts, rates, times, money, shares, sparklines and bars.

Pure. Nothing here is longer than it has to be at 80 columns; `-` stands for what nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

NOTHING = "-"
_STEPS = ("", "k", "M", "G", "T", "P", "E")
_SPARKS = "▁▂▃▄▅▆▇█"


def count(number: float) -> str:
    """A count, exact up to five digits, then with three digits and a unit."""
    if abs(number) < 100_000:
        return f"{number:,.0f}"
    for unit in _STEPS[1:]:
        number /= 1000
        if abs(number) < 999.5 or unit == _STEPS[-1]:
            break
    return f"{number:.3g}{unit}" if abs(number) < 999.5 else f"{number:.0f}{unit}"


def rate(per_s: float) -> str:
    """Something a second, without the unit."""
    if per_s <= 0 or not isfinite(per_s):
        return "0"
    if per_s < 0.05:
        return "<0.1"
    return f"{per_s:.1f}" if per_s < 99.95 else count(round(per_s))


def micros(us: float) -> str:
    """A time given in microseconds. 0 and less: nobody knows."""
    if us <= 0:
        return NOTHING
    if us < 9_950:
        return f"{us / 1000:.1f} ms"
    if us < 999_500:
        return f"{us / 1000:.0f} ms"
    return f"{us / 1e6:.1f} s" if us < 59_950_000 else span(us / 1e6)


def span(seconds: float) -> str:
    """A length of time, its two largest units at most."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} m"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02} h"


def age(seconds: float) -> str:
    """How long ago, in one unit."""
    whole = max(0, int(seconds))
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if whole >= 2 * size or (size == 60 and whole >= size):
            return f"{whole // size}{unit}"
    return f"{whole}s"


def money(micro_usd: float) -> str:
    """US dollars, given in millionths: to the cent, finer below one, coarser above a thousand dollars."""
    usd = micro_usd / 1e6
    if usd == 0:
        return "$0.00"
    sign, usd = ("-" if usd < 0 else ""), abs(usd)
    if usd < 0.00005:
        return f"{sign}<$0.0001"
    if usd < 0.995:
        return f"{sign}${usd:.4f}" if usd < 0.01 else f"{sign}${usd:.3f}"
    return f"{sign}${usd:,.2f}" if usd < 999.995 else f"{sign}${count(round(usd))}"


def share(part: float, whole: float) -> str:
    """A part in per cent; never rounded up to 100 or down to 0."""
    if whole <= 0:
        return NOTHING
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    return f"{percent:.1f}%" if percent % 1 and percent < 99.95 else f"{percent:.0f}%"


def size(octets: int) -> str:
    """Bytes, in binary units."""
    if octets < 1024:
        return f"{octets} B"
    value = float(octets)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1023.5 or unit == "TiB":
            break
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"


def sparkline(values: Sequence[float], width: int) -> str:
    """The newest values as a line of blocks, the largest the tallest; more than `width` are drawn by their largest.

    Nothing at all is a baseline; a value above nothing is always seen.
    """
    if width <= 0:
        return ""
    drawn = squeezed(values, width)
    top = max(drawn, default=0.0)
    if top <= 0:
        return (_SPARKS[0] * len(drawn)).rjust(width)
    steps = len(_SPARKS) - 1
    return "".join(_SPARKS[0 if v <= 0 else max(1, round(steps * min(1.0, v / top)))] for v in drawn).rjust(width)


def squeezed(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values: neighbours are put together, the largest stands for them."""
    total = len(values)
    if total <= width:
        return list(values)
    return [max(values[total * i // width : total * (i + 1) // width]) for i in range(width)]


def bar(used: float, leased: float, limit: float, width: int) -> str:
    """A budget: `█` is used, `▒` leased to nodes beyond that, `·` free. Without a limit it is empty."""
    if limit <= 0 or width <= 0:
        return " " * max(0, width)
    cells_used = _cells(used, limit, width)
    cells_held = max(cells_used, _cells(leased, limit, width))
    return "█" * cells_used + "▒" * (cells_held - cells_used) + "·" * (width - cells_held)


def _cells(amount: float, limit: float, width: int) -> int:
    """How much of a bar: something is at least one cell, all of it only if it is."""
    if amount <= 0:
        return 0
    return width if amount >= limit else min(width - 1, max(1, round(width * amount / limit))) or 1
