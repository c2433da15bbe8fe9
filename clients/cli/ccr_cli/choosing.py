"""Words of a command line as values of the contract's enums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccr_cli.failure import EXIT_USAGE, Failure


def chosen(text: str, values: Mapping[str, int], option: str) -> Any:
    """The value that a word stands for; no word: 0, which is "not set". Raises Failure with the words there are."""
    if not text:
        return 0
    found = values.get(text.strip().lower().replace("_", "-"))
    if found is None:
        raise Failure(f"{option} {text}: must be one of {', '.join(values)}", EXIT_USAGE)
    return found
