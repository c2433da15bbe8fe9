"""Errors of the demo provider, in the shape and wording of the Messages API (docs/providers/anthropic.md).

ApiError                    anything that becomes an error answer
ScriptInvalid(problem)      a script that cannot be read; seen by the person who wrote it, as a 400 on /__demo

Pure.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TYPE_OF_STATUS: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}

MESSAGE_OF_TYPE: Mapping[str, str] = {
    "invalid_request_error": "Error",
    "authentication_error": "invalid x-api-key",
    "billing_error": "Your credit balance is too low to access the Anthropic API.",
    "permission_error": "Your API key does not have permission to use the specified resource.",
    "not_found_error": "Not found",
    "conflict_error": "Conflict",
    "request_too_large": "Request exceeds the maximum size",
    "rate_limit_error": "This request would exceed your organization's rate limit. Please try again later.",
    "api_error": "Internal server error",
    "timeout_error": "Request timed out",
    "overloaded_error": "Overloaded",
}


class ScriptInvalid(Exception):
    """A script, step or setting that nobody can play; the message says what to write instead."""


@dataclass
class ApiError(Exception):
    """An answer in Anthropic's error shape. `details` carries an `error_code` where the API has one."""

    status: int
    message: str = ""
    type: str = ""
    details: Mapping[str, Any] | None = None
    headers: tuple[tuple[str, str], ...] = field(default=())

    def body(self, request_id: str) -> bytes:
        """The error body; `request_id` is the one of the `request-id` header."""
        error = error_object(self.type or type_of(self.status), self.message, self.details)
        return json.dumps({**error, "request_id": request_id}, ensure_ascii=False, separators=(",", ":")).encode()


def type_of(status: int) -> str:
    """The error type that goes with a status; other 4xx are `invalid_request_error`, other 5xx `api_error`."""
    return TYPE_OF_STATUS.get(status, "invalid_request_error" if status < 500 else "api_error")


def error_object(kind: str, message: str = "", details: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`{"type": "error", "error": {…}}`: the body of an error answer and the data of an `error` event."""
    error: dict[str, Any] = {"type": kind, "message": message or MESSAGE_OF_TYPE.get(kind, kind)}
    if details is not None:
        error = {"details": dict(details), **error}
    return {"type": "error", "error": error}
