"""Budgets and leases as the contract has them: what a batch says of budgets in, leases out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ccr_rpc.v1 import keys_pb2, usage_pb2
from google.protobuf.duration_pb2 import Duration

from ccr_control.core.burndown import BurnDown
from ccr_control.core.forecast import SAMPLE_EVERY_S, Trends
from ccr_control.core.leases import FORGET_AFTER_S, Amounts, BudgetName, Held, Lease, Leases, Use
from ccr_control.services.wire import timestamp

_KINDS = {
    "requests": keys_pb2.BUDGET_KIND_REQUESTS,
    "input_tokens": keys_pb2.BUDGET_KIND_INPUT_TOKENS,
    "output_tokens": keys_pb2.BUDGET_KIND_OUTPUT_TOKENS,
    "tokens": keys_pb2.BUDGET_KIND_TOKENS,
}


class Leasing:
    """Answers what nodes say of their budgets."""

    def __init__(self, leases: Leases, monotonic: Callable[[], float], now: Callable[[], float]) -> None:
        """`monotonic` is the clock that `leases` began with: its steps would free what is still spent. `now` is for showing."""
        self._leases, self._monotonic, self._now = leases, monotonic, now
        self._trends, self.burndown = Trends(), BurnDown()

    def budgets(self, provider: str = "") -> list[keys_pb2.ScopeBudget]:
        """What is known of the budgets of a provider, or (empty) of all."""
        now_s = self._monotonic()
        return [self._budget(one, now_s) for one in self._leases.held(now_s) if provider in ("", one.name.provider)]

    def _budget(self, held: Held, now_s: float) -> keys_pb2.ScopeBudget:
        message = keys_pb2.ScopeBudget(
            provider=held.name.provider,
            scope=held.name.scope,
            model_class=held.name.model_class,
            limits=_amounts_message(held.limits),
            used=_amounts_message(held.used),
            leased=_amounts_message(held.leased),
            nodes=held.nodes,
            asked=held.asked,
        )
        exhausted_in_s = self._trends.exhausted_in_s(held.name, held.limits, held.used, now_s)
        if exhausted_in_s is not None:
            message.exhausted_in.FromMilliseconds(round(exhausted_in_s * 1000))
        return message

    def note_trends(self) -> None:
        """Look at how much of each budget is used; to be called every SAMPLE_EVERY_S."""
        now_s = self._monotonic()
        held = self._leases.held(now_s)
        for one in held:
            self._trends.note(one.name, one.used, now_s)
        self.burndown.note(held, self._now())

    async def keep_trends(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            self.note_trends()
            await asyncio.sleep(SAMPLE_EVERY_S)

    def answer(self, node_id: str, instance_id: str, batch: usage_pb2.UsageBatch) -> list[usage_pb2.Lease]:
        """The leases that the node of a batch is to get."""
        if batch.is_last:
            self._leases.ended(node_id, instance_id, self._monotonic())
        if batch.is_last or not batch.HasField("status"):  # of a spool, or between two that say how the node is
            return []
        uses = {BudgetName(one.provider, one.scope, one.model_class): _use(one) for one in batch.budgets}
        return [_message(lease) for lease in self._leases.reported(node_id, instance_id, uses, self._monotonic())]


def history_message(
    burndown: BurnDown, budgets: Iterable[BudgetName], after: int, until: int
) -> keys_pb2.BudgetHistory:
    """The points of some budgets that have numbers above one and up to another."""
    return keys_pb2.BudgetHistory(
        at=map(timestamp, burndown.times(after, until)),
        lines=[
            keys_pb2.BudgetLine(
                provider=one.name.budget.provider,
                scope=one.name.budget.scope,
                model_class=one.name.budget.model_class,
                kind=_KINDS[one.name.kind],
                used_permille=one.used,
                leased_permille=one.leased,
            )
            for one in burndown.lines(budgets, after, until)
        ],
    )


def _use(message: usage_pb2.BudgetUse) -> Use:
    return Use(
        _amounts(message.limits),
        _amounts(message.share),
        _amounts(message.used),
        max(0, message.asked),
        message.serial,
    )


def _amounts(message: usage_pb2.BudgetAmounts) -> Amounts:
    found = (message.requests, message.input_tokens, message.output_tokens, message.tokens)
    return Amounts(*(max(0, one) for one in found))


def _amounts_message(amounts: Amounts) -> usage_pb2.BudgetAmounts:
    return usage_pb2.BudgetAmounts(
        requests=amounts.requests,
        input_tokens=amounts.input_tokens,
        output_tokens=amounts.output_tokens,
        tokens=amounts.tokens,
    )


def _message(lease: Lease) -> usage_pb2.Lease:
    return usage_pb2.Lease(
        provider=lease.name.provider,
        scope=lease.name.scope,
        model_class=lease.name.model_class,
        share=_amounts_message(lease.share),
        serial=lease.serial,
        valid_for=Duration(seconds=int(FORGET_AFTER_S)),
        limits=_amounts_message(lease.limits),
    )
