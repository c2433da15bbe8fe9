"""Budgets and leases as the contract has them: what a batch says of budgets in, leases out."""

from __future__ import annotations

from collections.abc import Callable

from ccr_rpc.v1 import usage_pb2
from google.protobuf.duration_pb2 import Duration

from ccr_control.core.leases import FORGET_AFTER_S, Amounts, BudgetName, Lease, Leases, Use


class Leasing:
    """Answers what nodes say of their budgets."""

    def __init__(self, leases: Leases, monotonic: Callable[[], float]) -> None:
        """`monotonic` is the clock that `leases` began with: its steps would free what is still spent."""
        self._leases, self._monotonic = leases, monotonic

    def answer(self, node_id: str, instance_id: str, batch: usage_pb2.UsageBatch) -> list[usage_pb2.Lease]:
        """The leases that the node of a batch is to get."""
        if not batch.HasField("status"):  # of a spool, or between two that say how the node is
            return []
        uses = {BudgetName(one.provider, one.scope, one.model_class): _use(one) for one in batch.budgets}
        return [_message(lease) for lease in self._leases.reported(node_id, instance_id, uses, self._monotonic())]


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


def _message(lease: Lease) -> usage_pb2.Lease:
    return usage_pb2.Lease(
        provider=lease.name.provider,
        scope=lease.name.scope,
        model_class=lease.name.model_class,
        share=usage_pb2.BudgetAmounts(
            requests=lease.share.requests,
            input_tokens=lease.share.input_tokens,
            output_tokens=lease.share.output_tokens,
            tokens=lease.share.tokens,
        ),
        serial=lease.serial,
        valid_for=Duration(seconds=int(FORGET_AFTER_S)),
    )
