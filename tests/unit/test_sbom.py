"""The bill of materials names everything that runs, in the versions that are pinned."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def bill(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "tools" / "sbom.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_bill_is_whole_and_the_same_again() -> None:
    text = bill()
    found = json.loads(text)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert found["metadata"]["component"]["name"] == "cc-relay"
    names = [one["name"].lower().replace("_", "-") for one in found["components"]]
    assert {"grpcio", "protobuf", "msgspec", "uvloop", "aiohttp", "multidict", "pydantic-core", "botocore"} <= set(
        names
    )
    assert not {"pytest", "mypy", "ruff", "hypothesis"} & set(names)
    references = {one["bom-ref"] for one in [*found["components"], found["metadata"]["component"]]}
    assert len(references) == len(names) + 1
    assert {one["ref"] for one in found["dependencies"]} == references
    assert all(set(one["dependsOn"]) <= references for one in found["dependencies"])
    assert bill() == text


def test_every_package_that_runs_is_pinned() -> None:
    """What is not in constraints.txt may be another version tomorrow."""
    pinned = {
        line.split("==")[0].lower().replace("_", "-").replace(".", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    names = {one["name"].lower().replace("_", "-").replace(".", "-") for one in json.loads(bill())["components"]}
    assert names <= pinned, sorted(names - pinned)
