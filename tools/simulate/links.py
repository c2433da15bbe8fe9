"""What the planes say to each other, on its way: late, lost, overtaken, or held up by a partition.

Stands for gRPC streams (shell/control_link.py, shell/deliver.py, shell/watch.py), and is worse than they are: those never lose or
swap a message without breaking.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from simulate.clock import Clock
from simulate.plans import Messages


class Network:
    """Carries messages. What nodes say stays in order, as on their streams; what they are told may be overtaken."""

    def __init__(self, clock: Clock, messages: Messages, seed: int) -> None:
        self._clock, self._messages = clock, messages
        self._roll = Random(f"{seed} messages")  # noqa: S311
        self._is_rough = bool(messages.lost or messages.late)
        self._last_s: dict[int, float] = {}  # arrival of the last message of a stream that keeps its order
        self.sent = self.lost = self.late = 0

    def carry(self, stream: int, call: Callable[..., None], *arguments: Any, in_order: bool) -> bool:
        """Have it called there; False if the message is lost."""
        self.sent += 1
        roll = self._roll.random
        delay_s = self._messages.delay_s * (0.5 + roll())
        if self._is_rough:
            drawn = roll()
            if drawn < self._messages.lost:
                self.lost += 1
                return False
            if drawn < self._messages.lost + self._messages.late:
                self.late += 1
                delay_s += 3.0 * roll()
        if in_order:
            now_s = self._clock.now_s
            arrives_s = self._last_s[stream] = max(now_s + delay_s, self._last_s.get(stream, 0.0))
            delay_s = arrives_s - now_s
        self._clock.after(delay_s, call, *arguments)
        return True
