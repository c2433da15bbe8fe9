"""The pages that are made from code are those that this code makes, and those written by hand name what there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ccr_control.core.config import load
from ccr_control.core.presets import PRESETS
from ccr_data.core.records import Decision
from ccr_data.core.snapshot import Strategy
from ccr_data.shell.request_log import json_lines
from support.node_values import record

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
_ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


def test_generated_pages_are_current() -> None:
    """Also fails if a clause of the gateway contract has no test, or a test names an unknown clause."""
    done = subprocess.run(
        [sys.executable, "tools/docs.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_the_log_page_names_every_field() -> None:
    """Scripts read these lines: a field that is not on the page does not exist for its reader."""
    page = (ROOT / "docs/reference/log.md").read_text(encoding="utf-8")
    whole, _, attempts = page.partition("## Attempts")

    told = record("a")
    told.decision = Decision(Strategy.FAILOVER, (), [("p", "circuit open")])
    told.queued_s = 1.5
    line = json.loads(json_lines([told], "n"))

    assert _ROW.findall(whole) == list(line)
    assert _ROW.findall(attempts) == list(line["attempts"][0])


def test_every_kind_of_provider_has_a_page() -> None:
    """Docstrings point to docs/providers/<name>.md."""
    pages = {preset.page or name for name, preset in PRESETS.items()}
    missing = [name for name in pages if not (ROOT / f"docs/providers/{name}.md").exists()]

    assert missing == []


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            if not target.startswith(("http:", "https:")) and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")

    assert broken == []


def test_pages_that_the_code_points_to_exist() -> None:
    named = set()
    for folder in ("dataplane", "controlplane", "clients", "demo", "proto"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".proto") and "gen" not in path.parts:
                named |= set(re.findall(r"docs/[\w/.-]+\.md", path.read_text(encoding="utf-8")))

    assert sorted(name for name in named if not (ROOT / name).exists()) == []


class _EveryVariable(dict[str, str]):
    """An environment in which each variable is set, to a value of its own."""

    def get(self, name: str, default: object = None) -> str:  # type: ignore[override]
        return f"value-of-{name}"


TWO_PROVIDERS = (
    "\nproviders: [{name: anthropic, type: anthropic, keys: [{key: a}]}, {name: zai, type: zai, keys: [{key: b}]}]"
)


@pytest.mark.parametrize("page", [path.relative_to(ROOT).as_posix() for path in PAGES])
def test_configurations_on_pages_are_valid(page: str) -> None:
    """What people copy from a page must work, also where it is only a part of a configuration."""
    for block in re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL):
        text = f"providers:\n{block}" if block.startswith("  - name") else block
        text += "" if "providers:" in text else TWO_PROVIDERS
        text = text if text.startswith("version:") else f"version: 1\n{text}"
        load(text, file=page, fmt="yaml", env=_EveryVariable())  # raises ConfigInvalid, which shows the mistakes


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_valid_and_mean_what_they_say(example: Path) -> None:
    """What people begin with: no mistakes, and nothing that is probably not meant."""
    loaded = load(example.read_text(encoding="utf-8"), file=example.name, fmt="yaml", env=_EveryVariable())

    assert [str(warning) for warning in loaded.warnings] == []


def test_tests_that_pages_name_exist() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8"))}

    assert sorted(name for name in named if f"def {name}(" not in tests) == []
