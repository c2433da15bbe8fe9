"""The machinery is no installed package: its folder is put on the path here."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from chaos.playing import Result, play_seeds

FLEETS_AT_A_TIME = 2


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Result]:
    """What became of the seeds of a file: SEEDS there. Histories of failures are in $CHAOS_KEEP, or where pytest puts files."""
    keep = Path(os.environ.get("CHAOS_KEEP") or tmp_path_factory.mktemp("chaos"))
    return {one.seed: one for one in play_seeds(request.module.SEEDS, keep, side_by_side=FLEETS_AT_A_TIME)}
