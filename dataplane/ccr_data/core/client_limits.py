"""May a client ask now? The limits that the configuration gives to holders of relay keys.

Pure. Requests and tokens count in a sliding minute, as accounts' do (core/budget.py), and requests at a time. A node holds clients to
its part: their limits divided by the nodes that share them. What a client has spent in USD is the control plane's to know: it says
until when the client is to wait. Times are seconds of the caller's monotonic clock, `unix_s` since 1970.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ccr_data.core.amounts import NO_LIMITS, Allowance, Handed, Scope, Spent
from ccr_data.core.budget import SLOTS_PER_S, Budget, Reservation
from ccr_data.core.errors import ClientLimited
from ccr_data.core.records import Outcome, Record
from ccr_data.core.succession import Finishing

_CLIENTS = ""  # no provider is called so
BUSY_RETRY_S = 1  # requests end at any moment
SOON_S = 30  # beyond this nobody is to wait for it (core/planner.py)


@dataclass(frozen=True, slots=True)
class ClientRules:
    """What one client may do, as far as this node is to see to it. 0: no limit."""

    requests: int = 0  # a minute
    tokens: int = 0  # a minute, input (without cache reads) and output together
    concurrency: int = 0  # requests at a time
    spent_until_s: float = 0.0  # Unix time; until then it is refused
    spent_budget: str = ""  # what it has spent, in words


class ClientPart:
    """What an open request takes of its client's limits."""

    __slots__ = ("_account", "_reserved")

    def __init__(self, account: ClientAccount, reserved: Reservation | None) -> None:
        self._account = account
        self._reserved = reserved

    def over(self, record: Record, now_s: float) -> None:
        """The request has ended. What went nowhere is not counted, and what was not served took no tokens."""
        self._account.open_count -= 1
        part = self._reserved
        if part is None:
            return
        outcome = record.outcome
        if outcome is Outcome.REFUSED or not record.attempts:
            part.refund(now_s, is_sent=False)
        elif outcome is Outcome.FAILED or record.status >= 400:
            part.refund(now_s)
        else:
            part.settle(record.tokens, now_s)


@dataclass(slots=True)
class ClientAccount:
    """What one client has used."""

    rules: ClientRules
    budget: Budget
    open_count: int = 0


class ClientLimits:
    """The clients of one node that have limits. Outlives snapshots."""

    def __init__(self) -> None:
        self._accounts: dict[str, ClientAccount] = {}
        self._keeps: tuple[int, float] | None = None  # requests that may still come, as of when; None: it has its place
        self._finishing = Finishing(self._counting)  # workers before this one
        self._open_beside: dict[str, dict[str, int]] = {}  # requests that those have open: worker → client → how many

    def take(self, client: str, rules: ClientRules, size_bytes: int, now_s: float, unix_s: float) -> ClientPart:
        """A request's part of its client's limits. Raises ClientLimited, which says when to come again."""
        if rules.spent_until_s > unix_s:
            raise _spent(client, rules, unix_s)
        account = self._accounts.get(client)
        if account is None:
            account = self._new_account(client, rules)
            _follow(account, rules)
            self._finishing.begun(account.budget, now_s)
            if self._keeps is not None:
                account.budget.hand_over((), 0, now_s)
                account.budget.keep(*self._keeps)
        elif account.rules is not rules:
            _follow(account, rules)
        if rules.concurrency and account.open_count >= rules.concurrency:
            raise _busy(client, account)
        reserved = None
        if rules.requests or rules.tokens:
            reserved = account.budget.try_reserve(size_bytes, now_s)
            if reserved is None:
                raise _full(client, rules, account.budget.room_in_s(size_bytes, now_s))
        account.open_count += 1
        return ClientPart(account, reserved)

    def refusal(
        self, client: str, rules: ClientRules, size_bytes: int, now_s: float, unix_s: float
    ) -> ClientLimited | None:
        """What `take` would raise now. Nothing is taken, and `rules` need not be those in force."""
        if rules.spent_until_s > unix_s:
            return _spent(client, rules, unix_s)
        account = self._accounts.get(client)
        if account is None:
            return None
        if account.rules is not rules:
            account = ClientAccount(rules, account.budget.copied(), account.open_count)
            _follow(account, rules)
        if rules.concurrency and account.open_count >= rules.concurrency:
            return _busy(client, account)
        wait_s = account.budget.room_in_s(size_bytes, now_s) if rules.requests or rules.tokens else 0.0
        return _full(client, rules, wait_s) if wait_s > 0 else None

    def _new_account(self, client: str, rules: ClientRules) -> ClientAccount:
        self._accounts[client] = account = ClientAccount(rules, Budget((_CLIENTS, client), ""))
        return account

    # --- from worker to worker (core/succession.py) -------------------------------------------------------------------

    def each_spent(self, clock: Callable[[], float]) -> Iterator[Spent]:
        """What a process that starts in this one's place has to know, one by one, each as it is when it is asked for."""
        for account in tuple(self._accounts.values()):
            used = account.budget.used(clock())
            if any(used):
                yield Spent(account.budget.scope, "", used, None, 0)

    def recall(self, spent: Iterable[Spent], now_s: float, age_s: float, handed: Iterable[Handed] = ()) -> None:
        """Begin with what a process before this one used, as of so long ago; what it `handed` over, when that says."""
        then = int((now_s - age_s) * SLOTS_PER_S)
        slots = {one.scope: [(then, one.used.requests, one.used.input, one.used.output)] for one in spent}
        slots.update((part.scope, part.used) for part in handed)
        for scope, used in slots.items():
            self._counting(scope, "").count(used, now_s)

    def hand_over(self, requests: int, now_s: float) -> Iterator[Handed]:
        """Another worker takes this one's place: client by client, what counts. From each on, what is left is only kept (`keep`)."""
        self._keeps = (requests, now_s)
        for account in tuple(self._accounts.values()):
            budget = account.budget
            if budget.reserve is None:
                yield Handed(
                    budget.scope, "", budget.hand_over(self._finishing.counted_in(budget), 0, now_s), NO_LIMITS
                )

    def keep(self, requests: int, now_s: float) -> Iterator[Handed]:
        """After `hand_over`, while so many requests may still come: what was used since, and what others must leave alone."""
        self._keeps = (requests, now_s)
        for account in tuple(self._accounts.values()):
            budget = account.budget
            if budget.reserve is None:
                continue
            used, kept = budget.keep(requests, now_s)
            if used or any(kept) or requests or account.open_count:
                yield Handed(budget.scope, "", used, kept, account.open_count)

    def note_finishing(self, worker: str, parts: Sequence[Handed], now_s: float, requests: int = 0) -> None:
        """All that a worker before this one tells while it finishes; so many requests may still come to it."""
        self._finishing.note(worker, parts, now_s, requests)
        self._note_open(worker, {part.scope[1]: part.open_count for part in parts})

    def finished(self, worker: str, now_s: float, *, is_told: bool) -> None:
        """It has ended; if that is not by its own word, it may have used all that it kept."""
        self._finishing.ended(worker, now_s, is_told=is_told)
        self._note_open(worker, {})

    def _note_open(self, worker: str, counts: dict[str, int]) -> None:
        before, self._open_beside[worker] = self._open_beside.pop(worker, {}), counts
        for client in {*before, *counts}:
            account = self._accounts.get(client)
            if account is not None:
                account.open_count += counts.get(client, 0) - before.get(client, 0)
        if not counts:
            del self._open_beside[worker]

    def _counting(self, scope: Scope, _: str) -> Budget:
        client = scope[1]
        account = self._accounts.get(client)
        if account is None:  # what it may do is known with its first request
            account = self._new_account(client, ClientRules())
        return account.budget


def _busy(client: str, account: ClientAccount) -> ClientLimited:
    return ClientLimited(
        f"client {client} has {account.open_count} requests open, which is all that it may have at a time",
        BUSY_RETRY_S,
        should_retry=True,
    )


def _full(client: str, rules: ClientRules, room_in_s: float) -> ClientLimited:
    wait_s = max(1, math.ceil(room_in_s)) if math.isfinite(room_in_s) else BUSY_RETRY_S  # another worker knows
    return ClientLimited(
        f"client {client} is at its limit of {_worded(rules)}; there is room again in {wait_s} s",
        wait_s,
        should_retry=wait_s <= SOON_S,
    )


def _follow(account: ClientAccount, rules: ClientRules) -> None:
    account.rules = rules
    account.budget.configured = Allowance(requests=rules.requests, tokens=rules.tokens)
    account.budget.limit_again()


def _worded(rules: ClientRules) -> str:
    limits = ((rules.requests, "requests"), (rules.tokens, "tokens"))
    return " and ".join(f"{limit} {what} a minute" for limit, what in limits if limit)


def _spent(client: str, rules: ClientRules, unix_s: float) -> ClientLimited:
    until = datetime.fromtimestamp(math.ceil(rules.spent_until_s), UTC)
    return ClientLimited(
        f"client {client} has spent its budget of {rules.spent_budget or 'USD'}; it begins anew at {until:%Y-%m-%dT%H:%M:%SZ}",
        max(1, math.ceil(rules.spent_until_s - unix_s)),
        should_retry=False,
    )
