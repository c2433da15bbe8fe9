"""Errors of clouds in Anthropic's terms."""

from __future__ import annotations

import json

import pytest
from ccr_data.core.cloud_errors import CloudError, aws_name, in_stream, mapped, masked
from hypothesis import given
from hypothesis import strategies as st

AWS_STATUSES = {  # docs/providers/bedrock.md, errors: AWS's status, ours
    "ValidationException": (400, 400, "invalid_request_error"),
    "AccessDeniedException": (403, 403, "permission_error"),
    "ResourceNotFoundException": (404, 404, "not_found_error"),
    "ThrottlingException": (429, 429, "rate_limit_error"),
    "ServiceQuotaExceededException": (400, 429, "rate_limit_error"),
    "ModelNotReadyException": (429, 529, "overloaded_error"),
    "ModelTimeoutException": (408, 504, "timeout_error"),
    "ModelErrorException": (424, 500, "api_error"),
    "ModelStreamErrorException": (424, 500, "api_error"),
    "InternalServerException": (500, 500, "api_error"),
    "ServiceUnavailableException": (503, 529, "overloaded_error"),
    "ExpiredTokenException": (403, 401, "authentication_error"),
    "InvalidSignatureException": (403, 401, "authentication_error"),
}


@pytest.mark.parametrize("name", AWS_STATUSES)
@pytest.mark.parametrize("place", ["header", "header with a URL", "__type", "__type with a namespace", "code", "frame"])
def test_each_of_awss_errors_wherever_its_name_is(name: str, place: str) -> None:
    """Its name is in a header, in the body or in a frame, and never twice in the same way."""
    status, ours, kind = AWS_STATUSES[name]
    body = {"message": "why"}
    header = ""
    if place == "frame":
        assert in_stream(name[0].lower() + name[1:], "why") == CloudError(ours, kind, "why")
        return
    if place.startswith("header"):
        header = name + (":http://internal.amazon.com/" if "URL" in place else "")
    elif place.startswith("__type"):
        body["__type"] = ("com.amazon.coral.service#" if "namespace" in place else "") + name
    else:
        body["code"] = name

    assert mapped(status, header, json.dumps(body).encode()) == CloudError(ours, kind, "why")


@pytest.mark.parametrize(
    ("status", "name", "ours", "kind"),
    [
        (400, "INVALID_ARGUMENT", 400, "invalid_request_error"),
        (400, "FAILED_PRECONDITION", 400, "invalid_request_error"),
        (401, "UNAUTHENTICATED", 401, "authentication_error"),
        (403, "PERMISSION_DENIED", 403, "permission_error"),
        (404, "NOT_FOUND", 404, "not_found_error"),
        (429, "RESOURCE_EXHAUSTED", 429, "rate_limit_error"),
        (500, "INTERNAL", 500, "api_error"),
        (503, "UNAVAILABLE", 529, "overloaded_error"),
        (504, "DEADLINE_EXCEEDED", 504, "timeout_error"),
        (499, "CANCELLED", 400, "invalid_request_error"),
    ],
)
@pytest.mark.parametrize("is_list", [False, True])
def test_each_of_googles_errors(status: int, name: str, ours: int, kind: str, *, is_list: bool) -> None:
    error = {"error": {"code": status, "message": "why", "status": name, "details": [{"@type": "x"}]}}

    assert mapped(status, "", json.dumps([error] if is_list else error).encode()) == CloudError(ours, kind, "why")


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, {"error": {"code": "401", "message": "bad key"}}, CloudError(401, "authentication_error", "bad key")),
        (401, {"statusCode": 401, "message": "bad key"}, CloudError(401, "authentication_error", "bad key")),
        (404, {"error": {"code": "DeploymentNotFound", "message": "no"}}, CloudError(404, "not_found_error", "no")),
        (429, {"error": {"code": "429", "message": "slow"}}, CloudError(429, "rate_limit_error", "slow")),
        (403, {"Message": "User is not authorized"}, CloudError(403, "permission_error", "User is not authorized")),
        (400, {"error": "plain words"}, CloudError(400, "invalid_request_error", "plain words")),
    ],
)
def test_gateways_say_it_by_the_status(status: int, body: object, error: CloudError) -> None:
    """Azure's gateway, API Gateway of AWS."""
    assert mapped(status, "", json.dumps(body).encode()) == error


def test_an_error_of_anthropics_stays() -> None:
    """Clients recover by its very words."""
    assert mapped(400, "", b'{"type":"error","error":{"type":"invalid_request_error","message":"x"}}') is None


@pytest.mark.parametrize(
    "text", ["Input is too long for requested model.", "Too many input tokens: 300000 > 200000", "input is too long"]
)
def test_what_is_too_long_says_so_in_the_words_that_claude_code_knows(text: str) -> None:
    found = mapped(400, "ValidationException", json.dumps({"message": text}).encode())

    assert found is not None
    assert found.message == f"prompt is too long: {text}"


def test_throttling_is_not_taken_for_a_long_prompt() -> None:
    """A client that compacts because it was too fast loses its context for nothing."""
    found = mapped(429, "ThrottlingException", b'{"message":"Too many tokens, please wait before trying again."}')

    assert found == CloudError(429, "rate_limit_error", "Too many tokens, please wait before trying again.")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/x is gone", "arn:aws:*** is gone"),
        ('"arn:aws-us-gov:iam::123456789012:role/x"', '"arn:aws:***"'),
        ("account 123456789012.", "account ***."),
        ("projects/my-project-1/locations/us is off", "projects/***/locations/us is off"),
        (
            "request 0f1e2d3c-4b5a-6978-8796-123456789012 of 1234567890123",
            "request 0f1e2d3c-4b5a-6978-8796-123456789012 of 1234567890123",
        ),
        ("max_tokens: 128000", "max_tokens: 128000"),
    ],
)
def test_names_of_accounts_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


@given(status=st.integers(400, 599), error_type=st.text(max_size=20), body=st.binary(max_size=60))
def test_any_error_becomes_one(status: int, error_type: str, body: bytes) -> None:
    """Pages of a load balancer, half bodies, none at all."""
    found = mapped(status, error_type, body)

    assert found is not None
    assert 400 <= found.status <= 599
    assert found.kind
    assert found.message


@given(name=st.text(max_size=30))
def test_names_have_one_form(name: str) -> None:
    assert aws_name(aws_name(name)) == aws_name(name)
