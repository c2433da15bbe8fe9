"""Signatures of thinking blocks: made with the block, checked when it comes back.

Pure. A signature is opaque to clients. Here it is base64 of a nonce, a tag of the account, a tag of the
conversation before the block, and an HMAC over these and the block. The real one is encrypted reasoning; what
matters to a relay is the same: any change of the block, and (where switched on) a different account or a
different prefix, is noticed. The secret is the same in every demo provider, as signatures made on one platform
are readable on the others; `account_bound` and `prefix_bound` narrow that like the 5.5 models do.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ccr_demo.errors import ApiError

_SECRET = b"ccr-demo thinking blocks"
_MAGIC = b"\x12\xe7\x02\x0a"
ATTRIBUTION = "x-anthropic-billing-header"  # Claude Code's first system block, stripped by the API

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Binding:
    """What a signature is checked against, besides the block itself."""

    account: str
    account_bound: bool = False
    prefix_bound: bool = False


def sign(text: str, nonce: str, account: str, prefix: bytes) -> str:
    """The signature of a thinking block whose visible text is `text` (empty when display is omitted)."""
    head = _MAGIC + _tag(nonce.encode(), 12) + _tag(account.encode(), 8) + _tag(prefix, 8)
    # Real signatures grow with the reasoning that they hide.
    padding = hashlib.shake_128(head).digest(120 + len(text) // 2)
    return base64.b64encode(head + _mac(head, text) + padding).decode()


def redacted_data(nonce: str, account: str, prefix: bytes) -> str:
    """The `data` of a redacted_thinking block."""
    return sign("", f"redacted:{nonce}", account, prefix)


def check_thinking(body: Json, binding: Binding) -> None:
    """Raises ApiError (400) at the first thinking block that was changed, or that belongs elsewhere."""
    for i, message in enumerate(body.get("messages", ())):
        content = message.get("content")
        if message.get("role") != "assistant" or not isinstance(content, list):
            continue
        for j, block in enumerate(content):
            where = f"messages.{i}.content.{j}"
            if block.get("type") == "thinking":
                _check_thinking_block(block, where, binding, _prefix(body, i, j, binding))
            elif block.get("type") == "redacted_thinking" and not _is_ours(
                block.get("data"), "", binding, _prefix(body, i, j, binding)
            ):
                raise ApiError(400, f"{where}: Invalid `data` in `redacted_thinking` block")


def prefix_of(body: Json, messages_before: Sequence[Json], blocks_before: Sequence[Json]) -> bytes:
    """What a block is bound to: system, tools and everything said before it.

    Cache markers do not count, nor whether a lone text is written as a string: Claude Code writes it as a block
    while it has a marker, and as a string later. Nor does Claude Code's attribution block count.
    """
    before = [*map(_in_blocks, messages_before), {"role": "assistant", "content": list(blocks_before)}]
    system = body.get("system") or []
    if isinstance(system, list):
        system = [block for block in system if not str(block.get("text", "")).startswith(ATTRIBUTION)]
    whole = _without_cache_markers([system, body.get("tools") or [], before])
    return json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()


def _in_blocks(message: Json) -> Json:
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def _prefix(body: Json, message_index: int, block_index: int, binding: Binding) -> bytes:
    if not binding.prefix_bound:
        return b""
    messages = body["messages"]
    return prefix_of(body, messages[:message_index], messages[message_index]["content"][:block_index])


def _check_thinking_block(block: Json, where: str, binding: Binding, prefix: bytes) -> None:
    for name in ("signature", "thinking"):
        if name not in block:
            raise ApiError(400, f"{where}.thinking.{name}: Field required")
    raw = _decoded(block["signature"])
    if raw is None or not _holds(raw, block["thinking"]):
        raise ApiError(400, f"{where}: Invalid `signature` in `thinking` block")
    if binding.account_bound and raw[16:24] != _tag(binding.account.encode(), 8):
        raise ApiError(
            400, f"{where}: Invalid `signature` in `thinking` block: the block is bound to a different organization"
        )
    if binding.prefix_bound and raw[24:32] != _tag(prefix, 8):
        raise ApiError(
            400, f"{where}: Invalid `signature` in `thinking` block: the block is bound to a different conversation"
        )


def _is_ours(data: object, text: str, binding: Binding, prefix: bytes) -> bool:
    raw = _decoded(data)
    if raw is None or not _holds(raw, text):
        return False
    account_fits = not binding.account_bound or raw[16:24] == _tag(binding.account.encode(), 8)
    return account_fits and (not binding.prefix_bound or raw[24:32] == _tag(prefix, 8))


def _decoded(text: object) -> bytes | None:
    try:
        raw = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        return None
    return raw if raw.startswith(_MAGIC) and len(raw) >= 64 else None


def _holds(raw: bytes, text: object) -> bool:
    head, mac, padding = raw[:32], raw[32:64], raw[64:]
    same_text = isinstance(text, str) and hmac.compare_digest(mac, _mac(head, text))
    return same_text and padding == hashlib.shake_128(head).digest(len(padding))


def _mac(head: bytes, text: str) -> bytes:
    return hmac.digest(_SECRET, head + text.encode("utf-8", "surrogatepass"), "sha256")


def _tag(data: bytes, length: int) -> bytes:
    return hashlib.sha256(data).digest()[:length]


def _without_cache_markers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_cache_markers(each) for key, each in value.items() if key != "cache_control"}
    if isinstance(value, list):
        return [_without_cache_markers(each) for each in value]
    return value
