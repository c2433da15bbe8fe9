"""Batches in the contract's serialised form, made in parts.

Serialised messages of one type may be joined: repeated fields append, the last scalar wins, sub-messages merge
(protobuf.dev, "Last One Wins"). So a batch is encoded piece by piece, its bytes never change once it has a number,
and what is only true at the moment of sending (the node's status, another journal's name) is appended to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ccr_rpc.v1 import usage_pb2
from google.protobuf.message import DecodeError, EncodeError

from ccr_data.core.amounts import Allowance
from ccr_data.core.budget import BudgetUse, Lease
from ccr_data.core.drift import UnknownName
from ccr_data.core.failures import FailureSighting
from ccr_data.core.folding import SumKey, UsageSum
from ccr_data.core.node import NodeIdentity, NodeStatus
from ccr_data.core.records import RateLimitSighting, Record, make_sound, sound_text, within
from ccr_data.shell.wire import fill_record, fill_sum, from_failure, from_sighting

_BATCH_FIELD = bytes([usage_pb2.ReportUsageRequest.BATCH_FIELD_NUMBER << 3 | 2])  # a length-delimited field
_UNFIT = (ValueError, TypeError, OverflowError, EncodeError)  # what protobuf raises for text or numbers it cannot hold


class UsageEncoder:
    """Writes batches as the contract has them."""

    def head(self, journal: str, number: int) -> bytes:
        """The name of a batch."""
        return usage_pb2.UsageBatch(journal=journal, number=number).SerializeToString()

    def records(self, records: Sequence[Record]) -> bytes:
        """Finished requests, one by one."""
        try:
            return _records(records)
        except _UNFIT:
            for record in records:
                make_sound(record)
            return _records(records)

    def sums(self, sums: Mapping[SumKey, UsageSum]) -> bytes:
        """Finished requests, folded."""
        batch = usage_pb2.UsageBatch()
        for key, part in sums.items():
            fill_sum(batch.sums.add(), key, part)
        return batch.SerializeToString()

    def sightings(self, sightings: Iterable[RateLimitSighting]) -> bytes:
        """Rate-limit headers."""
        return usage_pb2.UsageBatch(rate_limits=[from_sighting(seen) for seen in sightings]).SerializeToString()

    def failures(self, failures: Iterable[FailureSighting]) -> bytes:
        """News of failed attempts."""
        return usage_pb2.UsageBatch(failures=[from_failure(one) for one in failures]).SerializeToString()

    def unknowns(self, unknowns: Mapping[UnknownName, int]) -> bytes:
        """Names that are not known, and how often they were seen."""
        seen = [
            usage_pb2.UnknownSeen(kind=one.kind, name=one.name, said_by=sound_text(one.said_by), count=count)
            for one, count in unknowns.items()
        ]
        return usage_pb2.UsageBatch(unknowns=seen).SerializeToString()


def _records(records: Sequence[Record]) -> bytes:
    batch = usage_pb2.UsageBatch()
    for record in records:
        fill_record(batch.records.add(), record)
    return batch.SerializeToString()


def status_suffix(status: NodeStatus, spooled_bytes: int, resident_bytes: int) -> bytes:
    """What a batch says besides, if this is appended to it."""
    message = usage_pb2.NodeStatus(
        open_requests=status.open_requests,
        open_connections=status.open_connections,
        unauthorized_total=status.unauthorized_total,
        spooled_bytes=spooled_bytes,
        resident_bytes=resident_bytes,
        open=[
            usage_pb2.OpenRequests(provider=provider, requests=requests)
            for provider, requests in status.open_by_provider
        ],
    )
    budgets = [_budget_use(use) for use in status.budgets]
    return usage_pb2.UsageBatch(status=message, budgets=budgets).SerializeToString()


def _budget_use(use: BudgetUse) -> usage_pb2.BudgetUse:
    return usage_pb2.BudgetUse(
        provider=use.scope[0],
        scope=sound_text(use.scope[1]),
        model_class=use.model_class,
        limits=_amounts(use.limits),
        share=_amounts(use.share),
        used=_amounts(use.used),
        asked=use.asked,
        serial=use.serial,
    )


def _amounts(of: Allowance) -> usage_pb2.BudgetAmounts:
    requests, input_tokens, output_tokens, tokens = map(within, of)
    return usage_pb2.BudgetAmounts(
        requests=requests, input_tokens=input_tokens, output_tokens=output_tokens, tokens=tokens
    )


def lease_of(message: usage_pb2.Lease) -> Lease:
    """A lease as a value."""
    share = _allowance(message.share)
    limits = _allowance(message.limits) if message.HasField("limits") else share
    return Lease((message.provider, message.scope), message.model_class, share, message.serial, limits)


def _allowance(of: usage_pb2.BudgetAmounts) -> Allowance:
    return Allowance(of.requests, of.input_tokens, of.output_tokens, of.tokens)


def journal_suffix(journal: str) -> bytes:
    """Appended to a batch, it has this journal's name."""
    return usage_pb2.UsageBatch(journal=journal).SerializeToString()


def last_suffix() -> bytes:
    """Appended to a batch, it says that the process ends."""
    return usage_pb2.UsageBatch(is_last=True).SerializeToString()


def hello_request(node: NodeIdentity) -> bytes:
    """The first request of a usage stream."""
    hello = usage_pb2.ReporterHello(node_id=node.node_id, instance_id=node.instance_id)
    return usage_pb2.ReportUsageRequest(hello=hello).SerializeToString()


def batch_request(payload: bytes, suffix: bytes = b"") -> bytes:
    """A request that carries a batch, without parsing it."""
    return b"".join((_BATCH_FIELD, _varint(len(payload) + len(suffix)), payload, suffix))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def journal_of(payload: bytes, number: int) -> str | None:
    """The journal that a batch from a file belongs to; None if it is no batch of that number."""
    try:
        batch = usage_pb2.UsageBatch.FromString(payload)
    except DecodeError:
        return None
    return batch.journal if batch.number == number and batch.journal else None
