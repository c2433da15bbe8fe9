"""Is this a request that the Messages API would take? If not, which 400 does it answer?

Pure. Not the whole schema: the required fields, roles and their order, tool calls with their results, thinking
modes and the changes of API version 2026-10-21 (docs/providers/anthropic.md), in the API's own wording, because
clients recognise it. Unknown fields pass, as additions within an API version must.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ccr_demo.catalogue import Model
from ccr_demo.errors import ApiError

Json = Mapping[str, Any]

SAMPLING_FIELDS = ("temperature", "top_p", "top_k")


def check_message_request(body: object, api_version: str, model: Model, accepts_system_turns: bool) -> None:
    """Raises ApiError (400) with the first problem of a `POST /v1/messages` body."""
    fields = check_common(body)
    _check_max_tokens(fields)
    if api_version >= "2026-10-21":
        for name in SAMPLING_FIELDS:
            if name in fields:
                raise ApiError(400, f"{name}: Extra inputs are not permitted")
    check_conversation(fields, model, accepts_system_turns)


def check_conversation(fields: Json, model: Model, accepts_system_turns: bool) -> None:
    """Raises ApiError (400); what `POST /v1/messages` and count_tokens have in common behind the basic types."""
    messages: Sequence[Json] = fields["messages"]
    _check_roles(messages, model, accepts_system_turns)
    _check_blocks(messages)
    _check_tool_pairs(messages)
    _check_thinking_mode(fields, model)
    if messages[-1]["role"] == "assistant" and not model.accepts_prefill:
        raise ApiError(
            400,
            "This model does not support assistant message prefill. The conversation must end with a user message.",
        )


def check_common(body: object) -> Json:
    """The body as an object with `model` and `messages` of the right types. Raises ApiError (400)."""
    if not isinstance(body, dict):
        raise ApiError(400, "Input should be a valid dictionary")
    for name in ("model", "messages"):
        if name not in body:
            raise ApiError(400, f"{name}: Field required")
    if not isinstance(body["model"], str) or not body["model"]:
        raise ApiError(400, "model: Input should be a valid string")
    messages = body["messages"]
    if not isinstance(messages, list):
        raise ApiError(400, "messages: Input should be a valid list")
    if not messages:
        raise ApiError(400, "messages: at least one message is required")
    for name in ("tools", "stop_sequences"):
        if body.get(name) is not None and not isinstance(body[name], list):
            raise ApiError(400, f"{name}: Input should be a valid list")
    for name in ("thinking", "output_config", "tool_choice", "metadata", "cache_control", "context_management"):
        if body.get(name) is not None and not isinstance(body[name], dict):
            raise ApiError(400, f"{name}: Input should be a valid dictionary or object to extract fields from")
    _check_output_format(body.get("output_config") or {})
    _check_tools(body.get("tools") or [])
    _check_system(body.get("system"))
    return body


def readable_part(fields: Json) -> dict[str, Any]:
    """What an answer can be made from if nobody validated the body: all of it, or only model and stream."""
    try:
        check_common(fields)
        _check_blocks([message for message in fields["messages"] if message["role"]])
    except (ApiError, TypeError, KeyError):
        return {name: fields[name] for name in ("model", "stream") if isinstance(fields.get(name), str | bool)}
    return dict(fields)


def _check_output_format(config: Json) -> None:
    form = config.get("format")
    if form is not None and not (isinstance(form, dict) and _is_schema(form.get("schema", {}))):
        raise ApiError(400, "output_config.format: Input should be a valid dictionary or object to extract fields from")


def _check_tools(tools: Sequence[object]) -> None:
    for i, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise ApiError(400, f"tools.{i}: Input should be a valid dictionary or object to extract fields from")
        if "name" not in tool:
            raise ApiError(400, f"tools.{i}.custom.name: Field required")
        if not _is_schema(tool.get("input_schema", {})):
            raise ApiError(400, f"tools.{i}.custom.input_schema: JSON schema is invalid")


def _is_schema(schema: object) -> bool:
    """Sound enough to make an example from."""
    if not isinstance(schema, dict):
        return False
    properties, required = schema.get("properties", {}), schema.get("required", [])
    return (
        isinstance(properties, dict)
        and all(_is_schema(each) for each in properties.values())
        and isinstance(required, list)
        and all(isinstance(name, str) for name in required)
        and isinstance(schema.get("enum", []), list)
    )


def _check_system(system: object) -> None:
    if system is None or isinstance(system, str):
        return
    if not isinstance(system, list) or not all(isinstance(block, dict) for block in system):
        raise ApiError(400, "system: Input should be a valid list")


def _check_max_tokens(fields: Json) -> None:
    if "max_tokens" not in fields:
        raise ApiError(400, "max_tokens: Field required")
    limit = fields["max_tokens"]
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise ApiError(400, "max_tokens: Input should be a valid integer")
    if limit < 1:
        raise ApiError(400, "max_tokens: Input should be greater than or equal to 1")


def _check_roles(messages: Sequence[Json], model: Model, accepts_system_turns: bool) -> None:
    for i, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role is None:
            raise ApiError(400, f"messages.{i}.role: Field required")
        if role == "system" and not accepts_system_turns:
            raise ApiError(400, f"messages.{i}.role: Input should be 'user' or 'assistant'")
        if role == "system" and not model.accepts_system_turns:
            raise ApiError(400, f"messages.{i}: role 'system' is not supported on this model")
        if role not in ("user", "assistant", "system"):
            raise ApiError(400, f"messages.{i}.role: Input should be 'user', 'assistant' or 'system'")
        if "content" not in message:
            raise ApiError(400, f"messages.{i}.content: Field required")
    if messages[0]["role"] != "user":
        raise ApiError(400, 'messages: first message must use the "user" role')
    for i, message in enumerate(messages):
        if message["role"] == "system" and not _is_well_placed(messages, i):
            raise ApiError(
                400,
                f"messages.{i}: a `system` message must follow a `user` message and must be last or be followed by "
                "an `assistant` message",
            )


def _is_well_placed(messages: Sequence[Json], i: int) -> bool:
    before = messages[i - 1]["role"]  # i > 0: the first message was checked to be a user's
    follows_user = before == "user" or (before == "assistant" and _ends_in_server_tool_result(messages[i - 1]))
    return follows_user and (i + 1 == len(messages) or messages[i + 1]["role"] == "assistant")


def _ends_in_server_tool_result(message: Json) -> bool:
    content = message["content"]
    kind = str(content[-1].get("type")) if isinstance(content, list) and content else ""
    return kind.endswith("_tool_result")


def _check_blocks(messages: Sequence[Json]) -> None:
    for i, message in enumerate(messages):
        content = message["content"]
        if isinstance(content, str):
            if not content and message["role"] == "user":
                raise ApiError(400, f"messages.{i}: user messages must have non-empty content")
            continue
        if not isinstance(content, list):
            raise ApiError(400, f"messages.{i}.content: Input should be a valid list")
        for j, block in enumerate(content):
            _check_block(block, f"messages.{i}.content.{j}")


def _check_block(block: object, where: str) -> None:
    if not isinstance(block, dict):
        raise ApiError(400, f"{where}: Input should be a valid dictionary or object to extract fields from")
    match block.get("type"):
        case None:
            raise ApiError(400, f"{where}.type: Field required")
        case "text":
            if not isinstance(block.get("text"), str):
                raise ApiError(400, f"{where}.text.text: Field required")
            if not block["text"]:
                raise ApiError(400, "messages: text content blocks must be non-empty")
        case "tool_use":
            _require(block, where, "id", "name", "input")
        case "tool_result":
            _require(block, where, "tool_use_id")


def _require(block: Json, where: str, *names: str) -> None:
    for name in names:
        if name not in block:
            raise ApiError(400, f"{where}.{block['type']}.{name}: Field required")


def _check_tool_pairs(messages: Sequence[Json]) -> None:
    turns = [(i, message) for i, message in enumerate(messages) if message["role"] != "system"]
    before: set[str] = set()  # calls of the turn before
    for at, (i, message) in enumerate(turns):
        results = _ids(message, "tool_result", "tool_use_id")
        for j, result_id in results.items():
            if result_id not in before:
                raise ApiError(
                    400,
                    f"messages.{i}.content.{j}: unexpected `tool_use_id` found in `tool_result` blocks: {result_id}. "
                    "Each `tool_result` block must have a corresponding `tool_use` block in the previous message.",
                )
        calls = set(_ids(message, "tool_use", "id").values())
        following = turns[at + 1][1] if at + 1 < len(turns) else None
        answered = set(_ids(following, "tool_result", "tool_use_id").values()) if following else calls
        if missing := sorted(calls - answered):
            raise ApiError(
                400,
                f"messages.{i}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the "
                "next message.",
            )
        before = calls


def _ids(message: Json, kind: str, key: str) -> dict[int, str]:
    content = message["content"]
    if isinstance(content, str):
        return {}
    return {j: str(block[key]) for j, block in enumerate(content) if block.get("type") == kind}


def _check_thinking_mode(fields: Json, model: Model) -> None:
    thinking = fields.get("thinking")
    if thinking is None:
        return
    mode = thinking.get("type") if isinstance(thinking, dict) else None
    if mode is None:
        raise ApiError(400, "thinking.type: Field required")
    if not isinstance(mode, str) or mode not in model.thinking_modes:
        supported = ", ".join(f'"{each}"' for each in sorted(model.thinking_modes))
        raise ApiError(
            400, f'thinking.type: "{mode}" thinking is not supported on this model; supported values are {supported}.'
        )
    if mode == "enabled":
        _check_budget(fields, thinking)
        _check_thinking_first(fields["messages"])


def _check_budget(fields: Json, thinking: Json) -> None:
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int):
        raise ApiError(400, "thinking.enabled.budget_tokens: Field required")
    if budget < 1024:
        raise ApiError(400, "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
    if budget >= fields.get("max_tokens", budget + 1):
        raise ApiError(400, "`max_tokens` must be greater than `thinking.budget_tokens`.")


def _check_thinking_first(messages: Sequence[Json]) -> None:
    """Inside a tool loop the assistant's turn must still begin with its thinking."""
    for i in range(len(messages) - 1, -1, -1):
        message = messages[i]
        if message["role"] == "user" and not _ids(message, "tool_result", "tool_use_id"):
            return
        if message["role"] == "assistant" and _ids(message, "tool_use", "id"):
            kind = message["content"][0].get("type")
            if kind not in ("thinking", "redacted_thinking"):
                raise ApiError(
                    400,
                    f"messages.{i}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{kind}`. "
                    "When `thinking` is enabled, a final `assistant` message must start with a thinking block "
                    "(preceeding the lastmost set of `tool_use` and `tool_result` blocks).",
                )
            return
