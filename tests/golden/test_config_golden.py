"""Configurations and what becomes of them: NAME.in.yaml → NAME.out.json, or NAME.problems.txt.

`UPDATE_GOLDEN=1 pytest tests/golden/test_config_golden.py` writes them anew; read the diff before committing it.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ccr_control.core.compile import check, compile_snapshot
from ccr_control.core.config import load
from ccr_control.core.errors import ConfigInvalid
from google.protobuf.json_format import MessageToDict

CASES = Path(__file__).parent / "config"
ENV = {
    "CLIENT_KEY": "client-key-of-a-laptop",
    "ANTHROPIC_A": "sk-ant-a-1111",
    "ZAI": "zai-secret-2222",
    "PASTED": "sk-ant-b-3333\n",
    "EMPTY": "",
    "AWS_SECRET": "aws-secret-4444",
    "BEDROCK": "bedrock-key-5555",
    "AZURE": "azure-secret-6666",
    "GOOGLE": "ya29.google-7777",
}
FILES = {"corp.pem": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"}


def read_file(name: str) -> str:
    if name not in FILES:
        raise FileNotFoundError(2, "No such file or directory")
    return FILES[name]


def outcome(case: Path) -> tuple[str, str]:
    """The ending of the golden file's name, and its text."""
    fmt = "toml" if case.suffix == ".toml" else "yaml"
    try:
        loaded = load(case.read_text(), file=case.name, fmt=fmt, env=ENV, read_file=read_file)
    except ConfigInvalid as error:
        return "problems.txt", "".join(f"{problem}\n" for problem in error.problems)
    snapshot = compile_snapshot(loaded.config, version=7, created_at=datetime(2026, 11, 20, tzinfo=UTC))
    assert check(snapshot) == []
    shown = {
        "warnings": [str(warning) for warning in loaded.warnings],
        "snapshot": MessageToDict(snapshot, preserving_proto_field_name=True),
    }
    return "out.json", json.dumps(shown, indent=1) + "\n"


@pytest.mark.parametrize("case", sorted(CASES.glob("*.in.*")), ids=lambda case: case.name)
def test_a_configuration_becomes_what_it_became_before(case: Path) -> None:
    """A change of what a configuration means, or of how a mistake is told, must be seen by whoever makes it."""
    ending, text = outcome(case)
    golden = CASES / f"{case.name.partition('.in.')[0]}.{ending}"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_no_problem_shows_the_value_of_a_variable() -> None:
    """Problems are logged and shown on screens; variables hold credentials."""
    for golden in CASES.glob("*.problems.txt"):
        text = golden.read_text()
        for value in (*ENV.values(), "hunter2"):
            assert not value or value.strip() not in text, golden


def test_every_golden_file_has_its_case() -> None:
    """A leftover would look like a promise that somebody keeps."""
    cases = {case.name.partition(".in.")[0] for case in CASES.glob("*.in.*")}
    results = {path.name.removesuffix(".out.json").removesuffix(".problems.txt") for path in CASES.iterdir()}
    assert {name for name in results if ".in." not in name} == cases
