"""Records between the contract's messages and core/recent.py. Pure; used by the servicers only."""

from __future__ import annotations

from collections.abc import Iterable

from ccr_rpc.v1 import records_pb2, usage_pb2

from ccr_control.core.ledger import Finished
from ccr_control.core.recent import About, Filter, Noted, Recent

_RECORD = records_pb2.StoredRecord.RECORD_FIELD_NUMBER << 3 | 2  # a length-delimited field
_RECORDS = records_pb2.TailRecordsResponse.RECORDS_FIELD_NUMBER << 3 | 2


def note(recent: Recent, node_id: str, record: usage_pb2.RequestRecord, request: Finished) -> None:
    """Keep a record that arrived; it is encoded once, however many look at it."""
    encoded = record.SerializeToString()
    besides = records_pb2.StoredRecord(node_id=node_id)
    if not request.unpriced:
        besides.cost_usd = request.cost_micro_usd / 1e6
    stored = field_of(_RECORD, encoded) + besides.SerializeToString()  # messages of one type may be joined
    recent.note(record.request_id, node_id, encoded, stored, _about(record))


def _about(record: usage_pb2.RequestRecord) -> About:
    started, attempts = record.started_at, record.attempts
    return About(
        started.seconds + started.nanos / 1e9,
        record.client,
        record.session,
        tuple((one.provider, one.key_label) for one in attempts),
        record.model_asked,
        record.outcome,
        record.status,
        any(one.reason and one.reason != "client_left" for one in attempts),
        record.total_us,
        record.route,
    )


def filter_of(message: records_pb2.RecordFilter, since_s: float = 0.0) -> Filter:
    """Which records somebody wants."""
    return Filter(
        client=message.client,
        session=message.session,
        provider=message.provider,
        key_label=message.key_label,
        model=message.model,
        outcome=message.outcome,
        min_status=message.min_status,
        with_failed_attempt=message.with_failed_attempt,
        min_total_us=message.min_total_us,
        route=message.route,
        since_s=since_s,
    )


def tail_bytes(records: Iterable[Noted], skipped: int) -> bytes:
    """A TailRecordsResponse, made of what was encoded when the records came."""
    head = records_pb2.TailRecordsResponse(skipped=skipped).SerializeToString()
    return head + b"".join(field_of(_RECORDS, one.stored) for one in records)


def field_of(tag: int, payload: bytes) -> bytes:
    """A length-delimited field; the tag must be below 128."""
    return b"".join((bytes([tag]), varint(len(payload)), payload))


def varint(value: int) -> bytes:
    """A length as protobuf writes it."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def as_it_is(encoded: bytes) -> bytes:
    """In the place of a serializer, for what is encoded already."""
    return encoded
