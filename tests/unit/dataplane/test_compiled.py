"""Compiled modules stand in for their sources only while they are made of them."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args, get_type_hints

import ccr_data
import msgspec
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


def _named(kind: object, found: set[type]) -> set[type]:
    """The classes that a type is made of, fields of fields included."""
    if isinstance(kind, type) and kind not in found and kind.__module__.startswith("ccr_data."):
        found.add(kind)
        for one in get_type_hints(kind).values():
            _named(one, found)
    for one in get_args(kind):
        _named(one, found)
    return found


def _decoded_into(module: ModuleType) -> Iterator[object]:
    """The types that a module has msgspec decode into: those of its decoders, and those of `type=` in its calls."""
    for value in vars(module).values():
        decoder = getattr(value, "__self__", None)
        if isinstance(decoder, msgspec.json.Decoder):
            yield decoder.type
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
        is_decoding = isinstance(node, ast.Call) and ast.unparse(node.func) == "msgspec.json.decode"
        for keyword in node.keywords if is_decoding else ():
            if keyword.arg == "type":
                yield eval(ast.unparse(keyword.value), dict(vars(module)))


def test_nothing_is_decoded_into_what_is_compiled() -> None:
    """msgspec reads annotations, which compiled classes do not keep: it would refuse every value."""
    modules = runpy.run_path(str(Path(__file__).parents[3] / "tools" / "compile_worker.py"))["MODULES"]
    compiled = {f"ccr_data.{name.replace('/', '.')}" for name in modules}
    names = [one.name for one in pkgutil.walk_packages(ccr_data.__path__, "ccr_data.") if "._compiled" not in one.name]
    kinds = {name: list(_decoded_into(importlib.import_module(name))) for name in names}

    classes = {kind: name for name, found in kinds.items() for one in found for kind in _named(one, set())}

    assert {"Routed", "Usage", "Spent", "Allowance"} <= {kind.__name__ for kind in classes}
    assert {kind.__qualname__: name for kind, name in classes.items() if kind.__module__ in compiled} == {}
