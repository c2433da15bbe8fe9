"""What differs between two configurations, for people and for programs.

Pure. Compared is what takes effect, defaults included; secrets are told apart by a fingerprint, never shown.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from ccr_control.core.completion import completed
from ccr_control.core.document import Path, Tree, path_text
from ccr_control.core.schema import Config
from ccr_control.core.secret import SHOWN, Secret

MAX_DIFF_CHARS = 1_000_000
_FINGERPRINT_DIGITS = 12
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes from one configuration to another."""

    diff: str  # unified; empty: nothing
    paths: tuple[str, ...]  # settings that differ: "providers[1].weight"


NO_DIFFERENCE = Difference("", ())


def difference(before: Config, after: Config, before_name: str = "before", after_name: str = "after") -> Difference:
    """What changes."""
    one, other = comparable(before), comparable(after)
    lines = difflib.unified_diff(
        _text(one).splitlines(keepends=True), _text(other).splitlines(keepends=True), before_name, after_name
    )
    text = "".join(lines)
    if len(text) > MAX_DIFF_CHARS:
        text = f"{text[:MAX_DIFF_CHARS]}\n… and more\n"
    return Difference(text, tuple(path_text(path) for path in _differing(one, other, ())))


def comparable(config: Config) -> Tree:
    """The effective configuration as plain values, secrets as "***" with a fingerprint."""
    return completed(config).model_dump(mode="json", exclude_none=True, context={"secret": _shown})


def _shown(secret: Secret) -> str:
    return f"{SHOWN} ({secret.sha256().hex()[:_FINGERPRINT_DIGITS]})"


def _text(tree: Tree) -> str:
    return str(yaml.dump(tree, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=120))


def _differing(one: Tree, other: Tree, path: Path) -> Iterator[Path]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys((*one, *other)):
            yield from _differing(one.get(key, _ABSENT), other.get(key, _ABSENT), (*path, key))
    elif isinstance(one, list) and isinstance(other, list):
        for index in range(max(len(one), len(other))):
            yield from _differing(
                one[index] if index < len(one) else _ABSENT,
                other[index] if index < len(other) else _ABSENT,
                (*path, index),
            )
    elif one != other or type(one) is not type(other):
        yield path
