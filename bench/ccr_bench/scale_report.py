"""From the raw results of bench/scale to tables and curves, and into docs/performance.md. Pure but for `write_doc`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ccr_bench import curves
from ccr_bench.growth import Slope
from ccr_bench.report import number, spread, table

BEGIN, END = "<!-- bench/scale --write-doc writes what follows -->", "<!-- until here: bench/scale -->"
TOLERATED_MIB = 0.25  # of a worker's growth in 100,000 requests: what a fragmented heap does
# A control plane's figures grow until each of their buckets holds as much as it takes: 166,000 entries, 118 MiB.
CONTROL_MAX_MIB = 300
PER = {"worker": "100,000 requests", "control": "minute"}
TOLERATED_GROWTH = 1.10  # of what a part holds after a day, against what it held half a day before
START_BAR_S = 1.0
HOURLY = ("ledger",)  # a table of the store that has rows for each hour, for a year
DAILY = ("detail", "series of the last day")  # full after a day

Run = dict[str, Any]
Charts = dict[str, str]  # by file name


def markdown(run: Run, images: str = "img") -> str:
    """All tables, each under its heading and with its curve, and how they came about."""
    sections = run["sections"]
    text: list[str] = []
    drawn = charts(run)
    for name, (title, write) in _SECTIONS.items():
        if name in sections:
            text += [f"### {title}", "", *write(sections[name]), ""]
            text += [f"![{title}]({images}/{file})\n" for file in drawn if file.startswith(f"scale-{name}")]
    return "\n".join([*text, *(f"- {note}" for note in _notes(run))])


def charts(run: Run) -> Charts:
    """The curves of what was measured."""
    found: Charts = {}
    for name, draw in _CURVES.items():
        if name in run["sections"]:
            found |= draw(run["sections"][name])
    return found


def missed(run: Run) -> list[str]:
    """What should not be: growth, late starts, swaps that are felt."""
    found, sections = [], run["sections"]
    for kind, seconds in sections.get("starts", {}).get("seconds", {}).items():
        if kind.startswith("ccr-data") and median(seconds) > START_BAR_S:
            found.append(f"{kind}: {median(seconds):.2f} s to the first answer")
    if "memory" in sections:
        found += _grown_over_requests(sections["memory"])
    found += [f"soak: {part} grows" for part in grown(sections["soak"])] if "soak" in sections else []
    return found


def _cpu(results: Iterable[dict[str, Any]], *parts: str) -> list[float]:
    return [sum(us for part, us in one["cpu_us"].items() if not parts or part in parts) for one in results]


def _percentiles(results: Iterable[dict[str, Any]], what: str, share: str) -> list[float]:
    return [one[what][share] for one in results if one.get(what)]


def _added(results: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]], what: str, share: str) -> list[float]:
    pairs = zip(_percentiles(results, what, share), _percentiles(base, what, share), strict=False)
    return [ours - theirs for ours, theirs in pairs]


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(ours, theirs, strict=False) if b > 0]


# --- streams ------------------------------------------------------------------------------------------------------------


def _streams(found: Run) -> list[str]:
    rows = []
    for name, base in found["results"]["direct"].items():
        count = int(name.removeprefix("streams-"))
        for target in ("nginx", "relay"):
            results = found["results"].get(target, {}).get(name)
            if not results:
                continue
            idle = found["idle"][target]["worker"]["rss"]
            memory = [(one["memory"]["worker"]["rss"] - idle) / count * 1000 for one in results]
            late = "late" if any("late" in one for one in results) else ""
            rows.append(
                (
                    f"{count:,}",
                    target,
                    spread(_cpu(results, "worker")),
                    spread(_added(results, base, "event_delay_us", "p50")),
                    spread(_added(results, base, "event_delay_us", "p99")),
                    spread(memory),
                    late,
                )
            )
    head = ("open streams", "", "CPU µs per event", "added µs, p50", "added µs, p99", "MiB per 1,000", "")
    return [
        f"{found['events_per_s']:,} events a second in all, however many streams share them.",
        "",
        table(head, rows),
    ]


def _stream_curves(found: Run) -> Charts:
    def line(target: str) -> curves.Points:
        results = found["results"].get(target, {})
        return [(int(name.removeprefix("streams-")), median(_cpu(of, "worker"))) for name, of in results.items()]

    lines = {target: line(target) for target in ("nginx", "relay")}
    return {"scale-streams.svg": curves.chart("CPU of an event", "open streams", "µs per event", lines, log_x=True)}


# --- bodies -------------------------------------------------------------------------------------------------------------


def _size(byte_count: int) -> str:
    return f"{byte_count // 1_000_000} MB" if byte_count >= 1_000_000 else f"{byte_count // 1000} KB"


def _body_sizes(found: Run) -> list[int]:
    return sorted({int(name.rpartition("-")[2]) for name in found["results"]["direct"]})


def _bodies(found: Run) -> list[str]:
    text = []
    for way, title in (("up", "Requests of this size:"), ("down", "Answers of this size:")):
        rows = []
        for size in _body_sizes(found):
            cells = [_size(size)]
            nginx, relay = (
                _cpu(found["results"].get(target, {}).get(f"{way}-{size}", []), "worker")
                for target in ("nginx", "relay")
            )
            cells += [spread(nginx), spread(relay), spread(_ratios(relay, nginx), "×")]
            base = found["results"]["direct"][f"{way}-one-{size}"]
            for target in ("nginx", "relay"):
                alone = found["results"].get(target, {}).get(f"{way}-one-{size}", [])
                cells.append(spread(_added(alone, base, "latency_us", "p50")))
            for target in ("nginx", "relay"):
                peak = found["peak_mib"].get(target, {}).get(f"{way}-{size}")
                cells.append(number(peak) if peak else "–")
            rows.append(tuple(cells))
        head = (
            "",
            "nginx, CPU µs",
            "relay, CPU µs",
            "relay ÷ nginx",
            "nginx, added µs",
            "relay, added µs",
            "nginx, peak MiB",
            "relay, peak MiB",
        )
        text += [title, "", table(head, rows), ""]
    return [*text[:-1], "", "CPU and peak with 16 connections (4 from 1 MB on), added time with one."]


def _body_curves(found: Run) -> Charts:
    lines = {}
    for target in ("nginx", "relay"):
        for way, words in (("up", "requests"), ("down", "answers")):
            results = found["results"].get(target, {})
            lines[f"{target}, {words}"] = [
                (size, median(_cpu(results[f"{way}-{size}"], "worker")))
                for size in _body_sizes(found)
                if f"{way}-{size}" in results
            ]
    return {
        "scale-bodies.svg": curves.chart(
            "CPU of a request by its size", "bytes", "µs per request", lines, log_x=True, log_y=True
        )
    }


# --- workers, snapshots, sessions -----------------------------------------------------------------------------------------


def _workers(found: Run) -> list[str]:
    rows = [(count, spread([one["rps"] for one in results]), spread(_cpu(results))) for count, results in found.items()]
    head = ("workers", "requests a second", "CPU µs per request, control plane included")
    return [table(head, rows), "", "The mock and the load generator take their part of the same cores."]


def _shapes(found: Run) -> list[str]:
    rows = []
    for one in found.values():
        results, idle = one["results"], one["idle"]
        rows.append(
            (
                f"{one['providers']} × {one['keys']}",
                "any" if one["is_spread"] else "the first provider's",
                spread(_cpu(results["request"], "worker")),
                spread(_cpu(results["event"], "worker")),
                number(idle["worker"]["rss"]),
                number(idle["control"]["rss"]),
                spread([seconds * 1000 for seconds in one["change_s"]]),
                number(one["wire_bytes"] / 1000),
            )
        )
    head = (
        "providers × keys of each",
        "key that may serve",
        "CPU µs per request",
        "CPU µs per event",
        "worker, MiB",
        "control plane, MiB",
        "ms from a changed file to serving it",
        "snapshot, KB",
    )
    return [table(head, rows)]


def _shape_curves(found: Run) -> Charts:
    def line(*, is_spread: bool) -> curves.Points:
        return sorted(
            (one["providers"] * one["keys"], median(_cpu(one["results"]["request"], "worker")))
            for one in found.values()
            if one["is_spread"] == is_spread
        )

    lines = {"one provider's keys": line(is_spread=False), "any key": line(is_spread=True)}
    return {
        "scale-shapes.svg": curves.chart(
            "CPU of a request by the size of the snapshot", "keys", "µs per request", lines, log_x=True
        )
    }


def _sessions(found: Run) -> list[str]:
    rows = [
        (f"{int(count):,}", spread(_cpu(results, "worker")), number(found["memory"][count]["worker"]["rss"]))
        for count, results in found["results"].items()
    ]
    return [table(("sessions", "CPU µs per request", "worker, MiB"), rows)]


def _session_curves(found: Run) -> Charts:
    line = [(int(count), median(_cpu(results, "worker"))) for count, results in found["results"].items()]
    return {
        "scale-sessions.svg": curves.chart(
            "CPU of a request by the number of sessions", "sessions", "µs per request", {"relay": line}, log_x=True
        )
    }


# --- swaps, starts --------------------------------------------------------------------------------------------------------


def _swaps(found: Run) -> list[str]:
    rows = []
    for word, title in (("off", "without"), ("on", "ten swaps a second")):
        results = found["results"][word]
        latencies = (spread(_percentiles(results, "latency_us", share)) for share in ("p50", "p90", "p99"))
        rows.append((title, *latencies, spread(_cpu(results, "worker"))))
    ratios = [
        spread(
            _ratios(
                _percentiles(found["results"]["on"], "latency_us", share),
                _percentiles(found["results"]["off"], "latency_us", share),
            ),
            "×",
        )
        for share in ("p50", "p90", "p99")
    ]
    rows.append(("ratio", *ratios, ""))
    return [
        f"500 requests a second while snapshots of {found['keys']:,} keys come, each with one other credential "
        f"({found['accepted']:,} were served); windows with and without them in turn.",
        "",
        table(("", "p50, µs", "p90, µs", "p99, µs", "CPU µs per request"), rows),
    ]


def _starts(found: Run) -> list[str]:
    rows = [
        (kind, spread(seconds), f"≤ {START_BAR_S:g} s" if kind.startswith("ccr-data") else "")
        for kind, seconds in found["seconds"].items()
        if seconds
    ]
    return [table(("from the start of the process to the first answer of a provider", "s", "bar"), rows)]


# --- memory ---------------------------------------------------------------------------------------------------------------


def _grown_over_requests(found: Run) -> list[str]:
    each, error = found["slopes"]["worker"]
    grown = [f"worker: grows by {each:.2f} MiB per 100,000 requests"] if Slope(each, error).grows(TOLERATED_MIB) else []
    largest = max((point["control"] for point in found["points"]), default=0.0)
    return [*grown, *([f"control plane: {largest:.0f} MiB"] if largest > CONTROL_MAX_MIB else [])]


def _memory(found: Run) -> list[str]:
    points = found["points"]
    missed = " ".join(_grown_over_requests(found))
    rows = []
    for part, name, bar in (
        ("worker", "worker", f"≤ {TOLERATED_MIB} per 100,000"),
        ("control", "control plane", f"≤ {CONTROL_MAX_MIB} in all"),
    ):
        each, error = found["slopes"][part]
        middle = points[len(points) // 4]
        rows.append(
            (
                name,
                number(points[0][part]),
                number(middle[part]),
                number(points[-1][part]),
                f"{each:+.2f} ± {error:.2f} per {PER[part]}",
                bar,
                "✗" if name in missed else "✓",
            )
        )
    done = points[-1]["requests"]
    head = ("MiB of RSS", "at first", "after a quarter", "at the end", "growth since then, MiB", "bar", "")
    return [
        f"{done:,.0f} requests as fast as they are answered, a third of them streams; every request has a session of its own, "
        "and the keys are rotated every now and then. The control plane's figures grow until their buckets are full, whatever the number of requests "
        "(166,000 entries, 118 MiB, after a day of nothing but new sessions); over a day they are looked at below.",
        "",
        table(head, rows),
    ]


def _memory_curves(found: Run) -> Charts:
    points = found["points"]
    lines = {
        name: [(point["requests"], point[part]) for point in points]
        for part, name in (("worker", "worker"), ("control", "control plane"))
    }
    return {"scale-memory.svg": curves.chart("Memory", "requests", "MiB of RSS", lines)}


def grown(found: Run) -> list[str]:
    """The parts of a soak that hold surely more at its end than half a day before."""
    hours = found["hours"]
    if len(hours) < 3:
        return []
    before, after = hours[-2], hours[-1]

    def tolerated(name: str) -> float:
        """How much more there may be at the end."""
        longer = after["hour"] / before["hour"]
        if name in HOURLY or (name in DAILY and before["hour"] < 24):
            return TOLERATED_GROWTH * longer
        return TOLERATED_GROWTH

    parts = [
        part
        for part, held in after["held"].items()
        if held["kib"] > tolerated(part) * before["held"][part]["kib"] + 64  # a busier minute is no growth
    ]
    tables = [name for name, rows in after["rows"].items() if rows > tolerated(name) * before["rows"][name] + 20]
    return [*parts, *tables]


def _soak(found: Run) -> list[str]:
    hours = found["hours"]
    heads = [f"hour {one['hour']}" for one in hours]
    flagged = grown(found)
    rows = [
        (
            part,
            *(f"{one['held'][part]['objects']:,} ({one['held'][part]['kib']:,})" for one in hours),
            _mark(part, flagged),
        )
        for part in hours[-1]["held"]
    ]
    rows += [
        (f"rows of the store: {name}", *(f"{one['rows'][name]:,}" for one in hours), _mark(name, flagged))
        for name in hours[-1]["rows"]
    ]
    return [
        f"A day of virtual time with {hours[-1]['requests']:,} requests, on the planes' own decisions (`tools/simulate`): the objects "
        "that each part holds, and their KiB. What has a limit got a small one, which the first hour reaches. The ledger has "
        "rows for each hour, for as long as it is kept.",
        "",
        table(("what is held", *heads, ""), rows),
    ]


def _mark(name: str, flagged: Sequence[str]) -> str:
    return "✗" if name in flagged else "✓"


# --- the whole ------------------------------------------------------------------------------------------------------------

_SECTIONS = {
    "streams": ("Open streams", _streams),
    "bodies": ("Bodies", _bodies),
    "workers": ("Workers", _workers),
    "shapes": ("Providers and keys", _shapes),
    "sessions": ("Sessions", _sessions),
    "swaps": ("Snapshots that change", _swaps),
    "starts": ("Starting", _starts),
    "memory": ("Memory over millions of requests", _memory),
    "soak": ("Memory over a day", _soak),
}
_CURVES = {
    "streams": _stream_curves,
    "bodies": _body_curves,
    "shapes": _shape_curves,
    "sessions": _session_curves,
    "memory": _memory_curves,
}


def _notes(run: Run) -> Iterable[str]:
    facts, plan = run["machine"], run["plan"]
    yield f"{facts['machine']}; {facts['system']}; {', '.join(v for k, v in facts.items() if k not in ('machine', 'system'))}."
    yield f"Measured {run['date']} with `{run['command']}`; {plan['rounds']} alternating rounds with windows of {plan['window_s']:g} s; median (min…max)."
    yield f"Pinning: {run['pinning']}; workers are measured without."
    foreign = list(_foreign(run["sections"]))
    if foreign:
        yield f"CPU that other programs took meanwhile: {median(foreign):.2f} cores (median of all windows), {max(foreign):.2f} at most."
    yield f"To repeat: `make scale`, or `bench/scale --write-doc` to write this part anew; it took {run['took_s'] / 60:.0f} minutes."
    if missing := missed(run):
        yield f"Missed: {'; '.join(missing)}."


def _foreign(found: object) -> Iterable[float]:
    """Of every window, wherever it is kept."""
    if isinstance(found, dict):
        if "foreign_cores" in found:
            yield found["foreign_cores"]
        for one in found.values():
            yield from _foreign(one)
    elif isinstance(found, list):
        for one in found:
            yield from _foreign(one)


def write_doc(doc: Path, run: Run) -> None:
    """Replaces the generated part of the document, and the curves beside it; the rest is written by hand."""
    before, found, rest = doc.read_text().partition(BEGIN)
    if not found or END not in rest:
        raise ValueError(f"{doc} lacks the lines {BEGIN!r} and {END!r}")
    images = doc.parent / "img"
    images.mkdir(exist_ok=True)
    for name, svg in charts(run).items():
        (images / name).write_text(svg)
    doc.write_text(f"{before}{BEGIN}\n{markdown(run)}\n{END}{rest.partition(END)[2]}")
