"""Which targets may serve a request, and in which order?

Pure: the turn of each route and the random rolls are arguments. Nothing here removes the last target that is left: what is
cooling down is only put behind what is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import msgspec

from ccr_data.core.errors import CircuitsOpen, NoSuchModel, NotSupported
from ccr_data.core.pins import Pin
from ccr_data.core.records import Reason
from ccr_data.core.snapshot import Choice, RoutedModel, Strategy, Target

Roll = Callable[[], float]  # a number from [0, 1), drawn by the caller


class _Weighted(Protocol):
    @property
    def weight(self) -> int: ...
    @property
    def priority(self) -> int: ...


W = TypeVar("W", bound=_Weighted)


class Needs(msgspec.Struct, frozen=True, gc=False):
    """What a request asks of a provider."""

    count_tokens: bool = False
    documents: bool = False
    own_token: bool = False  # it carries a subscription token instead of a relay key


@dataclass(slots=True)
class Turns:
    """The state of the strategies that take turns, by route. Kept by the node over all snapshots."""

    next_of: dict[str, int] = field(default_factory=dict)
    credit_of: dict[str, dict[str, int]] = field(default_factory=dict)


class Cooldowns:
    """A node's short memory of targets that just failed. Times are the loop's clock."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], float] = {}

    def __bool__(self) -> bool:
        return bool(self._until)

    def note(self, target: Target, reason: Reason, until_s: float) -> None:
        """Pass the target over until then; its whole provider, where another key would not help."""
        key = (target.provider.name, "" if reason.is_of_provider else target.label or "-")
        self._until[key] = max(until_s, self._until.get(key, 0.0))

    def clear(self, target: Target) -> None:
        """The target served a request."""
        if self._until:
            self._until.pop((target.provider.name, ""), None)
            self._until.pop((target.provider.name, target.label or "-"), None)

    def is_cooling(self, target: Target, now_s: float) -> bool:
        """Whether to try it only after the others."""
        if not self._until:
            return False
        name = target.provider.name
        return self._is_live((name, ""), now_s) or self._is_live((name, target.label or "-"), now_s)

    def _is_live(self, key: tuple[str, str], now_s: float) -> bool:
        until = self._until.get(key)
        if until is None:
            return False
        if until <= now_s:
            del self._until[key]
            return False
        return True


@dataclass(slots=True)
class NodeState:
    """What a node knows between requests that decides about the next one. Outlives snapshots."""

    turns: Turns = field(default_factory=Turns)
    cooldowns: Cooldowns = field(default_factory=Cooldowns)


class Plan(msgspec.Struct, gc=False):
    """Where a request may go, and why it goes nowhere else."""

    targets: list[Target]  # best first
    passed_over: list[tuple[str, str]]  # provider (or provider/key) → a fixed phrase; put last, or left out


def plan(
    routed: RoutedModel, model: str, needs: Needs, pin: Pin | None, node: NodeState, now_s: float, roll: Roll
) -> Plan:
    """The targets to try. Raises NoSuchModel, NotSupported if none has what the request needs, or CircuitsOpen."""
    if routed.only_target is not None and not needs.own_token and not needs.count_tokens:
        return Plan([routed.only_target], [])
    if not routed.choices:
        raise NoSuchModel(f"model: {model} is not served by any enabled provider of this relay")
    passed_over: list[tuple[str, str]] = []
    able = [choice for choice in routed.choices if _is_able(choice, routed, needs, passed_over)]
    if not able:
        raise NotSupported(_lacking(model, needs))
    able = _closed(able, routed, model, passed_over)
    targets = [
        target for choice in _ordered(routed, able, node.turns, roll) for target in _targets(choice, needs, roll)
    ]
    if pin is not None:
        targets.sort(key=lambda target: _is_unpinned(target, pin))
    if node.cooldowns:
        cooling = [target for target in targets if node.cooldowns.is_cooling(target, now_s)]
        passed_over += [(f"{target.provider.name}/{target.label}", "cooling down") for target in cooling]
        targets = [target for target in targets if target not in cooling] + cooling
    return Plan(targets, passed_over)


def _is_able(choice: Choice, routed: RoutedModel, needs: Needs, passed_over: list[tuple[str, str]]) -> bool:
    """Whether a choice can serve the request. Documents are a wish: a provider that drops them is better than none."""
    traits = choice.provider.traits
    why = ""
    if needs.count_tokens and not traits.count_tokens:
        why = "cannot count tokens"
    elif needs.documents and not traits.documents and any(one.provider.traits.documents for one in routed.choices):
        why = "does not read documents"
    elif needs.own_token and choice.subscription_target is None:
        why = "takes no subscription token"
    elif not needs.own_token and not choice.targets:
        why = "has no key"
    if why:
        passed_over.append((choice.provider.name, why))
    return not why


def _closed(able: list[Choice], routed: RoutedModel, model: str, passed_over: list[tuple[str, str]]) -> list[Choice]:
    """The choices whose circuit is closed; all of them if none is, unless the last one may be dropped."""
    closed = [choice for choice in able if not choice.provider.is_open]
    if len(closed) == len(able):
        return able
    if not closed and not routed.keeps_last:
        raise CircuitsOpen(f"every provider for {model} keeps failing and is passed by until it is back")
    why = "circuit open" if closed else "circuit open, but there is no other"
    passed_over += [(choice.provider.name, why) for choice in able if choice.provider.is_open]
    return closed or able


def _lacking(model: str, needs: Needs) -> str:
    if needs.own_token:
        return f"no provider for {model} takes a claude.ai subscription token; send a relay key instead"
    if needs.count_tokens:
        return f"no provider for {model} can count tokens"
    return f"no provider for {model} has a key of the relay's; it is open to claude.ai subscription tokens only"


def _is_unpinned(target: Target, pin: Pin) -> bool:
    return target.provider.name != pin.provider or target.label != pin.key_label


def _targets(choice: Choice, needs: Needs, roll: Roll) -> list[Target]:
    if needs.own_token:
        return [choice.subscription_target] if choice.subscription_target else []
    if len(choice.targets) == 1:
        return list(choice.targets)
    keyed = [_KeyedTarget(target) for target in choice.targets]
    return [entry.target for entry in by_priority(shuffled(keyed, roll))]


@dataclass(frozen=True, slots=True)
class _KeyedTarget:
    target: Target

    @property
    def weight(self) -> int:
        return self.target.key.weight if self.target.key else 1

    @property
    def priority(self) -> int:
        return self.target.key.priority if self.target.key else 0


def _ordered(routed: RoutedModel, choices: list[Choice], turns: Turns, roll: Roll) -> list[Choice]:
    if len(choices) == 1:
        return choices
    route = routed.route
    match route.strategy:
        case Strategy.SIMPLE_SHUFFLE:
            return shuffled(choices, roll)
        case Strategy.FAILOVER:
            return by_priority(choices)
        case Strategy.ROUND_ROBIN:
            turn = turns.next_of.get(route.name, 0)
            turns.next_of[route.name] = turn + 1
            return rotated(choices, turn)
        case Strategy.WEIGHTED_ROUND_ROBIN:
            return smooth_turn(choices, turns.credit_of.setdefault(route.name, {}))


def shuffled(entries: Sequence[W], roll: Roll) -> list[W]:
    """A random order in which each place is drawn by weight (Efraimidis and Spirakis 2006)."""
    return sorted(entries, key=lambda entry: -math.log(1.0 - roll()) / entry.weight)


def by_priority(entries: Sequence[W]) -> list[W]:
    """Lowest priority number first; equal ones stay in order."""
    return sorted(entries, key=lambda entry: entry.priority)


def rotated(entries: Sequence[W], turn: int) -> list[W]:
    """The order that begins with the entry whose turn it is."""
    first = turn % len(entries)
    return [*entries[first:], *entries[:first]]


def smooth_turn(choices: Sequence[Choice], credit: dict[str, int]) -> list[Choice]:
    """Each as often as its weight says, evenly spread (nginx's smooth weighted round-robin); `credit` is carried along."""
    for choice in choices:
        name = choice.provider.name
        credit[name] = credit.get(name, 0) + choice.weight
    ordered = sorted(choices, key=lambda choice: -credit[choice.provider.name])
    credit[ordered[0].provider.name] -= sum(choice.weight for choice in choices)
    return ordered


def after_failure(left: Sequence[Target], failed: Target, reason: Reason) -> list[Target]:
    """The targets still to try: those that most likely share the failure come last.

    A failure of the provider is shared by its other keys, a rate limit by the other keys of its scope.
    """
    if reason is Reason.RATE_LIMITED:
        return sorted(left, key=lambda target: target.scope == failed.scope)
    if reason.is_of_provider:
        return sorted(left, key=lambda target: target.provider.name == failed.provider.name)
    return list(left)
