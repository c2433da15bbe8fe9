"""HTTP/1.1 as bytes: heads of requests and answers, and the chunked coding. Pure, strict, without copies of bodies.

Strictness (RFC 9112): a bare CR or LF, a space before a colon, a folded line, a repeated or non-digit Content-Length,
and a Content-Length beside a Transfer-Encoding are refused, so that the relay and its upstream can never disagree on where a
message ends. tests/property/test_http1.py holds this parser against llhttp.

Speed: a client sends nearly the same header lines with every request, so a line is classified once and looked up after
that, as a whole. Of lines with secrets, and of those that hardly come twice, only the name is remembered.
"""

from __future__ import annotations

import enum
import re
from typing import Literal

from ccr_data.core.errors import BadRequest, UpstreamBroken

MAX_REMEMBERED_LINES = 4096
MAX_REMEMBERED_LINE_BYTES = 1024
MAX_REMEMBERED_NAMES = 1024
MAX_REMEMBERED_NAME_BYTES = 64
MAX_HEADER_LINES = 256

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[\x21-\x22\x24-\x7e]*) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_LENGTH_LINE = re.compile(rb"[Cc]ontent-[Ll]ength: ([0-9]{1,18})")  # as clients write it
# A name or address with an optional port, so that what is made of it (core/framing.py, own_base_url) stays one.
_HOST = re.compile(rb"(?:[0-9A-Za-z._~-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_HEX = b"0123456789abcdefABCDEF"

# What becomes of a header line: KEEP, DROP, or for one that the relay reads (name, value, whether it goes on as it came).
Entry = bool | tuple[bytes, bytes, bool]
KEEP: Literal[True] = True
DROP: Literal[False] = False

_HOP_BY_HOP = frozenset(
    (b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"upgrade")
)
# Headers of a request that the relay reads or replaces; they are not passed on as they came.
_REQUEST_SPECIAL = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"expect",
        b"x-api-key",
        b"authorization",
        b"origin",
    )
)
# Where clouds and gateways take credentials: whatever a client has there is not for the provider that its request goes to.
_FOREIGN_CREDENTIALS = frozenset(
    (b"api-key", b"x-goog-api-key", b"x-amz-security-token", b"ocp-apim-subscription-key", b"x-auth-token")
)
# `cookie` belongs to the relay's host, not the provider's; encodings are the relay's own choice (shell/upstream.py).
_REQUEST_DROPPED = _HOP_BY_HOP | _FOREIGN_CREDENTIALS | {b"accept-encoding", b"cookie"}
# Headers that are passed on, and read besides.
_REQUEST_READ = frozenset((b"x-claude-code-session-id", b"x-claude-code-agent-id", b"anthropic-beta"))

_ANSWER_SPECIAL = frozenset((b"content-length", b"transfer-encoding", b"connection"))
# `alt-svc` and `strict-transport-security` speak of the provider's host and would be taken to speak of the relay's.
_ANSWER_DROPPED = _HOP_BY_HOP | {b"alt-svc", b"strict-transport-security"}
_ANSWER_READ = frozenset(
    (
        b"content-type",
        b"content-encoding",
        b"retry-after",
        b"request-id",
        b"anthropic-organization-id",
        b"anthropic-ratelimit-requests-limit",  # of the others only few answers are read (core/limit_headers.py)
        b"x-should-retry",
    )
)
# Secrets are never kept, and what differs every time would only fill the memory.
_NOT_REMEMBERED = _FOREIGN_CREDENTIALS | {
    b"x-api-key",
    b"authorization",
    b"proxy-authorization",
    b"cookie",
    b"set-cookie",
    b"request-id",
}
_OF_VALUES = bytes((9, *range(0x20, 0x7F), *range(0x80, 0x100)))


class RequestHead:
    """The head of a client's request."""

    def __init__(
        self,
        method: bytes,
        target: bytes,
        path: bytes,
        lines: list[bytes],
        special: dict[bytes, bytes],
        content_length: int,
        is_chunked: bool,
        is_keep_alive: bool,
        is_http10: bool,
    ) -> None:
        self.method = method
        self.target = target  # path and query as they came
        self.path = path
        self.lines = lines  # header lines to pass on, as they came, without line ends
        self.special = special  # lower-case name → value of the headers that the relay reads
        self.content_length = content_length  # 0 if none is given or the body is chunked
        self.is_chunked = is_chunked
        self.is_keep_alive = is_keep_alive
        self.is_http10 = is_http10

    def copied(self, *, lines: list[bytes] | None = None, content_length: int = -1) -> RequestHead:
        """The same with other lines, or another length."""
        return RequestHead(
            self.method,
            self.target,
            self.path,
            self.lines if lines is None else lines,
            self.special,
            self.content_length if content_length < 0 else content_length,
            self.is_chunked,
            self.is_keep_alive,
            self.is_http10,
        )

    def __repr__(self) -> str:  # its lines hold credentials
        return f"RequestHead({self.method!r}, {len(self.lines)} lines)"


class AnswerHead:
    """The head of an upstream's answer."""

    def __init__(
        self,
        status: int,
        status_line: bytes,
        lines: list[bytes],
        special: dict[bytes, bytes],
        content_length: int | None,
        is_chunked: bool,
        is_keep_alive: bool,
        is_event_stream: bool,
    ) -> None:
        self.status = status
        self.status_line = status_line
        self.lines = lines  # header lines to pass on, as they came, without line ends
        self.special = special
        self.content_length = content_length
        self.is_chunked = is_chunked
        self.is_keep_alive = is_keep_alive
        self.is_event_stream = is_event_stream  # an SSE stream that the relay can read

    def __repr__(self) -> str:  # its lines may hold cookies
        return f"AnswerHead({self.status}, {len(self.lines)} lines)"


class _Meaning(enum.Enum):
    """What a header is to the relay."""

    PASSED = 0  # goes on as it came
    DROPPED = 1  # of this hop only
    READ = 2  # goes on as it came, and is read
    TAKEN = 3  # is read or replaced, and does not go on as it came


def _meanings(taken: frozenset[bytes], read: frozenset[bytes], dropped: frozenset[bytes]) -> dict[bytes, _Meaning]:
    return (
        dict.fromkeys(taken, _Meaning.TAKEN)
        | dict.fromkeys(read, _Meaning.READ)
        | dict.fromkeys(dropped, _Meaning.DROPPED)
    )


_OF_REQUEST = _meanings(_REQUEST_SPECIAL, _REQUEST_READ, _REQUEST_DROPPED)
_OF_ANSWER = _meanings(_ANSWER_SPECIAL, _ANSWER_READ, _ANSWER_DROPPED)


class LineMemory:
    """Header lines already classified. One for requests and one for answers, each bounded."""

    __slots__ = ("_known", "_meaning_of", "_names", "status_lines")

    def __init__(self, *, of_request: bool) -> None:
        self._known: dict[bytes, Entry] = {}
        # Of names whose lines hardly come twice: KEEP, or the name in lower case and whether the line goes on as it came.
        self._names: dict[bytes, Literal[True] | tuple[bytes, bool]] = {}
        self.status_lines: dict[bytes, tuple[int, bool]] = {}  # status, and whether it is HTTP/1.0
        self._meaning_of = _OF_REQUEST if of_request else _OF_ANSWER

    def __len__(self) -> int:
        return len(self._known)

    def sort(self, lines: list[bytes]) -> tuple[list[bytes], dict[bytes, bytes]]:
        """Header lines to pass on, and the values of those with a meaning; the first of `lines` is not a header.

        Raises BadRequest for a malformed line or Host, or a second Host, Content-Length, Transfer-Encoding or credential.
        """
        if len(lines) > MAX_HEADER_LINES:
            raise BadRequest(f"more than {MAX_HEADER_LINES} header lines")
        get = self._known.get
        kept: list[bytes] = []
        keep = kept.append
        special: dict[bytes, bytes] = {}
        first = True
        for line in lines:
            entry = get(line)
            if entry is True:
                keep(line)
                continue
            if first:  # the request or status line
                first = False
                continue
            if entry is None:
                entry = self._met(line)
                if entry is True:
                    keep(line)
                    continue
            if entry is False:
                continue
            name, value, is_passed_on = entry
            special[name] = _joined(name, special[name], value) if name in special else value
            if is_passed_on:
                keep(line)
        if b"connection" in special:
            kept = _without_named(kept, special[b"connection"])
        return kept, special

    def _met(self, line: bytes) -> Entry:
        """What a line is that has not come before; quickly, if its name has."""
        name, colon, value = line.partition(b":")
        known = self._names.get(name)
        if known is None or not colon or line.translate(None, _OF_VALUES):
            return self._classify(line)
        return KEEP if known is True else (known[0], value.strip(b" \t"), known[1])

    def _classify(self, line: bytes) -> Entry:
        match = _LINE.fullmatch(line)
        if match is None:
            raise BadRequest("a header line is malformed")
        name = match[1].lower()
        meaning = self._meaning_of.get(name)
        if meaning is None:
            self._note_name(match[1], KEEP)
            return KEEP if name in _NOT_REMEMBERED else self._remembered(line, KEEP)
        if meaning is _Meaning.DROPPED:
            return DROP if name in _NOT_REMEMBERED else self._remembered(line, DROP)
        entry = (name, match[2].rstrip(b" \t"), meaning is _Meaning.READ)
        if name == b"host" and _HOST.fullmatch(entry[1]) is None:
            raise BadRequest("the header host is malformed")
        if name in _NOT_REMEMBERED:
            self._note_name(match[1], (name, entry[2]))
            return entry
        return self._remembered(line, entry)

    def _note_name(self, name: bytes, meaning: Literal[True] | tuple[bytes, bool]) -> None:
        if len(name) <= MAX_REMEMBERED_NAME_BYTES and len(self._names) < MAX_REMEMBERED_NAMES:
            self._names[name] = meaning

    def _remembered(self, line: bytes, entry: Entry) -> Entry:
        if len(line) <= MAX_REMEMBERED_LINE_BYTES:
            if len(self._known) >= MAX_REMEMBERED_LINES:
                self._known.clear()
            self._known[line] = entry
        return entry


def _joined(name: bytes, before: bytes, value: bytes) -> bytes:
    """The value of a header that came twice."""
    if name in (b"host", b"content-length", b"transfer-encoding", b"authorization", b"x-api-key"):
        raise BadRequest(f"the header {name.decode()} is given twice")
    return before + b", " + value


def _without_named(lines: list[bytes], connection: bytes) -> list[bytes]:
    """Lines without those that the Connection header names as meant for this hop only."""
    named = {token.strip().lower() for token in connection.split(b",")} - {b"close", b"keep-alive", b""}
    if not named:
        return lines
    return [line for line in lines if line.split(b":", 1)[0].lower() not in named]


def _length(special: dict[bytes, bytes]) -> int:
    text = special[b"content-length"]
    if not text.isdigit() or len(text) > 18:
        raise BadRequest("content-length is not a number")
    return int(text)


def _is_chunked(special: dict[bytes, bytes]) -> bool:
    if special[b"transfer-encoding"].lower() != b"chunked":
        raise BadRequest("transfer-encoding is not chunked")
    if b"content-length" in special:
        raise BadRequest("both content-length and transfer-encoding are given")
    return True


def _stays_open(special: dict[bytes, bytes], *, is_http10: bool) -> bool:
    tokens = [token.strip().lower() for token in special.get(b"connection", b"").split(b",")]
    return b"keep-alive" in tokens if is_http10 else b"close" not in tokens


def expects_continue(head: RequestHead) -> bool:
    """Whether the client waits for a `100 Continue` before it sends its body; HTTP/1.0 knows none."""
    return head.special.get(b"expect", b"").lower() == b"100-continue" and not head.is_http10


class RequestHeads:
    """Reads the heads of one connection. A client mostly repeats itself to the byte, but for the content-length."""

    __slots__ = ("_head", "_length_at", "_lines", "_memory", "is_repeated")

    def __init__(self, memory: LineMemory) -> None:
        self._memory = memory
        self._head: RequestHead | None = None
        self._lines: list[bytes] = []
        self._length_at = 0  # index of the content-length line; 0: there is none
        self.is_repeated = False  # whether the last head read equals the one before, but for its content-length

    def read(self, block: bytes) -> RequestHead:
        """The head in `block`, which ends before the empty line. Raises BadRequest."""
        lines = block.split(b"\r\n")
        at, head = self._length_at, self._head
        if head is not None and at and len(lines) == len(self._lines):
            length = _LENGTH_LINE.fullmatch(lines[at])
            if length is not None:
                lines[at] = self._lines[at]
                if lines == self._lines:
                    self.is_repeated = True
                    self._head = head = head.copied(content_length=int(length[1]))
                    return head
                lines = block.split(b"\r\n")
        self._head = None  # in case this one is refused
        head = parse_request_head(block, self._memory)
        self._head, self._lines, self.is_repeated = head, lines, False
        self._length_at = next((n for n, line in enumerate(lines) if n and _LENGTH_LINE.fullmatch(line)), 0)
        return head


def parse_request_head(block: bytes, memory: LineMemory) -> RequestHead:
    """The head in `block`, which ends before the empty line. Raises BadRequest."""
    lines = block.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise BadRequest("the request line is malformed")
    method, target, minor = match.groups()
    kept, special = memory.sort(lines)
    is_http10 = minor == b"0"
    if not is_http10 and b"host" not in special:
        raise BadRequest("the header host is missing")
    is_chunked = b"transfer-encoding" in special and _is_chunked(special)
    if is_chunked and is_http10:
        raise BadRequest("transfer-encoding needs HTTP/1.1")
    return RequestHead(
        method,
        target,
        target.partition(b"?")[0],
        kept,
        special,
        _length(special) if b"content-length" in special else 0,
        is_chunked,
        _stays_open(special, is_http10=is_http10) if b"connection" in special else not is_http10,
        is_http10,
    )


def _status_line(line: bytes, memory: LineMemory) -> tuple[int, bool]:
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise UpstreamBroken("the status line is malformed")
    found = int(match[2]), match[1] == b"0"
    if len(memory.status_lines) < MAX_REMEMBERED_NAMES and len(line) <= MAX_REMEMBERED_NAME_BYTES:
        memory.status_lines[line] = found
    return found


def parse_answer_head(block: bytes, memory: LineMemory) -> AnswerHead:
    """The head in `block`, which ends before the empty line. Raises UpstreamBroken."""
    lines = block.split(b"\r\n")
    status, is_http10 = memory.status_lines.get(lines[0]) or _status_line(lines[0], memory)
    try:
        kept, special = memory.sort(lines)
        is_chunked = b"transfer-encoding" in special and _is_chunked(special)
        length = _length(special) if b"content-length" in special else None
    except BadRequest as error:
        raise UpstreamBroken(str(error)) from None
    return AnswerHead(
        status,
        lines[0],
        kept,
        special,
        length,
        is_chunked,
        _stays_open(special, is_http10=is_http10) if b"connection" in special else not is_http10,
        special.get(b"content-type", b"").lower().startswith(b"text/event-stream")
        and special.get(b"content-encoding", b"identity").lower() == b"identity",
    )


class ChunkWalker:
    """Finds the payload in a chunked body as it passes, without changing or copying it.

    After `feed`, `ranges` holds the (start, end) of each piece of payload in the data just fed. `is_done` is set when the body
    has ended; `rest_at` is then the index of the first byte after it.
    """

    __slots__ = ("_line", "_skip", "_state", "_trailer_bytes", "is_done", "ranges", "rest_at")

    _SIZE = 0
    _DATA = 1
    _DATA_END = 2
    _TRAILER = 3
    _MAX_LINE = 4096
    _MAX_TRAILER = 16384

    def __init__(self) -> None:
        self._state = self._SIZE
        self._skip = 0  # bytes of payload still to come in this chunk
        self._line = b""  # beginning of a line that is not complete
        self._trailer_bytes = 0
        self.ranges: list[tuple[int, int]] = []
        self.is_done = False
        self.rest_at = 0

    @property
    def is_between_chunks(self) -> bool:
        """Whether a new chunk could begin here."""
        return self._state == self._SIZE and not self._line

    def completed(self) -> tuple[bytes, int] | None:
        """What completes the line of the framing that has begun, and how much payload is then due before the CRLF that ends the
        chunk (0: a new chunk may follow); None: the end of the body has begun, or nobody can say.
        """
        line = self._line
        if self._state == self._DATA:
            return b"", self._skip
        if self._state == self._DATA_END:
            return b"\r\n"[len(line) :], 0
        if self._state == self._TRAILER or b'"' in line:  # in a quoted value, perhaps
            return None
        if not line:
            return b"", 0
        has_cr = line.endswith(b"\r")
        try:
            size = _chunk_size(line.removesuffix(b"\r"))
        except UpstreamBroken:
            return None
        if size:
            return (b"\n" if has_cr else b"\r\n"), size
        return None if has_cr or not line.isdigit() else (b"1\r\n", 1)  # so far it may become any size

    def missing_end(self) -> bytes | None:
        """What ends the body, if no more payload has been promised."""
        line = self._line
        if self._state == self._DATA_END:
            return b"\r\n"[len(line) :] + b"0\r\n\r\n"
        if self._state == self._SIZE and line in (b"", b"0", b"0\r"):
            return b"0\r\n\r\n"[len(line) :]
        return b"\r\n"[len(line) :] if self._state == self._TRAILER and line in (b"", b"\r") else None

    def feed(self, data: bytes, start: int = 0) -> None:
        """Walk over `data[start:]`. Raises UpstreamBroken if this is not chunked coding; it is then as if none of it had come."""
        # Most often: one whole chunk, as servers write events.
        if self._state == self._SIZE and not self._line and not start:
            at = data.find(b"\r\n", 0, 18)
            digits = data[:at] if at > 0 else b""
            if digits and not digits.strip(_HEX):
                stop = at + 2 + int(digits, 16)
                if stop + 2 == len(data) and stop > at + 2 and data.endswith(b"\r\n"):
                    self.ranges = [(at + 2, stop)]
                    return
        before = self._state, self._skip, self._line
        try:
            self._walk(data, start)
        except UpstreamBroken:
            self._state, self._skip, self._line = before
            self.ranges = []
            raise

    def _walk(self, data: bytes, start: int) -> None:
        self.ranges = ranges = []
        pos, end = start, len(data)
        while pos < end:
            state = self._state
            if state == self._DATA:
                stop = pos + self._skip
                if stop > end:
                    ranges.append((pos, end))
                    self._skip -= end - pos
                    return
                ranges.append((pos, stop))
                self._skip = 0
                pos = stop
                if data.startswith(b"\r\n", pos):
                    pos += 2
                    self._state = self._SIZE
                else:
                    self._state = self._DATA_END
                continue
            at = data.find(b"\n", pos, pos + self._MAX_LINE)
            if at < 0:
                self._line += data[pos:end]
                if len(self._line) > self._MAX_LINE:
                    raise UpstreamBroken("a chunk's size line is too long")
                return
            line = data[pos:at] if not self._line else self._line + data[pos:at]
            self._line = b""
            pos = at + 1
            if line[-1:] != b"\r":
                raise UpstreamBroken("a line in the chunked coding does not end in CRLF")
            if state == self._SIZE:
                self._skip = _chunk_size(line[:-1])
                self._state = self._DATA if self._skip else self._TRAILER
            elif state == self._DATA_END:
                if line != b"\r":
                    raise UpstreamBroken("a chunk is longer than its size says")
                self._state = self._SIZE
            elif self._is_end(line):
                self.is_done = True
                self.rest_at = pos
                return

    def _is_end(self, line: bytes) -> bool:
        """Whether this line ends the body; else it is a trailer."""
        if line == b"\r":
            return True
        self._trailer_bytes += len(line)
        if self._trailer_bytes > self._MAX_TRAILER or _LINE.fullmatch(line[:-1]) is None:
            raise UpstreamBroken("what follows the last chunk is too long or malformed")
        return False


def _chunk_size(line: bytes) -> int:
    digits = line
    if not line.isalnum():  # blanks or an extension, which a reader further on must not take for a line's end
        digits = line.partition(b";")[0].rstrip(b" \t")
        if line.translate(None, _OF_VALUES):
            raise UpstreamBroken("a chunk's extension is malformed")
    if not digits or len(digits) > 15 or digits.strip(_HEX):
        raise UpstreamBroken("a chunk's size is not a number")
    return int(digits, 16)
