"""Compiled modules stand in for their sources only while they are made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ccr_data import IS_COMPILED
from ccr_data.compiled import FOLDER, MANIFEST, digest, files


def package(directory: Path) -> Path:
    """A package of two modules, one of which is compiled."""
    root = directory / "package"
    (root / "core").mkdir(parents=True)
    (root / "core" / "hot.py").write_text("A = 1\n")
    (root / "cold.py").write_text("B = 2\n")
    (root / FOLDER / "core").mkdir(parents=True)
    (root / FOLDER / "core" / "hot.so").write_bytes(b"code")
    manifest = {"made_of": digest(root), "files": {"package.core.hot": "core/hot.so"}}
    (root / FOLDER / MANIFEST).write_text(json.dumps(manifest))
    return root


def test_what_was_made_of_these_sources_is_used(tmp_path: Path) -> None:
    root = package(tmp_path)
    assert files(root) == {"package.core.hot": root / FOLDER / "core" / "hot.so"}


def _without(path: str) -> Callable[[Path], object]:
    return lambda root: (root / path).unlink()


def _with(path: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / path).write_text(text)


@pytest.mark.parametrize(
    "changed",
    [
        _with("core/hot.py", "A = 2\n"),
        _with("cold.py", "B = 3\n"),  # its constants may be in the compiled code
        _with("new.py", ""),
        _without("cold.py"),
        _without(f"{FOLDER}/core/hot.so"),
        _without(f"{FOLDER}/{MANIFEST}"),
        _with(f"{FOLDER}/{MANIFEST}", "{"),
        _with(f"{FOLDER}/{MANIFEST}", "[]"),
        _with(f"{FOLDER}/{MANIFEST}", '{"files": 1, "made_of": 2}'),
        _with(f"{FOLDER}/{MANIFEST}", "null"),
    ],
)
def test_whatever_else_is_there_the_sources_are_used(tmp_path: Path, changed: Callable[[Path], object]) -> None:
    root = package(tmp_path)
    changed(root)
    assert files(root) == {}


def test_tests_run_the_sources() -> None:
    assert not IS_COMPILED
