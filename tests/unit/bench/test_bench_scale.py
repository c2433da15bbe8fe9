"""bench/scale: curves, slopes, and what counts as growth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from ccr_bench import curves, scale_report
from ccr_bench.growth import after_warm_up, slope
from ccr_bench.shapes import Shape, config
from ccr_bench.sweeps import SWEEPS
from ccr_bench.targets import Upstream
from ccr_bench.workload import CLIENT_KEY, sized_body
from ccr_control.core.config import load
from hypothesis import given
from hypothesis import strategies as st

SVG = "{http://www.w3.org/2000/svg}"


# --- slopes ---------------------------------------------------------------------------------------------------------------


@given(st.floats(-5, 5), st.floats(-100, 100), st.integers(3, 40))
def test_a_straight_line_has_its_slope_and_no_error(each: float, at_0: float, count: int) -> None:
    xs = [float(x) for x in range(count)]
    found = slope(xs, [at_0 + each * x for x in xs])

    assert found.each == pytest.approx(each, abs=1e-6)
    assert found.error == pytest.approx(0.0, abs=1e-6)


def test_noise_is_no_growth_and_a_leak_is() -> None:
    """A worker's memory goes up and down by a megabyte; a leak of 2 MiB per 100,000 requests must be seen all the same."""
    xs = [x / 10 for x in range(50)]
    noise = [(x * 7919) % 11 / 11 - 0.5 for x in range(50)]

    assert not slope(xs, [50 + n for n in noise]).grows(0.25)
    assert slope(xs, [50 + 2 * x + n for x, n in zip(xs, noise, strict=True)]).grows(0.25)


def test_what_fills_caches_is_not_counted() -> None:
    ys = [40.0, 50.0, 60.0, *([70.0, 70.1] * 5)]
    found = after_warm_up([float(x) for x in range(13)], ys)

    assert not found.grows(0.02)


def test_two_points_prove_nothing() -> None:
    assert not slope([0.0, 1.0], [0.0, 100.0]).grows(0.0)


# --- curves ---------------------------------------------------------------------------------------------------------------

positive = st.floats(0.01, 1e7)


@given(
    st.lists(st.tuples(positive, positive), min_size=1, max_size=30),
    st.booleans(),
    st.booleans(),
)
def test_every_point_is_on_the_paper(points: list[tuple[float, float]], log_x: bool, log_y: bool) -> None:
    drawn = ET.fromstring(curves.chart("a < b & c", "x", "y", {"one": points}, log_x=log_x, log_y=log_y))
    (line,) = drawn.findall(f"{SVG}polyline")
    places = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]

    assert len(places) == len(points)
    assert all(curves.LEFT - 0.1 <= x <= curves.WIDTH - curves.RIGHT + 0.1 for x, _ in places)
    assert all(curves.TOP - 0.1 <= y <= curves.HEIGHT - curves.BOTTOM + 0.1 for _, y in places)


def test_a_chart_reads_on_dark_paper_and_names_its_lines() -> None:
    text = curves.chart("t", "x", "y", {"nginx": [(1, 2), (10, 3)], "relay": [(1, 4), (10, 5)], "none": []})

    assert "prefers-color-scheme:dark" in text
    words = [each.text for each in ET.fromstring(text).iter(f"{SVG}text")]
    assert {"nginx", "relay"} <= set(words)
    assert "none" not in words


def test_a_logarithm_of_nothing_is_not_drawn() -> None:
    """A window in which a busy machine let the process do nothing."""
    drawn = ET.fromstring(curves.chart("t", "x", "y", {"one": [(1, 0.0), (10, 3.0), (0, 4.0)]}, log_x=True, log_y=True))

    assert len(drawn.findall(f"{SVG}circle")) == 1


def test_a_chart_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        curves.chart("t", "x", "y", {"none": []})


@pytest.mark.parametrize("top", [0.003, 1, 7.2, 99, 1234, 5e6])
def test_a_linear_axis_has_a_handful_of_ticks(top: float) -> None:
    found = curves.axis("", [0.0, top])

    assert 3 <= len(found.ticks()) <= 7
    assert found.high >= top


# --- what is sent ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1_000, 10_000, 100_000, 1_000_000])
def test_bodies_are_as_large_as_they_are_called(size: int) -> None:
    body = sized_body("claude-mock-b256", size)

    assert abs(len(body) - size) <= 0.05 * size
    assert json.loads(body)["model"] == "claude-mock-b256"


def test_a_configuration_of_any_shape_is_sound_and_another_generation_differs_in_its_credentials_alone() -> None:
    upstream = Upstream(9900, 9901, Path("/none"))
    one, other = (config(Shape(3, 4, is_spread=True), 8787, upstream, ("b256",), number) for number in (0, 1))

    loaded = load(one, file="ccr.yaml", fmt="yaml", env={}).config
    assert [len(provider.keys) for provider in loaded.providers] == [4, 4, 4]
    assert CLIENT_KEY in one
    first, second = json.loads(one), json.loads(other)
    assert first["providers"] != second["providers"]
    for keys in (first, second):
        for provider in keys["providers"]:
            for key in provider["keys"]:
                del key["key"]
    assert first["providers"] == second["providers"]


# --- the report -----------------------------------------------------------------------------------------------------------


def a_run(**sections: Any) -> dict[str, Any]:
    return {
        "date": "2026-01-01",
        "command": "bench/scale",
        "machine": {"machine": "a machine", "system": "a system", "nginx": "nginx/1"},
        "pinning": "none",
        "plan": {"rounds": 3, "window_s": 2.0},
        "took_s": 120.0,
        "sections": sections,
    }


def hour(number: int, **kib: int) -> dict[str, Any]:
    held = {part: {"objects": 10, "kib": size} for part, size in kib.items()}
    return {
        "hour": number,
        "requests": 100,
        "held": held,
        "rows": {"ledger": number * 100, "journals": 2},
        "entries": {},
    }


def test_a_part_that_doubles_in_half_a_day_is_named() -> None:
    steady = [hour(n, pins=500, leases=100) for n in (1, 12, 24)]
    growing = [hour(n, pins=500 * n, leases=100) for n in (1, 12, 24)]

    assert scale_report.grown({"hours": steady}) == []
    assert scale_report.grown({"hours": growing}) == ["pins"]
    assert scale_report.missed(a_run(soak={"hours": growing})) == ["soak: pins grows"]


def test_rows_of_each_hour_are_no_growth_but_others_are() -> None:
    hours = [hour(n, pins=1) for n in (1, 12, 24)]
    hours[-1]["rows"]["journals"] = 500

    assert scale_report.grown({"hours": hours}) == ["journals"]


def test_a_late_start_and_growing_memory_are_missed() -> None:
    run = a_run(
        starts={"seconds": {"ccr-data, from its disk": [0.4, 1.5, 1.6], "ccr serve, cold": [3.0]}},
        memory={
            "slopes": {"worker": [2.0, 0.1], "control": [5.0, 1.0]},
            "points": [{"control": 299.0}, {"control": 301.0}],
        },
    )

    assert scale_report.missed(run) == [
        "ccr-data, from its disk: 1.50 s to the first answer",
        "worker: grows by 2.00 MiB per 100,000 requests",
        "control plane: 301 MiB",
    ]


def test_only_the_generated_part_of_the_document_changes_and_curves_lie_beside_it(tmp_path: Path) -> None:
    points = [{"requests": n * 1000, "rps": 1.0, "worker": 50.0, "control": 90.0} for n in range(1, 9)]
    run = a_run(memory={"slopes": {"worker": [0.0, 0.1], "control": [0.0, 0.1]}, "points": points})
    doc = tmp_path / "performance.md"
    doc.write_text(f"# Above\n{scale_report.BEGIN}\nold\n{scale_report.END}\nbelow\n")
    scale_report.write_doc(doc, run)
    scale_report.write_doc(doc, run)

    text = doc.read_text()
    assert text == f"# Above\n{scale_report.BEGIN}\n{scale_report.markdown(run)}\n{scale_report.END}\nbelow\n"
    assert "(img/scale-memory.svg)" in text
    assert ET.parse(tmp_path / "img/scale-memory.svg").getroot().tag == f"{SVG}svg"


def test_the_project_s_document_has_the_place_for_it() -> None:
    text = (Path(__file__).parents[3] / "docs/performance.md").read_text()

    assert text.count(scale_report.BEGIN) == text.count(scale_report.END) == 1


def test_every_measurement_has_a_section() -> None:
    assert SWEEPS.keys() == scale_report._SECTIONS.keys()
