"""What the client of one request gets: head, pieces, pings, the end of a broken stream, and the relay's own errors.

The lower half of an exchange (shell/exchange.py): it decides nothing about targets. It knows how an answer travels (core/framing.py),
when the client last heard something, and where in the stream events may be added; and it has the answer's usage read as it passes.
"""

from __future__ import annotations

import enum
from time import perf_counter
from typing import TYPE_CHECKING

from ccr_data.core import answers
from ccr_data.core.framing import (
    LAST_CHUNK,
    MAX_RANGES,
    SHORT,
    Body,
    Passing,
    broken_end,
    chunk,
    client_head,
    discarding,
    gathered,
    is_event_end,
    joined,
    passing_of,
)
from ccr_data.core.http1 import AnswerHead, ChunkWalker
from ccr_data.core.records import Record
from ccr_data.core.snapshot import Snapshot, Target
from ccr_data.core.sse import UsageTap, note_json_usage
from ccr_data.providers.adapter import ClientRequest

if TYPE_CHECKING:
    from ccr_data.shell.cloud_connection import Upstream
    from ccr_data.shell.http_server import ClientConnection
    from ccr_data.shell.relay import Relay

MAX_READ_ANSWER_BYTES = 1 << 20  # larger answers that are not streams go uncounted


class State(enum.Enum):
    """Where the current attempt is."""

    WAITING = 0
    HOLDING = 1
    COLLECTING = 2
    RELAYING = 3
    OVER = 4
    CHECKING = 5


# Looked up as globals: reaching an enum's member through its class takes ten times as long on Python 3.11.
WAITING, HOLDING, COLLECTING, RELAYING, OVER, CHECKING = State
VERBATIM, RECHUNKED, PAYLOAD = Passing
NO_BODY, UNTIL_CLOSE = Body.NONE, Body.UNTIL_CLOSE


class Answering:
    """The client's side of an exchange."""

    __slots__ = (
        "_answer_size",
        "_began_s",
        "_body",
        "_client",
        "_deadline_s",
        "_has_begun",
        "_head",
        "_json",
        "_last",
        "_last_sent_s",
        "_out",
        "_passing",
        "_relay",
        "_request",
        "_snapshot",
        "_state",
        "_stores_json",
        "_tap",
        "_target",
        "_upstream",
        "_walker",
        "record",
    )

    def __init__(
        self,
        relay: Relay,
        client: ClientConnection,
        request: ClientRequest,
        snapshot: Snapshot,
        record: Record,
        target: Target,
    ) -> None:
        self._relay = relay
        self._client = client
        self._request: ClientRequest | None = request  # let go at commit: bodies are large, streams long
        self._snapshot = snapshot
        self.record = record
        self._state: State = WAITING
        self._began_s = perf_counter()
        self._last_sent_s = relay.clock_s
        self._deadline_s = 0.0
        self._upstream: Upstream | None = None
        self._walker: ChunkWalker | None = None  # over the answer's chunks, if it has any
        self._target: Target = target
        self._head: AnswerHead | None = None
        self._body: Body = NO_BODY
        self._passing: Passing = VERBATIM
        self._has_begun = False  # the client already has a head, of an answer that is the relay's own so far
        self._out: list[bytes] = []
        self._tap: UsageTap | None = None
        self._json: list[bytes] = []  # payload of an answer whose usage is read at the end
        self._stores_json = False
        self._last = (b"", 0)  # the piece relayed last, where its payload ends; a short one with those before it
        self._answer_size = 0

    # --- an answer that passes ------------------------------------------------------------------------------------

    def _begin_answer(self, now_s: float) -> None:
        """From here on the provider's answer is the client's; the state is RELAYING."""
        head, request = self._head, self._request
        assert head is not None
        assert request is not None
        self._passing = passing_of(self._body, is_http10=request.head.is_http10, has_begun=self._has_begun)
        self._request = None
        self.record.status = head.status
        if head.is_event_stream:
            drift, tokens = self._relay.drift, self.record.tokens
            self._tap = drift.tap(tokens, self._target.provider.name) if drift.wants_stream else UsageTap(tokens)
        elif head.status == 200 and b"content-encoding" not in head.special:
            self._stores_json = True
        if self._client.is_write_paused and self._upstream is not None:
            self._upstream.pause()
        if not self._has_begun:
            self.record.first_byte_s = now_s - self._began_s
            closes = self._client.is_closing_after or self._passing is PAYLOAD
            self._out.append(client_head(head, self._body, self._passing, self._own_lines(), closes=closes))

    def _relay_piece(self, data: bytes, ranges: list[tuple[int, int]]) -> None:
        """Pass a piece on; look at it only after that."""
        out = self._out
        if self._passing is VERBATIM:
            out.append(data)
        else:
            for start, end in ranges:
                payload = data[start:end]
                out.append(chunk(payload) if self._passing is RECHUNKED else payload)
        self.flush()
        tap = self._tap
        if len(ranges) > MAX_RANGES:
            data, ranges = gathered(data, ranges)
        for start, end in ranges:
            self._answer_size += end - start
            if tap is not None:
                tap.feed(data, start, end)
                self._last = (data, end) if end - start >= SHORT else joined(*self._last, data[start:end])
            elif self._stores_json:
                self._json.append(data[start:end])
        if self._stores_json and self._answer_size > MAX_READ_ANSWER_BYTES:
            self._stores_json = False
            self._json.clear()

    def _end_answer(self, *, is_cut: bool = False, what_broke: str = "") -> bool:
        """Send the end; whether the client can tell that it is one. A stream that was cut ends as Anthropic would end it."""
        if not is_cut:
            if self._passing is RECHUNKED:
                self._out.append(LAST_CHUNK)
            self.flush()
            return True
        end = None
        if self._tap is not None:
            data, at = self._last
            message = f"the stream of provider {self._target.provider.name} {what_broke}"
            event = answers.error_event("api_error", message, self.record.request_id)
            end = broken_end(discarding(data, at) + event, self._passing, self._walker)
        if end is None:
            self._out.clear()
            return False
        self._out.append(end)
        self.flush()
        return True

    def _read_usage(self) -> None:
        """Take the usage from an answer that was no stream."""
        if self._stores_json and self._json:
            note_json_usage(self.record.tokens, b"".join(self._json))
            self._json.clear()

    # --- answers in one piece -------------------------------------------------------------------------------------

    def _send_whole(self, head: AnswerHead, body: bytes) -> None:
        """A provider's answer that was kept: as it came, but in one piece."""
        self._head = head
        head.content_length = len(body)
        head.is_chunked = False
        self.record.status = head.status
        closes = self._client.is_closing_after
        self._client.write(client_head(head, Body.LENGTH, VERBATIM, self._own_lines(), closes=closes) + body)
        self._answer_size = len(body)

    def _send_error(self, status: int, kind: str, message: str, lines: bytes = b"") -> None:
        """An error of the relay's own: as an answer, or as the last event of the stream that it has begun."""
        request_id = self.record.request_id
        if self._has_begun:
            self._write(chunk(answers.error_event(kind, message, request_id)) + LAST_CHUNK)
            return
        self.record.status = status
        body = answers.error_body(kind, message, request_id)
        lines = b"%brequest-id: %b\r\n" % (lines, request_id.encode())
        self._client.write(answers.answer(status, body, lines, closes=self._client.is_closing_after))

    def _own_lines(self) -> bytes:
        """The relay's own header lines."""
        if not self._snapshot.relay.has_answer_headers:
            return b""
        record = self.record
        lines = b"%b%b\r\nx-cc-relay-attempts: %d\r\n" % (
            self._target.answer_lines,
            record.request_id.encode(),
            len(record.attempts),
        )
        return lines + b"x-cc-relay-warning: %b\r\n" % record.warning.encode("latin-1") if record.warning else lines

    # --- bytes ----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what one read brought, in one piece where that is cheap."""
        out = self._out
        if not out:
            return
        self._out = []
        self._write(out[0] if len(out) == 1 else b"".join(out))

    def _write(self, data: bytes) -> None:
        clock_s = self._relay.clock_s
        self._last_sent_s = clock_s
        if self._state is RELAYING:
            self._deadline_s = clock_s + self._target.provider.timeouts.idle_s
        self._client.write(data)

    # --- into silence ---------------------------------------------------------------------------------------------

    def _begin_own_stream(self) -> None:
        """The client has waited long enough: give it a head and pings until a provider has content."""
        self._has_begun = True
        self.record.status = 200
        self.record.first_byte_s = perf_counter() - self._began_s
        self._client.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
            + self._own_lines()
            + (b"connection: close\r\n" if self._client.is_closing_after else b"")
            + b"transfer-encoding: chunked\r\n\r\n"
        )

    def _ping_before_content(self) -> None:
        """Where the client can take a stream of the relay's own: begin one, and ping."""
        if self._request is None or self._request.head.is_http10:
            return
        if not self._has_begun:
            self._begin_own_stream()
        self._write(chunk(answers.PING_EVENT))

    def _ping_between_events(self) -> None:
        """In the provider's stream, if it is between two events."""
        data, at = self._last
        upstream = self._upstream
        if self._tap is None or upstream is None or not is_event_end(data, at):
            return
        ping = answers.PING_EVENT
        if self._passing is VERBATIM:
            if upstream.walker is None or not upstream.walker.is_between_chunks:
                return
            ping = chunk(ping)
        elif self._passing is RECHUNKED:
            ping = chunk(ping)
        deadline_s = self._deadline_s  # pings of ours do not make the provider any less silent
        self._write(ping)
        self._deadline_s = deadline_s
