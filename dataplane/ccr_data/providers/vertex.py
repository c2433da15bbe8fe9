"""Adapter for Google Vertex AI: the model in the path, everything else as Anthropic has it; answers are Anthropic's own.

The provider's base URL ends in `/publishers/anthropic/models`. What goes out equals what the official SDK's Vertex client
(anthropic 2.11.0, lib/vertex) makes of the same request: `{model}:rawPredict` or `{model}:streamRawPredict`, `model` out of the
body, `stream` left in it, `anthropic_version` in it, `anthropic-beta` as a header. Counting tokens goes to
`count-tokens:rawPredict` with `model` left in the body.

Two things differ. `anthropic_version` is `2026-10-21`, as the SDK says, only for a client that speaks that version; for all others
it is `vertex-2023-10-16`, which Claude Code sends. And counting refuses model names with a date (`@20250929`), so the date goes there.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from ccr_data.core.errors import BadRequest
from ccr_data.core.snapshot import Target
from ccr_data.providers.adapter import ClientRequest, UpstreamRequest
from ccr_data.providers.bedrock import is_count
from ccr_data.providers.cloud_lines import cloud_lines, header_of, upstream_head
from ccr_data.providers.gated import fields_of, leave_out

OLD_VERSION = b'"vertex-2023-10-16"'
NEW_VERSION = "2026-10-21"


def prepare(request: ClientRequest, target: Target) -> UpstreamRequest:
    """The request to send to the target. Raises BadRequest for a model that no path can name."""
    peeked = request.peek
    assert peeked is not None  # only requests with a model are sent to clouds
    model = target.model or peeked.model
    fields = fields_of(request.body)
    leave_out(fields, target.provider)
    if "anthropic_version" not in fields:
        is_new = header_of(request.head.lines, b"anthropic-version") == NEW_VERSION.encode()
        fields["anthropic_version"] = msgspec.Raw(msgspec.json.encode(NEW_VERSION) if is_new else OLD_VERSION)
    if is_count(request):
        fields["model"] = msgspec.Raw(msgspec.json.encode(model.partition("@")[0]))
        path = "/count-tokens:rawPredict"
    else:
        fields.pop("model", None)
        path = f"/{path_id(model)}:{'streamRawPredict' if peeked.wants_stream else 'rawPredict'}"
    body = msgspec.json.encode(fields)
    lines = cloud_lines(request.head.lines, target.provider)
    return UpstreamRequest(upstream_head(b"POST", target, path.encode("ascii"), lines, len(body)), (body,), len(body))


def path_id(model: str) -> str:
    """A model id as it stands in the path. Raises BadRequest for what would be another path."""
    if model.partition(";")[0] in ("", ".", ".."):
        raise BadRequest(f"model: {model!r} cannot be a model id of Vertex AI")
    return quote(model, safe="!$&'()*+,=:@")
