"""Which adapter speaks to a cloud, and what its answers have to go through. Pure.

Only targets with `is_cloud` come here: requests to Anthropic and its like never pass this module.
"""

from __future__ import annotations

import enum

import msgspec

from ccr_data.core.answers import reason_phrase
from ccr_data.core.cloud_errors import mapped, masked
from ccr_data.core.errors import CredentialsExpired
from ccr_data.core.http1 import AnswerHead
from ccr_data.core.snapshot import Target, WireFormat
from ccr_data.providers import bedrock, hosted, vertex
from ccr_data.providers.adapter import ClientRequest, UpstreamRequest
from ccr_data.providers.anthropic_shaped import system_turns_fitted
from ccr_data.providers.bedrock import is_count
from ccr_data.providers.cloud_lines import header_of, signed

MAX_WHOLE_BYTES = 64 << 10  # of an error or a count; what is longer is none
_EVENT_STREAM = b"application/vnd.amazon.eventstream"
_ERROR_TYPE = b"x-amzn-errortype"
_REQUEST_IDS = (b"x-amzn-requestid", b"apim-request-id")
_OWN = (b"content-type:", b"x-amzn-errortype:", b"x-amzn-errormessage:", b"content-length:")


class Form(enum.Enum):
    """What an answer is."""

    ANTHROPICS = 0  # Anthropic's own: it passes as it comes
    EVENTS = 1  # AWS's event stream
    COUNT = 2  # CountTokens' answer
    ERROR = 3  # an error, in whatever shape


def prepare(request: ClientRequest, target: Target, unix_s: float) -> UpstreamRequest:
    """The request to send to the target, signed at this time if that is how it is authorised.

    Raises BadRequest, and CredentialsExpired where the target's credential ended after the request was routed.
    """
    key = target.key
    if key is not None and key.expires_at_s <= unix_s:
        raise CredentialsExpired(f"the credential {key.label} has expired")
    wire_format = target.provider.wire_format
    if wire_format is WireFormat.ANTHROPIC:
        upstream = hosted.prepare(request, target)
    else:
        request = system_turns_fitted(request, target.provider)
        upstream = (bedrock if wire_format is WireFormat.BEDROCK_INVOKE else vertex).prepare(request, target)
    if key is not None and key.aws is not None:
        return signed(upstream, target, unix_s)
    return upstream


def form_of(head: AnswerHead, request: ClientRequest, target: Target) -> Form:
    """What the answer with this head is."""
    if head.status >= 400:
        return Form.ERROR
    if head.special.get(b"content-type", b"").lower().startswith(_EVENT_STREAM):
        return Form.EVENTS
    if target.provider.wire_format is WireFormat.BEDROCK_INVOKE and is_count(request):
        return Form.COUNT
    return Form.ANTHROPICS


def named(head: AnswerHead) -> AnswerHead:
    """The head with a `request-id`, as Anthropic's answers have one, if the cloud says it by another name. Changed in place."""
    if b"request-id" not in head.special:
        for name in _REQUEST_IDS:
            value = header_of(head.lines, name)
            if value:
                head.special[b"request-id"] = value
                head.lines.append(b"request-id: " + value)
                break
    return head


def stream_head(head: AnswerHead) -> AnswerHead:
    """The head of a stream of server-sent events, of one in AWS's format. Changed in place."""
    _retype(head, b"text/event-stream; charset=utf-8")
    head.is_event_stream = True
    head.content_length = None
    head.is_chunked = False
    return head


def counted(head: AnswerHead, body: bytes) -> tuple[AnswerHead, bytes]:
    """CountTokens' answer as Anthropic's. One that is none becomes an error that moves on."""
    count = bedrock.count_answer(body)
    if count is None:
        return _whole(head, 502, _error(head, "api_error", "the provider's count of tokens cannot be read"))
    return _whole(head, head.status, count)


def told(head: AnswerHead, body: bytes) -> tuple[AnswerHead, bytes]:
    """An error as Anthropic would tell it. The head is changed in place; a body in Anthropic's shape stays as it came."""
    error = mapped(head.status, header_of(head.lines, _ERROR_TYPE).decode("latin-1"), body)
    if error is None:
        return _whole(
            head, head.status, masked(body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        )
    return _whole(head, error.status, _error(head, error.kind, error.message))


def _error(head: AnswerHead, kind: str, message: str) -> bytes:
    error: dict[str, object] = {"type": "error", "error": {"type": kind, "message": message}}
    request_id = head.special.get(b"request-id")
    if request_id:
        error["request_id"] = request_id.decode("latin-1")
    return msgspec.json.encode(error)


def _whole(head: AnswerHead, status: int, body: bytes) -> tuple[AnswerHead, bytes]:
    _retype(head, b"application/json")
    if status != head.status:
        head.status = status
        head.status_line = b"HTTP/1.1 %d %b" % (status, reason_phrase(status))
    head.content_length = len(body)
    head.is_chunked = False
    head.is_event_stream = False
    return head, body


def _retype(head: AnswerHead, content_type: bytes) -> None:
    head.lines = [line for line in head.lines if not line.lower().startswith(_OWN)]
    head.lines.append(b"content-type: " + content_type)
    head.special[b"content-type"] = content_type
    head.special.pop(b"content-encoding", None)
