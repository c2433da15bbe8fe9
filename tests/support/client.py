"""A raw HTTP/1.1 client: sends bytes as they are, and shows what came back as it came."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit


@dataclass
class Answer:
    """An answer, its body without the transfer coding."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header, or None."""
        return next((value for key, value in self.headers if key == name), None)


class RawClient:
    """One connection."""

    def __init__(self, url: str, timeout_s: float = 20.0) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        self.host = parts.netloc
        self.sock = socket.create_connection((parts.hostname, parts.port or 80), timeout=timeout_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def request(self, method: str, path: str, body: bytes = b"", *lines: str, version: str = "1.1") -> None:
        """Send a request with a content-length."""
        length = f"content-length: {len(body)}\r\n" if body or method == "POST" else ""
        head = f"{method} {path} HTTP/{version}\r\nhost: {self.host}\r\n{length}"
        self.sock.sendall((head + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode("latin-1") + body)

    def more(self) -> bytes:
        """Some more bytes; empty at the end."""
        return self.sock.recv(1 << 20)

    def head(self) -> Answer:
        """Read an answer's head."""
        while b"\r\n\r\n" not in self._data:
            data = self.more()
            if not data:
                raise ConnectionError(f"hung up after {self._data!r}")
            self._data += data
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        return Answer(int(lines[0].split(" ")[1]), headers, b"")

    def payload(self) -> bytes:
        """The next chunk's payload; empty for the last. Raises ConnectionError if the answer breaks off."""
        size = int(self._line().split(b";")[0], 16)
        payload = self._exactly(size)
        if self._line():
            raise ConnectionError("a chunk does not end where it should")
        return payload

    def answer(self, *, is_head: bool = False) -> Answer:
        """Read a whole answer. Raises ConnectionError if it breaks off."""
        answer = self.head()
        length = answer.header("content-length")
        if is_head or answer.status in (204, 304):
            return answer
        if answer.header("transfer-encoding") == "chunked":
            assert length is None
            while payload := self.payload():
                answer.body += payload
        elif length is not None:
            answer.body = self._exactly(int(length))
        else:
            while data := self.more():
                self._data += data
            answer.body, self._data = self._data, b""
        return answer

    def ask(self, method: str, path: str, body: bytes = b"", *lines: str) -> Answer:
        """Send a request and read its answer."""
        self.request(method, path, body, *lines)
        return self.answer(is_head=method == "HEAD")

    def is_closed(self) -> bool:
        """Whether the other end hangs up now without another byte."""
        return self.more() == b""

    def _line(self) -> bytes:
        while b"\r\n" not in self._data:
            data = self.more()
            if not data:
                raise ConnectionError("broke off")
            self._data += data
        line, _, self._data = self._data.partition(b"\r\n")
        return line

    def _exactly(self, size: int) -> bytes:
        parts = [self._data]
        missing = size - len(self._data)
        while missing > 0:
            data = self.more()
            if not data:
                raise ConnectionError("broke off")
            parts.append(data)
            missing -= len(data)
        joined = b"".join(parts)
        self._data = joined[size:]
        return joined[:size]
