"""Line charts as SVG, to be read on light and on dark paper. Pure; standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 110, 34, 44
COLOURS = ("#d9730d", "#2f7fd6", "#2e9e5b", "#a64fc2")  # each has contrast enough on white and on near-black
_STYLE = """text{font:12px system-ui,sans-serif;fill:#57606a}.title{font-size:13px;font-weight:600;fill:#24292f}
.grid{stroke:#8b949e;stroke-opacity:.3}.line{fill:none;stroke-width:2}
@media(prefers-color-scheme:dark){text{fill:#9da7b3}.title{fill:#e6edf3}}"""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """From a figure to a place between 0 and 1."""

    label: str
    low: float
    high: float
    is_log: bool

    def place(self, value: float) -> float:
        """Where a value lies."""
        if self.is_log:
            return (log10(max(value, self.low)) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round figures along it."""
        if self.is_log:
            decades = range(round(log10(self.low)), round(log10(self.high)) + 1)
            return [10.0**exponent for exponent in decades]
        step = _round_up((self.high - self.low) / 5)
        first = ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, floor(self.high / step + 1e-9) + 1)]


def axis(label: str, values: Sequence[float], *, is_log: bool = False) -> Axis:
    """One that has room for all values; a linear one begins at 0."""
    if is_log:
        low, high = floor(log10(min(values))), ceil(log10(max(values)))
        return Axis(label, 10.0**low, 10.0 ** max(high, low + 1), is_log=True)
    step = _round_up(max(*values, 1e-9) / 5)
    return Axis(label, 0.0, step * ceil(max(*values, 1e-9) / step - 1e-9), is_log=False)


def _round_up(step: float) -> float:
    """The next of 1, 2, 5 × a power of ten."""
    power = 10.0 ** floor(log10(step))
    return next(round_one * power for round_one in (1, 2, 5, 10) if step <= round_one * power * (1 + 1e-9))


def chart(
    title: str, x_label: str, y_label: str, lines: Mapping[str, Points], *, log_x: bool = False, log_y: bool = False
) -> str:
    """An SVG document with a line and a name for each series; those without points are left out, and so is 0 where it has no logarithm."""
    drawable = {
        name: [(a, b) for a, b in points if (a > 0 or not log_x) and (b > 0 or not log_y)]
        for name, points in lines.items()
    }
    lines = {name: points for name, points in drawable.items() if points}
    every = [point for points in lines.values() for point in points]
    if not every:
        raise ValueError(f"{title}: there is nothing to draw")
    x = axis(x_label, [one for one, _ in every], is_log=log_x)
    y = axis(y_label, [one for _, one in every], is_log=log_y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<text class="title" x="{LEFT}" y="18">{escape(title)}</text>',
        *_grid(x, y),
    ]
    for number, (name, points) in enumerate(lines.items()):
        parts += _series(name, points, x, y, COLOURS[number % len(COLOURS)])
    return "\n".join([*parts, "</svg>", ""])


def _across(x: Axis, value: float) -> float:
    return LEFT + x.place(value) * (WIDTH - LEFT - RIGHT)


def _down(y: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM)


def _grid(x: Axis, y: Axis) -> list[str]:
    found = []
    for tick in x.ticks():
        at = _across(x, tick)
        found.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        found.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_shown(tick)}</text>')
    for tick in y.ticks():
        at = _down(y, tick)
        found.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        found.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_shown(tick)}</text>')
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    found.append(f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x.label)}</text>')
    upright = TOP + (HEIGHT - TOP - BOTTOM) / 2
    found.append(
        f'<text transform="translate(14 {upright:.0f}) rotate(-90)" text-anchor="middle">{escape(y.label)}</text>'
    )
    return found


def _series(name: str, points: Points, x: Axis, y: Axis, colour: str) -> list[str]:
    places = [(_across(x, a), _down(y, b)) for a, b in points]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    found = [f'<polyline class="line" stroke="{colour}" points="{path}"/>']
    if len(places) <= 20:
        found += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in places]
    end_x, end_y = places[-1]
    found.append(f'<text x="{end_x + 8:.1f}" y="{end_y + 4:.1f}" style="fill:{colour}">{escape(name)}</text>')
    return found


def _shown(value: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
