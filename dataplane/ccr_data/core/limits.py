"""Is there room for a request in its scope's rate limits, and from when?

Pure. Which budget (core/budget.py) a request counts in follows from its key's scope and the class of its model. Its limits are the
configuration's and those that answers told (core/limit_headers.py); of these a node has its lease.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from ccr_data.core.amounts import NO_LIMITS, Allowance, Handed, Learned, Scope, Slot, Spent, higher, plus
from ccr_data.core.budget import SLOTS_PER_S, Budget, BudgetUse, Lease, Reservation
from ccr_data.core.limit_headers import Rest
from ccr_data.core.succession import Finishing

MAX_MEMO = 4096  # names of models come from clients
MAX_CLASSES = 8192  # of all accounts together; beyond them an account has one more for all other models
MAX_BUDGETS = 1024  # learned from headers; configured ones always have a place
MAX_SERIAL = 1 << 62  # of leases: far beyond the moments that they are counted from

_CLAUDE = re.compile(r"(opus|sonnet|haiku|fable|mythos|instant)-(\d+)|claude-(\d+)(?:[.-]\d)?-(opus|sonnet|haiku)")


def model_class(model: str) -> str:
    """The models that share a limit: a family's generation ("opus-4", "sonnet-4", "haiku-3") for Claude, else all ("").

    Anthropic counts all Opus 4.x together, all Sonnet 4.x together, and so on. Other providers limit accounts rather than models.
    """
    found = _CLAUDE.search(model.lower())
    if found is None:
        return "claude" if "claude" in model.lower() else ""
    return f"{found[1] or found[4]}-{found[2] or found[3]}"


ORGANISATION_SCOPE = "organisation "
"""What the scope of a learned organisation is called begins so; the control plane calls it the same."""


class Limits:
    """The budgets of one node. Outlives snapshots."""

    __slots__ = (
        "_account_of",
        "_budgets",
        "_configured",
        "_gone",
        "_keeps",
        "_leases",
        "_memo",
        "_recalled",
        "_secrets",
        "_shared_by",
        "finishing",
        "is_active",
        "moves",
    )

    def __init__(self) -> None:
        self.is_active = False  # whether anything is limited at all; requests ask for no room otherwise
        self._configured: dict[Scope, Allowance] = {}
        self._account_of: dict[Scope, Scope] = {}  # learned: a key's own scope → its organisation's
        self._secrets: dict[Scope, frozenset[str]] = {}
        self._gone: set[Scope] = set()  # accounts that the configuration has no more
        self._budgets: dict[tuple[Scope, str], Budget] = {}
        self._memo: dict[tuple[Scope, str], Budget | None] = {}
        self._leases: dict[tuple[Scope, str], Lease] = {}
        self._recalled: dict[tuple[Scope, str], list[Slot]] = {}  # of a process before
        self._keeps: tuple[int, float] | None = None  # requests that may still come, as of when; None: it has its place
        self._shared_by = 1
        self.finishing = Finishing(self._counting)  # workers before this one
        self.moves = 0  # budgets that turned out to be of another account

    # --- what limits are there ----------------------------------------------------------------------------------------

    def configure(
        self, limits: Mapping[Scope, Allowance], secrets: Mapping[Scope, frozenset[str]], shared_by: int
    ) -> None:
        """A snapshot begins to be served. A scope whose keys changed does not rest any longer.

        Requests that began by another one may still wait for an account that is gone: its limits stay as they were.
        """
        changed = {scope for scope, known in self._secrets.items() if secrets.get(scope) != known}
        before = {*self._secrets, *self._account_of.values()}
        for scope in changed.union(scope for scope in secrets if scope not in self._secrets):
            self._account_of.pop(scope, None)  # it is to be learned anew
        self._secrets = dict(secrets)
        self._gone = (self._gone | before).difference(secrets, self._account_of.values())
        self._configured = {scope: limit for scope, limit in limits.items() if any(limit)}
        self._shared_by = max(1, shared_by)
        stated = self._stated()
        for (scope, _), budget in self._budgets.items():
            if scope in self._gone:
                continue
            if scope in changed:
                budget.rest_until_s = 0.0
            configured = stated.get(scope, NO_LIMITS)
            if budget.configured != configured or budget.shared_by != self._shared_by:
                budget.configured, budget.shared_by = configured, self._shared_by
                budget.limit_again()
        self._memo.clear()
        self._note_active()

    def renamed(self, secrets: Mapping[Scope, frozenset[str]]) -> list[tuple[Scope, Scope]]:
        """Scopes that are to go, and those that are to come with their keys: called otherwise, an account has used what it has."""
        fresh = ((scope, holders) for scope, holders in secrets.items() if scope not in self._secrets)
        homes = {(scope[0], one): scope for scope, holders in fresh for one in holders}
        gone = [(scope, holders) for scope, holders in self._secrets.items() if scope not in secrets and holders]
        found = [(scope, holders, homes.get((scope[0], min(holders)))) for scope, holders in gone]
        return [(scope, home) for scope, holders, home in found if home is not None and holders <= secrets[home]]

    def _stated(self) -> dict[Scope, Allowance]:
        """What the configuration says of all accounts, in one pass: there may be thousands, and snapshots come often."""
        stated = dict(self._configured)
        for scope, account in self._account_of.items():
            limits = self._configured.get(scope)
            if limits is not None:
                stated[account] = higher(stated.get(account, NO_LIMITS), limits)
        return stated

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
        if budget is None and len(self._budgets) >= MAX_CLASSES:  # generations that a client made up
            name = ""
            budget = self._budgets.get((account, name))
        if budget is None and any(self._configured_for(account)):
            budget = self._new_budget(account, name)
        self._memo[scope, model] = budget
        return budget

    def looked_at(self, scope: Scope, model: str) -> Budget | None:
        """The same, with nothing noted: a budget that no request has used yet is made for this call only."""
        account, name = self._account_of.get(scope, scope), model_class(model)
        budget = self._budgets.get((account, name))
        if budget is None and any(self._configured_for(account)):
            return self._made_budget(account, name)
        return budget

    def as_configured(self, limits: Mapping[Scope, Allowance], shared_by: int) -> Limits:
        """A copy with other limits: what another configuration would make of what has been used."""
        copied = Limits()
        copied._account_of, copied._secrets = dict(self._account_of), self._secrets
        copied._budgets = {place: budget.copied() for place, budget in self._budgets.items()}
        copied._leases, copied._recalled = dict(self._leases), dict(self._recalled)
        copied.configure(limits, copied._secrets, shared_by)
        return copied

    def _made_budget(self, account: Scope, name: str) -> Budget:
        budget = Budget(account, name, self._configured_for(account), self._shared_by)
        lease = self._leases.get((account, name))
        if lease is not None:
            budget.lease = lease
            budget.limit_again()
        recalled = self._recalled.get((account, name))
        if recalled:
            budget.count(recalled, recalled[-1][0] / SLOTS_PER_S)
        return budget

    def _counting(self, scope: Scope, name: str) -> Budget | None:
        """The budget that a worker before this one tells of, made if the configuration limits it."""
        account = self._account_of.get(scope, scope)
        budget = self._budgets.get((account, name))
        if budget is None and any(self._configured_for(account)) and len(self._budgets) < MAX_CLASSES:
            budget = self._new_budget(account, name)
        return budget

    def _new_budget(self, account: Scope, name: str) -> Budget:
        budget = self._budgets[account, name] = self._made_budget(account, name)
        recalled = self._recalled.pop((account, name), None)
        now_s = recalled[-1][0] / SLOTS_PER_S if recalled else 0.0
        self.finishing.begun(budget, now_s)
        if self._keeps is not None:
            requests, now_s = self._keeps
            budget.hand_over(self.finishing.counted_in(budget), 0, now_s)
            budget.keep(requests, now_s)
        self._memo.clear()
        self.is_active = True
        return budget

    def _learned_budget(self, scope: Scope, model: str) -> Budget | None:
        budget = self.budget(scope, model)
        if budget is None and len(self._budgets) < MAX_BUDGETS:
            budget = self._new_budget(self._account_of.get(scope, scope), model_class(model))
        return budget

    # --- what answers say ---------------------------------------------------------------------------------------------

    def note_organisation(self, scope: Scope, organisation: str, now_s: float) -> None:
        """A key without a configured scope belongs to this organisation: what it used counts there."""
        self.note_account(scope, (scope[0], ORGANISATION_SCOPE + organisation), now_s)

    def note_account(self, scope: Scope, account: Scope, now_s: float) -> None:
        """What was used of the scope counts in this account."""
        if self._account_of.get(scope) == account:
            return
        self._account_of[scope] = account
        self._gone.discard(account)
        self.moves += 1
        for key in [key for key in self._budgets if key[0] == scope]:
            moved = self._budgets.pop(key)
            into = self._budgets.get((account, key[1]))
            if into is not None:
                into.take(moved, now_s)
            else:
                moved.scope = account
                self._budgets[account, key[1]] = moved
        self._recall_for(scope, account)
        for key, budget in self._budgets.items():
            if key[0] == account:
                budget.configured = self._configured_for(account)
                budget.limit_again()
        self._memo.clear()

    def _recall_for(self, scope: Scope, account: Scope) -> None:
        """What a process before this one used of the scope, it used of the account."""
        for key in [key for key in self._recalled if key[0] == scope]:
            known = self._recalled.get((account, key[1]), [])
            self._recalled[account, key[1]] = sorted([*known, *self._recalled.pop(key)])
        for key in [key for key in self._recalled if key[0] == account and key in self._budgets]:
            recalled = self._recalled.pop(key)
            if recalled:
                self._budgets[key].count(recalled, recalled[-1][0] / SLOTS_PER_S)

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

    # --- over a restart -----------------------------------------------------------------------------------------------

    def spent(self, now_s: float) -> list[Spent]:
        """What a process that starts in this one's place has to know."""
        return list(self.each_spent(lambda: now_s))

    def each_spent(self, clock: Callable[[], float]) -> Iterator[Spent]:
        """The same one by one, each as it is when it is asked for."""
        alone = [lease for key, lease in self._leases.items() if key not in self._budgets]
        for budget in tuple(self._budgets.values()):
            now_s = clock()
            used, lease = budget.used(now_s), budget.lease
            if lease is not None:
                yield Spent(budget.scope, budget.model_class, used, lease.share, lease.serial)
            elif any(used) and any(budget.limits):
                yield Spent(budget.scope, budget.model_class, used, None, 0)
        for lease in alone:
            yield Spent(lease.scope, lease.model_class, NO_LIMITS, lease.share, lease.serial)

    def each_learned(self, clock: Callable[[], float]) -> Iterator[Learned]:
        """What it has to know of limits besides, one by one."""
        alone = [lease for key, lease in self._leases.items() if key not in self._budgets]
        for budget in tuple(self._budgets.values()):
            if budget.scope not in self._gone and (budget.lease is not None or any(budget.seen)):
                yield budget.learned(clock())
        for lease in alone:
            yield Learned(lease.scope, lease.model_class, lease.limits, NO_LIMITS, None, (0, 0, 0))

    def recall(
        self,
        spent: Iterable[Spent],
        now_s: float,
        age_s: float,
        handed: Iterable[Handed] = (),
        learned: Iterable[Learned] = (),
    ) -> None:
        """Begin with what a process before this one used, as if it had been used when it was last told of, so long ago.

        What it `handed` over was used when that says. Its leases go on, too: the control plane gives them to nobody else before it has
        heard of this process. So does what answers told it.
        """
        known = {(one.scope, one.model_class): one for one in learned}
        then = int((now_s - age_s) * SLOTS_PER_S)
        for one in spent:
            if not 0 <= one.serial < MAX_SERIAL:  # none that was given: every later lease would count as older
                continue
            place, used = (one.scope, one.model_class), one.used
            self._recalled[place] = [(then, used.requests, used.input, used.output)]
            if one.lease is not None:  # an earlier release did not keep what it is a part of
                leased_of = known[place].leased_of if place in known else one.lease
                self.take_lease(Lease(*place, one.lease, one.serial, leased_of))
        for part in handed:
            self._recalled[part.scope, part.model_class] = sorted(part.used)
        for place, told in known.items():
            if not any(told.told):
                continue
            budget = self._budgets.get(place)
            if budget is None and len(self._budgets) < MAX_BUDGETS:
                budget = self._new_budget(*place)
            if budget is not None:
                budget.recall_told(told, now_s - age_s)

    def hand_over(self, requests: int, waiting: int, now_s: float) -> Iterator[Handed]:
        """Another worker takes this one's place: budget by budget, what counts. From each on, what is left is only kept (`keep`).

        So many requests may still come here, and so many wait for room. Leases are the other's from now on.
        """
        self._keeps = (requests, now_s)
        for (scope, name), used in self._recalled.items():
            yield Handed(scope, name, used, NO_LIMITS)
        self._recalled = {}
        for budget in tuple(self._budgets.values()):
            if budget.reserve is None and budget.merged_into is None:
                used = budget.hand_over(self.finishing.counted_in(budget), waiting, now_s)
                yield Handed(budget.scope, budget.model_class, used, NO_LIMITS)

    def keep(self, requests: int, now_s: float) -> Iterator[Handed]:
        """After `hand_over`, while so many requests may still come: what was used since, and what others must leave alone."""
        self._keeps = (requests, now_s)
        for budget in tuple(self._budgets.values()):
            if budget.reserve is None or budget.merged_into is not None:
                continue
            used, kept = budget.keep(requests, now_s)
            if used or any(kept) or requests:
                yield Handed(budget.scope, budget.model_class, used, kept)

    # --- leases -------------------------------------------------------------------------------------------------------

    def uses(self, now_s: float) -> list[BudgetUse]:
        """What the control plane shares the budgets by."""
        return list(self.each_use(lambda: now_s))

    def each_use(self, clock: Callable[[], float]) -> Iterator[BudgetUse]:
        """The same one by one, each as it is when it is asked for: of a thousand nobody wants to wait for the last."""
        for account, name in list(self._recalled):  # it must hear of them before it shares anew
            if (account, name) not in self._budgets and any(self._configured_for(account)):
                self._new_budget(account, name)
        told, moves = tuple(self._budgets.values()), self.moves
        alone = [lease for key, lease in self._leases.items() if key not in self._budgets]
        for budget in told:
            limits = budget.limits
            if any(limits) and budget.scope not in self._gone:
                now_s = clock()
                yield BudgetUse(
                    budget.scope,
                    budget.model_class,
                    limits,
                    budget.own_limits,
                    plus(budget.used(now_s), budget.kept_beside),
                    budget.asked(now_s),
                    budget.lease.serial if budget.lease is not None else 0,
                )
        for lease in alone:
            yield BudgetUse(lease.scope, lease.model_class, NO_LIMITS, lease.share, NO_LIMITS, 0, lease.serial)
        if self.moves != moves:  # meanwhile: of two words about a budget the later one counts
            yield from self.each_use(clock)

    def take_lease(self, lease: Lease) -> None:
        """A part of a budget is this node's, until it hears otherwise. An older one than it has is not heeded."""
        if self._keeps is not None:  # it is for the worker that has this one's place
            return
        key = (lease.scope, lease.model_class)
        known = self._leases.get(key)
        if (known is None and len(self._leases) >= MAX_BUDGETS) or (known is not None and lease.serial <= known.serial):
            return
        self._leases[key] = lease
        budget = self._budgets.get(key)
        if budget is not None:
            budget.lease = lease
            budget.limit_again()
