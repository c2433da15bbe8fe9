"""Which targets may serve a request, and in which order?

Pure: the node's state (turns, open requests, measured times), the time and the random rolls are arguments, and the same ones give
the same plan. Nothing here removes the last target that is left: what is cooling down is only put behind what is not.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from ccr_data.core.errors import CircuitsOpen, CredentialsExpired, NoSuchModel, NotSupported
from ccr_data.core.measured import Latencies, Load, Measured
from ccr_data.core.pins import Pin
from ccr_data.core.records import PinUse, Reason, Scored
from ccr_data.core.snapshot import Choice, KeySelection, RoutedModel, Snapshot, Strategy, Target

MOST_ORDERED = 32  # targets that are put in order, more than a request tries; the others follow by priority
MOST_NEXT = 4  # choices behind those whose keys do not all begin with the same one
COOLING = "cooling down"  # why a target is put last
AS_FAST = 1.2  # times to the first token that differ by no more than this count as equal

Roll = Callable[[], float]  # a number from [0, 1), drawn by the caller


class _Weighted(Protocol):
    @property
    def weight(self) -> int: ...
    @property
    def priority(self) -> int: ...


T = TypeVar("T")
W = TypeVar("W", bound=_Weighted)


class Needs:
    """What a request asks of a provider."""

    def __init__(
        self, count_tokens: bool = False, documents: bool = False, own_token: bool = False, streams: bool = False
    ) -> None:
        self.count_tokens = count_tokens
        self.documents = documents
        self.own_token = own_token  # it carries a subscription token instead of a relay key
        self.streams = streams


@dataclass(slots=True)
class Turns:
    """The state of the strategies that take turns, by route. Kept by the node over all snapshots."""

    next_of: dict[str, int] = field(default_factory=dict)
    next_key_of: dict[str, int] = field(default_factory=dict)  # by provider
    credit_of: dict[str, dict[str, int]] = field(default_factory=dict)

    def copied(self) -> Turns:
        """The same turns, to be taken without anybody noticing."""
        credit_of = {route: dict(credit) for route, credit in self.credit_of.items()}
        return Turns(dict(self.next_of), dict(self.next_key_of), credit_of)


class Cooldowns:
    """A node's short memory of targets that just failed. Times are the loop's clock."""

    __slots__ = ("_refused", "_until")

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], float] = {}
        self._refused: dict[
            tuple[str, str], object
        ] = {}  # what of a key was refused: it says nothing of the key's next token

    def __bool__(self) -> bool:
        return bool(self._until)

    def copied(self, *, keeps_refused: bool) -> Cooldowns:
        """The same memory. Without what was refused, whatever a key has now counts as what it had."""
        copied = Cooldowns()
        copied._until = dict(self._until)
        copied._refused = dict(self._refused) if keeps_refused else {}
        return copied

    def note(self, target: Target, reason: Reason, until_s: float) -> None:
        """Pass the target over until then; its whole provider, where another key would not help."""
        key = (target.provider.name, "" if reason.is_of_provider else target.label or "-")
        self._until[key] = max(until_s, self._until.get(key, 0.0))
        if reason is Reason.KEY_REFUSED and target.key is not None:
            self._refused[key] = target.key.material
        else:
            self._refused.pop(key, None)

    def clear(self, target: Target) -> None:
        """The target served a request."""
        if self._until:
            self._until.pop((target.provider.name, ""), None)
            self._until.pop((target.provider.name, target.label or "-"), None)
            self._refused.pop((target.provider.name, target.label or "-"), None)

    def heed(self, before: Snapshot, now: Snapshot) -> None:
        """Circuits have closed: what is known to be well again does not rest for having failed, or for having been refused.

        Nor does a provider that is elsewhere now: what was learned of it was learned of another.
        """
        for provider in now.providers.values() if self._until else ():
            known = before.providers.get(provider.name)
            if known is None:
                continue
            if (known.type, known.origin, known.base_path) != (provider.type, provider.origin, provider.base_path):
                self._forget(provider.name)
                continue
            if known.is_open and not provider.is_open:
                self._until.pop((provider.name, ""), None)
            was_open = {key.label for key in known.keys if key.is_open}
            for key in provider.keys:
                place = (provider.name, key.label)
                if key.label in was_open and not key.is_open and place in self._refused:  # not for its rate limit
                    self._until.pop(place, None)
                    del self._refused[place]

    def _forget(self, name: str) -> None:
        for place in [place for place in self._until if place[0] == name]:
            del self._until[place]
            self._refused.pop(place, None)

    def rest_s(self, target: Target, now_s: float) -> float:
        """How long the target's key alone still rests; 0 if it does not, or if its whole provider cools down."""
        if self._is_live((target.provider.name, ""), now_s) or self._is_renewed(target):
            return 0.0
        return max(0.0, self._until.get((target.provider.name, target.label or "-"), 0.0) - now_s)

    def is_cooling(self, target: Target, now_s: float) -> bool:
        """Whether to try it only after the others."""
        if not self._until:
            return False
        name = target.provider.name
        if self._is_live((name, ""), now_s):
            return True
        return not self._is_renewed(target) and self._is_live((name, target.label or "-"), now_s)

    def _is_renewed(self, target: Target) -> bool:
        """Whether what was refused of the target's key is no longer what it has. Then it does not rest."""
        key = (target.provider.name, target.label or "-")
        refused = self._refused.get(key)
        if refused is None or target.key is None or refused == target.key.material:
            return False
        del self._refused[key]
        self._until.pop(key, None)
        return True

    def _is_live(self, key: tuple[str, str], now_s: float) -> bool:
        until = self._until.get(key)
        if until is None:
            return False
        if until <= now_s:
            del self._until[key]
            self._refused.pop(key, None)
            return False
        return True


@dataclass(slots=True)
class NodeState:
    """What a node knows between requests that decides about the next one. Outlives snapshots."""

    turns: Turns = field(default_factory=Turns)
    cooldowns: Cooldowns = field(default_factory=Cooldowns)
    load: Load = field(default_factory=Load)
    latencies: Latencies = field(default_factory=Latencies)
    unix_s: float = 0.0  # Unix time as of the last sweep: exact enough for credentials that end

    def looked_at(self, *, has_secrets: bool = True) -> NodeState:
        """The same knowledge for a plan that nobody follows, maybe of keys without their secrets: what planning moves is a copy."""
        cooldowns = self.cooldowns.copied(keeps_refused=has_secrets)
        return NodeState(self.turns.copied(), cooldowns, self.load, self.latencies.looked_at(), self.unix_s)


class Plan:
    """Where a request may go, and why it goes nowhere else."""

    def __init__(
        self,
        targets: list[Target],
        passed_over: list[tuple[str, str]],
        pin: PinUse = PinUse.NONE,
        scored: Scored | None = None,
    ) -> None:
        self.targets = targets  # best first
        self.passed_over = passed_over  # provider (or provider/key) → a fixed phrase; put last, or left out
        self.pin = pin
        self.scored = scored


def plan(
    routed: RoutedModel,
    model: str,
    needs: Needs,
    pin: Pin | None,
    node: NodeState,
    now_s: float,
    roll: Roll,
    passed_over: list[tuple[str, str]] | None = None,
) -> Plan:
    """The targets to try. Raises NoSuchModel, NotSupported if none has what the request needs, CircuitsOpen or CredentialsExpired.

    What is passed over is added to `passed_over`, which so outlives an error.
    """
    if routed.only_target is not None and not needs.own_token and not needs.count_tokens:
        return Plan([routed.only_target], [])
    if not routed.choices:
        raise NoSuchModel(f"model: {model} is not served by any enabled provider of this relay")
    if passed_over is None:
        passed_over = []
    able = [choice for choice in routed.choices if _is_able(choice, routed, needs, pin, passed_over)]
    if not able:
        raise _no_target(routed.choices, model, needs)
    able = _closed(able, routed, model, needs, passed_over)
    ordered, scored = _ordered(routed, able, needs, pin, node, now_s, roll)
    targets = _gathered(ordered, needs, pin, node, roll, passed_over)
    if not targets:
        raise NotSupported(_lacking(model, needs))
    if routed.may_expire:
        targets = _unexpired(targets, node.unix_s, model, passed_over)
    if pin is not None:
        _put_first(targets, pin)
    if node.cooldowns:
        targets = _cooling_last(targets, node.cooldowns, now_s, passed_over)
    if routed.route.strategy is Strategy.LATENCY_BASED and not needs.count_tokens:
        node.latencies.tried(measured(targets[0], model, streams=needs.streams), now_s)
    return Plan(targets, passed_over, _use_of(pin, targets[0]), scored)


def _gathered(
    ordered: list[Choice],
    needs: Needs,
    pin: Pin | None,
    node: NodeState,
    roll: Roll,
    passed_over: list[tuple[str, str]],
) -> list[Target]:
    """The keys of all choices. Of thousands only the first are put in order: a request tries a few. Where those cool down, it is the
    turn of the next, whose keys begin anywhere.
    """
    targets: list[Target] = []
    next_count = 0
    for choice in ordered:
        own = choice.targets
        is_plain = own and not choice.draining and not choice.passed_by and not needs.own_token
        if not is_plain or (len(own) > 1 and len(targets) < MOST_ORDERED):
            targets += _targets(choice, needs, pin, node, roll, passed_over)
        elif len(own) > 1 and next_count < MOST_NEXT:
            next_count += 1
            targets += _from_anywhere(own, choice, roll)
        else:
            targets += own
    return targets


def _no_target(choices: Sequence[Choice], model: str, needs: Needs) -> CircuitsOpen | NotSupported:
    if any(choice.provider.is_draining for choice in choices):
        return CircuitsOpen(f"every provider for {model} is being drained: only conversations that live there go on")
    return NotSupported(_lacking(model, needs))


def _use_of(pin: Pin | None, first: Target) -> PinUse:
    if pin is None:
        return PinUse.NONE
    return PinUse.LEFT if _is_unpinned(first, pin) else PinUse.KEPT


def measured(target: Target, model: str, *, streams: bool) -> Measured:
    """What times to the first token are kept by."""
    return target.provider.name, target.model or model, streams


def _is_able(
    choice: Choice, routed: RoutedModel, needs: Needs, pin: Pin | None, passed_over: list[tuple[str, str]]
) -> bool:
    """Whether a choice can serve the request. Documents are a wish: a provider that drops them is better than none."""
    traits = choice.provider.traits
    why = ""
    if needs.count_tokens and not traits.count_tokens:
        why = "cannot count tokens"
    elif needs.documents and not traits.documents and any(one.provider.traits.documents for one in routed.choices):
        why = "does not read documents"
    elif needs.own_token and choice.subscription_target is None:
        why = "takes no subscription token"
    elif needs.own_token or (not choice.targets and not choice.passed_by):
        why = _shut(choice, needs, pin)
    if why:
        passed_over.append((choice.provider.name, why))
    return not why


def _shut(choice: Choice, needs: Needs, pin: Pin | None) -> str:
    """Why a choice without active keys, or for a client's own token, gets nothing; empty if it does."""
    if not choice.provider.is_draining:
        return "" if needs.own_token or choice.draining else "has no key"
    left = (choice.subscription_target,) if needs.own_token else choice.draining
    is_home = pin is not None and any(one is not None and not _is_unpinned(one, pin) for one in left)
    return "" if is_home else "draining"


def _closed(
    able: list[Choice], routed: RoutedModel, model: str, needs: Needs, passed_over: list[tuple[str, str]]
) -> list[Choice]:
    """The choices whose circuit is closed, with a key whose is; all of them if none is, unless the last one may be dropped."""
    if needs.own_token:  # what befell the relay's accounts there is nothing to a client's own
        closed = [choice for choice in able if not choice.provider.is_open]
    else:
        closed = [choice for choice in able if not choice.is_open]
    if len(closed) == len(able):
        return able
    if not closed and not routed.keeps_last:
        raise CircuitsOpen(f"every provider for {model} keeps failing and is passed by until it is back")
    why = "circuit open" if closed else "circuit open, but there is no other"
    kept = frozenset(closed)
    passed_over += [(choice.provider.name, why) for choice in able if choice not in kept]
    return closed or able


def _unexpired(targets: list[Target], unix_s: float, model: str, passed_over: list[tuple[str, str]]) -> list[Target]:
    """Without the targets whose credential has ended. Raises CredentialsExpired if that is all of them."""
    left: list[Target] = []
    for target in targets:
        if target.key is None or target.key.expires_at_s > unix_s:
            left.append(target)
        else:
            passed_over.append((f"{target.provider.name}/{target.label}", "credential expired"))
    if not left:
        raise CredentialsExpired(
            f"the relay's credentials for {model} have expired and could not be renewed; "
            "its operator finds the reason in `ccr status`"
        )
    return left


def _cooling_last(
    targets: list[Target], cooldowns: Cooldowns, now_s: float, passed_over: list[tuple[str, str]]
) -> list[Target]:
    ready: list[Target] = []
    cooling: list[Target] = []
    for target in targets:
        (cooling if cooldowns.is_cooling(target, now_s) else ready).append(target)
    passed_over += [(f"{target.provider.name}/{target.label}", COOLING) for target in cooling]
    return ready + cooling


def _lacking(model: str, needs: Needs) -> str:
    if needs.own_token:
        return f"no provider for {model} takes a claude.ai subscription token; send a relay key instead"
    if needs.count_tokens:
        return f"no provider for {model} can count tokens"
    return f"no provider for {model} has a key of the relay's; it is open to claude.ai subscription tokens only"


def _put_first(targets: list[Target], pin: Pin) -> None:
    """The session's home comes first; of several models there, the one that its prompt is cached for."""
    home = -1
    for at, target in enumerate(targets):
        if target.label == pin.key_label and target.provider.name == pin.provider:
            if (target.model or "") == pin.model:
                home = at
                break
            if home < 0:
                home = at
    if home >= 0:
        targets.insert(0, targets.pop(home))


def _is_unpinned(target: Target, pin: Pin) -> bool:
    return target.provider.name != pin.provider or target.label != pin.key_label


def _targets(
    choice: Choice, needs: Needs, pin: Pin | None, node: NodeState, roll: Roll, passed_over: list[tuple[str, str]]
) -> list[Target]:
    """The keys of a provider that may serve the request, in order."""
    if needs.own_token:
        return [choice.subscription_target] if choice.subscription_target else []
    is_last = not choice.targets
    targets = _keys_in_order(choice.passed_by if is_last else choice.targets, choice, pin, node, roll)
    for target in () if is_last else choice.passed_by:
        passed_over.append((f"{target.provider.name}/{target.label}", "circuit open"))
    for target in choice.draining:
        if pin is None or _is_unpinned(target, pin):
            why = "draining" if target.provider.is_draining else "key deprecated"
            passed_over.append((f"{target.provider.name}/{target.label}", why))
        elif target.key is not None and target.key.is_open and targets:
            passed_over.append((f"{target.provider.name}/{target.label}", "circuit open"))
        else:
            targets.append(target)
    return targets


def _keys_in_order(
    targets: Sequence[Target], choice: Choice, pin: Pin | None, node: NodeState, roll: Roll
) -> list[Target]:
    if len(targets) <= 1:
        return list(targets)
    if len(targets) > MOST_ORDERED:
        return _some_keys_in_order(targets, choice, pin, node, roll)
    keyed = [_KeyedTarget(target) for target in targets]
    provider = choice.provider
    match provider.key_selection:
        case KeySelection.LEAST_LOADED:
            ordered = _least_loaded_first(shuffled(keyed, roll), node.load)
        case KeySelection.WEIGHTED:
            ordered = shuffled(keyed, roll)
        case KeySelection.ROUND_ROBIN:
            ordered = _next_key_first(keyed, provider.name, pin, node.turns, roll)
        case KeySelection.PRIORITY:
            ordered = keyed
    return [entry.target for entry in by_priority(ordered)]


def _some_keys_in_order(
    targets: Sequence[Target], choice: Choice, pin: Pin | None, node: NodeState, roll: Roll
) -> list[Target]:
    """The same of many keys, which come by priority: of those that come first a stretch is put in order, the others follow.

    It begins with a key that is drawn by weight from all of them, so that each gets its share.
    """
    provider = choice.provider
    count = bisect_right(targets, _priority(targets[0]), key=_priority)
    first, others = targets[:count], targets[count:]
    match provider.key_selection:
        case KeySelection.PRIORITY:
            return list(targets)
        case KeySelection.ROUND_ROBIN:
            turn = _key_turn(count, provider.name, pin, node.turns, roll)
            return [*rotated(first, turn), *others]
    mixed = rotated(first, _drawn(choice.weights, roll))
    near = [_KeyedTarget(target) for target in mixed[:MOST_ORDERED]]
    some = [near[0], *shuffled(near[1:], roll)]
    if provider.key_selection is KeySelection.LEAST_LOADED:
        some = _least_loaded_first(some, node.load)
    return [*[entry.target for entry in some], *mixed[MOST_ORDERED:], *others]


def _from_anywhere(targets: tuple[Target, ...], choice: Choice, roll: Roll) -> tuple[Target, ...]:
    """Keys, which come by priority, in as good as no time: those that come first from one on that is drawn by weight."""
    selection, count = choice.provider.key_selection, len(choice.weights)
    if selection is KeySelection.PRIORITY or not count:
        return targets
    begin = int(roll() * count) if selection is KeySelection.ROUND_ROBIN else _drawn(choice.weights, roll)
    return targets[begin:count] + targets[:begin] + targets[count:]


def _drawn(weights: tuple[int, ...], roll: Roll) -> int:
    """A place, drawn by weight; `weights` are added up."""
    return bisect_right(weights, roll() * weights[-1], 0, len(weights) - 1)


def _least_loaded_first(keyed: list[_KeyedTarget], load: Load) -> list[_KeyedTarget]:
    """By open requests for the weight; equal ones stay in order."""
    return sorted(keyed, key=lambda entry: load.of(entry.target) / entry.weight)


def _priority(target: Target) -> int:
    return target.key.priority if target.key else 0


def _next_key_first(
    keyed: list[_KeyedTarget], provider: str, pin: Pin | None, turns: Turns, roll: Roll
) -> list[_KeyedTarget]:
    """Among the keys that come first, each in turn; the others only follow."""
    lowest = min(entry.priority for entry in keyed)
    first = [entry for entry in keyed if entry.priority == lowest]
    turn = _key_turn(len(first), provider, pin, turns, roll)
    return [*rotated(first, turn), *(entry for entry in keyed if entry.priority != lowest)]


def _key_turn(count: int, provider: str, pin: Pin | None, turns: Turns, roll: Roll) -> int:
    """Whose turn it is. Who has a home takes none: what follows that is drawn."""
    if pin is not None:
        return int(roll() * count)
    turn = turns.next_key_of.get(provider, 0)
    turns.next_key_of[provider] = turn + 1
    return turn


@dataclass(frozen=True, slots=True)
class _KeyedTarget:
    target: Target

    @property
    def weight(self) -> int:
        return self.target.key.weight if self.target.key else 1

    @property
    def priority(self) -> int:
        return self.target.key.priority if self.target.key else 0


def _ordered(
    routed: RoutedModel,
    choices: list[Choice],
    needs: Needs,
    pin: Pin | None,
    node: NodeState,
    now_s: float,
    roll: Roll,
) -> tuple[list[Choice], Scored | None]:
    """The choices in order, and what they were ordered by where that is a figure that means something to people.

    Who has a home takes no turn: else sessions of two requests each would all come to live at the same one of two providers.
    """
    if len(choices) == 1:
        return choices, None
    route, turns = routed.route, node.turns
    match route.strategy:
        case Strategy.SIMPLE_SHUFFLE:
            return shuffled(choices, roll), None
        case Strategy.FAILOVER:
            return by_priority(choices), None
        case Strategy.ROUND_ROBIN if pin is not None:
            return rotated(choices, int(roll() * len(choices))), None
        case Strategy.WEIGHTED_ROUND_ROBIN if pin is not None:
            return shuffled(choices, roll), None
        case Strategy.ROUND_ROBIN:
            turn = turns.next_of.get(route.name, 0)
            turns.next_of[route.name] = turn + 1
            return rotated(choices, turn), None
        case Strategy.WEIGHTED_ROUND_ROBIN:
            return smooth_turn(choices, turns.credit_of.setdefault(route.name, {})), None
        case Strategy.LEAST_LOADED:
            mixed = shuffled(choices, roll)
            figures = node.load.per_weight(mixed)
            return in_order_of(mixed, figures), (mixed, figures)
        case Strategy.COST_BASED:
            return sorted(shuffled(choices, roll), key=_rank), (choices, None)
        case Strategy.MODEL_BASED:
            return sorted(shuffled(choices, roll), key=_rank), None
        case Strategy.LATENCY_BASED:
            figures = node.latencies.expected(choices, now_s, streams=needs.streams)
            return fastest_first(choices, figures, roll), (choices, figures)


def _rank(choice: Choice) -> float:
    return choice.rank


def fastest_first(choices: list[Choice], expected_s: list[float], roll: Roll) -> list[Choice]:
    """By the time to the first token to hope for; those about as fast as the fastest are drawn by weight."""
    limit_s = min(expected_s) * AS_FAST
    fast = [choice for choice, each_s in zip(choices, expected_s, strict=True) if each_s <= limit_s]
    if len(fast) == len(choices):
        return shuffled(fast, roll)
    ordered = in_order_of(choices, expected_s)
    ordered[: len(fast)] = shuffled(fast, roll)
    return ordered


def in_order_of(choices: list[Choice], figures: list[float]) -> list[Choice]:
    """Lowest figure first; equal ones stay in order."""
    return [choices[place] for place in sorted(range(len(choices)), key=figures.__getitem__)]


def shuffled(entries: Sequence[W], roll: Roll) -> list[W]:
    """A random order in which each place is drawn by weight (Efraimidis and Spirakis 2006)."""
    return sorted(entries, key=lambda entry: -math.log(1.0 - roll()) / entry.weight)


def by_priority(entries: Sequence[W]) -> list[W]:
    """Lowest priority number first; equal ones stay in order."""
    return sorted(entries, key=lambda entry: entry.priority)


def rotated(entries: Sequence[T], turn: int) -> list[T]:
    """The order that begins with the entry whose turn it is."""
    first = turn % len(entries)
    return [*entries[first:], *entries[:first]]


def smooth_turn(choices: Sequence[Choice], credit: dict[str, int]) -> list[Choice]:
    """Each as often as its weight says, evenly spread (nginx's smooth weighted round-robin); `credit` is carried along."""
    places = _places(choices)
    for place, choice in zip(places, choices, strict=True):
        credit[place] = credit.get(place, 0) + choice.weight
    order = sorted(range(len(choices)), key=lambda at: -credit[places[at]])
    credit[places[order[0]]] -= sum(choice.weight for choice in choices)
    return [choices[at] for at in order]


def _places(choices: Sequence[Choice]) -> list[str]:
    """What credit is kept by: the provider's name, and which one it is of those of a provider that is there with several models."""
    seen: dict[str, int] = {}
    places = []
    for choice in choices:
        name = choice.provider.name
        before = seen.get(name, 0)
        seen[name] = before + 1
        places.append(f"{name}\n{before}" if before else name)
    return places


def after_failure(left: Sequence[Target], failed: Target, reason: Reason) -> list[Target]:
    """The targets still to try: those that most likely share the failure come last.

    A failure of the provider is shared by its other keys, a rate limit by the other keys of its scope.
    """
    if reason is Reason.RATE_LIMITED:
        return sorted(left, key=lambda target: target.scope == failed.scope)
    if reason.is_of_provider:
        return sorted(left, key=lambda target: target.provider.name == failed.provider.name)
    return list(left)
