"""How much of its rate limits has an account used, and when is there room again?

Pure. A budget belongs to a scope (an account) and a model class, not to a key. Cost of a request is constant. Times are seconds of
the caller's monotonic clock.

- What the configuration limits is counted in a sliding minute: requests, input and output tokens. Of a limit that nodes share, each
  has its part. The window is a little longer than a minute: what leaves a node at two moments may arrive closer together than that.
- What answers tell is taken as it is meant (docs/providers/anthropic.md): a bucket that holds so much now and refills evenly. It
  rules alone where nothing is configured; where the provider tells a limit but not what is left of it, the sliding minute counts it.
- A request reserves before it is sent: itself, its input estimated by its size, its output by the mean of earlier answers. It
  settles with the usage that the answer reported. Input counts from when it was sent (cache reads do not count), output is held
  while the request is open and counts from its end.
- As estimates are means, only requests can promise never to exceed a limit; tokens do as far as the estimates were not too low.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

from ccr_data.core.amounts import NO_LIMITS, WINDOW_S, Allowance, Learned, Scope, Slot, higher, less, lower, plus
from ccr_data.core.bucket import Bucket, bucket_of
from ccr_data.core.records import Tokens

MARGIN_S = 0.5  # how much later one request may arrive than another that was sent at the same time
SLOTS_PER_S = 4
SLOTS = int((WINDOW_S + MARGIN_S) * SLOTS_PER_S) + 1
TOLD_WITHIN_SLOTS = 8  # a worker that finishes tells the next one well within two seconds what it needs
_BOUNDLESS = 1 << 60
_MEMORY = 0.95  # of the estimates, per request
FIRST_TOKENS_PER_BYTE = 0.25
FIRST_OUTPUT = 500.0


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


_FIELDS = (
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
    "_told_input",
    "_told_output",
    "_told_requests",
    "_used_asked",
    "_used_input",
    "_used_output",
    "_used_requests",
    "configured",
    "kept_beside",
    "lease",
    "merged_into",
    "model_class",
    "reserve",
    "rest_until_s",
    "scope",
    "seen",
    "shared_by",
)


class Budget:
    """What one scope may still do with one class of models."""

    __slots__ = _FIELDS

    def __init__(self, scope: Scope, name: str, configured: Allowance = NO_LIMITS, shared_by: int = 1) -> None:
        self.scope = scope
        self.model_class = name
        self.configured = configured
        self.seen = NO_LIMITS  # what headers say
        self.shared_by = shared_by  # nodes that share it as long as no lease says otherwise
        self.lease: Lease | None = None
        self.merged_into: Budget | None = None
        self.rest_until_s = 0.0
        self.kept_beside = NO_LIMITS  # what workers before this one may yet use (core/succession.py)
        self.reserve: Allowance | None = None  # all that it may count, once another worker has its place
        self._at = 0  # the newest slot
        self._requests = [0] * SLOTS
        self._input = [0] * SLOTS
        self._output = [0] * SLOTS
        self._asked = [0] * SLOTS
        self._used_requests = self._used_input = self._used_output = self._used_asked = 0
        self._held_output = 0
        self._serial = 0  # requests ever reserved
        self._spent_input = 0
        self._told_requests: Bucket | None = None
        self._told_input: Bucket | None = None
        self._told_output: Bucket | None = None
        self._input_seen = FIRST_TOKENS_PER_BYTE * 4000
        self._bytes_seen = 4000.0
        self._mean_output = FIRST_OUTPUT
        self.limit_again()

    def copied(self) -> Budget:
        """The same budget, to be tried without this one noticing."""
        copied = Budget(self.scope, self.model_class)
        for name in _FIELDS:
            value = getattr(self, name)
            setattr(copied, name, list(value) if isinstance(value, list) else value)
        told = (self._told_requests, self._told_input, self._told_output)
        copied._told_requests, copied._told_input, copied._told_output = [one and one.copied() for one in told]
        return copied

    # --- limits -------------------------------------------------------------------------------------------------------

    @property
    def limits(self) -> Allowance:
        """The scope's limits, as far as they are known."""
        return lower(self.configured, self.seen)

    @property
    def own_limits(self) -> Allowance:
        """The part of them that is this node's."""
        limits, lease = self.limits, self.lease
        if lease is None:
            return Allowance(*(self._even(one) for one in limits))
        kinds = zip(limits, lease.share, lease.limits, strict=True)
        return Allowance(*(min(one, share) if of else self._even(one) for one, share, of in kinds))

    def _even(self, limit: int) -> int:
        """A node's part of what no lease speaks of."""
        return max(1, limit // self.shared_by) if limit else 0

    @property
    def is_part_small(self) -> bool:
        """Whether it is less than an even one, so that the next lease will be larger if there is demand."""
        return any(own < self._even(limit) for own, limit in zip(self.own_limits, self.limits, strict=True))

    def limit_again(self) -> None:
        """Something changed that the limits follow from. A limit that is only told, with what is left of it, its bucket keeps."""
        limits, own = self.limits, self.own_limits
        most = self.reserve if self.reserve is not None else less(own, self.kept_beside)
        told = (self._told_requests, self._told_input, self._told_output, None)
        for whole, part, bucket in zip(limits, own, told, strict=True):
            if bucket is not None:
                bucket.share(part / whole)
        found = [
            part if whole and (by_us or bucket is None) else _BOUNDLESS
            for whole, part, by_us, bucket in zip(limits, most, self.configured, told, strict=True)
        ]
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

    def note_asked(self, now_s: float) -> None:
        """A request wants room that it does not try to reserve yet."""
        self._advance(int(now_s * SLOTS_PER_S))
        self._asked[self._at % SLOTS] += 1
        self._used_asked += 1

    # --- requests -----------------------------------------------------------------------------------------------------

    def _advance(self, slot: int) -> None:
        passed = slot - self._at
        if passed <= 0:
            return
        self._at = slot
        if passed >= SLOTS:
            self._requests, self._input = [0] * SLOTS, [0] * SLOTS
            self._output, self._asked = [0] * SLOTS, [0] * SLOTS
            self._used_requests = self._used_input = self._used_output = self._used_asked = 0
            return
        for one in range(slot - passed + 1, slot + 1):
            at = one % SLOTS
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
        at = self._at % SLOTS
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
        ):
            return None
        # As long as there is enough without it, what has refilled a bucket is not worked out.
        by_requests, by_input, by_output = self._told_requests, self._told_input, self._told_output
        if (
            (by_requests is not None and by_requests.left < 1 and by_requests.wait_s(1, now_s))
            or (by_input is not None and by_input.left < tokens and by_input.wait_s(tokens, now_s))
            or (by_output is not None and by_output.left < out and by_output.wait_s(out, now_s))
        ):
            return None
        if by_requests is not None:
            by_requests.left -= 1
        if by_input is not None:
            by_input.left -= tokens
        if by_output is not None:
            by_output.left -= out
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
        if self._at - part.slot < SLOTS:
            self._move(part.slot, -1, -part.input)
        self._move(self._at, 1, part.input)
        part.slot = self._at

    def settle(self, part: Reservation, tokens: Tokens, now_s: float) -> None:
        """The request is over, and this is what it took."""
        slot = int(now_s * SLOTS_PER_S)
        if slot > self._at:
            self._advance(slot)
        counted, out = tokens.input + tokens.cache_write_5m + tokens.cache_write_1h, tokens.output
        counted, out = counted if counted > 0 else 0, out if out > 0 else 0
        if counted or out or tokens.cache_read:
            if self._at - part.slot < SLOTS and counted != part.input:
                self._move(part.slot, 0, counted - part.input)
            self._input_seen = self._input_seen * _MEMORY + counted
            self._bytes_seen = self._bytes_seen * _MEMORY + part.size_bytes
            self._mean_output += (out - self._mean_output) * (1 - _MEMORY)
        self._held_output -= part.output
        self._output[self._at % SLOTS] += out
        self._used_output += out

    def refund(self, part: Reservation, now_s: float, *, is_sent: bool = True) -> None:
        """The provider did not serve it: it took no tokens. Only what was never sent is not even counted as a request."""
        self._advance(int(now_s * SLOTS_PER_S))
        if self._at - part.slot < SLOTS:
            self._move(part.slot, 0 if is_sent else -1, -part.input)
        self._held_output -= part.output

    def _move(self, slot: int, requests: int, tokens: int) -> None:
        at = slot % SLOTS
        self._requests[at] += requests
        self._used_requests += requests
        self._input[at] += tokens
        self._used_input += tokens

    # --- from worker to worker ----------------------------------------------------------------------------------------

    def slots(self, now_s: float) -> list[Slot]:
        """What counts now, by when it was used. What open requests hold is not among it."""
        self._advance(int(now_s * SLOTS_PER_S))
        newest = self._at
        rings = zip(self._requests, self._input, self._output, strict=True)
        return sorted(
            (newest - (newest - at) % SLOTS, requests, tokens, out)
            for at, (requests, tokens, out) in enumerate(rings)
            if requests or tokens or out
        )

    def count(self, used: Iterable[Slot], now_s: float, sign: int = 1) -> None:
        """Another worker used so much of it; with `sign` -1 what was counted so does not count any more."""
        self._advance(int(now_s * SLOTS_PER_S))
        for slot, requests, tokens, out in used:
            if 0 <= self._at - slot < SLOTS:
                self._move(slot, sign * requests, sign * tokens)
                at = slot % SLOTS
                self._output[at] += sign * out
                self._used_output += sign * out
                self._asked[at] += sign * requests
                self._used_asked += sign * requests

    def note_beside(self, used: Iterable[Slot], kept: Allowance, now_s: float, sign: int = 1) -> None:
        """A worker that finishes beside this one used so much, and may yet use what it kept; `sign` -1: it does not count any more."""
        self.count(used, now_s, sign)
        self.kept_beside = plus(self.kept_beside, kept) if sign > 0 else less(self.kept_beside, kept)
        self.limit_again()

    def hand_over(self, beside: Iterable[Slot], waiting: int, now_s: float) -> list[Slot]:
        """Another worker counts from here what was used; returns that, without what workers before used, which tell it themselves.

        What is left is this one's until it lets go of it (`keep`). So many requests wait for room: the oldest that was used stays here,
        so that the room that it frees is theirs.
        """
        room = self._room(now_s)
        self.count(beside, now_s, -1)
        found = self.slots(now_s)
        mine: list[Slot] = []
        while found and sum(one[1] for one in mine) < waiting:
            mine.append(found.pop(0))
        for ring in (self._requests, self._input, self._output, self._asked):
            ring[:] = [0] * SLOTS
        self._used_requests = self._used_input = self._used_output = self._used_asked = 0
        # Were nothing used, a request that is larger than what is kept would go alone.
        self.count([*mine, (self._at, 0, 1, 1)], now_s)
        self.reserve = plus(room, self.used(now_s))
        self.kept_beside = NO_LIMITS
        self.limit_again()
        return found

    def keep(self, requests: int, now_s: float) -> tuple[list[Slot], Allowance]:
        """After `hand_over`: let go of what so many requests will not need. Returns what was used and what others must leave alone."""
        room = self._room(now_s)
        tokens, out = int(self._input_seen * (1 - _MEMORY)), int(self._mean_output)
        means = zip(room[1:], (tokens, out, tokens + out), strict=True)
        kept = Allowance(min(room.requests, requests), *(_kept_tokens(left, requests, mean) for left, mean in means))
        self.reserve = plus(kept, self.used(now_s))
        self.limit_again()
        # Open requests may take what they hold, and what counts no more in a moment has room again.
        held, soon = max(0, self._held_output), self._at - SLOTS + 1 + TOLD_WITHIN_SLOTS
        slots = self.slots(now_s)
        old = [one for one in slots if one[0] < soon]
        requests, tokens, out = (
            (max(0, sum(column)) for column in list(zip(*old, strict=True))[1:]) if old else (0, 0, 0)
        )
        told = plus(kept, Allowance(requests, tokens, out + held, tokens + out + held))
        limits = self.limits
        return slots, Allowance(*(part if limit else 0 for part, limit in zip(told, limits, strict=True)))

    def kept_anew(self, requests: int) -> Allowance:
        """What another worker keeps of it that first hears of it after it has handed over."""
        twin = Budget(self.scope, self.model_class, self.configured, self.shared_by)
        twin.lease = self.lease
        twin.limit_again()
        twin.hand_over((), 0, 0.0)
        return twin.keep(requests, 0.0)[1]

    def _room(self, now_s: float) -> Allowance:
        """What is left of each kind; of those without a limit, and of buckets that the provider tells of, more than anybody uses."""
        most = (self._max_requests, self._max_input, self._max_output, self._max_tokens)
        return Allowance(*(max(0, limit - count) for limit, count in zip(most, self.used(now_s), strict=True)))

    # --- what answers say ---------------------------------------------------------------------------------------------

    def rest(self, until_s: float) -> None:
        """Send nothing before this time."""
        self.rest_until_s = max(self.rest_until_s, until_s)

    def told(self, limits: Allowance, left: Allowance | None, part: Reservation | None, now_s: float) -> None:
        """An answer told the limits, and what was left when it began (None: it did not).

        What was reserved after that answer's own request may not be in its numbers yet, and is taken off. Of what is left, a node
        that shares the account takes the part that it has of the limits.
        """
        self.seen = limits
        self._told_requests = self._told_input = self._told_output = None
        if left is not None:
            later = max(0, self._serial - part.serial) if part is not None else 0
            guess = later * (self._used_input // max(1, self._used_requests))
            self._told_requests = bucket_of(limits.requests, left.requests, later, now_s)
            self._told_input = bucket_of(limits.input, left.input, guess, now_s)
            self._told_output = bucket_of(limits.output, left.output, self._held_output, now_s)
        self.limit_again()

    def learned(self, now_s: float) -> Learned:
        """What another worker has to know of limits."""
        leased_of = self.lease.limits if self.lease is not None else NO_LIMITS
        told = (self._told_requests, self._told_input, self._told_output)
        levels = [bucket.level(now_s) if bucket is not None else (0, 0) for bucket in told]
        (requests, taken), (input_, taken_input), (output, taken_output) = levels
        left = None if told == (None, None, None) else (requests, input_, output)
        return Learned(self.scope, self.model_class, leased_of, self.seen, left, (taken, taken_input, taken_output))

    def recall_told(self, learned: Learned, at_s: float) -> None:
        """Another worker was told this, and knew it so at that time."""
        self.seen = learned.told
        if learned.left is not None:
            kinds = zip(learned.told, learned.left, learned.taken, strict=False)
            self._told_requests, self._told_input, self._told_output = [
                bucket_of(limit, left, taken, at_s) for limit, left, taken in kinds
            ]
        self.limit_again()

    # --- when nothing is left -----------------------------------------------------------------------------------------

    def levels(self, now_s: float) -> list[tuple[int, int, float]]:
        """Of requests, input and output: the scope's limit, what is left of this node's part, seconds until all is left again."""
        used = self.used(now_s)
        rest_s = max(0.0, self.rest_until_s - now_s)
        kinds = zip(
            self.limits,
            self.own_limits,
            used,
            (self._max_requests, self._max_input, self._max_output),
            (self._told_requests, self._told_input, self._told_output),
            (self._requests, self._input, self._output),
            (0, 0, self._held_output),
            strict=False,
        )
        found = []
        for limit, own, count, most, told, ring, held in kinds:
            left, full_s = max(0, min(own, most) - count), self._frees_in_s([ring], 0, held, now_s)
            if told is not None:
                full_s = max(told.wait_s(told.size, now_s), full_s if most < _BOUNDLESS else 0.0)
                left = max(0, min(int(told.left), left if most < _BOUNDLESS else int(told.left)))
            found.append((limit, 0 if rest_s or not limit else left, max(rest_s, full_s)))
        return found

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
        buckets = (self._told_requests, self._told_input, self._told_output)
        waits += [
            told.wait_s(need, now_s) for told, need in zip(buckets, (1, tokens, out), strict=True) if told is not None
        ]
        return max(waits)

    def room_with_all_in_s(self, size_bytes: int, now_s: float) -> float:
        """The same if all of the scope's limits were this node's, as far as it knows what is used of them."""
        whole = self.copied()
        whole.lease, whole.shared_by = None, 1
        whole.limit_again()
        return whole.room_in_s(size_bytes, now_s)

    def sure_wait_s(self, now_s: float) -> float:
        """Seconds for which there is no room whatever open requests turn out to take; a node's part may grow meanwhile."""
        self._advance(int(now_s * SLOTS_PER_S))
        rest_s = max(0.0, self.rest_until_s - now_s)
        if self.own_limits.requests != self.limits.requests:
            return rest_s
        return max(rest_s, self._frees_in_s([self._requests], self._max_requests - 1, 0, now_s))

    def _frees_in_s(self, rings: list[list[int]], most: int, held: int, now_s: float) -> float:
        """Until at most this much counts. What open requests hold is taken to be gone within a window."""
        if most < 0:
            return math.inf
        ring = rings[0] if len(rings) == 1 else list(map(sum, zip(*rings, strict=True)))
        missing = held + sum(ring) - most
        if missing <= 0:
            return 0.0
        oldest = (self._at + 1) % SLOTS
        freed = list(accumulate(ring[oldest:] + ring[:oldest]))  # a loop over the slots would make refusals dear
        if freed[-1] < missing:
            return WINDOW_S
        slot = self._at - SLOTS + 1 + bisect_left(freed, missing)
        return max(0.0, (slot + SLOTS) / SLOTS_PER_S - now_s)

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
        self.kept_beside = plus(self.kept_beside, other.kept_beside)
        if self.reserve is not None and other.reserve is not None:
            self.reserve = plus(self.reserve, other.reserve)
        other.merged_into = self
        self.limit_again()


def _kept_tokens(room: int, requests: int, mean: int) -> int:
    """Of the tokens that are left, what so many requests may need. They may be large: half of it, for a moment."""
    if not requests or room > _BOUNDLESS // 2:
        return 0
    return min(room, max(requests * mean, room // 2))


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
    limits: Allowance  # that it is a part of, as its giver knew them: it says nothing of kinds without one
