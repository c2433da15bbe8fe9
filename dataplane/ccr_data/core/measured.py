"""What a node measures between requests: how much is open at each target, and how soon models begin to answer.

Pure: times are arguments, of the loop's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp2

from ccr_data.core.snapshot import Choice, Target

HALF_LIFE_S = 30.0  # in which an old measurement loses half of its say
MIN_SAY = 0.2  # of a new measurement in the moving average
FAILED_S = 10.0  # what a failure counts as, at least
MAX_SAMPLE_S = 60.0
MAX_MEASURED = 4096  # model names may come from clients, so the memory of them is bounded


class Load:
    """Open requests of this node by provider and key."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], int] = {}

    def enter(self, target: Target) -> None:
        """An attempt begins."""
        key = target.load_key
        self._open[key] = self._open.get(key, 0) + 1

    def leave(self, target: Target) -> None:
        """It has ended, whatever came of it."""
        key = target.load_key
        left = self._open.get(key, 0) - 1
        if left > 0:
            self._open[key] = left
        else:
            self._open.pop(key, None)

    def of(self, target: Target) -> int:
        """How many are open there."""
        return self._open.get(target.load_key, 0)

    def per_weight(self, choices: Sequence[Choice]) -> list[float]:
        """How many are open at each candidate, all its keys together, divided by its weight."""
        get = self._open.get
        return [
            (get(key, 0) if (key := choice.lone_key) is not None else self._over(choice.targets)) / choice.weight
            for choice in choices
        ]

    def _over(self, targets: Sequence[Target]) -> int:
        return sum([self._open.get(target.load_key, 0) for target in targets])

    def by_provider(self) -> tuple[tuple[str, int], ...]:
        """How many are open at each provider, all its keys together, by name; those with none are left out."""
        found: dict[str, int] = {}
        for (provider, _), count in self._open.items():
            found[provider] = found.get(provider, 0) + count
        return tuple(sorted(found.items()))

    @property
    def total(self) -> int:
        """How many are open at all."""
        return sum(self._open.values())


Measured = tuple[str, str, bool]  # provider, its name of the model, whether the answer is streamed


class _Latency:
    """The moving average of one model at one provider."""

    __slots__ = ("average_s", "is_guess", "sampled_s", "tried_s")

    def __init__(self, now_s: float) -> None:
        self.average_s = FAILED_S
        self.is_guess = True  # it was tried, and has not answered yet
        self.sampled_s = self.tried_s = now_s


class Latencies:
    """Times to the first token (of an answer in one piece: to its head).

    Each measurement fades: the longer a provider was not tried, the less its average counts against it, by half in HALF_LIFE_S.
    So one that was r times as slow as the best is tried again after log2(r) half-lives, by one request, and one that has recovered is
    found. What was never tried comes first.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[Measured, _Latency] = {}

    def __len__(self) -> int:
        return len(self._known)

    def expected_s(self, of: Measured, now_s: float) -> float:
        """What to hope for; 0 where nothing is known."""
        known = self._known.get(of)
        if known is None:
            return 0.0
        seen_s = known.sampled_s if known.sampled_s > known.tried_s else known.tried_s
        return known.average_s * exp2((seen_s - now_s) / HALF_LIFE_S) if now_s > seen_s else known.average_s

    def expected(self, choices: Sequence[Choice], now_s: float, *, streams: bool) -> list[float]:
        """The same of many candidates, in half the time."""
        get = self._known.get
        found = []
        for choice in choices:
            known = get(choice.measured[streams])
            if known is None:
                found.append(0.0)
                continue
            seen_s = known.tried_s if known.tried_s > known.sampled_s else known.sampled_s
            found.append(known.average_s * exp2((seen_s - now_s) / HALF_LIFE_S) if now_s > seen_s else known.average_s)
        return found

    def looked_at(self) -> Latencies:
        """The same times, to be read only: whatever is tried by it stays unnoticed."""
        return _Unmoved(self._known)

    def tried(self, of: Measured, now_s: float) -> None:
        """A request goes there first: until its answer begins no other one goes there just to see."""
        known = self._known.get(of)
        if known is None:
            known = self._new(of, now_s)
        known.tried_s = now_s

    def sample(self, of: Measured, seconds: float, now_s: float) -> None:
        """An answer has begun after so long."""
        known = self._known.get(of)
        if known is None:
            known = self._new(of, now_s)
        seconds = min(seconds, MAX_SAMPLE_S)
        say = 1.0 if known.is_guess else max(MIN_SAY, 1.0 - 0.5 ** ((now_s - known.sampled_s) / HALF_LIFE_S))
        known.average_s += say * (seconds - known.average_s)
        known.is_guess = False
        known.sampled_s = now_s

    def failed(self, of: Measured, now_s: float) -> None:
        """An attempt there came to nothing."""
        known = self._known.get(of)
        self.sample(of, max(FAILED_S, 2 * known.average_s if known is not None else 0.0), now_s)

    def _new(self, of: Measured, now_s: float) -> _Latency:
        if len(self._known) >= MAX_MEASURED:
            self._known.clear()
        known = self._known[of] = _Latency(now_s)
        return known


class _Unmoved(Latencies):
    """Somebody else's times."""

    __slots__ = ()

    def __init__(self, known: dict[Measured, _Latency]) -> None:
        self._known = known

    def tried(self, of: Measured, now_s: float) -> None:
        """Nobody goes there."""
