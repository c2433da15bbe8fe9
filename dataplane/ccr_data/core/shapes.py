"""What is read out of JSON, and nothing but the fields that are: msgspec makes decoders of these classes.

They have a module of their own because msgspec reads annotations, which compiled modules do not keep
(docs/adr/0017-compiled-hot-path.md).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ccr_data.core.records import MAX_COUNT

# Providers may say anything: numbers beyond this no float can hold, and no line of a log. A report with one is none.
Count = Annotated[int, msgspec.Meta(ge=-MAX_COUNT, le=MAX_COUNT)]


class Routed(msgspec.Struct):
    """Of a request's body: what routing needs."""

    model: str | None = None
    stream: bool | None = None


class Turn(msgspec.Struct):
    """One of a request's `messages`."""

    role: str
    content: msgspec.Raw


class CacheCreation(msgspec.Struct):
    """`usage.cache_creation`: cache writes by lifetime."""

    ephemeral_5m_input_tokens: Count | None = None
    ephemeral_1h_input_tokens: Count | None = None


class OutputDetails(msgspec.Struct):
    """`usage.output_tokens_details`."""

    thinking_tokens: Count | None = None


class Usage(msgspec.Struct):
    """`usage` of a message or of a `message_delta`; every field may be missing there."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_creation: CacheCreation | None = None
    output_tokens_details: OutputDetails | None = None


class Message(msgspec.Struct):
    """An answer, or `message` in a stream's `message_start`."""

    usage: Usage | None = None


class Event(msgspec.Struct):
    """An event of a stream that may carry usage."""

    type: str = ""
    message: Message | None = None
    usage: Usage | None = None


class ErrorDetails(msgspec.Struct):
    """`error.details` of a refusal."""

    error_code: str | None = None


class Error(msgspec.Struct):
    """`error` of a refusal."""

    details: ErrorDetails | None = None


class ErrorBody(msgspec.Struct):
    """A refusal's body."""

    error: Error | None = None


routed_of = msgspec.json.Decoder(Routed).decode
answer_of = msgspec.json.Decoder(Message).decode
event_of = msgspec.json.Decoder(Event).decode
error_of = msgspec.json.Decoder(ErrorBody).decode
