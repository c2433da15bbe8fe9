"""Providers and snapshots for tests of where a request goes: one provider like another but for what a test is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ccr_data.core.amounts import Scope
from ccr_data.core.budget import Reservation
from ccr_data.core.limits import Limits
from ccr_data.core.snapshot import (
    AuthMode,
    AuthPolicy,
    AuthStyle,
    Candidate,
    Key,
    ModelPrice,
    Origin,
    Provider,
    ProviderType,
    RelayPolicy,
    Route,
    Snapshot,
    Strategy,
)

FOR_ALL = AuthPolicy(AuthMode.NONE)
POLICY = RelayPolicy()


def provider(name: str, *keys: Key, **more: object) -> Provider:
    """A provider with these keys, or with NAME-key of an account of its own; `more` are other fields."""
    own = keys or (Key(f"{name}-key", "secret", name),)
    origin = Origin("https", name, 443)
    return replace(Provider(name, ProviderType.ANTHROPIC, origin, "", AuthStyle.X_API_KEY, own), **more)  # type: ignore[arg-type]


def snapshot(
    *providers: Provider,
    strategy: Strategy = Strategy.FAILOVER,
    weights: Sequence[int] = (),
    only_served: bool = False,
    version: int = 1,
    auth: AuthPolicy = FOR_ALL,
    relay: RelayPolicy = POLICY,
    prices: tuple[ModelPrice, ...] = (),
) -> Snapshot:
    """One route for every model, to each of them, the first preferred; they weigh the same unless `weights` says otherwise."""
    candidates = tuple(
        Candidate(one.name, None, weight, place, only_served=only_served)
        for place, (one, weight) in enumerate(zip(providers, weights or [1] * len(providers), strict=True))
    )
    route = Route("default", (), candidates, strategy)
    return Snapshot(version, auth, {one.name: one for one in providers}, (route,), relay, prices)


def first_with_room(
    limits: Limits, places: Sequence[tuple[Scope, str]], size_bytes: int, now_s: float
) -> tuple[int, Reservation | None]:
    """Which of these places (scope and model name, best first) takes a request, with room reserved there. -1: none does."""
    for at, (scope, model) in enumerate(places):
        budget = limits.budget(scope, model)
        part = budget.try_reserve(size_bytes, now_s) if budget is not None else None
        if budget is None or part is not None:
            return at, part
    return -1, None
