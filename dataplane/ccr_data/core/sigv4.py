"""AWS Signature Version 4: the header lines that make a request the account's own. Pure: the time is an argument.

Signed are only `host`, `content-type` and `x-amz-*`, so that no later hop can break a signature by a header of its own. Path and query
are taken as they stand on the wire: the canonical path is that path encoded once more, as every AWS service but S3 wants it. Held
against botocore, byte for byte, by tests/property/dataplane/test_sigv4.py.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from hmac import digest
from typing import NamedTuple
from urllib.parse import quote

from ccr_data.core.snapshot import AwsCredentials, AwsSigning

_ALGORITHM = "AWS4-HMAC-SHA256"
# Secrets stay in here until others push them out: few, as a node has few of them at a time.
MAX_REMEMBERED_KEYS = 16


class Signature(NamedTuple):
    """What is added to a request."""

    lines: bytes  # header lines: x-amz-date, x-amz-security-token if there is one, authorization; each ends in CRLF
    canonical_sha256: str  # of the canonical request, in hex: what AWS's own message about a mismatch is compared with


def sign(
    method: str,
    path: str,
    query: str,
    headers: list[tuple[str, str]],
    body_sha256: str,
    credentials: AwsCredentials,
    signing: AwsSigning,
    unix_s: float,
) -> Signature:
    """The signature of a request.

    `path` and `query` are those of the request line, `headers` those to be signed (lower-case names; `x-amz-date` and
    `x-amz-security-token` are added here), `body_sha256` is in hex. A signature is good for five minutes before and after `unix_s`.
    """
    at = datetime.fromtimestamp(unix_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    day = at[:8]
    headers = [*headers, ("x-amz-date", at)]
    if credentials.session_token:
        headers.append(("x-amz-security-token", credentials.session_token))
    names, canonical_headers = _canonical_headers(headers)
    canonical = "\n".join((method, canonical_path(path), canonical_query(query), canonical_headers, names, body_sha256))
    canonical_sha256 = sha256(canonical.encode()).hexdigest()
    scope = f"{day}/{signing.region}/{signing.service}/aws4_request"
    key = _signing_key(credentials.secret_access_key, day, signing.region, signing.service)
    signature = digest(key, f"{_ALGORITHM}\n{at}\n{scope}\n{canonical_sha256}".encode(), "sha256").hex()
    token = f"x-amz-security-token: {credentials.session_token}\r\n" if credentials.session_token else ""
    lines = (
        f"x-amz-date: {at}\r\n{token}authorization: {_ALGORITHM} Credential={credentials.access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}\r\n"
    )
    return Signature(lines.encode("latin-1"), canonical_sha256)


def _canonical_headers(headers: list[tuple[str, str]]) -> tuple[str, str]:
    """Their names joined by semicolons, and one line for each; values of one name are joined, blanks inside made one."""
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(" ".join(value.split()))
    names = sorted(values)
    return ";".join(names), "".join(f"{name}:{','.join(values[name])}\n" for name in names)


@lru_cache(maxsize=256)
def canonical_path(path: str) -> str:
    """The path of the request line as the canonical request has it: without dot segments and double slashes, encoded once more."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    plain = "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")
    return quote(plain, safe="/-_.~")


def canonical_query(query: str) -> str:
    """The query of the request line (without its question mark) as the canonical request has it: its pairs sorted, each with a `=`."""
    if not query:
        return ""
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&"))
    return "&".join(f"{name}={value}" for name, value in pairs)


@lru_cache(maxsize=MAX_REMEMBERED_KEYS)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    """The key that signs a day's requests."""
    key = digest(f"AWS4{secret}".encode(), day.encode(), "sha256")
    for part in (region, service, "aws4_request"):
        key = digest(key, part.encode(), "sha256")
    return key
