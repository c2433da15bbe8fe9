"""Adapter for AWS Bedrock's InvokeModel: the model in the path, the betas in the body, answers as they are or in AWS's event stream.

What goes out equals what the official SDK's Bedrock client (anthropic 2.11.0, lib/bedrock) makes of the same request:

- `POST /model/{id}/invoke`, or `…/invoke-with-response-stream`; of the id everything is percent-encoded but `:` and `;`;
- `model` and `stream` leave the body, `anthropic_version` comes in, and `anthropic_beta` with the values of the header, which stays.

Three things differ, each for a reason. `anthropic_version` is the SDK's `2026-10-21` only if the client speaks that version and the
model is Claude 4.7 or later; older models take no other than `bedrock-2023-05-31`, which is also what Claude Code sends, who
speaks `2023-06-01`. Betas that Bedrock knows by other names are renamed, and those it refuses are dropped with their fields
(providers/gated.py). Counting tokens, which the SDK refuses, goes to `POST /model/{id}/count-tokens` with the request in base64;
Bedrock counts for base models only, so a cross-region profile's id loses its prefix.
"""

from __future__ import annotations

import re
from base64 import b64encode
from urllib.parse import quote

import msgspec

from ccr_data.core.errors import BadRequest
from ccr_data.core.snapshot import Target
from ccr_data.providers.adapter import ClientRequest, UpstreamRequest
from ccr_data.providers.cloud_lines import cloud_lines, header_of, upstream_head
from ccr_data.providers.gated import Fields, fields_of, leave_out, without_cache_scope

OLD_VERSION = "bedrock-2023-05-31"
NEW_VERSION = "2026-10-21"
COUNTED_MAX_TOKENS = (
    1024  # InvokeModel wants a max_tokens, counting does not: any will do that leaves room beside a thinking budget
)
_FAMILY = re.compile(r"claude-(?:opus|sonnet|haiku|fable|mythos)-(\d{1,2})(?:-(\d{1,2})(?!\d))?")
_CLASSIC = re.compile(r"claude-(?:instant|v?[123])\b")  # claude-3-5-sonnet and before: the number first
_PROFILE_PREFIX = re.compile(r"^(?:global|us-gov|us|eu|apac|jp|au|ca|sa|me|af)\.(?=[a-z0-9-]+\.)")
_PROFILE_ARN = re.compile(r"^arn:[^/]*:inference-profile/(.+)$")


class _Thinking(msgspec.Struct):
    budget_tokens: int = 0


class _Counted(msgspec.Struct):
    count: int = msgspec.field(name="inputTokens")


def prepare(request: ClientRequest, target: Target) -> UpstreamRequest:
    """The request to send to the target. Raises BadRequest for a model that no path can name."""
    peeked = request.peek
    assert peeked is not None  # only requests with a model are sent to clouds
    model = target.model or peeked.model
    counts = is_count(request)
    lines = cloud_lines(request.head.lines, target.provider)
    version = NEW_VERSION if _speaks_new(request, model, peeked.model) else OLD_VERSION
    body = invoke_body(request.body, target, version, header_of(lines, b"anthropic-beta"))
    if counts:
        body = count_body(body)
        path = f"/model/{path_id(base_id(model))}/count-tokens"
    else:
        path = f"/model/{path_id(model)}/invoke{'-with-response-stream' if peeked.wants_stream else ''}"
    head = upstream_head(b"POST", target, path.encode("ascii"), lines, len(body))
    return UpstreamRequest(head, (body,), len(body))


def is_count(request: ClientRequest) -> bool:
    """Whether the request only counts tokens."""
    return request.head.path.endswith(b"/count_tokens")


def path_id(model: str) -> str:
    """A model id as it stands in the path. Raises BadRequest for what would be another path."""
    before_parameters = model.partition(";")[0]
    if before_parameters in ("", ".", ".."):
        raise BadRequest(f"model: {model!r} cannot be a model id of Bedrock")
    return quote(model, safe=":;")


def base_id(model: str) -> str:
    """The id of the base model behind a system-defined inference profile (id or ARN); any other id as it is."""
    arn = _PROFILE_ARN.match(model)
    return _PROFILE_PREFIX.sub("", arn[1] if arn else model)


def invoke_body(body: bytes, target: Target, version: str, betas: bytes) -> bytes:
    """The body for InvokeModel; all values but those that Bedrock does not take stay byte-identical."""
    fields = fields_of(without_cache_scope(body))
    fields.pop("model", None)
    fields.pop("stream", None)
    leave_out(fields, target.provider)
    _set_default(fields, "anthropic_version", version)
    if betas:
        _set_default(fields, "anthropic_beta", [beta.strip() for beta in betas.decode("latin-1").split(",")])
    return msgspec.json.encode(fields)


def count_body(body: bytes) -> bytes:
    """The body for CountTokens, of one for InvokeModel."""
    fields = fields_of(body)
    if "max_tokens" not in fields:
        _set_default(fields, "max_tokens", COUNTED_MAX_TOKENS + _thinking_budget(fields))
    return b'{"input":{"invokeModel":{"body":"%b"}}}' % b64encode(msgspec.json.encode(fields))


def count_answer(body: bytes) -> bytes | None:
    """CountTokens' answer as Anthropic's; None if it is none."""
    try:
        return b'{"input_tokens":%d}' % msgspec.json.decode(body, type=_Counted).count
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def is_before_4_7(*names: str) -> bool | None:
    """Whether a model is older than Claude 4.7, by the first of its names that says; None if none does (an ARN of one's own)."""
    for name in names:
        found = _FAMILY.search(name)
        if found:
            return (int(found[1]), int(found[2] or 0)) < (4, 7)
        if _CLASSIC.search(name):
            return True
    return None


def _speaks_new(request: ClientRequest, model: str, model_asked: str) -> bool:
    if header_of(request.head.lines, b"anthropic-version") != NEW_VERSION.encode():
        return False
    return not is_before_4_7(model, model_asked)


def _thinking_budget(fields: Fields) -> int:
    try:
        return max(0, msgspec.json.decode(fields.get("thinking", msgspec.Raw(b"{}")), type=_Thinking).budget_tokens)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0


def _set_default(fields: Fields, name: str, value: object) -> None:
    if name not in fields:
        fields[name] = msgspec.Raw(msgspec.json.encode(value))
