"""What clients have spent, as this control plane knows it: prices usage, has a snapshot published when a budget is spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ccr_rpc.v1 import snapshot_pb2

from ccr_control.core.ledger import Sums, Tokens
from ccr_control.core.spending import Bill, ClientBudget, Exhausted, PriceBook, Spending, Spent, costs
from ccr_control.shell.config_file import Revision
from ccr_control.shell.log import Log

MAX_SAID = 1024  # models without a price that were spoken of

log = Log("spending")


class SpendingKeeper:
    """Holds what was spent. All methods are for the event loop, and none waits."""

    def __init__(self, revision: Callable[[], Revision], publish: Callable[[], None], now: Callable[[], float]) -> None:
        """`revision` gives the configuration in force; `publish` has the snapshot published with what is spent now."""
        self._revision, self._publish, self._now = revision, publish, now
        self._known: Revision | None = None
        self._book = PriceBook(())
        self._clients: frozenset[str] = frozenset()
        self._budgets: dict[str, ClientBudget] = {}
        self._spending = Spending()
        self._told: dict[str, Exhausted] = {}  # in the newest snapshot
        self._said: set[tuple[str, str]] = set()

    @property
    def book(self) -> PriceBook:
        """The prices in force."""
        self._follow()
        return self._book

    @property
    def budgets(self) -> Mapping[str, ClientBudget]:
        """Of the clients that have one."""
        self._follow()
        return self._budgets

    def spent(self, client: str) -> tuple[int, int]:
        """What a client has spent today and this month, in nano-USD."""
        return self._spending.spent(client, self._now())

    def bill(self, provider: str, key_label: str, model: str, tokens: Tokens, requests: int) -> Bill:
        """What tokens cost by the prices in force."""
        self._follow()
        return self._book.bill(provider, key_label, model, tokens, requests)

    def costs(self, sums: Sums) -> Spent:
        """What clients spend by the sums of a batch, for the store to keep with them."""
        self._follow()
        if not self._clients:
            return {}
        spent, unknown = costs(sums, self._clients)
        if self._budgets:
            for provider, model in unknown - self._said:
                if len(self._said) < MAX_SAID:
                    self._said.add((provider, model))
                    log.warning(
                        "price_unknown",
                        provider=provider,
                        model=model,
                        effect="counts as 0 in the budgets of clients; the provider's `prices` can say it",
                    )
        return spent

    def begin(self, spent: Mapping[tuple[str, int], int]) -> None:
        """A store was opened."""
        self._spending.begin(spent)
        self._tell()

    def note(self, spent: Spent) -> None:
        """A batch has been kept, and this with it."""
        if spent:
            self._spending.add(spent)
            self._tell()

    def overlay(self, snapshot: snapshot_pb2.Snapshot) -> None:
        """Write into a snapshot who has spent a budget."""
        self._follow()
        self._told = self._exhausted()
        _write(snapshot, self._told)

    def overlay_unpublished(self, snapshot: snapshot_pb2.Snapshot) -> None:
        """The same for a snapshot that is only decided by: nodes are told nothing with it."""
        self._follow()
        _write(snapshot, self._exhausted())

    def _follow(self) -> None:
        revision = self._revision()
        if revision is self._known:
            return
        self._known = revision
        self._book = PriceBook(revision.snapshot.providers)
        auth = revision.config.server.auth
        keys = auth.keys if auth is not None else ()
        self._clients = frozenset(key.name for key in keys)
        self._budgets = {
            key.name: ClientBudget(key.budget.day, key.budget.month) for key in keys if key.budget is not None
        }

    def _exhausted(self) -> dict[str, Exhausted]:
        found = {name: self._spending.exhausted(name, budget, self._now()) for name, budget in self._budgets.items()}
        return {name: one for name, one in found.items() if one is not None}

    def _tell(self) -> None:
        """Have it published if it is different from what nodes know."""
        self._follow()
        now = self._exhausted() if self._budgets else {}
        for name, one in now.items():
            if self._told.get(name) != one:
                log.warning("client_budget_spent", client=name, budget=one.words, until_s=one.until_s)
        if now != self._told:
            self._told = now
            self._publish()


def _write(snapshot: snapshot_pb2.Snapshot, exhausted: Mapping[str, Exhausted]) -> None:
    for client in snapshot.auth.clients:
        found = exhausted.get(client.name)
        if found is not None:
            client.spent_until.FromSeconds(found.until_s)
            client.spent_budget = found.words
