"""A provider that says exactly what a test tells it to, byte for byte, and remembers what it was told.

with RawUpstream() as upstream:
    upstream.answer = lambda request, wire: wire.send(json_answer(b"{}"))
    ...
    assert upstream.requests[0].body == b"..."
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType


@dataclass
class Request:
    """A request as it arrived."""

    line: str
    headers: list[tuple[str, str]]  # names in lower case, in order
    body: bytes
    head: bytes

    @property
    def path(self) -> str:
        """Path and query."""
        return self.line.split(" ")[1]

    def header(self, name: str) -> str | None:
        """The value of a header, or None."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass
class Wire:
    """The connection that a request came on."""

    sock: socket.socket
    left_at: float | None = field(default=None)

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def chunk(self, payload: bytes) -> None:
        """Send one chunk."""
        self.send(b"%x\r\n%b\r\n" % (len(payload), payload))

    def begin_stream(self, *lines: str) -> None:
        """Send the head of a chunked event stream."""
        more = "".join(f"{line}\r\n" for line in lines)
        self.send(
            f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{more}transfer-encoding: chunked\r\n\r\n".encode()
        )

    def end_stream(self) -> None:
        """Send the last chunk."""
        self.send(b"0\r\n\r\n")

    def reset(self) -> None:
        """Break the connection."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()

    def wait_gone(self, within_s: float) -> float:
        """Seconds until the other end hung up. Raises TimeoutError."""
        began = time.monotonic()
        self.sock.settimeout(within_s)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while self.sock.recv(65536):
                pass
        return time.monotonic() - began


Answer = Callable[[Request, Wire], object]


def json_answer(body: bytes, status: str = "200 OK", *lines: str) -> bytes:
    """A whole JSON answer."""
    more = "".join(f"{line}\r\n" for line in lines)
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{more}content-length: {len(body)}\r\n\r\n".encode()
        + body
    )


MESSAGE = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"hi"}],'
    b'"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":5}}'
)


def error_answer(status: str, kind: str, *lines: str) -> bytes:
    """An error in Anthropic's shape."""
    body = b'{"type":"error","error":{"type":"%b","message":"no"},"request_id":"req_up"}' % kind.encode()
    return json_answer(body, status, *lines)


def event(name: str, data: str = "{}") -> bytes:
    """One server-sent event."""
    return f"event: {name}\ndata: {data}\n\n".encode()


EVENTS = [
    event(
        "message_start",
        '{"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":7,"output_tokens":1}}}',
    ),
    event("content_block_start", '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'),
    event("ping", '{"type":"ping"}'),
    *(
        event(
            "content_block_delta",
            f'{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{n}é😀"}}}}',
        )
        for n in range(6)
    ),
    event("content_block_stop", '{"type":"content_block_stop","index":0}'),
    event("message_delta", '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}'),
    event("message_stop", '{"type":"message_stop"}'),
]


def stream_answer(request: Request, wire: Wire) -> None:
    """A whole, healthy stream."""
    wire.begin_stream()
    for piece in EVENTS:
        wire.chunk(piece)
    wire.end_stream()


class RawUpstream:
    """Listens on loopback; each connection has a thread."""

    def __init__(self, answer: Answer | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.answer: Answer = answer or (lambda request, wire: wire.send(json_answer(MESSAGE)))
        self.requests: list[Request] = []
        self.connection_count = 0
        self.failures: list[BaseException] = []
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._open: set[socket.socket] = set()
        self._closed = False
        threading.Thread(target=self._accept, name="upstream", daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listening.getsockname()[1])

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> RawUpstream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and hang up."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for sock in tuple(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            self.connection_count += 1
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # every piece goes out at once, and alone
            threading.Thread(target=self._serve, args=(sock,), name="upstream connection", daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            self._open.add(sock)
            wire = Wire(sock)
            while (request := _read(sock)) is not None:
                self.requests.append(request)
                self.answer(request, wire)
                if sock.fileno() < 0:
                    return
        except OSError:
            pass
        except AssertionError as error:
            self.failures.append(error)
        finally:
            self._open.discard(sock)
            sock.close()


def _read(sock: socket.socket) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
    length = int(dict(headers).get("content-length", "0"))
    parts = [body]
    missing = length - len(body)
    while missing > 0:
        more = sock.recv(min(missing, 1 << 20))
        if not more:
            return None
        parts.append(more)
        missing -= len(more)
    return Request(lines[0], headers, b"".join(parts), head)
