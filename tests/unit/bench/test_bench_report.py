"""The benchmark's table: ratios of neighbours, marks, and the part of the document that it rewrites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ccr_bench.report import BEGIN, END, lines, markdown, part_lines, verdict, write_doc
from ccr_bench.workload import SCENARIOS, asked_model, request_body
from ccr_data.core.snapshot import Strategy
from parts import PARTS


def cpu(worker: float, control: float | None = None) -> dict[str, Any]:
    parts = {"worker": worker} | ({} if control is None else {"control": control})
    return {"cpu_us": parts, "foreign_cores": 0.0}


def latency(p50: float) -> dict[str, Any]:
    return {"latency_us": {"p50": p50}, "cpu_us": {}, "foreign_cores": 0.0}


def a_run(**results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    return {
        "date": "2026-01-01",
        "machine": {"machine": "a machine", "system": "a system", "nginx": "nginx/1"},
        "pinning": "none",
        "plan": {"rounds": 3, "window_s": 2.0},
        "memory": {},
        "results": {"direct": {}, **results},
    }


def test_a_ratio_is_the_median_over_the_rounds_not_of_the_medians() -> None:
    run = a_run(
        nginx={"json-small": [cpu(10), cpu(20), cpu(10)]},
        relay={"json-small": [cpu(20, 5), cpu(60, 5), cpu(40, 5)]},
    )
    (line,) = lines(run)
    assert line.cells[1:5] == ("10.0 (10.0…20.0)", "40.0 (20.0…60.0)", "45.0 (25.0…65.0)", "3.00× (2.00…4.00)")
    assert line.cells[7] == "✓"
    assert not line.missed


def test_added_time_is_less_the_direct_connection_of_the_same_round() -> None:
    run = a_run(
        direct={"first-json": [latency(10), latency(30)]},
        nginx={"first-json": [latency(110), latency(130)], "tls-first-json": [latency(60), latency(80)]},
        relay={"first-json": [latency(210), latency(230)], "tls-first-json": [latency(110), latency(130)]},
    )
    plain, tls = lines(run)
    assert plain.cells[4] == "2.00× (2.00…2.00)"
    assert plain.missed
    assert tls.cells[4] == "2.00× (2.00…2.00)"
    assert not tls.missed  # it has no bar


@pytest.mark.parametrize(("value", "mark"), [(1.2, "✓✓"), (1.21, "✓"), (1.5, "✓"), (1.51, "✗")])
def test_marks(value: float, mark: str) -> None:
    assert verdict(value, bar=1.5, aim=1.2) == mark


def test_without_nginx_nothing_is_judged() -> None:
    run = a_run(relay={"json-small": [cpu(20, 5)]})
    (line,) = lines(run)
    assert line.cells[4] == "–"
    assert "nginx is not installed" in markdown(run)


def test_a_saturated_window_is_named() -> None:
    run = a_run(relay={"sse-20k": [cpu(20) | {"late": "only 9 of 10 events/s arrived"}]})
    assert "Mistrust sse-20k of relay: only 9 of 10" in markdown(run)


def test_only_the_generated_part_of_the_document_changes(tmp_path: Path) -> None:
    doc = tmp_path / "performance.md"
    doc.write_text(f"# Above\n{BEGIN}\nold\n{END}\nbelow\n")
    run = a_run(relay={"json-small": [cpu(20, 5)]})
    write_doc(doc, run)
    write_doc(doc, run)
    assert doc.read_text() == f"# Above\n{BEGIN}\n{markdown(run)}\n{END}\nbelow\n"


def test_bodies_have_the_size_and_shape_that_the_table_says() -> None:
    small, large = (request_body(asked_model("b256"), False, kib) for kib in (0, 200))
    assert 300 <= len(small) <= 400
    assert 200 * 1024 <= len(large) + 1024 <= 206 * 1024
    assert list(json.loads(small)) == ["model", "messages", "metadata", "max_tokens", "stream"]


def test_each_plain_scenario_of_the_bars_has_a_tls_twin() -> None:
    assert {"tls-json-small", "tls-json-200k", "tls-sse-20k", "tls-first-json", "tls-first-sse"} <= SCENARIOS.keys()


def test_parts_have_a_table_of_their_own_and_bars() -> None:
    rows = [
        {"name": name, "title": f"part {name}", "bar_us": 60, "us": us}
        for name, us in (("fast", [30.0, 20.0, 50.0]), ("slow", [50.0, 61.0, 70.0]))
    ]
    run = a_run(relay={"json-small": [cpu(20, 5)]}) | {"parts": rows}

    fast, slow = part_lines(run)
    assert fast.cells == ("part fast", "30.0 (20.0…50.0)", "< 60", "✓")
    assert (fast.missed, slow.missed) == (False, True)
    assert "| part slow | 61.0 (50.0…70.0) | < 60 | ✗ |" in markdown(run)
    assert part_lines(a_run()) == []


def test_each_part_runs_and_each_strategy_is_one() -> None:
    names = [part.name for part in PARTS]

    assert len(set(names)) == len(names)
    assert {f"routing-{strategy.value}" for strategy in Strategy} <= set(names)
    for part in PARTS:
        part.make()()
