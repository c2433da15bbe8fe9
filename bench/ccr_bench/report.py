"""From raw results to one table of ratios, for the terminal and for docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ccr_bench.workload import MEMORY_BARS, ROWS, SCENARIOS, Row

BEGIN, END = "<!-- bench/run --write-doc writes what follows -->", "<!-- until here -->"
PART_COLUMNS = ("part", "CPU µs", "bar", "")
COLUMNS = ("work", "nginx", "relay", "with control plane", "relay ÷ nginx", "bar", "aim", "")


@dataclass(frozen=True, slots=True)
class Line:
    """A finished line of the table."""

    cells: tuple[str, ...]
    missed: bool


def lines(run: dict[str, Any]) -> list[Line]:
    found = [line for row in ROWS if (line := _line(row, run))]
    return found + _memory_lines(run)


def _line(row: Row, run: dict[str, Any]) -> Line | None:
    relay, nginx = _values(run, "relay", row, "worker"), _values(run, "nginx", row)
    if not relay and not nginx:
        return None
    whole = _values(run, "relay", row) if row.figure == "cpu_us" else []
    ratios = [ours / theirs for ours, theirs in zip(relay, nginx, strict=True) if theirs > 0] if relay and nginx else []
    mark = verdict(median(ratios), row.bar, row.aim) if ratios else ""
    return Line(
        (
            row.title,
            spread(nginx),
            spread(relay),
            spread(whole),
            spread(ratios, "×"),
            _limit(row.bar),
            _limit(row.aim),
            mark,
        ),
        mark == "✗",
    )


def _values(run: dict[str, Any], target: str, row: Row, *parts: str) -> list[float]:
    """The figure in each round, of the named parts of the target or of the whole."""
    results = run["results"].get(target, {}).get(row.scenario, [])
    if row.figure == "cpu_us":
        return [sum(us for part, us in result["cpu_us"].items() if not parts or part in parts) for result in results]
    if not results:
        return []
    base = run["results"]["direct"][row.scenario.removeprefix("tls-")]
    latency = "latency_us" if SCENARIOS[row.scenario].mode == "json" else "first_event_us"
    return [result[latency]["p50"] - without[latency]["p50"] for result, without in zip(results, base, strict=True)]


def _memory_lines(run: dict[str, Any]) -> list[Line]:
    def mib(target: str, kind: str) -> tuple[dict[str, float], dict[str, float]] | None:
        """Of the worker, and of the whole: RSS and PSS, idle or what 1,000 streams add."""
        memory = run["memory"].get(target)
        if not memory:
            return None
        less = memory["idle"] if kind == "per_1000" else {}
        parts = memory["streams" if kind == "per_1000" else "idle"]
        kept = {
            part: {unit: value - less.get(part, {}).get(unit, 0) for unit, value in units.items()}
            for part, units in parts.items()
        }
        return kept["worker"], {unit: sum(units[unit] for units in kept.values()) for unit in ("rss", "pss")}

    found = []
    for kind, title in (
        ("idle", "memory of an idle worker, MiB RSS (PSS)"),
        ("per_1000", "memory that 1,000 open streams add, MiB RSS (PSS)"),
    ):
        nginx, relay = mib("nginx", kind), mib("relay", kind)
        if nginx or relay:
            bar, aim = MEMORY_BARS[kind]
            mark = verdict(relay[0]["rss"], bar, aim) if relay else ""
            cells = [
                f"{part['rss']:.0f} ({part['pss']:.0f})" if part else "–"
                for part in (nginx and nginx[1], *(relay or (None, None)))
            ]
            found.append(Line((title, *cells, "", f"≤ {bar:.0f} MB", f"≤ {aim:.0f} MB", mark), mark == "✗"))
    return found


def part_lines(run: dict[str, Any]) -> list[Line]:
    """What bench/parts.py measured, if it did."""
    found = []
    for part in run.get("parts", []):
        missed = median(part["us"]) > part["bar_us"]
        cells = (part["title"], spread(part["us"]), f"< {part['bar_us']:g}", "✗" if missed else "✓")
        found.append(Line(cells, missed))
    return found


def verdict(value: float, bar: float | None, aim: float | None) -> str:
    if bar is None or aim is None:
        return ""
    return "✓✓" if value <= aim else "✓" if value <= bar else "✗"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(values: Sequence[float], unit: str = "") -> str:
    if not values:
        return "–"
    middle = f"{number(median(values))}{unit}"
    return middle if len(values) == 1 else f"{middle} ({number(min(values))}…{number(max(values))})"


def _limit(value: float | None) -> str:
    return "" if value is None else f"≤ {value:g}×"


def markdown(run: dict[str, Any]) -> str:
    """The table, what it was measured on, and what to mistrust."""
    text = [table(COLUMNS, [line.cells for line in lines(run)])]
    if parts := part_lines(run):
        text += [
            "",
            "Parts of it, in µs of CPU for each call:",
            "",
            table(PART_COLUMNS, [line.cells for line in parts]),
        ]
    if peers := [name for name in run["results"] if name not in ("direct", "nginx", "relay")]:
        text += ["", "Peers, as × nginx in the same run:", "", _peers(run, peers)]
    return "\n".join([*text, "", *(f"- {note}" for note in _notes(run))])


def _peers(run: dict[str, Any], peers: Sequence[str]) -> str:
    body = []
    for row in ROWS:
        nginx = _values(run, "nginx", row)
        ratios = {
            name: [a / b for a, b in zip(_values(run, name, row), nginx, strict=False) if b > 0]
            for name in ("relay", *peers)
        }
        if any(ratios[name] for name in peers):
            body.append((row.title, *(spread(values, "×") for values in ratios.values())))
    return table(("work", "relay with control plane", *peers), body)


def _notes(run: dict[str, Any]) -> Iterable[str]:
    facts, plan = run["machine"], run["plan"]
    yield f"{facts['machine']}; {facts['system']}; {', '.join(v for k, v in facts.items() if k not in ('machine', 'system'))}."
    yield f"Measured {run['date']}; {plan['rounds']} alternating rounds with windows of {plan['window_s']:g} s; median (min…max)."
    yield f"Pinning: {run['pinning']}."
    foreign = [r["foreign_cores"] for rows in run["results"].values() for results in rows.values() for r in results]
    if foreign:
        yield f"CPU that other programs took meanwhile: {median(foreign):.2f} cores (median of all windows), {max(foreign):.2f} at most."
    yield "✓✓ within the aim, ✓ within the bar, ✗ missed."
    if "nginx" not in run["results"]:
        yield "nginx is not installed: no ratios."
    for target, rows in run["results"].items():
        for name, results in rows.items():
            if late := [result["late"] for result in results if "late" in result]:
                yield f"Mistrust {name} of {target}: {late[0]} in {len(late)} of {len(results)} windows."


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rule = "|" + "|".join([" --- ", *[" ---: "] * (len(head) - 1)]) + "|"
    return "\n".join(["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(cells) + " |" for cells in body)])


def write_doc(doc: Path, run: dict[str, Any]) -> None:
    """Replaces the generated part of the document; the rest is written by hand."""
    before, found, rest = doc.read_text().partition(BEGIN)
    if not found or END not in rest:
        raise ValueError(f"{doc} lacks the lines {BEGIN!r} and {END!r}")
    doc.write_text(f"{before}{BEGIN}\n{markdown(run)}\n{END}{rest.partition(END)[2]}")
