"""The relay's own answers, in Anthropic's shape, and which upstream answers move on to the next target.

The one table from our errors to HTTP (style: errors become a status in one place).
"""

from __future__ import annotations

import msgspec

from ccr_data.core.errors import (
    BadRequest,
    BodyTooLarge,
    CircuitsOpen,
    ClientLimited,
    CredentialsExpired,
    FromWebPage,
    HeadTooLarge,
    NoSuchEndpoint,
    NoSuchModel,
    NotReady,
    NotSupported,
    RequestError,
    TooManyStrangers,
    TooSlow,
    Unauthorized,
    WrongMethod,
)
from ccr_data.core.records import Reason

# error → status, Anthropic's error type (docs/providers/anthropic.md, errors)
_TABLE: dict[type[RequestError], tuple[int, str]] = {
    BadRequest: (400, "invalid_request_error"),
    HeadTooLarge: (431, "invalid_request_error"),
    BodyTooLarge: (413, "request_too_large"),
    TooSlow: (408, "timeout_error"),
    Unauthorized: (401, "authentication_error"),
    TooManyStrangers: (429, "rate_limit_error"),
    FromWebPage: (403, "permission_error"),
    NoSuchEndpoint: (404, "not_found_error"),
    WrongMethod: (405, "invalid_request_error"),
    NoSuchModel: (404, "not_found_error"),
    NotSupported: (404, "not_found_error"),
    NotReady: (503, "api_error"),
    CircuitsOpen: (529, "overloaded_error"),
    CredentialsExpired: (503, "api_error"),
    ClientLimited: (429, "rate_limit_error"),
}
_REASON_PHRASE = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Request Entity Too Large",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    529: b"Overloaded",
}
# No attempt got an answer: what to say, by the last attempt's reason.
_NO_ANSWER = {
    Reason.CONNECT: (502, "api_error", "could not be reached"),
    Reason.BROKEN: (502, "api_error", "hung up before answering"),
    Reason.FIRST_BYTE_TIMEOUT: (504, "timeout_error", "did not answer in time"),
    Reason.IDLE_TIMEOUT: (504, "timeout_error", "fell silent"),
    Reason.TOTAL_TIMEOUT: (504, "timeout_error", "did not finish in time"),
    Reason.STREAM_ERROR: (529, "overloaded_error", "broke off"),
}


def error_body(kind: str, message: str, request_id: str) -> bytes:
    """An error in Anthropic's shape."""
    error = {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
    return msgspec.json.encode(error)


def answer(status: int, body: bytes, own_lines: bytes = b"", *, is_head: bool = False, closes: bool = False) -> bytes:
    """A whole JSON answer as bytes; each of `own_lines` ends in CRLF. With `is_head` the body is only announced."""
    head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n%b\r\n" % (
        status,
        reason_phrase(status),
        own_lines,
        len(body),
        b"connection: close\r\n" if closes else b"",
    )
    return head if is_head else head + body


def reason_phrase(status: int) -> bytes:
    """The words of a status line."""
    return _REASON_PHRASE.get(status, b"Status")


def status_of(error: RequestError) -> tuple[int, str]:
    """Status and Anthropic error type of one of our errors."""
    return _TABLE[type(error)]


def refusal(error: RequestError, request_id: str, *, is_head: bool = False, closes: bool = False) -> bytes:
    """The answer to a request that the relay does not serve."""
    status, kind = status_of(error)
    lines = f"request-id: {request_id}\r\n"
    if isinstance(error, WrongMethod):
        lines += f"allow: {error.allowed}\r\n"
    if isinstance(error, NotReady):
        lines += "retry-after: 1\r\n"
    if isinstance(error, TooManyStrangers):
        lines += f"retry-after: {error.retry_after_s}\r\nx-should-retry: false\r\n"
    if isinstance(error, ClientLimited):
        lines += f"retry-after: {error.retry_after_s}\r\n"
        lines += "" if error.should_retry else "x-should-retry: false\r\n"
    return answer(
        status, error_body(kind, str(error), request_id), lines.encode("latin-1"), is_head=is_head, closes=closes
    )


def no_answer(reason: Reason, provider: str, attempts: int) -> tuple[int, str, str]:
    """Status, error type and message when no attempt got an answer."""
    status, kind, what = _NO_ANSWER.get(reason, (502, "api_error", "failed"))
    tried = f" ({attempts} attempts were made)" if attempts > 1 else ""
    return status, kind, f"provider {provider} {what}{tried}"


def error_event(kind: str, message: str, request_id: str) -> bytes:
    """An SSE error event, as Anthropic ends a stream that fails."""
    return b"event: error\ndata: " + error_body(kind, message, request_id) + b"\n\n"


def as_error_event(body: bytes) -> bytes | None:
    """An upstream's error body as an SSE error event, word for word; None if it is not an error in Anthropic's shape."""
    try:
        decoded = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if "error" not in decoded:
        return None
    return b"event: error\ndata: " + body.strip().replace(b"\r", b"").replace(b"\n", b" ") + b"\n\n"


PING_EVENT = b'event: ping\ndata: {"type": "ping"}\n\n'


def judge(status: int, *, is_own_key: bool) -> Reason | None:
    """Why an answer with this status moves on to the next target; None: it is the answer.

    400, 404, 413, 422 are the client's; 401 and 403 are the relay's business if the credential was the relay's.
    """
    if status == 429:
        return Reason.RATE_LIMITED
    if status in (529, 503):
        return Reason.OVERLOADED
    if status >= 500:
        return Reason.SERVER_ERROR
    if status in (401, 403) and is_own_key:
        return Reason.KEY_REFUSED
    return None
