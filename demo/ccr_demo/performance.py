"""How an answer is sent: the head, then one act after another.

Pure. The shell plays a performance without deciding anything.
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from ccr_demo.compose import PING, sse
from ccr_demo.errors import ApiError, error_object, type_of
from ccr_demo.script import Answer


@dataclass(frozen=True, slots=True)
class Send:
    """One write; in a chunked answer exactly one HTTP chunk. `is_event` counts for steps and statistics."""

    data: bytes
    is_event: bool = True


@dataclass(frozen=True, slots=True)
class Pause:
    """Silence."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AwaitStep:
    """Wait until POST /__demo/step lets the next event go."""

    gate: str


@dataclass(frozen=True, slots=True)
class Break:
    """The connection ends here: `close` with FIN, `reset` with RST."""

    how: Literal["close", "reset"]


Act = Send | Pause | AwaitStep | Break
Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers. `length` is None for a chunked answer."""

    status: int
    headers: Headers
    length: int | None


@dataclass(frozen=True, slots=True)
class Performance:
    """`head` is None where the acts write the head themselves, or where there is none."""

    head: Head | None
    acts: tuple[Act, ...]
    before_head_s: float = 0.0
    is_stream: bool = False
    closes: bool = False  # the connection, after the last act


SSE_HEADERS: Headers = (("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"))
HTML = """<!DOCTYPE html>
<html lang="en-US"><head><title>api.anthropic.com | {status}: Bad gateway</title></head>
<body><h1>Error {status}</h1><p>The web server reported a bad gateway error.</p><p>cloudflare</p></body></html>
"""


def of_body(status: int, body: bytes, headers: Headers, content_type: str = "application/json") -> Performance:
    """A plain answer."""
    return Performance(Head(status, (("content-type", content_type), *headers), len(body)), (Send(body),))


def of_error(error: ApiError, request_id: str, headers: Headers) -> Performance:
    """An error answer in the API's shape."""
    return of_body(error.status, error.body(request_id), merged(headers, error.headers))


def of_events(events: Sequence[bytes], answer: Answer, headers: Headers, pace_ms: float) -> Performance:
    """A stream of events, paced, gapped, cut and encoded as the answer says."""
    return of_chunks(_with_pings(events, answer.ping_every), answer, headers, pace_ms)


def of_chunks(chunks: Sequence[bytes], answer: Answer, headers: Headers, pace_ms: float) -> Performance:
    """Raw chunks of an SSE answer: nothing is added, nothing merged."""
    acts = _staged(chunks, answer, pace_ms)
    return _performed(answer.status, merged(SSE_HEADERS + headers, _own_headers(answer)), acts, answer)


def of_raw_response(writes: Sequence[bytes], answer: Answer, pace_ms: float) -> Performance:
    """Head and body as written by the script; the connection closes behind them."""
    acts = _staged(writes, answer, pace_ms)
    return Performance(None, tuple(acts), answer.pause_before_head_ms / 1000, closes=True)


def of_message(body: dict[str, Any], answer: Answer, headers: Headers) -> Performance:
    """A message without streaming."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return _whole(answer, text, (("content-type", "application/json"), *headers))


def of_scripted_body(answer: Answer, request_id: str, headers: Headers) -> Performance:
    """An answer that is no message: an error, a web page, or what the script spelled out."""
    kind, text = _scripted_body(answer, request_id)
    return _whole(answer, text, (("content-type", kind), *headers))


def merged(base: Headers, changes: Headers) -> Headers:
    """Headers with later ones replacing earlier ones of the same name; an empty value takes one away."""
    replaced = {name.lower() for name, _ in changes}
    kept = tuple((name, value) for name, value in base if name.lower() not in replaced)
    return kept + tuple((name, value) for name, value in changes if value)


def _scripted_body(answer: Answer, request_id: str) -> tuple[str, bytes]:
    if answer.body is not None:
        return "text/plain; charset=utf-8", answer.body.encode()
    if answer.json is not msgspec.UNSET:
        return "application/json", json.dumps(answer.json, ensure_ascii=False).encode()
    if answer.html:
        return "text/html; charset=UTF-8", HTML.format(status=answer.status).encode()
    given = answer.error if isinstance(answer.error, dict) else {"message": answer.error or ""}
    details = given.get("details")
    error = ApiError(
        answer.status,
        str(given.get("message", "")),
        str(given.get("type", type_of(answer.status))),
        details if isinstance(details, dict) else None,
    )
    return "application/json", error.body(request_id)


def _own_headers(answer: Answer) -> Headers:
    headers = list(answer.headers.items())
    if answer.retry_after_s is not None:
        headers.append(("retry-after", f"{answer.retry_after_s:g}"))
    if answer.should_retry is not None:
        headers.append(("x-should-retry", "true" if answer.should_retry else "false"))
    return tuple(headers)


def _whole(answer: Answer, body: bytes, headers: Headers) -> Performance:
    """A body of known length; cut in the middle if the answer says so."""
    headers = merged(headers, _own_headers(answer))
    if answer.content_encoding:
        encoder = _encoder(answer.content_encoding)
        body = encoder.compress(body) + encoder.flush()
        headers = (*headers, ("content-encoding", answer.content_encoding))
    acts: list[Act] = [Pause(answer.pause_before_first_ms / 1000)] if answer.pause_before_first_ms else []
    if answer.cut_after_event is None:
        acts.append(Send(body))
    else:
        acts += [Send(body[: len(body) // 2]), Break("reset" if answer.cut == "reset" else "close")]
    head = Head(answer.status, headers, len(body)) if answer.cut_after_event != -1 else None
    if head is None:
        acts = [Break("reset" if answer.cut == "reset" else "close")]
    return Performance(head, tuple(acts), answer.pause_before_head_ms / 1000)


def _performed(status: int, headers: Headers, acts: list[Act], answer: Answer) -> Performance:
    if answer.cut_after_event == -1:
        silent = (Break("reset" if answer.cut == "reset" else "close"),)
        return Performance(None, silent, answer.pause_before_head_ms / 1000)
    if answer.content_encoding:
        acts = _encoded(acts, answer.content_encoding)
        headers = (*headers, ("content-encoding", answer.content_encoding))
    return Performance(Head(status, headers, None), tuple(acts), answer.pause_before_head_ms / 1000, is_stream=True)


def _with_pings(events: Sequence[bytes], every: int) -> list[bytes]:
    if every <= 0:
        return list(events)
    mixed = []
    for count, event in enumerate(events, 1):
        mixed.append(event)
        if count % every == 0 and count < len(events):
            mixed.append(PING)
    return mixed


def _staged(events: Sequence[bytes], answer: Answer, pace_ms: float) -> list[Act]:
    delay_s = (pace_ms if answer.delay_ms is None else answer.delay_ms) / 1000
    acts: list[Act] = [Pause(answer.pause_before_first_ms / 1000)] if answer.pause_before_first_ms else []
    for count, event in enumerate(events):  # `count` events were sent so far
        ending = _ending(answer, count)
        if ending is not None:
            return acts + ending
        if count and answer.step:
            acts.append(AwaitStep(answer.id))
        if count and delay_s:
            acts.append(Pause(delay_s))
        acts.append(Send(event))
        if answer.gap_s and count + 1 == answer.gap_after_event:
            acts.append(Pause(answer.gap_s))
    return acts + (_ending(answer, len(events)) or [])


def _ending(answer: Answer, sent: int) -> list[Act] | None:
    """How the stream ends here although the model has not finished; None if it goes on."""
    if answer.error_event is not None and sent == answer.error_event_after:
        fields = error_object(answer.error_event, answer.error_event_message)
        return [Send(sse("error", {"error": fields["error"]}))]
    if answer.cut_after_event == sent:
        return [] if answer.cut == "end" else [Break(answer.cut)]
    return None


def _encoded(acts: list[Act], coding: str) -> list[Act]:
    """The acts with their bytes compressed, flushed after each so that every event can be read at once."""
    encoder = _encoder(coding)
    out: list[Act] = []
    for act in acts:
        if isinstance(act, Send):
            out.append(Send(encoder.compress(act.data) + encoder.flush(zlib.Z_SYNC_FLUSH)))
        else:
            out.append(act)
    if not any(isinstance(act, Break) for act in acts):
        out.append(Send(encoder.flush(), is_event=False))
    return out


def _encoder(coding: str) -> "zlib._Compress":
    return zlib.compressobj(wbits=31 if coding == "gzip" else 15)
