"""Is there room for a request in its scope's rate limits, and from when?

Pure. A budget belongs to a scope (an account) and a model class, not to a key. It counts requests, input and output tokens of the
last minute in a sliding window; its limits are the configuration's and those that answers told (docs/providers/anthropic.md), the
lower of the two; of these a node has its lease. Cost of a request is constant. Times are seconds of the caller's monotonic clock.

- A request reserves before it is sent: itself, its input estimated by its size, its output by the mean of earlier answers. It
  settles with the usage that the answer reported. Input counts from when it was sent (cache reads do not count), output is held
  while the request is open and counts from its end.
- As estimates are means, only requests can promise never to exceed a limit; tokens do as far as the estimates were not too low.
- The window is a little longer than a minute: what leaves a node at two moments may arrive closer together than that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import msgspec

from ccr_data.core.records import Tokens

WINDOW_S = 60.0
MARGIN_S = 0.5  # how much later one request may arrive than another that was sent at the same time
SLOTS_PER_S = 4
_SLOTS = int((WINDOW_S + MARGIN_S) * SLOTS_PER_S) + 1
_BOUNDLESS = 1 << 60
_MEMORY = 0.95  # of the estimates, per request
FIRST_TOKENS_PER_BYTE = 0.25
FIRST_OUTPUT = 500.0
MAX_MEMO = 4096  # names of models come from clients
MAX_BUDGETS = 1024  # learned from headers; configured ones always have a place

Scope = tuple[str, str]  # provider, and the account there


class Allowance(NamedTuple):
    """Amounts of a minute. As a limit, 0 means that there is none."""

    requests: int = 0
    input: int = 0  # tokens, cache reads excluded
    output: int = 0
    tokens: int = 0  # input and output together


NO_LIMITS = Allowance()


def lower(one: Allowance, other: Allowance) -> Allowance:
    """What both limits allow."""
    return Allowance(*(min(a, b) if a and b else a or b for a, b in zip(one, other, strict=True)))


def higher(one: Allowance, other: Allowance) -> Allowance:
    """Two statements about one limit: the larger counts."""
    return Allowance(*(max(a, b) for a, b in zip(one, other, strict=True)))


_CLAUDE = re.compile(r"(opus|sonnet|haiku|fable|mythos|instant)-(\d+)|claude-(\d+)(?:[.-]\d)?-(opus|sonnet|haiku)")


def model_class(model: str) -> str:
    """The models that share a limit: a family's generation ("opus-4", "sonnet-4", "haiku-3") for Claude, else all ("").

    Anthropic counts all Opus 4.x together, all Sonnet 4.x together, and so on. Other providers limit accounts rather than models.
    """
    found = _CLAUDE.search(model.lower())
    if found is None:
        return "claude" if "claude" in model.lower() else ""
    return f"{found[1] or found[4]}-{found[2] or found[3]}"


class Reservation:
    """A request's part of a budget, until it is settled or refunded."""

    __slots__ = ("budget", "input", "output", "serial", "size_bytes", "slot")

    def __init__(self, budget: Budget, slot: int, size_bytes: int, input: int, output: int, serial: int) -> None:  # noqa: A002
        self.budget = budget
        self.slot = slot
        self.size_bytes = size_bytes
        self.input = input
        self.output = output
        self.serial = serial

    def _owner(self) -> Budget:
        budget = self.budget
        while budget.merged_into is not None:
            budget = budget.merged_into
        return budget

    def sent(self, now_s: float) -> None:
        """The request leaves only now: the provider counts it from here."""
        self._owner().sent(self, now_s)

    def settle(self, tokens: Tokens, now_s: float) -> None:
        """The request is over, and this is what it took."""
        self._owner().settle(self, tokens, now_s)

    def refund(self, now_s: float, *, is_sent: bool = True) -> None:
        """The provider did not serve it: it took no tokens. Only what was never sent is not even counted as a request."""
        self._owner().refund(self, now_s, is_sent=is_sent)


@dataclass(frozen=True, slots=True)
class _Told:
    """What the provider said is left, as a bucket that refills evenly; it counts where it is less than our own count leaves."""

    at_s: float
    left: tuple[float, float, float]
    a_second: tuple[float, float, float]


class Budget:
    """What one scope may still do with one class of models."""

    __slots__ = (
        "_asked",
        "_at",
        "_bytes_seen",
        "_held_output",
        "_input",
        "_input_seen",
        "_max_input",
        "_max_output",
        "_max_requests",
        "_max_tokens",
        "_mean_output",
        "_output",
        "_requests",
        "_serial",
        "_spent_input",
        "_told",
        "_used_asked",
        "_used_input",
        "_used_output",
        "_used_requests",
        "configured",
        "held_serial",
        "lease",
        "merged_into",
        "model_class",
        "rest_until_s",
        "scope",
        "seen",
        "shared_by",
    )

    def __init__(self, scope: Scope, name: str, configured: Allowance = NO_LIMITS, shared_by: int = 1) -> None:
        self.scope = scope
        self.model_class = name
        self.configured = configured
        self.seen = NO_LIMITS  # what headers say
        self.shared_by = shared_by  # nodes that share it as long as no lease says otherwise
        self.lease: Allowance | None = None
        self.held_serial = 0
        self.merged_into: Budget | None = None
        self.rest_until_s = 0.0
        self._at = 0  # the newest slot
        self._requests = [0] * _SLOTS
        self._input = [0] * _SLOTS
        self._output = [0] * _SLOTS
        self._asked = [0] * _SLOTS
        self._used_requests = self._used_input = self._used_output = self._used_asked = 0
        self._held_output = 0
        self._serial = 0  # requests ever reserved
        self._spent_input = 0
        self._told: _Told | None = None
        self._input_seen = FIRST_TOKENS_PER_BYTE * 4000
        self._bytes_seen = 4000.0
        self._mean_output = FIRST_OUTPUT
        self.limit_again()

    # --- limits -------------------------------------------------------------------------------------------------------

    @property
    def limits(self) -> Allowance:
        """The scope's limits, as far as they are known."""
        return lower(self.configured, self.seen)

    @property
    def own_limits(self) -> Allowance:
        """The part of them that is this node's."""
        limits = self.limits
        if self.lease is not None:
            return Allowance(*(min(all_, own) for all_, own in zip(limits, self.lease, strict=True)))
        return Allowance(*(max(1, one // self.shared_by) if one else 0 for one in limits))

    def limit_again(self) -> None:
        """Something changed that the limits follow from."""
        limits, own = self.limits, self.own_limits
        found = [part if whole else _BOUNDLESS for whole, part in zip(limits, own, strict=True)]
        self._max_requests, self._max_input, self._max_output, self._max_tokens = found

    def used(self, now_s: float) -> Allowance:
        """What counts in the minute that ends now."""
        self._advance(int(now_s * SLOTS_PER_S))
        out = self._used_output + self._held_output
        return Allowance(self._used_requests, self._used_input, out, self._used_input + out)

    def asked(self, now_s: float) -> int:
        """Requests that asked for room in the last minute, whether or not there was any."""
        self._advance(int(now_s * SLOTS_PER_S))
        return self._used_asked

    # --- requests -----------------------------------------------------------------------------------------------------

    def _advance(self, slot: int) -> None:
        passed = slot - self._at
        if passed <= 0:
            return
        self._at = slot
        if passed >= _SLOTS:
            self._requests, self._input = [0] * _SLOTS, [0] * _SLOTS
            self._output, self._asked = [0] * _SLOTS, [0] * _SLOTS
            self._used_requests = self._used_input = self._used_output = self._used_asked = 0
            return
        for one in range(slot - passed + 1, slot + 1):
            at = one % _SLOTS
            if self._asked[at]:
                self._used_asked -= self._asked[at]
                self._asked[at] = 0
            if self._requests[at] or self._input[at]:
                self._used_requests -= self._requests[at]
                self._used_input -= self._input[at]
                self._requests[at] = self._input[at] = 0
            if self._output[at]:
                self._used_output -= self._output[at]
                self._output[at] = 0

    def try_reserve(self, size_bytes: int, now_s: float) -> Reservation | None:
        """Room for a request whose body has this size; None if there is none (`room_in_s` says from when)."""
        slot = int(now_s * SLOTS_PER_S)
        if slot > self._at:
            self._advance(slot)
        at = self._at % _SLOTS
        self._asked[at] += 1
        self._used_asked += 1
        if now_s < self.rest_until_s or self._used_requests >= self._max_requests:
            return None
        tokens = int(size_bytes * self._input_seen / self._bytes_seen)
        out = int(self._mean_output)
        used_in, used_out = self._used_input, self._used_output + self._held_output
        # A request that is larger than a limit goes alone, rather than never.
        if (
            (used_in and used_in + tokens > self._max_input)
            or (used_out and used_out + out > self._max_output)
            or (used_in + used_out and used_in + used_out + tokens + out > self._max_tokens)
            or (self._told is not None and self._told_room_in_s(tokens, out, now_s) > 0)
        ):
            return None
        self._requests[at] += 1
        self._used_requests += 1
        self._input[at] += tokens
        self._used_input = used_in + tokens
        self._held_output += out
        self._serial += 1
        self._spent_input += tokens
        return Reservation(self, self._at, size_bytes, tokens, out, self._serial)

    def sent(self, part: Reservation, now_s: float) -> None:
        """The request leaves only now: the provider counts it from here."""
        self._advance(int(now_s * SLOTS_PER_S))
        if part.slot == self._at:
            return
        if self._at - part.slot < _SLOTS:
            self._move(part.slot, -1, -part.input)
        self._move(self._at, 1, part.input)
        part.slot = self._at

    def settle(self, part: Reservation, tokens: Tokens, now_s: float) -> None:
        """The request is over, and this is what it took."""
        self._advance(int(now_s * SLOTS_PER_S))
        counted = max(0, tokens.input + tokens.cache_write_5m + tokens.cache_write_1h)
        is_known = counted or tokens.cache_read or tokens.output
        if is_known:
            if self._at - part.slot < _SLOTS:
                self._move(part.slot, 0, counted - part.input)
            self._input_seen = self._input_seen * _MEMORY + counted
            self._bytes_seen = self._bytes_seen * _MEMORY + part.size_bytes
            self._mean_output += (max(0, tokens.output) - self._mean_output) * (1 - _MEMORY)
        self._held_output -= part.output
        self._output[self._at % _SLOTS] += max(0, tokens.output)
        self._used_output += max(0, tokens.output)

    def refund(self, part: Reservation, now_s: float, *, is_sent: bool = True) -> None:
        """The provider did not serve it: it took no tokens. Only what was never sent is not even counted as a request."""
        self._advance(int(now_s * SLOTS_PER_S))
        if self._at - part.slot < _SLOTS:
            self._move(part.slot, 0 if is_sent else -1, -part.input)
        self._held_output -= part.output

    def _move(self, slot: int, requests: int, tokens: int) -> None:
        at = slot % _SLOTS
        self._requests[at] += requests
        self._used_requests += requests
        self._input[at] += tokens
        self._used_input += tokens

    # --- what answers say ---------------------------------------------------------------------------------------------

    def rest(self, until_s: float) -> None:
        """Send nothing before this time."""
        self.rest_until_s = max(self.rest_until_s, until_s)

    def told(self, limits: Allowance, left: Allowance | None, part: Reservation | None, now_s: float) -> None:
        """An answer told the limits, and what was left when it began (None: it did not).

        What was reserved after that answer's own request may not be in its numbers yet, and is taken off. What is left refills
        evenly, as Anthropic's does; a count of our own that leaves less stays in charge.
        """
        if limits != self.seen:
            self.seen = limits
            self.limit_again()
        self._told = None
        if left is None:
            return
        used = self.used(now_s)
        later = max(0, self._serial - part.serial) if part is not None else 0
        guess = later * (self._used_input // max(1, self._used_requests))
        room = (left.requests - later, left.input - guess, left.output - self._held_output)
        whole = self.limits[:3]
        if any(one and some < one - count for one, some, count in zip(whole, room, used[:3], strict=True)):
            self._told = _Told(
                now_s,
                _three(float(some) if one else math.inf for one, some in zip(whole, room, strict=True)),
                _three(one / WINDOW_S for one in whole),
            )

    def _told_room_in_s(self, tokens: int, out: int, now_s: float) -> float:
        told = self._told
        if told is None:
            return 0.0
        if now_s - told.at_s >= WINDOW_S:
            self._told = None
            return 0.0
        passed_s = now_s - told.at_s
        wait_s = 0.0
        for left, rate, need in zip(told.left, told.a_second, (1, tokens, out), strict=True):
            missing = min(need, rate * WINDOW_S) - left - passed_s * rate
            if rate and missing > 1e-9:
                wait_s = max(wait_s, missing / rate)
        self._told = _Told(
            now_s,
            _three(
                left + passed_s * rate - (0 if wait_s else need) for left, rate, need in self._flows(told, tokens, out)
            ),
            told.a_second,
        )
        return wait_s

    @staticmethod
    def _flows(told: _Told, tokens: int, out: int) -> Iterable[tuple[float, float, int]]:
        return zip(told.left, told.a_second, (1, tokens, out), strict=True)

    # --- when nothing is left -----------------------------------------------------------------------------------------

    def levels(self, now_s: float) -> list[tuple[int, int, float]]:
        """Of requests, input and output: the scope's limit, what is left of this node's part, seconds until all is left again."""
        used = self.used(now_s)
        rest_s = max(0.0, self.rest_until_s - now_s)
        rings = (self._requests, self._input, self._output)
        helds = (0, 0, self._held_output)
        return [
            (
                limit,
                0 if rest_s or not limit else max(0, own - count),
                max(rest_s, self._frees_in_s([ring], 0, held, now_s)),
            )
            for limit, own, count, ring, held in zip(
                self.limits[:3], self.own_limits[:3], used[:3], rings, helds, strict=True
            )
        ]

    def room_in_s(self, size_bytes: int, now_s: float) -> float:
        """Seconds until a request of this size would have room, if nobody else takes it. 0: now; infinite: never."""
        self._advance(int(now_s * SLOTS_PER_S))
        tokens, out = int(size_bytes * self._input_seen / self._bytes_seen), int(self._mean_output)
        held = self._held_output
        waits = [
            max(0.0, self.rest_until_s - now_s),
            self._frees_in_s([self._requests], self._max_requests - 1, 0, now_s),
            self._frees_in_s([self._input], max(0, self._max_input - tokens), 0, now_s),
            self._frees_in_s([self._output], max(0, self._max_output - out), held, now_s),
            self._frees_in_s([self._input, self._output], max(0, self._max_tokens - tokens - out), held, now_s),
        ]
        told = self._told
        if told is not None:
            waits += [
                (min(need, rate * WINDOW_S) - left) / rate - (now_s - told.at_s)
                for left, rate, need in self._flows(told, tokens, out)
                if rate
            ]
        return max(waits)

    def _frees_in_s(self, rings: list[list[int]], most: int, held: int, now_s: float) -> float:
        """Until at most this much counts. What open requests hold is taken to be gone within a window."""
        if most < 0:
            return math.inf
        used = held + sum(map(sum, rings))
        if used <= most:
            return 0.0
        for slot in range(self._at - _SLOTS + 1, self._at + 1):
            used -= sum(ring[slot % _SLOTS] for ring in rings)
            if used <= most:
                return max(0.0, (slot + _SLOTS) / SLOTS_PER_S - now_s)
        return WINDOW_S

    def take(self, other: Budget, now_s: float) -> None:
        """The other's account has turned out to be this one: what it used counts here."""
        slot = int(now_s * SLOTS_PER_S)
        self._advance(slot)
        other._advance(slot)
        for mine, others in (
            (self._requests, other._requests),
            (self._input, other._input),
            (self._output, other._output),
            (self._asked, other._asked),
        ):
            mine[:] = map(sum, zip(mine, others, strict=True))
        self._used_requests += other._used_requests
        self._used_input += other._used_input
        self._used_output += other._used_output
        self._used_asked += other._used_asked
        self._held_output += other._held_output
        self.rest(other.rest_until_s)
        self.configured, self.seen = higher(self.configured, other.configured), lower(self.seen, other.seen)
        other.merged_into = self
        self.limit_again()


def _three(values: Iterable[float]) -> tuple[float, float, float]:
    one, two, three = values
    return one, two, three


class BudgetUse(NamedTuple):
    """How a node uses a budget: what leases are decided by."""

    scope: Scope
    model_class: str
    limits: Allowance  # the scope's
    share: Allowance  # this node's part, in force
    used: Allowance
    asked: int
    serial: int  # of the lease in force; 0: none


class Lease(NamedTuple):
    """The part of a budget that is this node's."""

    scope: Scope
    model_class: str
    share: Allowance
    serial: int


class Limits:
    """The budgets of one node. Outlives snapshots."""

    __slots__ = ("_account_of", "_budgets", "_configured", "_leases", "_memo", "_secrets", "_shared_by", "is_active")

    def __init__(self) -> None:
        self.is_active = False  # whether anything is limited at all; requests ask for no room otherwise
        self._configured: dict[Scope, Allowance] = {}
        self._account_of: dict[Scope, Scope] = {}  # learned: a key's own scope → its organisation's
        self._secrets: dict[Scope, frozenset[str]] = {}
        self._budgets: dict[tuple[Scope, str], Budget] = {}
        self._memo: dict[tuple[Scope, str], Budget | None] = {}
        self._leases: dict[tuple[Scope, str], Lease] = {}
        self._shared_by = 1

    # --- what limits are there ----------------------------------------------------------------------------------------

    def configure(
        self, limits: Mapping[Scope, Allowance], secrets: Mapping[Scope, frozenset[str]], shared_by: int
    ) -> None:
        """A snapshot begins to be served. A scope whose keys changed does not rest any longer."""
        changed = {scope for scope, known in self._secrets.items() if secrets.get(scope) != known}
        self._secrets = dict(secrets)
        for scope in changed:
            self._account_of.pop(scope, None)
        self._configured = {scope: limit for scope, limit in limits.items() if any(limit)}
        self._shared_by = max(1, shared_by)
        for (scope, _), budget in self._budgets.items():
            budget.configured = self._configured_for(scope)
            budget.shared_by = self._shared_by
            if scope in changed:
                budget.rest_until_s = 0.0
            budget.limit_again()
        self._memo.clear()
        self._note_active()

    def _note_active(self) -> None:
        self.is_active = bool(self._configured or self._budgets)

    def _configured_for(self, account: Scope) -> Allowance:
        found = self._configured.get(account, NO_LIMITS)
        for scope, learned in self._account_of.items():
            if learned == account:
                found = higher(found, self._configured.get(scope, NO_LIMITS))
        return found

    def budget(self, scope: Scope, model: str) -> Budget | None:
        """The budget that a request counts in; None if nothing is limited there."""
        known = self._memo.get((scope, model), False)
        if known is not False:
            return known  # type: ignore[return-value]  # True is never stored
        if len(self._memo) >= MAX_MEMO:
            self._memo.clear()
        account = self._account_of.get(scope, scope)
        name = model_class(model)
        budget = self._budgets.get((account, name))
        if budget is None and any(self._configured_for(account)):
            budget = self._new_budget(account, name)
        self._memo[scope, model] = budget
        return budget

    def _new_budget(self, account: Scope, name: str) -> Budget:
        budget = Budget(account, name, self._configured_for(account), self._shared_by)
        lease = self._leases.get((account, name))
        if lease is not None:
            budget.lease, budget.held_serial = lease.share, lease.serial
            budget.limit_again()
        self._budgets[account, name] = budget
        self._memo.clear()
        self.is_active = True
        return budget

    def first_with_room(
        self, places: Iterable[tuple[Scope, str]], size_bytes: int, now_s: float
    ) -> tuple[int, Reservation | None]:
        """Which of these places (scope and model name, best first) takes a request, with room reserved there. -1: none does."""
        for at, (scope, model) in enumerate(places):
            budget = self.budget(scope, model)
            if budget is None:
                return at, None
            part = budget.try_reserve(size_bytes, now_s)
            if part is not None:
                return at, part
        return -1, None

    def _learned_budget(self, scope: Scope, model: str) -> Budget | None:
        budget = self.budget(scope, model)
        if budget is None and len(self._budgets) < MAX_BUDGETS:
            budget = self._new_budget(self._account_of.get(scope, scope), model_class(model))
        return budget

    # --- what answers say ---------------------------------------------------------------------------------------------

    def note_organisation(self, scope: Scope, organisation: str, now_s: float) -> None:
        """A key without a configured scope belongs to this organisation: what it used counts there."""
        account = (scope[0], f"organisation {organisation}")
        if self._account_of.get(scope) == account:
            return
        self._account_of[scope] = account
        for key in [key for key in self._budgets if key[0] == scope]:
            moved = self._budgets.pop(key)
            into = self._budgets.get((account, key[1]))
            if into is not None:
                into.take(moved, now_s)
            else:
                moved.scope = account
                self._budgets[account, key[1]] = moved
        for key, budget in self._budgets.items():
            if key[0] == account:
                budget.configured = self._configured_for(account)
                budget.limit_again()
        self._memo.clear()

    def is_known_member(self, scope: Scope) -> bool:
        """Whether the scope's organisation has been learned."""
        return scope in self._account_of

    def note_told(
        self,
        scope: Scope,
        model: str,
        limits: Allowance,
        left: Allowance | None,
        part: Reservation | None,
        now_s: float,
    ) -> None:
        """An answer told limits."""
        budget = self._learned_budget(scope, model)
        if budget is not None:
            budget.told(limits, left, part, now_s)

    def note_limited(self, scope: Scope, model: str, rest: Rest, now_s: float) -> None:
        """An answer was a 429."""
        budget = self._learned_budget(scope, model)
        if budget is None:
            return
        budget.rest(now_s + rest.for_s)
        if rest.is_of_scope:
            for other in self._budgets.values():
                if other.scope == budget.scope:
                    other.rest(now_s + rest.for_s)

    # --- leases -------------------------------------------------------------------------------------------------------

    def uses(self, now_s: float) -> list[BudgetUse]:
        """What the control plane shares the budgets by."""
        return [
            BudgetUse(
                budget.scope,
                budget.model_class,
                budget.limits,
                budget.own_limits,
                budget.used(now_s),
                budget.asked(now_s),
                budget.held_serial,
            )
            for budget in self._budgets.values()
            if any(budget.limits)
        ] + [
            BudgetUse(lease.scope, lease.model_class, NO_LIMITS, lease.share, NO_LIMITS, 0, lease.serial)
            for key, lease in self._leases.items()
            if key not in self._budgets
        ]

    def take_lease(self, lease: Lease) -> None:
        """A part of a budget is this node's, until it hears otherwise. An older one than it has is not heeded."""
        key = (lease.scope, lease.model_class)
        known = self._leases.get(key)
        if (known is None and len(self._leases) >= MAX_BUDGETS) or (known is not None and lease.serial <= known.serial):
            return
        self._leases[key] = lease
        budget = self._budgets.get(key)
        if budget is not None:
            budget.lease, budget.held_serial = lease.share, lease.serial
            budget.limit_again()


# --- what headers and bodies of answers mean --------------------------------------------------------------------------


class Rest(NamedTuple):
    """What a 429 asks for."""

    for_s: float
    is_of_scope: bool = False  # not only of the model's class


SPENT_CODES = frozenset(
    (
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "linked_organization_spend_limit_reached",
        "organization_on_hold",
    )
)
MAX_REST_S = 14 * 86_400.0
_PREFIX = b"anthropic-ratelimit-"
MARK = b"anthropic-ratelimit-requests-limit"
_KINDS = (b"requests", b"input-tokens", b"output-tokens", b"tokens")


class _Details(msgspec.Struct):
    error_code: str | None = None


class _Error(msgspec.Struct):
    details: _Details | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error | None = None


_decode_error = msgspec.json.Decoder(_ErrorBody).decode


def limits_told(special: Mapping[bytes, bytes]) -> tuple[Allowance, Allowance | None]:
    """Limits and what is left, as an answer's headers say. A kind that they do not speak of has no limit.

    The plain `tokens` set repeats the tightest of the other two where those are given.
    """
    kinds = _KINDS[:3] if _PREFIX + b"input-tokens-limit" in special else _KINDS
    limits = [_count(special.get(b"%b%b-limit" % (_PREFIX, kind))) for kind in kinds]
    left = [special.get(b"%b%b-remaining" % (_PREFIX, kind)) for kind in kinds[:3]]
    is_complete = all(found is not None for limit, found in zip(limits, left, strict=False) if limit)
    return Allowance(*limits), Allowance(*map(_count, left)) if is_complete else None


def _count(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() and len(value) < 13 else 0


def rest_asked(special: Mapping[bytes, bytes], body: bytes, unix_s: float, spent_rest_s: float) -> Rest | None:
    """How long the answer with status 429 asks us to stay away; None if it does not say.

    A spent account asks for hours, without saying so (`spent_rest_s`); a subscription names its own reset.
    """
    if _error_code(body) in SPENT_CODES:
        return Rest(spent_rest_s, is_of_scope=True)
    unified = _count(special.get(b"anthropic-ratelimit-unified-reset"))
    if unified > unix_s:
        return Rest(min(unified - unix_s, MAX_REST_S), is_of_scope=True)
    retry_after = _count(special.get(b"retry-after"))
    if retry_after:
        return Rest(min(float(retry_after), MAX_REST_S))
    waits = [
        _until(special.get(b"%b%b-reset" % (_PREFIX, kind)), unix_s)
        for kind in _KINDS
        if special.get(b"%b%b-remaining" % (_PREFIX, kind)) == b"0"
    ]
    return Rest(min(max(waits), MAX_REST_S)) if waits and max(waits) > 0 else None


def _until(moment: bytes | None, unix_s: float) -> float:
    try:
        return datetime.fromisoformat((moment or b"").decode("ascii")).timestamp() - unix_s
    except (ValueError, OverflowError):
        return 0.0


def _error_code(body: bytes) -> str | None:
    try:
        found = _decode_error(body).error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return found.details.error_code if found is not None and found.details is not None else None
