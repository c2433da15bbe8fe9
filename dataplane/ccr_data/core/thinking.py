"""Thinking blocks that a provider cannot verify: which they are, and the conversation without them.

Pure. What is dropped is named by the blocks' own signatures, never by their places, so that every later turn of the conversation
loses the same blocks and has the same prefix (docs/providers/anthropic.md, preserved thinking). All other bytes stay.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from ccr_data.core.snapshot import Target

# Wordings of a 400 that dropping thinking blocks mends, without quotation marks and in lower case, and where they were seen.
# Providers and gateways wrap them (a JSON text inside a message), so they are searched for in the whole answer.
_WORDINGS = (
    # github.com/tailcallhq/forgecode issue 2646; anthropics/claude-code issue 10627; ours in docs/providers/anthropic.md
    re.compile(r"invalid signature in (?:a )?thinking block"),
    # github.com/anomalyco/opencode issue 48637: “The block is bound to a different conversation. Remove the block, …”
    re.compile(r"block is bound to a different (?:conversation|organi[sz]ation|account|end.user|user|model)"),
    re.compile(r"invalid data in (?:a )?redacted_thinking block"),
    # A block that another vendor made, without any signature: docs/providers/anthropic.md
    re.compile(r"thinking\.signature: field required"),
    # github.com/anthropics/claude-code issues 19539, 63203
    re.compile(r"thinking or redacted_thinking blocks in the latest assistant message cannot be modified"),
)
_QUOTES = str.maketrans("", "", "`'\"\\")
_SPACES = re.compile(r"\s+")
_PLACE = re.compile(r"messages\.(\d+)\.content\.(\d+)")
_HAS_THINKING = re.compile(rb'"type"\s*:\s*"(?:redacted_)?thinking"')
_ACCOUNT_BOUND = re.compile(r"(?:sonnet|haiku)-5[-.]5")  # docs/providers/anthropic.md, preserved thinking
_BETWEEN = re.compile(rb"[ \t\r\n,:]*")
_KEY = re.compile(rb'"(?:[^"\\]|\\.)*"')
_UNSIGNED = b"\0" * 8
_NOTHING_LEFT = b'{"type":"text","text":"(no content)"}'  # a turn must not be empty; these are Claude Code's own words
MAX_ANSWER_BYTES = 64 << 10  # longer answers are no error of Anthropic's


class _Turn(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"[]")


class _Block(msgspec.Struct):
    type: str = ""
    signature: str | None = None
    data: str | None = None


class _Kind(msgspec.Struct):
    type: str = ""


_decode_turn = msgspec.json.Decoder(_Turn).decode
_decode_block = msgspec.json.Decoder(_Block).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Place(NamedTuple):
    """Where a block is: `messages.<turn>.content.<block>`."""

    turn: int
    block: int


class Thought(NamedTuple):
    """A thinking block of a conversation."""

    place: Place
    mark: bytes  # a short hash of its signature; the same for all blocks that have none


@dataclass(frozen=True, slots=True)
class Problem:
    """A provider's word that a thinking block does not verify."""

    place: Place | None  # of the first such block, if it was said


def reader_of(target: Target, model_asked: str) -> str:
    """Who reads signatures at a target: targets of one reader verify each other's blocks.

    Anthropic's own platforms read each other's, except for models whose blocks are bound to the account. All other providers are
    one reader: they verify nothing. Source: docs/providers/anthropic.md, preserved thinking.
    """
    provider = target.provider
    if not provider.traits.anthropic_signatures:
        return "unsigned"
    if _ACCOUNT_BOUND.search(target.model or model_asked):
        return f"anthropic/{target.scope[0]}/{target.scope[1]}"
    return "anthropic"


def has_thinking(body: bytes) -> bool:
    """Whether there may be a thinking block. One search; never wrongly false."""
    return _HAS_THINKING.search(body) is not None


def signature_problem(answer: bytes) -> Problem | None:
    """What a 400 says of thinking blocks that do not verify; None if it is about something else."""
    text = _SPACES.sub(" ", answer.decode("utf-8", "replace").translate(_QUOTES)).lower()
    if not any(wording.search(text) for wording in _WORDINGS):
        return None
    found = _PLACE.search(text)
    return Problem(Place(int(found[1]), int(found[2])) if found and len(found[0]) < 40 else None)


def thoughts(body: bytes) -> list[Thought]:
    """All thinking blocks of a conversation, in order; none if it cannot be read."""
    conversation = _read(body)
    return [thought for turn in conversation.turns for thought in turn.thoughts] if conversation else []


def to_drop(body: bytes, problem: Problem, *, is_last_try: bool) -> frozenset[bytes]:
    """The marks of the blocks to leave out so that the provider takes the conversation; empty if there are none.

    First those from the named block on (what comes before it has verified), but not those of an open tool loop, if there are others:
    the model is still in the middle of that thought. The last try drops all.
    """
    conversation = _read(body)
    if conversation is None:
        return frozenset()
    known = [thought for turn in conversation.turns for thought in turn.thoughts]
    if is_last_try:
        return frozenset(thought.mark for thought in known)
    named = any(thought.place == problem.place for thought in known)
    suspects = [thought for thought in known if not named or thought.place >= (problem.place or (0, 0))]
    open_turn = conversation.open_turn
    is_named_open = named and problem.place is not None and problem.place.turn == open_turn
    older = [thought for thought in suspects if thought.place.turn != open_turn]
    return frozenset(thought.mark for thought in (suspects if is_named_open or not older else older))


def without(body: bytes, marks: Collection[bytes]) -> bytes:
    """The conversation without the thinking blocks of these marks; every other byte as it was."""
    conversation = _read(body) if marks and has_thinking(body) else None
    if conversation is None:
        return body
    parts: list[bytes] = []
    done = 0
    for turn in conversation.turns:
        for start, end, replacement in _cuts(turn, marks):
            parts += (body[done:start], replacement)
            done = end
    return b"".join((*parts, body[done:])) if parts else body


def without_budget(body: bytes) -> bytes:
    """The request with `thinking` disabled, if that has a budget and an open tool loop has lost its thinking block.

    Anthropic takes no such loop otherwise: “When `thinking` is enabled, a final `assistant` message must start with a thinking
    block” (github.com/lbjlaq/Antigravity-Manager issue 139). Models with adaptive thinking do not mind.
    """
    try:
        mode = _value(0, body, "thinking")
        if mode is None or msgspec.json.decode(mode[1], type=_Kind).type != "enabled":
            return body
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    conversation = _read(body)
    if conversation is None or conversation.open_kind in ("", "thinking", "redacted_thinking"):
        return body
    start, end = mode[0], mode[0] + len(memoryview(mode[1]))
    return body[:start] + b'{"type":"disabled"}' + body[end:]


def is_in_tool_loop(body: bytes) -> bool:
    """Whether the newest user turn brings the results of the assistant's tool calls."""
    conversation = _read(body)
    return conversation is not None and conversation.open_turn >= 0


# --- reading a conversation with the places of its bytes ------------------------------------------------------------


@dataclass(slots=True)
class _TurnRead:
    blocks: list[tuple[int, int]]  # where the content blocks are, in bytes of the body
    thoughts: list[Thought]


@dataclass(slots=True)
class _Conversation:
    turns: list[_TurnRead]  # the assistant's that have thinking blocks
    open_turn: int  # the assistant's turn whose tool calls the newest user turn answers; -1: none
    open_kind: str  # of the first block there


def _read(body: bytes) -> _Conversation | None:
    try:
        found = _messages(body)
        if found is None:
            return None
        raws = _elements(*found)
        turns = [
            _read_turn(index, start, raw)
            for index, (start, raw) in enumerate(raws)
            if _HAS_THINKING.search(raw) and _decode_turn(raw).role == "assistant"
        ]
        open_turn, open_kind = _open_turn([raw for _, raw in raws])
        return _Conversation([turn for turn in turns if turn is not None], open_turn, open_kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None  # not a conversation: the provider says what is wrong with it


def _messages(body: bytes) -> tuple[int, msgspec.Raw] | None:
    return _value(0, body, "messages")


def _value(start: int, raw: bytes | msgspec.Raw, name: str) -> tuple[int, msgspec.Raw] | None:
    """The value of a key of an object at `start`, and where it is. None without it, or if keys are given twice."""
    data = memoryview(raw)
    at = _skip(data, 0) + 1  # behind the brace
    found = None
    for key, value in _decode_fields(raw).items():
        at = _skip(data, at)
        written = _KEY.match(data, at)
        if written is None or msgspec.json.decode(written[0]) != key:
            return None
        at = _skip(data, written.end())
        size = len(memoryview(value))
        if bytes(data[at : at + size]) != bytes(value):
            return None
        if key == name:
            found = (start + at, value)
        at += size
    return found if bytes(data[_skip(data, at) :]).strip() == b"}" else None


def _elements(start: int, raw: msgspec.Raw) -> list[tuple[int, msgspec.Raw]]:
    """The elements of an array at `start`, and where each is."""
    data = memoryview(raw)
    at = 1
    found = []
    for element in _decode_list(raw):
        at = _skip(data, at)
        found.append((start + at, element))
        at += len(memoryview(element))
    return found


def _skip(data: memoryview, at: int) -> int:
    """Past what stands between two values."""
    found = _BETWEEN.match(data, at)
    return found.end() if found else at


def _read_turn(index: int, start: int, raw: msgspec.Raw) -> _TurnRead | None:
    content = _value(start, raw, "content")
    if content is None or bytes(memoryview(content[1])[:1]) != b"[":
        return None
    blocks, found = [], []
    for number, (at, element) in enumerate(_elements(*content)):
        blocks.append((at, at + len(memoryview(element))))
        if _HAS_THINKING.search(element):
            block = _decode_block(element)
            if block.type in ("thinking", "redacted_thinking"):
                found.append(Thought(Place(index, number), _mark(block)))
    return _TurnRead(blocks, found)


def _mark(block: _Block) -> bytes:
    signature = block.signature if block.type == "thinking" else block.data
    return blake2b(signature.encode("utf-8", "surrogatepass"), digest_size=8).digest() if signature else _UNSIGNED


def _open_turn(raws: list[msgspec.Raw]) -> tuple[int, str]:
    last = _before(raws, len(raws), "system")
    if last < 1 or "tool_result" not in _kinds(raws[last], "user"):
        return -1, ""
    calling = _before(raws, last, "user", "system")
    kinds = _kinds(raws[calling], "assistant") if calling >= 0 else []
    return (calling, kinds[0]) if "tool_use" in kinds else (-1, "")


def _before(raws: list[msgspec.Raw], at: int, *skipped: str) -> int:
    """The last turn before `at` that has none of these roles; -1: none."""
    at -= 1
    while at >= 0 and _decode_turn(raws[at]).role in skipped:
        at -= 1
    return at


def _kinds(raw: msgspec.Raw, role: str) -> list[str]:
    """The types of a turn's blocks, if it has this role."""
    turn = _decode_turn(raw)
    if turn.role != role or bytes(memoryview(turn.content)[:1]) != b"[":
        return []
    return [block.type for block in msgspec.json.decode(turn.content, type=list[_Kind])]


def _cuts(turn: _TurnRead, marks: Collection[bytes]) -> list[tuple[int, int, bytes]]:
    """What to take out of a turn, as (from, to, instead)."""
    dropped = {thought.place.block for thought in turn.thoughts if thought.mark in marks}
    blocks = turn.blocks
    if not dropped:
        return []
    if len(dropped) == len(blocks):
        return [(blocks[0][0], blocks[-1][1], _NOTHING_LEFT)]
    last_kept = max(number for number in range(len(blocks)) if number not in dropped)
    cuts = [(blocks[number][0], blocks[number + 1][0], b"") for number in sorted(dropped) if number < last_kept]
    if last_kept + 1 < len(blocks):
        cuts.append((blocks[last_kept][1], blocks[-1][1], b""))
    return cuts
