"""bench/scale works from end to end: every measurement, with real processes, in its smallest size."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    not (shutil.which("cc") and shutil.which("openssl")), reason="the mock needs a C compiler and openssl"
)
def test_a_quick_run_measures_everything(tmp_path: Path) -> None:
    """What breaks here would otherwise be found an hour into a run on a quiet machine."""
    out = tmp_path / "scale.json"
    command = [sys.executable, str(ROOT / "bench/scale"), "--quick", "--no-pin", "--out", str(out)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)

    assert process.returncode == 0, process.stderr[-4000:]
    sections = json.loads(out.read_text())["sections"]
    assert [*sections] == ["streams", "bodies", "workers", "shapes", "sessions", "swaps", "starts", "memory", "soak"]
    assert sections["swaps"]["accepted"] > 0
    assert sections["memory"]["points"][-1]["requests"] >= 1_200
    assert sections["soak"]["hours"][-1]["requests"] > 0
    for title in ("### Open streams", "### Snapshots that change", "### Memory over a day"):
        assert title in process.stdout
