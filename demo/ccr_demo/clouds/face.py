"""What every face of a cloud is, and the small things that they share. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ccr_demo.performance import Headers, Performance, Send, of_body
from ccr_demo.request import Request
from ccr_demo.settings import Settings

VERSION = "2023-06-01"  # what a cloud's own version stands for


class Face(Protocol):
    """One cloud."""

    def read(self, request: Request, settings: Settings, now_s: float) -> Request:
        """The request as the Messages API gets it. Raises Refused."""
        ...

    def told(self, performance: Performance, asked: Request, settings: Settings) -> Performance:
        """The answer of the Messages API as this cloud gives it."""
        ...


@dataclass
class Refused(Exception):
    """The cloud answers by itself."""

    performance: Performance


def refused(status: int, body: Mapping[str, Any], *headers: tuple[str, str]) -> Refused:
    """A cloud's own JSON error."""
    return Refused(of_body(status, dumped(body), headers))


def dumped(value: object) -> bytes:
    """JSON as the APIs write it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def loaded(data: bytes) -> dict[str, Any]:
    """An object, or an empty one if it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def asked_as(request: Request, target: str, caller: str, body: bytes | None = None, **headers: str) -> Request:
    """The request at another place: the caller's credential is known, the cloud's own headers have done their work."""
    own = {b"authorization", b"x-api-key", b"api-key", b"host", b"content-length", *(name.encode() for name in headers)}
    kept = tuple((name, value) for name, value in request.headers if name.lower() not in own)
    more = ((b"x-api-key", caller.encode()), *((name.encode(), value.encode()) for name, value in headers.items()))
    return replace(request, target=target, headers=kept + more, body=request.body if body is None else body)


def header_of(performance: Performance, name: str) -> str:
    """A header of an answer, or nothing."""
    headers: Headers = performance.head.headers if performance.head else ()
    return next((value for key, value in headers if key.lower() == name), "")


def body_of(performance: Performance) -> bytes:
    """The body of an answer that is not streamed."""
    return b"".join(act.data for act in performance.acts if isinstance(act, Send))


def with_headers(performance: Performance, headers: Headers) -> Performance:
    """The answer with other headers than it had."""
    if performance.head is None:
        return performance
    return replace(performance, head=replace(performance.head, headers=headers))


def with_body(performance: Performance, status: int, body: bytes, headers: Headers) -> Performance:
    """Another answer, at the time of the first."""
    return replace(of_body(status, body, headers), before_head_s=performance.before_head_s)


def is_error(performance: Performance) -> bool:
    """Whether this is an error in Anthropic's shape."""
    return (
        performance.head is not None
        and performance.head.status >= 400
        and not performance.is_stream
        and loaded(body_of(performance)).get("type") == "error"
    )


def bearer_of(request: Request) -> str:
    """The bearer token, or nothing."""
    value = request.header("authorization") or ""
    return value[7:].strip() if value[:7].lower() == "bearer " else ""


def is_good(token: str, settings: Settings) -> bool:
    """Whether a token or key opens this provider."""
    return bool(token) and token not in settings.bad_keys and (not settings.good_keys or token in settings.good_keys)
