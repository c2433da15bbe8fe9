"""Adapter for every provider that speaks the Anthropic Messages API itself: Anthropic, Z.AI, Ollama and the compatible ones.

The body leaves byte-identical but for the value of `model` where a mapping names another, and header lines leave as they came
but for those of this hop, the credentials and what the provider's configuration replaces. Where a provider cannot take what
Claude Code sends, its traits say what happens; such rewrites are pure functions of the conversation, so that every later turn has the
same prefix (docs/providers/anthropic.md, preserved thinking).
"""

from __future__ import annotations

import re

import msgspec

from ccr_data.core.errors import BadRequest
from ccr_data.core.peek import peek, with_model
from ccr_data.core.shapes import Turn
from ccr_data.core.snapshot import Provider, SystemTurns, Target
from ccr_data.providers.adapter import ClientRequest, UpstreamRequest

_SYSTEM_ROLE = re.compile(rb'"role"\s*:\s*"system"')


_Block = dict[str, object]


def prepare(request: ClientRequest, target: Target) -> UpstreamRequest:
    """The request to send to the target. Raises BadRequest where the provider refuses system turns (Claude Code recovers)."""
    provider = target.provider
    head = request.head
    lines = head.lines
    if provider.edits_lines:
        lines = own_lines(lines, provider)
    body: tuple[bytes, ...] = (request.body,)
    size = len(request.body)
    peeked = request.peek
    if peeked is not None:
        if provider.traits.system_turns is not SystemTurns.PASS and _SYSTEM_ROLE.search(request.body):
            body = (without_system_turns(request.body, provider),)
            peeked = peek(body[0])
            size = len(body[0])
        if target.model is not None:
            body = with_model(body[0], peeked, target.model)
            size = sum(map(len, body))
    token = b"authorization: Bearer %b\r\n" % request.own_token if request.own_token else b""
    upstream_head = b"".join(
        (
            head.method,
            b" ",
            target.path_prefix,
            head.target,
            b" HTTP/1.1\r\n",
            target.header_lines,
            token,
            b"\r\n".join(lines),
            b"\r\n" if lines else b"",
            b"content-length: %d\r\n\r\n" % size if size or head.method == b"POST" else b"\r\n",
        )
    )
    return UpstreamRequest(upstream_head, body, size)


def own_lines(lines: list[bytes], provider: Provider) -> list[bytes]:
    """The client's header lines without those that the provider's configuration replaces, and with the betas it takes."""
    replaced = {name.encode("latin-1") for name, _ in provider.headers}
    kept = []
    for line in lines:
        name, _, value = line.partition(b":")
        lower = name.lower()
        if lower in replaced:
            continue
        if lower == b"anthropic-beta":
            betas = own_betas(value, provider)
            if betas:
                kept.append(name + b": " + ",".join(betas).encode("latin-1"))
            continue
        kept.append(line)
    return kept


def own_betas(value: bytes, provider: Provider) -> list[str]:
    """The values of an `anthropic-beta` header that the provider takes, by the names it has for them, each once."""
    renamed = dict(provider.renamed_betas)
    betas = [beta.strip() for beta in value.decode("latin-1").split(",")]
    return list(dict.fromkeys(renamed.get(beta, beta) for beta in betas if beta and provider.takes_beta(beta)))


def system_turns_fitted(request: ClientRequest, provider: Provider) -> ClientRequest:
    """The request with its system turns as the provider takes them; the same one if nothing is to be done. Raises BadRequest."""
    if provider.traits.system_turns is SystemTurns.PASS or not _SYSTEM_ROLE.search(request.body):
        return request
    body = without_system_turns(request.body, provider)
    return ClientRequest(request.head, body, peek(body), request.own_token)


def without_system_turns(body: bytes, provider: Provider) -> bytes:
    """The body without `role: "system"` turns, as `folded` makes it.

    Raises BadRequest with the wording that makes Claude Code fold them itself, if the provider is to reject them.
    """
    without = folded(body)
    if without is not body and provider.traits.system_turns is SystemTurns.REJECT:
        raise BadRequest("messages: role 'system' is not supported on this model")
    return without


def folded(body: bytes) -> bytes:
    """The body with each `role: "system"` turn made part of the user turn before it, all other turns byte-identical.

    The same object if it has none, or is no conversation: the provider says what is wrong with it.
    """
    if not _SYSTEM_ROLE.search(body):
        return body
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        raws = msgspec.json.decode(fields.get("messages", msgspec.Raw(b"[]")), type=list[msgspec.Raw])
        turns = [(msgspec.json.decode(raw, type=Turn), bytes(raw)) for raw in raws]
        if not any(turn.role == "system" for turn, _ in turns):
            return body
        fields["messages"] = msgspec.Raw(b"[" + b",".join(_folded(turns)) + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return body
    return msgspec.json.encode(fields)


def _folded(turns: list[tuple[Turn, bytes]]) -> list[bytes]:
    folded: list[bytes] = []
    last_role = ""
    for turn, raw in turns:
        if turn.role != "system":
            folded.append(raw)
            last_role = turn.role
            continue
        blocks = _reminders(bytes(turn.content))
        if last_role == "user":
            folded[-1] = _with_blocks(folded[-1], blocks)
        else:
            folded.append(b'{"role":"user","content":[' + blocks + b"]}")
            last_role = "user"
    return folded


def _reminders(content: bytes) -> bytes:
    """A system turn's content as text blocks, comma-separated JSON, marked up as Claude Code marks its own reminders."""
    decoded = msgspec.json.decode(content, type=str | list[_Block] | None)
    given: list[_Block] = [{"type": "text", "text": decoded}] if isinstance(decoded, str) else decoded or []
    texts = [block for block in given if isinstance(block.get("text"), str)]
    wrapped = [{**block, "text": f"<system-reminder>\n{block['text']}\n</system-reminder>"} for block in texts]
    return b",".join(msgspec.json.encode(block) for block in wrapped) or b'{"type":"text","text":"-"}'


def _with_blocks(turn: bytes, blocks: bytes) -> bytes:
    """A user turn with blocks added at its end; what it had stays byte-identical."""
    fields = msgspec.json.decode(turn, type=dict[str, msgspec.Raw])
    content = bytes(fields["content"]).strip()
    if content.startswith(b'"'):
        content = b'[{"type":"text","text":' + content + b"}]"
    before = content[:-1].rstrip()
    separator = b"" if before == b"[" else b","
    fields["content"] = msgspec.Raw(before + separator + blocks + b"]")
    return msgspec.json.encode(fields)
