"""What has each client spent, and has it spent its budget?

Pure. Costs follow from the same sums as the ledger's rows, and are kept with them in one transaction, so that both count each batch
once and say the same. Each request is priced when its usage arrives, by the prices then in force (`bill`), and rounded to a
millionth of a US dollar; what is spent is kept in nano-USD. A request counts in the day in which it began; days and months are
UTC's. A model without a known price costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from ccr_rpc.v1 import snapshot_pb2

from ccr_control.core.ledger import Sums, Tokens
from ccr_control.core.patterns import best
from ccr_control.core.pricing import FREE, PRICES, Band, Price, table

NANO = 10**9
DAY_S = 86_400
NANO_PER_MICRO = 1000
KEPT_DAYS = 32  # the current month, whichever it is
MAX_COST = 10**6 * NANO
"""Of one client in one batch: what a broken node says must not overflow the sums."""
MAX_COST_MICRO = 10**12
"""Of one line of a batch."""

MAX_MEMO = 4096  # names of models come from clients

Spent = dict[tuple[str, int], int]
"""Nano-USD by client and day, in days since 1970."""


class PriceBook:
    """What each provider's models cost, as a snapshot has it: the same prices that cost-based routing goes by."""

    def __init__(self, providers: Iterable[snapshot_pb2.Provider]) -> None:
        self._own = {
            provider.name: (
                tuple((one.pattern, _price(one)) for one in provider.prices),
                provider.price_factor if provider.HasField("price_factor") else 1.0,
            )
            for provider in providers
        }
        self._table = tuple(table())
        self._memo: dict[tuple[str, str], Price | None] = {}

    def price(self, provider: str, model: str) -> Price | None:
        """The price of a provider's own model name; None if nobody says. Of a provider that is gone: the table's."""
        name = (provider, model)
        if name not in self._memo:
            if len(self._memo) >= MAX_MEMO:
                self._memo.clear()
            self._memo[name] = self._found(provider, model)
        return self._memo[name]

    def bill(self, provider: str, key_label: str, model: str, tokens: Tokens, requests: int = 1) -> Bill:
        """What the tokens of so many requests of one kind cost."""
        price = FREE if key_label == SUBSCRIPTION else self.price(provider, model)
        return bill(tokens, price, requests)

    def listed(self) -> Iterator[tuple[str, str, Price]]:
        """Provider (empty: every one that says nothing else), pattern and price of all there are: the relay's own first."""
        for name, price in PRICES.items():
            yield "", name, price
        for provider, (own, factor) in self._own.items():
            for pattern, price in own:
                yield provider, pattern, price
            if factor == 0:
                yield provider, "*", FREE
            elif factor != 1:
                for name, price in PRICES.items():
                    yield provider, name, price.times(factor)

    def _found(self, provider: str, model: str) -> Price | None:
        own, factor = self._own.get(provider, ((), 1.0))
        said = best(own, model)
        if said is not None:
            return said
        if not factor:
            return FREE
        listed = best(self._table, model)
        return None if listed is None else listed.times(factor)


def _price(message: snapshot_pb2.ModelPrice) -> Price:
    short = Price(
        message.input,
        message.output,
        message.cache_read if message.HasField("cache_read") else None,
        message.cache_write_5m if message.HasField("cache_write_5m") else None,
        message.cache_write_1h if message.HasField("cache_write_1h") else None,
    )
    if not message.long_prompt_tokens:
        return short
    return replace(short, long=Band(message.long_prompt_tokens, message.long_prompt_factor))


class Bill(NamedTuple):
    """What requests cost, in whole millionths of a US dollar."""

    cost_micro_usd: int = 0
    saved_micro_usd: int = 0  # what they would have cost more without prompt caches; may be below 0
    unpriced_requests: int = 0  # that used tokens of which nobody knows the price; they cost 0 above


SUBSCRIPTION = "subscription"
"""In the place of a key's label: the client's own token, whose requests are paid for already."""


def bill(tokens: Tokens, price: Price | None, requests: int = 1) -> Bill:
    """What the tokens of so many requests cost.

    Of several requests, which a node has folded, nobody knows the single prompts: where the price depends on the prompt's size they
    are all taken to be of the mean size.
    """
    prompt = tokens.input + tokens.cache_read + tokens.cache_write_5m + tokens.cache_write_1h
    if not prompt and not tokens.output:
        return Bill()
    if price is None:
        return Bill(unpriced_requests=requests)
    if price.long is not None:
        price = price.for_prompt(prompt // max(requests, 1))
    read = price.input if price.cache_read is None else price.cache_read
    write_5m = price.input if price.cache_write_5m is None else price.cache_write_5m
    write_1h = write_5m if price.cache_write_1h is None else price.cache_write_1h
    # USD per million tokens are micro-USD per token
    caches = tokens.cache_read * read + tokens.cache_write_5m * write_5m + tokens.cache_write_1h * write_1h
    cost = round(tokens.input * price.input + tokens.output * price.output + caches)
    uncached = round(prompt * price.input + tokens.output * price.output)
    return Bill(min(cost, MAX_COST_MICRO), max(min(uncached - cost, MAX_COST_MICRO), -MAX_COST_MICRO))


def costs(sums: Sums, clients: frozenset[str]) -> tuple[Spent, set[tuple[str, str]]]:
    """What these clients spent by these sums, and whose prices are not known (provider, model)."""
    spent: Spent = {}
    unknown: set[tuple[str, str]] = set()
    for key, counters in sums.items():
        if key.client not in clients:
            continue
        if counters.unpriced_requests:
            unknown.add((key.provider, key.model_used))
        if amount := counters.cost_micro_usd * NANO_PER_MICRO:
            at = (key.client, key.hour // 24)
            spent[at] = min(spent.get(at, 0) + amount, MAX_COST)
    return spent, unknown


@dataclass(frozen=True, slots=True)
class ClientBudget:
    """What a client may spend. None: as much as it likes."""

    day_usd: Decimal | None = None
    month_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Exhausted:
    """A budget that has been spent."""

    until_s: int  # since 1970: when it begins anew
    words: str  # which one: "5.00 USD a day"


class Spending:
    """What clients have spent lately."""

    def __init__(self) -> None:
        self._spent: dict[str, dict[int, int]] = {}  # client → day → nano-USD

    def begin(self, spent: Mapping[tuple[str, int], int]) -> None:
        """Take what a store that was just opened holds."""
        self._spent = {}
        self.add(spent)

    def add(self, spent: Mapping[tuple[str, int], int]) -> None:
        """Count what the store has kept."""
        for (client, day), amount in spent.items():
            days = self._spent.setdefault(client, {})
            days[day] = days.get(day, 0) + amount
            for old in [one for one in days if one < max(days) - KEPT_DAYS]:
                del days[old]

    def exhausted(self, client: str, budget: ClientBudget, now_s: float) -> Exhausted | None:
        """The budget that a client has spent, if it has: of two the one that begins anew later."""
        today = int(now_s) // DAY_S
        days = self._spent.get(client, {})
        first, next_first = month_of(today)
        if budget.month_usd is not None:
            this_month = sum(amount for day, amount in days.items() if first <= day < next_first)
            if this_month >= budget.month_usd * NANO:
                return Exhausted(next_first * DAY_S, f"{usd(budget.month_usd)} a month")
        if budget.day_usd is not None and days.get(today, 0) >= budget.day_usd * NANO:
            return Exhausted((today + 1) * DAY_S, f"{usd(budget.day_usd)} a day")
        return None

    def spent(self, client: str, now_s: float) -> tuple[int, int]:
        """What a client has spent today and this month, in nano-USD."""
        today = int(now_s) // DAY_S
        days = self._spent.get(client, {})
        first, next_first = month_of(today)
        return days.get(today, 0), sum(amount for day, amount in days.items() if first <= day < next_first)


def month_of(day: int) -> tuple[int, int]:
    """The first days of a day's month and of the next one, in days since 1970."""
    first = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).replace(day=1)
    after = (first + timedelta(days=31)).replace(day=1)
    return int(first.timestamp()) // DAY_S, int(after.timestamp()) // DAY_S


def usd(amount: Decimal) -> str:
    """An amount as people write it, to the cent or as exactly as it was said."""
    cents = amount.quantize(Decimal("0.01"))
    return f"{cents if cents == amount else amount.normalize():f} USD"
