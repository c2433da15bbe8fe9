"""Where each session lives: the provider and key that hold its prompt cache and can verify its signed thinking."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MAX_PINS = 20_000
PIN_LIFETIME_S = 3600.0  # the longest lifetime of a prompt cache


@dataclass(frozen=True, slots=True)
class Pin:
    """A session's current target, by names, so that it outlives snapshots."""

    provider: str
    key_label: str
    until_s: float


class Pins:
    """The pins of one node: bounded, least recently used first out. Times are the loop's clock."""

    def __init__(self, limit: int = MAX_PINS) -> None:
        self._pins: OrderedDict[str, Pin] = OrderedDict()
        self._limit = limit

    def __len__(self) -> int:
        return len(self._pins)

    def of(self, session: str, now_s: float) -> Pin | None:
        """The session's pin, unless its cache must have expired."""
        pin = self._pins.get(session)
        if pin is not None and pin.until_s <= now_s:
            del self._pins[session]
            return None
        return pin

    def put(self, session: str, provider: str, key_label: str, now_s: float) -> None:
        """Note that the session was served there."""
        pin = self._pins.get(session)
        if (
            pin is not None
            and (pin.provider, pin.key_label) == (provider, key_label)
            and pin.until_s - now_s > PIN_LIFETIME_S / 2
        ):
            self._pins.move_to_end(session)
            return
        self._pins[session] = Pin(provider, key_label, now_s + PIN_LIFETIME_S)
        self._pins.move_to_end(session)
        if len(self._pins) > self._limit:
            self._pins.popitem(last=False)
