"""Where each session lives: the provider and key that hold its prompt cache and can verify its signed thinking.

Pure; times are the loop's clock. A session is named by a salted hash (`SessionKey`), here as on disk. A pin ends with the cache it
stands for; who signed the conversation's thinking is remembered for longer. It does not end when a client compacts its
conversation: system prompt and tools are still cached there, and nothing cheap tells compaction from a short side request.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b

from ccr_data.core.records import Tokens
from ccr_data.core.thinking import is_in_tool_loop

MAX_PINS = 20_000
PIN_LIFETIME_S = 3600.0  # the longest lifetime of a prompt cache
SHORT_LIFETIME_S = 300.0  # of one that was written without `ttl`: docs/providers/anthropic.md, prompt caching
QUIET_PART = 0.25  # of a lifetime, within which a renewal is not told to others
MAX_ROOM_WAIT_S = 10.0
MAX_WAIT_S = 3.0  # for a pinned key at its rate limit: a cold prompt takes about as long

SessionKey = bytes


@dataclass(slots=True)
class Pin:
    """A session's current target, by names, so that it outlives snapshots."""

    provider: str
    key_label: str
    until_s: float
    reader: str = ""  # who reads its thinking (core/thinking.py); empty: not known
    lifetime_s: float = PIN_LIFETIME_S
    noted_s: float = 0.0  # when it was last told to others
    model: str = ""  # the provider's own name of it, where that is another: its cache is apart, too


class Pins:
    """The pins of one node: bounded, least recently used first out."""

    def __init__(self, limit: int = MAX_PINS) -> None:
        self._pins: OrderedDict[SessionKey, Pin] = OrderedDict()
        self._limit = limit
        self.changed: dict[SessionKey, Pin] = {}  # since the last time it was emptied, by who tells others

    def __len__(self) -> int:
        return len(self._pins)

    def of(self, session: SessionKey, now_s: float) -> Pin | None:
        """The session's pin, unless its cache must have expired.

        Another worker may have renewed it without a word, within QUIET_PART of a lifetime after the last.
        """
        pin = self._pins.get(session)
        return pin if pin is not None and pin.until_s + QUIET_PART * pin.lifetime_s > now_s else None

    def home(self, session: SessionKey) -> Pin | None:
        """Where the session was served last, however long ago."""
        return self._pins.get(session)

    def put(
        self,
        session: SessionKey,
        provider: str,
        key_label: str,
        now_s: float,
        reader: str = "",
        lifetime_s: float = PIN_LIFETIME_S,
        model: str = "",
    ) -> None:
        """Note that the session was served there."""
        pin = self._pins.get(session)
        if pin is not None and pin.provider == provider and pin.key_label == key_label and pin.model == model:
            pin.until_s = now_s + lifetime_s
            pin.lifetime_s = lifetime_s
            pin.reader = reader
            self._pins.move_to_end(session)
            if now_s - pin.noted_s < lifetime_s * QUIET_PART:
                return
            pin.noted_s = now_s
        else:
            pin = Pin(provider, key_label, now_s + lifetime_s, reader, lifetime_s, now_s, model)
            self._take(session, pin)
        if len(self.changed) < self._limit or session in self.changed:
            self.changed[session] = pin

    def learn(self, session: SessionKey, pin: Pin) -> None:
        """Another node's note; the newer one counts."""
        known = self._pins.get(session)
        if known is None or known.noted_s < pin.noted_s:
            self._take(session, pin)
            self.changed.pop(session, None)

    def all(self) -> dict[SessionKey, Pin]:
        """Every pin, least recently used first."""
        return dict(self._pins)

    def _take(self, session: SessionKey, pin: Pin) -> None:
        self._pins[session] = pin
        self._pins.move_to_end(session)
        if len(self._pins) > self._limit:
            self._pins.popitem(last=False)


def key_of(salt: bytes, session: str, agent: str, model: str, aside: str = "") -> SessionKey:
    """The name of a session's conversation: subagents have their own, and so has each model.

    So has what a route takes `aside` (core/matching.py): where titles are made says nothing of where the conversation lives.
    """
    text = f"{session}\n{agent}\n{model}\n{aside}" if aside else f"{session}\n{agent}\n{model}"
    return blake2b(text.encode("utf-8", "replace"), digest_size=16, key=salt).digest()


def lifetime_s(tokens: Tokens, before: Pin | None) -> float:
    """How long a pin outlives an answer: as long as the prompt cache that the answer told of, an hour if it told of none.

    A conversation with thinking keeps the hour: moving it may cost the thinking, too.
    """
    if tokens.thinking or tokens.cache_write_1h:
        return PIN_LIFETIME_S
    if before is not None:
        return before.lifetime_s
    return SHORT_LIFETIME_S if tokens.cache_write_5m else PIN_LIFETIME_S


def worth_waiting_s(body_bytes: int) -> float:
    """How long a session waits at its home for room in a rate limit, rather than move: elsewhere all of its prompt is read cold.

    A second for 50 KB of conversation (some 14,000 tokens), ten at most.
    """
    return min(body_bytes / 50_000, MAX_ROOM_WAIT_S)


def wait_for_pin_s(rest_s: float, body: bytes) -> float:
    """How long to wait for a pinned key that is at its rate limit for so long; 0: the session moves.

    Inside a tool loop a move costs the prompt's cache and maybe the model's open thought, so a short wait is better. Between turns it
    moves, and for longer rests. A failing provider is not waited for: nobody knows until when.
    """
    return rest_s if 0.0 < rest_s <= MAX_WAIT_S and is_in_tool_loop(body) else 0.0
