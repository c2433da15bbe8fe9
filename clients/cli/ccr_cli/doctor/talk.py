"""Talks to the relay as Claude Code does: requests, streams of events, and leaving in the middle.

Proxies of the environment are not used: the relay is the proxy.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

VERSION = "2023-06-01"
ANSWER_WITHIN_S = 60.0
MAX_ANSWER_BYTES = 8 << 20


class NoAnswer(Exception):
    """Nothing, or no HTTP, came back."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a stream."""

    name: str
    data: Mapping[str, Any]
    at_s: float  # since the request was sent


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes = b""
    events: list[Event] = field(default_factory=list)

    @property
    def json(self) -> Mapping[str, Any]:
        """The body; empty if it is no JSON object."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def words(self) -> str:
        """`HTTP 401 authentication_error: invalid key`."""
        error = self.json.get("error")
        said = f" {error.get('type')}: {error.get('message')}" if isinstance(error, dict) else ""
        return f"HTTP {self.status}{said}"

    @property
    def request_id(self) -> str:
        """The relay's id of the request."""
        return self.headers.get("x-cc-relay-request-id", "")


@dataclass(frozen=True, slots=True)
class Talker:
    """Where to send, and as whom."""

    url: str
    key: str | None = field(repr=False)
    session: str

    def get(self, path: str, key: str | None = None) -> Answer:
        """A GET, maybe with another key. Raises NoAnswer."""
        return self._whole("GET", path, None, key)

    def post(self, path: str, body: Mapping[str, Any]) -> Answer:
        """A POST with one answer. Raises NoAnswer."""
        return self._whole("POST", path, body, None)

    def stream(self, body: Mapping[str, Any], leave_after: int = 0) -> Answer:
        """A streamed message; `leave_after` so many events the connection is closed (0: never). Raises NoAnswer."""
        connection, answer, began_s = self._asked("POST", "/v1/messages", {**body, "stream": True}, None)
        try:
            found = _head(answer)
            if found.status != 200:
                found.body = answer.read(MAX_ANSWER_BYTES)
                return found
            for event in _events(answer, began_s):
                found.events.append(event)
                if leave_after and len(found.events) >= leave_after:
                    break
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"the stream broke off: {str(error) or type(error).__name__}") from error
        finally:
            answer.close()
            connection.close()
        return found

    def _whole(self, method: str, path: str, body: Mapping[str, Any] | None, key: str | None) -> Answer:
        connection, answer, _ = self._asked(method, path, body, key)
        try:
            found = _head(answer)
            found.body = answer.read(MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"the answer broke off: {str(error) or type(error).__name__}") from error
        finally:
            connection.close()
        return found

    def _asked(
        self, method: str, path: str, body: Mapping[str, Any] | None, key: str | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse, float]:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=ANSWER_WITHIN_S)
        headers = {"anthropic-version": VERSION, "x-claude-code-session-id": self.session, "user-agent": "ccr-doctor"}
        if token := key or self.key:
            headers["authorization"] = f"Bearer {token}"
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            headers["content-type"] = "application/json"
        began_s = time.monotonic()
        try:
            connection.request(method, parts.path.rstrip("/") + path, body=content, headers=headers)
            return connection, connection.getresponse(), began_s
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise NoAnswer(str(error) or type(error).__name__) from error


def _head(answer: http.client.HTTPResponse) -> Answer:
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()})


def _events(answer: http.client.HTTPResponse, began_s: float) -> Iterator[Event]:
    """The events, each with when it was there."""
    name, data = "", []
    while line := answer.readline(MAX_ANSWER_BYTES):
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if text.startswith("event:"):
            name = text[6:].strip()
        elif text.startswith("data:"):
            data.append(text[5:].strip())
        elif not text and data:
            try:
                found = json.loads("\n".join(data))
            except ValueError:
                found = {}
            yield Event(name, found if isinstance(found, dict) else {}, time.monotonic() - began_s)
            name, data = "", []
