"""JSON that people write: objects only, no key twice, and words about a mistake that do not repeat what was written."""

from __future__ import annotations

import json
from typing import Any


class NotJson(Exception):
    """Why a text is no JSON object, with the place."""


def read(text: str) -> dict[str, Any]:
    """The object. Raises NotJson."""
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise NotJson(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise NotJson("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise NotJson("it must be an object: {…}")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise NotJson(f"{json.dumps(twice)} is in it twice")
    return found
