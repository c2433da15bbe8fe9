"""Work over many things, in turns with the streams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import perf_counter
from typing import TypeVar

SLICE_S = 0.0004  # then the streams have their turn

T = TypeVar("T")


async def in_slices(things: Iterable[T]) -> list[T]:
    """All of them. Each is made only when its turn comes."""
    found: list[T] = []
    until_s = perf_counter() + SLICE_S
    for one in things:
        found.append(one)
        if perf_counter() >= until_s:
            await asyncio.sleep(0)
            until_s = perf_counter() + SLICE_S
    return found
