"""What clouds say when something is wrong, as Anthropic would say it: status, error type, message.

Pure. One table for AWS's names, which come in a header (`x-amzn-errortype`), in a body (`__type`) or, in lower camel case, in an event
stream; one for Google's (`error.status`); Azure's gateway says it by its HTTP status alone. The status decides whether a request moves
on to another target, so this comes before anybody judges it. An error that is in Anthropic's shape already stays as it came.

Texts of clouds name accounts, projects and resources; clients do not get to see those.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

MAX_MESSAGE = 2000

# AWS's name of an error → status, Anthropic's type. Sources: the bedrock-runtime service model, the AWS common errors.
_AWS = {
    "ValidationException": (400, "invalid_request_error"),
    "AccessDeniedException": (403, "permission_error"),
    "ResourceNotFoundException": (404, "not_found_error"),
    "ThrottlingException": (429, "rate_limit_error"),
    "TooManyRequestsException": (429, "rate_limit_error"),
    "ServiceQuotaExceededException": (429, "rate_limit_error"),
    "ModelNotReadyException": (529, "overloaded_error"),
    "ModelTimeoutException": (504, "timeout_error"),
    "ModelErrorException": (500, "api_error"),
    "ModelStreamErrorException": (500, "api_error"),
    "InternalServerException": (500, "api_error"),
    "InternalFailure": (500, "api_error"),
    "ServiceUnavailableException": (529, "overloaded_error"),
    "ServiceUnavailable": (529, "overloaded_error"),
    # The credential's, or the relay's own signature's: never the client's mistake.
    "UnrecognizedClientException": (401, "authentication_error"),
    "InvalidClientTokenId": (401, "authentication_error"),
    "ExpiredTokenException": (401, "authentication_error"),
    "ExpiredToken": (401, "authentication_error"),
    "InvalidSignatureException": (401, "authentication_error"),
    "SignatureDoesNotMatch": (401, "authentication_error"),
    "IncompleteSignatureException": (401, "authentication_error"),
    "IncompleteSignature": (401, "authentication_error"),
    "MissingAuthenticationTokenException": (401, "authentication_error"),
    "MissingAuthenticationToken": (401, "authentication_error"),
    "RequestExpired": (401, "authentication_error"),
    "OptInRequired": (403, "permission_error"),
    "NotAuthorized": (403, "permission_error"),
}
# Google's (google.rpc.Code) → status, Anthropic's type.
_GOOGLE = {
    "INVALID_ARGUMENT": (400, "invalid_request_error"),
    "FAILED_PRECONDITION": (400, "invalid_request_error"),
    "OUT_OF_RANGE": (400, "invalid_request_error"),
    "UNAUTHENTICATED": (401, "authentication_error"),
    "PERMISSION_DENIED": (403, "permission_error"),
    "NOT_FOUND": (404, "not_found_error"),
    "RESOURCE_EXHAUSTED": (429, "rate_limit_error"),
    "INTERNAL": (500, "api_error"),
    "UNKNOWN": (500, "api_error"),
    "ABORTED": (529, "overloaded_error"),
    "UNAVAILABLE": (529, "overloaded_error"),
    "DEADLINE_EXCEEDED": (504, "timeout_error"),
}
_BY_STATUS = {
    400: (400, "invalid_request_error"),
    401: (401, "authentication_error"),
    402: (402, "billing_error"),
    403: (403, "permission_error"),
    404: (404, "not_found_error"),
    408: (504, "timeout_error"),
    409: (409, "conflict_error"),
    413: (413, "request_too_large"),
    424: (500, "api_error"),
    429: (429, "rate_limit_error"),
    500: (500, "api_error"),
    502: (502, "api_error"),
    503: (529, "overloaded_error"),
    504: (504, "timeout_error"),
    529: (529, "overloaded_error"),
}
# Statuses of the Anthropic types, for errors inside a stream, which has none of its own.
_TOO_LONG = re.compile(r"input is too long|too many (?:input )?tokens|maximum context length", re.IGNORECASE)
_PROMPT_TOO_LONG = "prompt is too long"  # the words that make Claude Code compact the conversation
_ARN = re.compile(r"\barn:aws[a-z-]*:[^\s\"'<>,;)\]}\\]+")
_ACCOUNT = re.compile(r"(?<![0-9A-Za-z-])\d{12}(?![0-9A-Za-z-])")
_PROJECT = re.compile(r"\bprojects/[^/\s\"'`,;)\]}\\]+")


class CloudError(NamedTuple):
    """An error in Anthropic's terms."""

    status: int
    kind: str
    message: str


class _Inner(msgspec.Struct):
    type: str | None = None
    status: str | None = None
    message: str | None = None


class _Body(msgspec.Struct):
    """The errors of AWS (`__type`, `code`, `message`), Google, Azure (`error`) and Anthropic (`type`, `error`)."""

    type: str | None = None
    aws_type: str | None = msgspec.field(name="__type", default=None)
    code: str | int | None = None
    message: str | None = None
    message_capital: str | None = msgspec.field(name="Message", default=None)
    error: _Inner | str | None = None


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_bodies = msgspec.json.Decoder(list[_Body]).decode


def masked(text: str) -> str:
    """The text without the names of accounts, projects and resources."""
    text = _ARN.sub("arn:aws:***", text)
    return _PROJECT.sub("projects/***", _ACCOUNT.sub("***", text))


def mapped(status: int, error_type: str, body: bytes) -> CloudError | None:
    """A cloud's error in Anthropic's terms; None if its body is in Anthropic's shape already.

    `error_type` is the value of `x-amzn-errortype`, or empty. Any body will do, also none.
    """
    told = _read(body)
    inner = told.error if isinstance(told.error, _Inner) else _Inner()
    if told.type == "error" and inner.type and not error_type:
        return None
    name = aws_name(error_type or told.aws_type or (told.code if isinstance(told.code, str) else ""))
    message = inner.message or told.message or told.message_capital
    if not message:
        message = told.error if isinstance(told.error, str) else f"the provider answered with status {status}"
    by_status = _BY_STATUS.get(status) or ((400, "invalid_request_error") if status < 500 else (status, "api_error"))
    known = _AWS.get(name) or _GOOGLE.get(inner.status or "") or by_status
    if name == "ValidationException" and status >= 500:
        known = by_status
    return _error(*known, message)


def in_stream(name: str, message: str) -> CloudError:
    """An exception or error frame of an AWS event stream in Anthropic's terms."""
    return _error(*_AWS.get(aws_name(name), (500, "api_error")), message or name)


def aws_name(name: str) -> str:
    """AWS's name of an error as the tables have it: without the namespace before it, the URL after it, in upper camel case."""
    name = name.partition(":")[0].rpartition("#")[2].strip()
    return name[:1].upper() + name[1:]


def _error(status: int, kind: str, message: str) -> CloudError:
    message = masked(message)[:MAX_MESSAGE]
    if status == 400 and _TOO_LONG.search(message) and _PROMPT_TOO_LONG not in message:
        message = f"{_PROMPT_TOO_LONG}: {message}"
    return CloudError(status, kind, message)


def _read(body: bytes) -> _Body:
    try:
        if body.lstrip()[:1] == b"[":  # Google's streaming endpoints wrap an error in a list
            return next(iter(_decode_bodies(body)), _Body())
        return _decode_body(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Body()
