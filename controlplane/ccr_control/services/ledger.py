"""UsageLedgerService: what was used and what it cost, by any dimension; prices; budgets of clients."""

# ruff: noqa: ARG002, N802 - names and arguments of handlers are the contract's

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import grpc.aio
from ccr_rpc.v1 import ledger_pb2, ledger_pb2_grpc

from ccr_control.core.errors import Malformed, NotNow
from ccr_control.core.pricing import PRICED_ON, SOURCE, Price
from ccr_control.core.report import Dimension, arranged, question
from ccr_control.core.spending import DAY_S, NANO_PER_MICRO, ClientBudget, PriceBook, month_of
from ccr_control.services.figures_wire import DIMENSIONS, cost_line
from ccr_control.services.wire import timestamp
from ccr_control.shell.events import Asking
from ccr_control.store.actor import StoreUnavailable

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic for type checkers only


class Spending(Protocol):
    """What is known of prices and budgets."""

    @property
    def book(self) -> PriceBook: ...
    @property
    def budgets(self) -> Mapping[str, ClientBudget]: ...

    def spent(self, client: str) -> tuple[int, int]:
        """What a client has spent today and this month, in nano-USD."""


class LedgerServicer(ledger_pb2_grpc.UsageLedgerServiceServicer):
    """Reports."""

    def __init__(self, store: Asking, spending: Spending, now: Callable[[], float]) -> None:
        self._store, self._spending, self._now = store, spending, now

    async def GetCostReport(
        self, request: ledger_pb2.GetCostReportRequest, context: Context
    ) -> ledger_pb2.GetCostReportResponse:
        """Sums over a span of time, broken down."""
        now_s = self._now()
        by = [_dimension(one, "by") for one in request.by]
        where = [(_dimension(one.dimension, "where"), one.value) for one in request.where]
        since_s = float(request.since.seconds) if request.HasField("since") else None
        until_s = float(request.until.seconds) if request.HasField("until") else None
        asked = question(by, where, since_s, until_s, now_s)
        arranged((), by, request.limit)  # a limit that cannot be is refused before the store is asked
        try:
            lines = await self._store.ask(lambda tables: tables.report(asked))
        except StoreUnavailable as error:
            raise NotNow("STORE_UNAVAILABLE", f"the store cannot be read now: {error}") from error
        report = arranged(lines, by, request.limit)
        return ledger_pb2.GetCostReportResponse(
            lines=[cost_line(values, counters) for values, counters in report.lines],
            total=cost_line((), report.total),
            at=timestamp(now_s),
        )

    async def ListPrices(
        self, request: ledger_pb2.ListPricesRequest, context: Context
    ) -> ledger_pb2.ListPricesResponse:
        """The relay's table, then what the configuration says."""
        found: list[ledger_pb2.Price] = []
        for provider, pattern, price in self._spending.book.listed():
            found.append(_price_message(provider, pattern, price))
            if price.long is not None:
                found.append(
                    _price_message(provider, pattern, price.times(price.long.factor), price.long.above_prompt_tokens)
                )
        return ledger_pb2.ListPricesResponse(prices=found)

    async def ListClientBudgets(
        self, request: ledger_pb2.ListClientBudgetsRequest, context: Context
    ) -> ledger_pb2.ListClientBudgetsResponse:
        """One for each client and period, by name."""
        return ledger_pb2.ListClientBudgetsResponse(
            budgets=[
                one
                for client, budget in sorted(self._spending.budgets.items())
                for one in self._budgets_of(client, budget)
            ]
        )

    def _budgets_of(self, client: str, budget: ClientBudget) -> list[ledger_pb2.ClientBudget]:
        day = int(self._now()) // DAY_S
        today, this_month = self._spending.spent(client)
        periods = (
            ("day", budget.day_usd, today, day + 1),
            ("month", budget.month_usd, this_month, month_of(day)[1]),
        )
        return [
            ledger_pb2.ClientBudget(
                client=client,
                period=period,
                limit_micro_usd=int(limit * 10**6),
                spent_micro_usd=spent // NANO_PER_MICRO,
                ends_at=timestamp(end * DAY_S),
            )
            for period, limit, spent, end in periods
            if limit is not None
        ]


def _price_message(provider: str, pattern: str, price: Price, above_prompt_tokens: int = 0) -> ledger_pb2.Price:
    write_5m = price.input if price.cache_write_5m is None else price.cache_write_5m
    return ledger_pb2.Price(
        provider=provider,
        pattern=pattern,
        input=price.input,
        output=price.output,
        cache_read=price.input if price.cache_read is None else price.cache_read,
        cache_write_5m=write_5m,
        cache_write_1h=write_5m if price.cache_write_1h is None else price.cache_write_1h,
        above_prompt_tokens=above_prompt_tokens,
        as_of="" if provider else PRICED_ON,
        source="the configuration" if provider else SOURCE,
    )


def _dimension(number: int, where: str) -> Dimension:
    found = DIMENSIONS.get(number)
    if found is None:
        raise Malformed("BAD_DIMENSION", f"{where}: {number} is no dimension; use for example DIMENSION_MODEL")
    return found
