"""Google Vertex AI's rawPredict: the model in the path, Google's tokens, Google's errors around the model's own. Pure."""

import re
from typing import Any
from urllib.parse import unquote

from ccr_demo.clouds.face import (
    VERSION,
    Refused,
    asked_as,
    bearer_of,
    body_of,
    dumped,
    header_of,
    is_error,
    is_good,
    loaded,
    refused,
    with_body,
)
from ccr_demo.performance import Performance
from ccr_demo.request import Request
from ccr_demo.settings import Settings

VERSIONS = {"vertex-2023-10-16": VERSION, "2026-10-21": "2026-10-21"}
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_PATH = re.compile(
    r"/v1/projects/([^/]+)/locations/([^/]+)/publishers/anthropic/models/([^/:]+):(rawPredict|streamRawPredict)"
)


class Vertex:
    """`{model}:rawPredict`, `{model}:streamRawPredict` and `count-tokens:rawPredict`."""

    def read(self, request: Request, settings: Settings, now_s: float) -> Request:
        """Checks what Google and its model server check first."""
        caller = google_caller(request, settings)
        match = _PATH.fullmatch(request.target)
        if match is None or request.method != "POST":
            raise google_error(404, "Publisher Model was not found or your project does not have access to it.")
        model, action = unquote(match[3]), match[4]
        fields = loaded(request.body)
        version = VERSIONS.get(str(fields.pop("anthropic_version", "")))
        if version is None:
            raise _invalid("anthropic_version: Field required")
        if model == "count-tokens":
            return _counting(request, fields, caller, version)
        if "model" in fields:
            raise _invalid("model: Extra inputs are not permitted")
        if fields.get("stream") is True and action != "streamRawPredict":
            raise _invalid("stream: use streamRawPredict")
        asked = dumped({**fields, "model": model.partition("@")[0]})
        return asked_as(request, "/v1/messages", caller, asked, **{"anthropic-version": version})

    def told(self, performance: Performance, asked: Request, settings: Settings) -> Performance:
        """The model's own 400 and 413 stay; the other errors are Google's."""
        if performance.head is None or performance.head.status in (400, 413) or not is_error(performance):
            return performance
        status = 503 if performance.head.status == 529 else performance.head.status
        error = loaded(body_of(performance))["error"]
        retry = header_of(performance, "retry-after")
        body = google_body(status, error["message"])
        return with_body(performance, status, body, (("retry-after", retry),) if retry else ())


def google_caller(request: Request, settings: Settings) -> str:
    """The token. Raises Refused."""
    token = bearer_of(request)
    if token in settings.expired_tokens or not is_good(token, settings) or request.header("x-api-key"):
        raise google_error(
            401,
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
            "authentication credential.",
        )
    return token


def google_error(status: int, message: str) -> Refused:
    """An error of Google itself."""
    return refused(status, loaded(google_body(status, message)))


def google_body(status: int, message: str) -> bytes:
    """Google's shape of an error."""
    error = {"code": status, "message": message, "status": STATUSES.get(status, "UNKNOWN")}
    return dumped({"error": error})


def _counting(request: Request, fields: dict[str, Any], caller: str, version: str) -> Request:
    if "@" in str(fields.get("model", "@")):
        raise _invalid("model: this model does not support counting tokens")
    return asked_as(request, "/v1/messages/count_tokens", caller, dumped(fields), **{"anthropic-version": version})


def _invalid(message: str) -> Refused:
    return refused(400, {"type": "error", "error": {"type": "invalid_request_error", "message": message}})
