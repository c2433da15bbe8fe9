"""What differs between two configurations, for people and for programs.

Pure. Compared is what takes effect, defaults included; secrets are told apart by a fingerprint, never shown, and taken out of
every other field that they were also written into.

The plain fingerprint is that of `ccr keys list`. Whoever may not know secrets gets one that is made with a salt: a client's key may
be a word, and a word can be found by its hash.
"""

from __future__ import annotations

import difflib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from ccr_control.core.completion import completed
from ccr_control.core.document import Path, Tree, path_text
from ccr_control.core.schema import Config
from ccr_control.core.secret import SHOWN, Secret
from ccr_control.core.show import all_secrets, without_secrets

MAX_DIFF_CHARS = 1_000_000
_FINGERPRINT_DIGITS = 12
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes from one configuration to another."""

    diff: str  # unified; empty: nothing
    paths: tuple[str, ...]  # settings that differ: "providers[1].weight"


NO_DIFFERENCE = Difference("", ())


def difference(
    before: Config, after: Config, before_name: str = "before", after_name: str = "after", salt: bytes = b""
) -> Difference:
    """What changes. With a salt, fingerprints of secrets say only which ones are the same within this answer."""
    one, other = comparable(before, salt), comparable(after, salt)
    secrets = all_secrets(before) | all_secrets(after)
    one, other = without_secrets(one, secrets), without_secrets(other, secrets)
    lines = difflib.unified_diff(
        _text(one).splitlines(keepends=True), _text(other).splitlines(keepends=True), before_name, after_name
    )
    text = "".join(lines)
    if len(text) > MAX_DIFF_CHARS:
        text = f"{text[:MAX_DIFF_CHARS]}\n… and more\n"
    return Difference(text, tuple(path_text(path) for path in _differing(one, other, ())))


def comparable(config: Config, salt: bytes = b"") -> Tree:
    """The effective configuration as plain values, secrets as "***" with a fingerprint."""

    def shown(secret: Secret) -> str:
        digest = hmac.digest(salt, secret.sha256(), "sha256") if salt else secret.sha256()
        return f"{SHOWN} ({digest.hex()[:_FINGERPRINT_DIGITS]})"

    return completed(config).model_dump(mode="json", exclude_none=True, context={"secret": shown})


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
