"""Which file comes first where files run side by side: the longest, so that none is begun when the others are done.

How long each takes is noted in tests/slow_files.txt. It need not be exact; `make test ARGS=--note-times` writes it anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
NOTED = TESTS / "slow_files.txt"
WORTH_NOTING_S = 3.0
UNKNOWN_S = {"chaos": 30.0, "claude_code": 30.0, "faults": 20.0, "integration": 15.0, "upgrade": 20.0, "web": 30.0}
"""What a file is taken for that is not noted, by its folder; of other folders a second."""


def times() -> dict[str, float]:
    """The noted seconds by file."""
    lines = NOTED.read_text(encoding="utf-8").splitlines() if NOTED.exists() else []
    return {path: float(seconds) for seconds, path in (line.split(" ", 1) for line in lines)}


def expected_s(path: Path, noted: Mapping[str, float]) -> float:
    """How long a file is going to take."""
    name = path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else path.name
    return noted.get(name, UNKNOWN_S.get(name.partition("/")[0], 1.0))


def longest_first(items: list[pytest.Item]) -> None:
    """Put the tests in this order; those of a file stay together, as they are."""
    noted = times()
    items.sort(key=lambda item: -expected_s(item.path, noted))


class NoteTimes:
    """A plugin that sums up what each file took, and writes it down at the end."""

    def __init__(self) -> None:
        self._took_s: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of every phase of every test, from every process."""
        self._took_s[report.nodeid.partition("::")[0].removeprefix("tests/")] += report.duration  # type: ignore[assignment]  # a sum of seconds

    def pytest_sessionfinish(self) -> None:
        """Files that were not run keep their times."""
        known = {**times(), **self._took_s}
        kept = {path: took_s for path, took_s in known.items() if took_s >= WORTH_NOTING_S and (TESTS / path).exists()}
        lines = [f"{took_s:.0f} {path}\n" for path, took_s in sorted(kept.items(), key=lambda one: (-one[1], one[0]))]
        NOTED.write_text("".join(lines), encoding="utf-8")
