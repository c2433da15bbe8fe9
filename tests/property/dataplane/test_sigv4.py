"""Signatures: those that AWS and its own library make of the same request."""

from __future__ import annotations

import string
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from unittest.mock import patch

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from ccr_data.core.sigv4 import canonical_path, canonical_query, sign
from ccr_data.core.snapshot import AwsCredentials, AwsSigning
from hypothesis import given
from hypothesis import strategies as st

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
BODY = b'{"anthropic_version":"bedrock-2023-05-31","max_tokens":16,"messages":[{"role":"user","content":"Hello"}]}'
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
RUNTIME = "bedrock-runtime.us-east-1.amazonaws.com"
# docs/providers/bedrock.md, test vectors: path, service, host, session token → SHA-256 of the canonical request, signature.
VECTORS = {
    "A": (
        ("/model/us.anthropic.claude-sonnet-4-5-20250929-v1:0/invoke-with-response-stream", "bedrock", RUNTIME, ""),
        "733a060ca8709d28344c6fe2792a9efcc8a5624b180c22bd4ba350afea40a256",
        "c4436d7fc1334d2125a09f36c98569b401c0c0ab08ad7cdbb236338873d8d50d",
    ),
    "B": (
        ("/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke-with-response-stream", "bedrock", RUNTIME, ""),
        "038a745089dbb143dfcea47f3765c8b698a65a8a264a74ac7b61242a09632f09",
        "7fb454a89738288f5d9408e294e63d2bb6b7418b44039b712dae2dd862c9f270",
    ),
    "C": (
        (
            "/model/arn:aws:bedrock:us-east-1:123456789012:application-inference-profile%2Fabc123/invoke",
            "bedrock",
            RUNTIME,
            "FakeSessionToken/+==",
        ),
        "31961cf5154b75b8a5571603014e89c562c4bd627c95a61280b209b1ed3b59fe",
        "c46ae05caa3be8cfc38442b3bb16d2ae5c411f164f0ef019ec7dcaf074fca53a",
    ),
    "D": (
        ("/anthropic/v1/messages?beta=true", "bedrock-mantle", "bedrock-mantle.us-east-1.api.aws", ""),
        "3b1d573da287802dd6a7b42bb792b7cbd236df664d195bc265c2cc1796b1add6",
        "00e9f9b9cc8bc85d5a66e4a94aa91b72f86b7a1b3f4df6a9ab137e3874f1723c",
    ),
}


@pytest.mark.parametrize("case", VECTORS)
def test_the_published_vectors(case: str) -> None:
    """A signature that is wrong by one byte is refused by AWS with a 403 that says little."""
    (url, service, host, token), canonical_sha256, signature = VECTORS[case]
    path, _, query = url.partition("?")
    made = sign(
        "POST",
        path,
        query,
        [("content-type", "application/json"), ("host", host)],
        sha256(BODY).hexdigest(),
        AwsCredentials("AKIDEXAMPLE", SECRET, token),
        AwsSigning("us-east-1", service),
        NOON.timestamp(),
    )

    assert made.canonical_sha256 == canonical_sha256
    assert made.lines.endswith(f"Signature={signature}\r\n".encode())
    assert (b"x-amz-security-token: FakeSessionToken/+==\r\n" in made.lines) == bool(token)


def test_the_example_of_the_reference() -> None:
    """The one complete example of AWS's reference of Signature Version 4: another method, another service, no body."""
    made = sign(
        "GET",
        "/",
        "Action=ListUsers&Version=2010-05-08",
        [("host", "iam.amazonaws.com"), ("content-type", "application/x-www-form-urlencoded; charset=utf-8")],
        sha256(b"").hexdigest(),
        AwsCredentials("AKIDEXAMPLE", SECRET),
        AwsSigning("us-east-1", "iam"),
        datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp(),
    )

    assert made.canonical_sha256 == "f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59"
    assert b"Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7\r\n" in made.lines


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        ("", "/"),
        ("/", "/"),
        ("//example//", "/example/"),
        ("/example/..", "/"),
        ("/./example", "/example"),
        ("/a/b/../../..", "/"),
        ("/-._~0123456789ABCxyz", "/-._~0123456789ABCxyz"),
        ("/x:y%3A%2F@;=", "/x%3Ay%253A%252F%40%3B%3D"),
    ],
)
def test_canonical_paths_of_the_test_suite(raw: str, canonical: str) -> None:
    """The path normalisation cases of AWS's Signature Version 4 test suite."""
    assert canonical_path(raw) == canonical


def test_queries_are_sorted_by_name_and_then_by_value() -> None:
    """The query cases of AWS's test suite: order of keys, of values, of case, and a key without a value."""
    assert canonical_query("Param2=value2&Param1=value1") == "Param1=value1&Param2=value2"
    assert canonical_query("Param1=value2&Param1=Value1&p") == "Param1=Value1&Param1=value2&p="
    assert canonical_query("") == ""


PATH_LETTERS = string.ascii_letters + string.digits + "-_.~/:@;=!$&'()*+,%"
QUERY_LETTERS = string.ascii_letters + string.digits + "-_.~=&%+"
VALUE = st.text(string.ascii_letters + string.digits + " /+=;,.-", max_size=30)
NAME = st.text(string.ascii_lowercase + "-", min_size=1, max_size=12).map(lambda name: f"x-amz-t-{name}")


@given(
    path=st.text(PATH_LETTERS, max_size=60).map(lambda text: f"/{text}"),
    query=st.text(QUERY_LETTERS, max_size=40),
    headers=st.dictionaries(NAME, VALUE, max_size=4),
    body=st.binary(max_size=300),
    token=st.text(string.ascii_letters + "+/=", max_size=40),
    secret=st.text(string.ascii_letters + "+/", min_size=1, max_size=40),
    region=st.sampled_from(("us-east-1", "eu-central-1", "us-gov-west-1")),
    service=st.sampled_from(("bedrock", "bedrock-mantle", "aws-external-anthropic")),
    at=st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),
)
def test_every_signature_is_botocores(
    path: str,
    query: str,
    headers: dict[str, str],
    body: bytes,
    token: str,
    secret: str,
    region: str,
    service: str,
    at: datetime,
) -> None:
    """AWS's library decides what a signature is: paths, queries, headers and tokens of any kind."""
    given_headers = {"content-type": "application/json", **headers}
    theirs = botocores(
        path, query, given_headers, body, Credentials("AKID", secret, token or None), region, service, at
    )
    ours = sign(
        "POST",
        path,
        query,
        [("host", "host.example.com"), *given_headers.items()],
        sha256(body).hexdigest(),
        AwsCredentials("AKID", secret, token),
        AwsSigning(region, service),
        at.timestamp(),
    )

    assert f"authorization: {theirs}\r\n".encode() in ours.lines


def botocores(
    path: str,
    query: str,
    headers: dict[str, str],
    body: bytes,
    credentials: Credentials,
    region: str,
    service: str,
    at: datetime,
) -> str:
    """The Authorization header that botocore makes at this time."""
    url = f"https://host.example.com{path}" + (f"?{query}" if query else "")
    request: Any = AWSRequest(method="POST", url=url, headers={"host": "host.example.com", **headers}, data=body)
    with patch("botocore.auth.get_current_datetime", return_value=at):
        SigV4Auth(credentials, service, region).add_auth(request)
    return str(request.headers["Authorization"])
