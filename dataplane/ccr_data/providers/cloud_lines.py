"""The heads of requests to clouds, and their signatures. Pure.

Of a client's header lines those stay away from a cloud that are Anthropic's own: `anthropic-version` travels in the body there,
and the like. `anthropic-beta` stays, as the official SDK leaves it; so does everything that is not Anthropic's. Header lines of
AWS's (`x-amz-*`) are never a client's to set: they would be signed for.
"""

from __future__ import annotations

from hashlib import sha256

from ccr_data.core.sigv4 import sign
from ccr_data.core.snapshot import Provider, Target
from ccr_data.providers.adapter import UpstreamRequest
from ccr_data.providers.anthropic_shaped import own_lines

_SIGNED = frozenset(("host", "content-type"))


def cloud_lines(lines: list[bytes], provider: Provider) -> list[bytes]:
    """A client's header lines for a cloud that is not Anthropic-shaped."""
    kept = own_lines(lines, provider) if provider.edits_lines else lines
    return [line for line in kept if not _is_anthropics(line.partition(b":")[0].lower())]


def _is_anthropics(name: bytes) -> bool:
    return name.startswith((b"anthropic-", b"x-amz-")) and name != b"anthropic-beta"


def without_aws_lines(lines: list[bytes]) -> list[bytes]:
    """Lines that a client may send to a provider whose requests are signed; the same list if it has no other."""
    if not any(line[:6].lower() == b"x-amz-" for line in lines):
        return lines
    return [line for line in lines if line[:6].lower() != b"x-amz-"]


def header_of(lines: list[bytes], name: bytes) -> bytes:
    """The values of a header (lower-case name), joined as a list is; empty without it."""
    size = len(name)
    found = [
        line[size + 1 :].strip() for line in lines if line[size : size + 1] == b":" and line[:size].lower() == name
    ]
    return b",".join(found)


def upstream_head(method: bytes, target: Target, path: bytes, lines: list[bytes], size: int) -> bytes:
    """The head of a request to this path below the provider's base URL."""
    return b"".join(
        (
            method,
            b" ",
            target.path_prefix,
            path,
            b" HTTP/1.1\r\n",
            target.header_lines,
            b"\r\n".join(lines),
            b"\r\n" if lines else b"",
            b"content-length: %d\r\n\r\n" % size,
        )
    )


def signed(request: UpstreamRequest, target: Target, unix_s: float) -> UpstreamRequest:
    """The request with the signature of the target's key over the very bytes that go out."""
    key, signing = target.key, target.provider.aws_signing
    assert key is not None
    assert key.aws is not None
    assert signing is not None
    request_line, *lines = request.head[:-4].decode("latin-1").split("\r\n")
    method, url, _ = request_line.split(" ")
    path, _, query = url.partition("?")
    headers = []
    for line in lines:
        name, _, value = line.partition(":")
        lower = name.lower()
        if lower in _SIGNED or lower.startswith("x-amz-"):
            headers.append((lower, value))
    digest = sha256()
    for part in request.body:
        digest.update(part)
    signature = sign(method, path, query, headers, digest.hexdigest(), key.aws, signing, unix_s)
    return UpstreamRequest(request.head[:-2] + signature.lines + b"\r\n", request.body, request.size)
