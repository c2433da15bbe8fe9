"""What a generation of Claude models refuses, and a request made fit for it.

Pure. Only for requests that a mapping gives another generation's name, where the provider's configuration says so (`adjust_renamed`).
The same request and generation give the same bytes, so that later turns of a conversation keep their prefix. All that need not change
stays byte-identical. Source: docs/providers/anthropic.md, thinking by model. A prefilled answer, which newer models refuse, is left for
the provider to refuse: nothing else means the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

MIN_BUDGET = 1024  # tokens of thinking, at least; it must be less than max_tokens
MAX_BUDGET = 32_000
OLD_MAX_TOKENS = 64_000  # of an answer, before 4.6

_NAME = re.compile(
    r"claude-(?:(?P<family>opus|sonnet|haiku|fable|mythos)-(?P<major>\d{1,2})(?:[-.](?P<minor>\d{1,2}))?(?!\d)"
    r"|(?P<old>\d)(?:[-.]\d)?-(?:opus|sonnet|haiku))"
)


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model takes, as far as models differ in it."""

    budget: bool  # thinking of type "enabled" with a budget
    adaptive: bool  # thinking of type "adaptive"
    disabled: bool  # thinking of type "disabled"
    between_tools: bool  # thinking of type "between_tools", which is the least that such a model does
    forced_tools: bool  # tool_choice "any" or "tool"
    system_turns: bool  # `role: "system"` among the messages
    effort: bool  # output_config.effort
    long_answers: bool  # max_tokens above 64,000


def generation_of(model: str) -> Generation | None:
    """The generation that a model's name is of, whatever a cloud puts around it; None if it is no Claude model's that is known."""
    found = _NAME.search(model.lower())
    if found is None:
        return None
    if found["old"]:
        family, version = "", (int(found["old"]), 0)
    else:
        family, version = found["family"], (int(found["major"]), int(found["minor"] or 0))
    is_strict = family in ("fable", "mythos") or (family in ("opus", "sonnet") and version >= (5, 5))
    is_newest = version >= ((5, 1) if family in ("fable", "mythos") else (5, 5))
    return Generation(
        budget=version < (4, 7),
        adaptive=version >= (4, 6),
        disabled=not is_strict,
        between_tools=family == "sonnet" and version >= (5, 5),
        forced_tools=not (is_newest and family in ("opus", "sonnet", "fable", "mythos")),
        system_turns=version >= (4, 8),
        effort=version >= (4, 6) or (family == "opus" and version >= (4, 5)),
        long_answers=version >= (4, 6),
    )


class _Thinking(msgspec.Struct):
    type: str = ""
    budget_tokens: int | None = None


class _ToolChoice(msgspec.Struct):
    type: str = ""
    disable_parallel_tool_use: bool | None = None


_Fields = dict[str, msgspec.Raw]


def adjusted(body: bytes, to: Generation, fold: Callable[[bytes], bytes]) -> bytes:
    """The body of a Messages request as this generation takes it; the same object if it takes it as it is.

    `fold` makes user turns of system turns. What is no request is left for the provider to refuse.
    """
    try:
        fields = msgspec.json.decode(body, type=_Fields)
        changed = [
            _fit_answer_length(fields, to),
            _fit_thinking(fields, to),
            _fit_effort(fields, to),
            _fit_tool_choice(fields, to),
        ]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    if any(changed):
        body = msgspec.json.encode(fields)
    return body if to.system_turns else fold(body)


def _fit_answer_length(fields: _Fields, to: Generation) -> bool:
    if to.long_answers or _number(fields, "max_tokens") <= OLD_MAX_TOKENS:
        return False
    fields["max_tokens"] = msgspec.Raw(b"%d" % OLD_MAX_TOKENS)
    return True


def _fit_thinking(fields: _Fields, to: Generation) -> bool:
    if "thinking" not in fields:
        return False
    thinking = msgspec.json.decode(fields["thinking"], type=_Thinking)
    match thinking.type:
        case "enabled" if not to.budget:
            fields["thinking"] = msgspec.Raw(b'{"type":"adaptive"}')
        case "adaptive" if not to.adaptive:
            budget = min(_number(fields, "max_tokens") // 2, MAX_BUDGET)
            if budget < MIN_BUDGET:
                del fields["thinking"]
            else:
                fields["thinking"] = msgspec.Raw(b'{"type":"enabled","budget_tokens":%d}' % budget)
        case "disabled" | "between_tools" if not (to.disabled if thinking.type == "disabled" else to.between_tools):
            if to.between_tools:
                fields["thinking"] = msgspec.Raw(b'{"type":"between_tools"}')
            elif to.disabled:
                fields["thinking"] = msgspec.Raw(b'{"type":"disabled"}')
            else:  # it always thinks
                del fields["thinking"]
        case _:
            return False
    return True


def _fit_effort(fields: _Fields, to: Generation) -> bool:
    if to.effort or "output_config" not in fields:
        return False
    config = msgspec.json.decode(fields["output_config"], type=_Fields)
    if config.pop("effort", None) is None:
        return False
    if config:
        fields["output_config"] = msgspec.Raw(msgspec.json.encode(config))
    else:
        del fields["output_config"]
    return True


def _fit_tool_choice(fields: _Fields, to: Generation) -> bool:
    if to.forced_tools or "tool_choice" not in fields:
        return False
    choice = msgspec.json.decode(fields["tool_choice"], type=_ToolChoice)
    if choice.type not in ("any", "tool"):
        return False
    is_single = choice.disable_parallel_tool_use
    fields["tool_choice"] = msgspec.Raw(
        b'{"type":"auto","disable_parallel_tool_use":true}' if is_single else b'{"type":"auto"}'
    )
    return True


def _number(fields: _Fields, name: str) -> int:
    return msgspec.json.decode(fields[name], type=int) if name in fields else 0
