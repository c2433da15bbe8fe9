"""The Messages API itself behind a cloud's credentials: Bedrock's native endpoints, Claude on AWS and on Google Cloud. Pure."""

import re

from ccr_demo.clouds.aws import aws_error, caller_of
from ccr_demo.clouds.face import asked_as, header_of, with_headers
from ccr_demo.clouds.vertex import google_caller, google_error
from ccr_demo.performance import Performance
from ccr_demo.request import Request
from ccr_demo.settings import Settings

_GOOGLE_PATH = re.compile(r"/v1/projects/[^/]+/locations/[^/]+/workspaces/[^/]+/invoke(/v1/.*)")


class _Aws:
    """What the AWS fronts share."""

    prefix = ""
    service = ""

    def read(self, request: Request, settings: Settings, now_s: float) -> Request:
        """Checks the signature or key, and the path."""
        caller = caller_of(request, settings, self.service, now_s)
        if not request.target.startswith(f"{self.prefix}/v1/"):
            raise aws_error(404, "UnknownOperationException", "")
        return asked_as(request, request.target.removeprefix(self.prefix), caller)

    def told(self, performance: Performance, asked: Request, settings: Settings) -> Performance:
        """As the Messages API says it, with AWS's id."""
        if performance.head is None:
            return performance
        request_id = header_of(performance, "request-id")
        return with_headers(performance, (*performance.head.headers, ("x-amzn-requestid", request_id)))


class Native(_Aws):
    """`/anthropic/v1/messages` on bedrock-runtime or bedrock-mantle."""

    prefix = "/anthropic"

    def __init__(self, service: str) -> None:
        self.service = service


class ClaudeAws(_Aws):
    """Claude Platform on AWS."""

    service = "aws-external-anthropic"

    def read(self, request: Request, settings: Settings, now_s: float) -> Request:
        """It also wants to know the workspace."""
        asked = super().read(request, settings, now_s)
        if not request.header("anthropic-workspace-id"):
            raise aws_error(400, "ValidationException", "anthropic-workspace-id: header is required")
        return asked


class ClaudeGoogle:
    """The Claude API on Google Cloud."""

    def read(self, request: Request, settings: Settings, now_s: float) -> Request:
        """Checks the token and the path."""
        caller = google_caller(request, settings)
        match = _GOOGLE_PATH.fullmatch(request.target)
        if match is None:
            raise google_error(404, "Not found")
        return asked_as(request, match[1], caller)

    def told(self, performance: Performance, asked: Request, settings: Settings) -> Performance:
        """As the Messages API says it."""
        return performance
