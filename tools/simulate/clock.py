"""Virtual time: what is due next, happens next. Equal times happen in the order in which they were asked for."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

EPOCH_S = 1_790_000_000.0  # the Unix time at which the virtual clock reads 0


class Clock:
    """An event heap. Seconds, from 0."""

    __slots__ = ("_count", "_heap", "now_s")

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    @property
    def events(self) -> int:
        """How many were ever asked for."""
        return self._count

    def monotonic(self) -> float:
        """The time, for those who take a clock."""
        return self.now_s

    def unix(self) -> float:
        """The time of day."""
        return EPOCH_S + self.now_s

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call it so much later."""
        self._count += 1
        heapq.heappush(self._heap, (self.now_s + seconds, self._count, call, arguments))

    def run(self, until_s: float) -> None:
        """Let everything happen that is due by then."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= until_s:
            self.now_s, _, call, arguments = pop(heap)
            call(*arguments)
        self.now_s = until_s
