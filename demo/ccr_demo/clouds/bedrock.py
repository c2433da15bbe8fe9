"""AWS Bedrock's InvokeModel: the model in the path, betas in the body, streams as frames, AWS's errors. Pure."""

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from ccr_demo.clouds import frames
from ccr_demo.clouds.aws import aws_error, caller_of
from ccr_demo.clouds.face import (
    VERSION,
    asked_as,
    body_of,
    dumped,
    header_of,
    is_error,
    loaded,
    with_body,
    with_headers,
)
from ccr_demo.performance import Act, Headers, Performance, Send
from ccr_demo.request import Request
from ccr_demo.settings import Settings

VERSIONS = {"bedrock-2023-05-31": VERSION, "2026-10-21": "2026-10-21"}
KNOWN_FIELDS = {
    "anthropic_version",
    "anthropic_beta",
    "max_tokens",
    "messages",
    "system",
    "stop_sequences",
    "temperature",
    "top_p",
    "top_k",
    "tools",
    "tool_choice",
    "thinking",
    "metadata",
    "output_config",
    "safeguards",
    "context_management",
}
_PATH = re.compile(r"/model/([^/]+)/(invoke|invoke-with-response-stream|count-tokens)")
_PROFILE_ONLY = re.compile(r"anthropic\.claude-(?:[a-z]+-(?:4-[5-9]|[5-9])|fable|mythos).*")
_ID = re.compile(r"(?:[a-z-]+\.)?anthropic\.(claude-[a-z0-9-]+?)(?:-v\d+(?::\d+)?)?")

# Anthropic's error type -> status, AWS's name, the name in a stream.
ERRORS: Mapping[str, tuple[int, str, str]] = {
    "invalid_request_error": (400, "ValidationException", "validationException"),
    "authentication_error": (403, "UnrecognizedClientException", "validationException"),
    "permission_error": (403, "AccessDeniedException", "validationException"),
    "not_found_error": (404, "ResourceNotFoundException", "validationException"),
    "request_too_large": (413, "ValidationException", "validationException"),
    "rate_limit_error": (429, "ThrottlingException", "throttlingException"),
    "timeout_error": (408, "ModelTimeoutException", "modelTimeoutException"),
    "overloaded_error": (503, "ServiceUnavailableException", "serviceUnavailableException"),
    "api_error": (500, "InternalServerException", "internalServerException"),
}
TEXTS = {
    "ThrottlingException": "Too many requests, please wait before trying again.",
    "ServiceUnavailableException": "Bedrock is unable to process your request.",
}


class Bedrock:
    """`/model/{id}/invoke`, `/model/{id}/invoke-with-response-stream` and `/model/{id}/count-tokens`."""

    def read(self, request: Request, settings: Settings, now_s: float) -> Request:
        """Checks what Bedrock checks before it asks the model."""
        caller = caller_of(request, settings, "bedrock", now_s)
        match = _PATH.fullmatch(request.target)
        if match is None or request.method != "POST":
            raise aws_error(404, "UnknownOperationException", "")
        model, action = unquote(match[1]), match[2]
        fields = _fields(request.body)
        if action == "count-tokens":
            return _counting(request, fields, model, caller)
        _check_id(model)
        _check_fields(fields)
        asked = {**_without(fields), "model": short_name(model), "stream": action.endswith("stream")}
        return asked_as(request, "/v1/messages", caller, dumped(asked), **_versions(fields))

    def told(self, performance: Performance, asked: Request, settings: Settings) -> Performance:
        """Answers without a stream stay; everything else is framed or named in AWS's way."""
        headers = _headers(performance)
        if performance.is_stream:
            kind = (
                ("content-type", "application/vnd.amazon.eventstream"),
                ("x-amzn-bedrock-content-type", "application/json"),
            )
            return replace(with_headers(performance, (*kind, *headers)), acts=_framed(performance, settings))
        if is_error(performance):
            error = loaded(body_of(performance))["error"]
            status, name, _ = ERRORS.get(error["type"], ERRORS["api_error"])
            text = TEXTS.get(name, error["message"])
            retry = header_of(performance, "retry-after")
            more = (("x-amzn-errortype", name), *((("retry-after", retry),) if retry else ()))
            return with_body(performance, status, dumped({"message": text}), (*headers, *more))
        if asked.path.endswith("/count_tokens") and performance.head and performance.head.status == 200:
            count = loaded(body_of(performance)).get("input_tokens", 0)
            return with_body(performance, 200, dumped({"inputTokens": count}), headers)
        return performance if performance.head is None else with_headers(performance, (*_kind(performance), *headers))


def short_name(model: str) -> str:
    """The Claude API's name of a model, as far as the id or ARN tells it."""
    last = model.rpartition("/")[2]
    match = _ID.fullmatch(last)
    return match[1] if match else last


def _fields(body: bytes) -> dict[str, Any]:
    fields = loaded(body)
    if not fields:
        raise aws_error(
            400, "ValidationException", "Malformed input request, please reformat your input and try again."
        )
    return fields


def _check_id(model: str) -> None:
    if _PROFILE_ONLY.fullmatch(model):
        raise aws_error(
            400,
            "ValidationException",
            f"Invocation of model ID {model} with on-demand throughput isn’t supported. Retry your request with the ID or "
            "ARN of an inference profile that contains this model.",
        )
    if _ID.fullmatch(model) is None and not model.startswith("arn:aws"):
        raise aws_error(400, "ValidationException", "The provided model identifier is invalid.")


def _check_fields(fields: Mapping[str, Any]) -> None:
    """What legacy Bedrock takes. Raises Refused."""
    if fields.get("anthropic_version") not in VERSIONS:
        raise aws_error(400, "ValidationException", "anthropic_version: Field required or not a valid version")
    unknown = [name for name in fields if name not in KNOWN_FIELDS]
    edits = (fields.get("context_management") or {}).get("edits", [])
    if any(not str(edit.get("type", "")).startswith("compact_") for edit in edits):
        unknown.append("context_management")
    if unknown:
        raise aws_error(400, "ValidationException", f"{unknown[0]}: Extra inputs are not permitted")
    betas = fields.get("anthropic_beta", [])
    if not isinstance(betas, list) or not all(isinstance(each, str) for each in betas):
        raise aws_error(400, "ValidationException", "anthropic_beta: Input should be a valid list")


def _counting(request: Request, fields: Mapping[str, Any], model: str, caller: str) -> Request:
    if re.match(r"(?:global|us|eu|jp|au|apac|us-gov)\.|arn:", model):
        raise aws_error(400, "ValidationException", "The provided model doesn't support counting tokens.")
    try:
        inner = loaded(base64.b64decode(fields["input"]["invokeModel"]["body"], validate=True))
    except (KeyError, TypeError, ValueError):
        raise aws_error(400, "ValidationException", "input.invokeModel.body is missing or not base64") from None
    _check_fields(inner)
    if "max_tokens" not in inner:
        raise aws_error(400, "ValidationException", "max_tokens: Field required")
    asked = {name: value for name, value in _without(inner).items() if name != "max_tokens"}
    target = "/v1/messages/count_tokens"
    return asked_as(request, target, caller, dumped({**asked, "model": short_name(model)}), **_versions(inner))


def _without(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in ("anthropic_version", "anthropic_beta")}


def _versions(fields: Mapping[str, Any]) -> dict[str, str]:
    betas = ",".join(fields.get("anthropic_beta", []))
    version = VERSIONS[fields["anthropic_version"]]
    return {"anthropic-version": version, "anthropic-beta": betas}


def _kind(performance: Performance) -> Headers:
    return (("content-type", header_of(performance, "content-type")),)


def _headers(performance: Performance) -> Headers:
    request_id = header_of(performance, "request-id")
    return (("x-amzn-requestid", request_id),) if request_id else ()


def _framed(performance: Performance, settings: Settings) -> tuple[Act, ...]:
    """The acts with each event in a frame; Bedrock sends no pings. Damage is done as the settings say."""
    out: list[Act] = []
    count = 0
    for act in performance.acts:
        if not isinstance(act, Send):
            out.append(act)
            continue
        written = _frame_of(frames.data_of(act.data))
        if not written:
            continue
        count += 1
        if count == settings.corrupt_frame:
            written = frames.corrupted(written)
        if count == settings.truncate_frame:
            return (*out, Send(written[: len(written) // 2]))
        size = settings.split_bytes or len(written)
        out += [Send(written[at : at + size], is_event=not at) for at in range(0, len(written), size)]
    return tuple(out)


def _frame_of(event: bytes) -> bytes:
    kind = frames.type_of(event)
    if kind in ("ping", ""):
        return b""
    if kind == "error":
        told = loaded(event)["error"]
        if told["type"].endswith("Exception"):  # a script may name AWS's own
            return frames.exception(told["type"], told["message"])
        _, name, in_stream = ERRORS.get(told["type"], ERRORS["api_error"])
        return frames.exception(in_stream, TEXTS.get(name, told["message"]))
    if kind == "message_stop":
        metrics = {"inputTokenCount": 1, "outputTokenCount": 1, "invocationLatency": 1, "firstByteLatency": 1}
        event = event[:-1] + b',"amazon-bedrock-invocationMetrics":' + dumped(metrics) + b"}"
    return frames.chunk(event)
