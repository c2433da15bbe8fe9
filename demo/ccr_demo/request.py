"""One request as it came, and how to read it. Pure."""

import json
import zlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from ccr_demo.errors import ApiError
from ccr_demo.script import Facts

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came."""

    method: str
    target: str  # path and query, undecoded
    headers: tuple[tuple[bytes, bytes], ...]  # in order, in their own case
    body: bytes
    base_url: str  # scheme and host that the client asked

    @property
    def path(self) -> str:
        """The path without the query."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> dict[str, str]:
        """The query; the last of several values."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)


def facts_of(request: Request) -> Facts:
    """What a script can see of it."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers}
    return Facts(request.method, request.path, headers, request.body, json_or_nothing(request))


def json_or_nothing(request: Request) -> Json:
    """The body as an object; an empty one if it is none."""
    try:
        return read_json(request)
    except ApiError:
        return {}


def read_json(request: Request) -> Json:
    """The body as an object. Raises ApiError (400)."""
    try:
        value = json.loads(_decoded_body(request))
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The request body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ApiError(400, "Input should be a valid dictionary")
    return value


def _decoded_body(request: Request) -> bytes:
    coding = (request.header("content-encoding") or "identity").lower()
    if coding == "identity":
        return request.body
    if coding not in ("gzip", "deflate"):
        raise ApiError(
            400,
            f"Content-Encoding {coding} is not supported",
            details={"error_code": "request_body_encoding_unsupported"},
        )
    try:
        return zlib.decompress(request.body, wbits=47)
    except zlib.error as error:
        raise ApiError(400, f"The request body could not be decoded: {error}") from None
