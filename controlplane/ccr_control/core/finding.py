"""Something wrong between fields of a configuration, and the paths that rules about it share. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ccr_control.core.document import Document, Path
from ccr_control.core.schema import Config

PROVIDERS: Path = ("providers",)
ROUTES: Path = ("routing", "routes")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong between fields."""

    path: Path
    message: str
    rests_on: tuple[Path, ...] = ()  # other values that it would be pointless to speak of if they are wrong
    at_key: bool = False


Rule = Callable[[Config, Document], Iterator[Finding]]
"""Yields what it finds in a completed configuration."""
