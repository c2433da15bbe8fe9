"""Microsoft Foundry: the Messages API below `/anthropic`, Azure's keys and tokens, its gateway's errors. Pure."""

from ccr_demo.clouds.face import (
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
    with_headers,
)
from ccr_demo.performance import Performance
from ccr_demo.request import Request
from ccr_demo.settings import Settings

PREFIX = "/anthropic"


class Foundry:
    """`/anthropic/v1/messages` and `/anthropic/v1/messages/count_tokens`; the model is a deployment."""

    def read(self, request: Request, settings: Settings, now_s: float) -> Request:
        """Checks what Azure's gateway checks."""
        token = request.header("x-api-key") or request.header("api-key") or bearer_of(request)
        if token in settings.expired_tokens or not is_good(token, settings):
            raise gateway_error(
                401,
                "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key.",
            )
        path, mark, query = request.target.partition("?")
        if path not in (f"{PREFIX}/v1/messages", f"{PREFIX}/v1/messages/count_tokens"):
            raise gateway_error(404, "Resource not found")
        return asked_as(request, path.removeprefix(PREFIX) + mark + query, token)

    def told(self, performance: Performance, asked: Request, settings: Settings) -> Performance:
        """No limits in headers, an id of the gateway's; 429 and 5xx are the gateway's."""
        if performance.head is None:
            return performance
        kept = tuple(
            (name, value) for name, value in performance.head.headers if not name.startswith("anthropic-ratelimit-")
        )
        headers = (*kept, ("apim-request-id", header_of(performance, "request-id")))
        status = performance.head.status
        if is_error(performance) and status in (429, 500, 503, 529):
            error = loaded(body_of(performance))["error"]
            retry = header_of(performance, "retry-after")
            body = dumped({"error": {"code": str(status), "message": error["message"]}})
            return with_body(
                performance, 503 if status == 529 else status, body, (("retry-after", retry),) if retry else ()
            )
        return with_headers(performance, headers)


def gateway_error(status: int, message: str) -> Refused:
    """An error of Azure's gateway."""
    return refused(status, {"error": {"code": str(status), "message": message}})
