"""Messages of the demo provider, as the official SDK sees them."""

from typing import Any

import anthropic
import pytest
from anthropic.types import TextBlock, ThinkingBlock, ToolUseBlock
from ccr_demo import DemoServer

BASH = {
    "name": "Bash",
    "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
}
SHOWN = {"type": "adaptive", "display": "summarized"}
LONG = "A sentence that is worth caching. " * 400  # 3,400 tokens


def saying(ask: dict[str, Any], text: str, **more: Any) -> dict[str, Any]:
    return {**ask, "messages": [{"role": "user", "content": text}], **more}


async def streamed(client: anthropic.AsyncAnthropic, request: dict[str, Any]) -> anthropic.types.Message:
    async with client.messages.stream(**request) as stream:
        return await stream.get_final_message()


async def test_a_stream_adds_up_to_the_same_text_as_a_whole_answer(
    demo: DemoServer, client: anthropic.AsyncAnthropic, ask: dict[str, Any]
) -> None:
    """Claude Code repeats a failed stream without streaming and must get an answer of the same kind."""
    demo.play({"text": "one two  three\n", "times": 2})

    whole = await client.messages.create(**ask)
    parts = await streamed(client, ask)

    assert [block.to_dict() for block in whole.content] == [block.to_dict() for block in parts.content]
    assert isinstance(whole.content[0], TextBlock)
    assert whole.content[0].text == "one two  three\n"
    assert whole.usage.to_dict() == parts.usage.to_dict()
    assert (whole.stop_reason, parts.stop_reason) == ("end_turn", "end_turn")
    assert whole.id != parts.id


async def test_events_come_in_the_order_of_the_api(
    demo: DemoServer, client: anthropic.AsyncAnthropic, ask: dict[str, Any]
) -> None:
    """Taps and clients rely on it."""
    demo.play({"text": ["a", "b"], "tools": [{"name": "Bash", "input": {}}]})

    stream = await client.messages.create(**ask, stream=True)
    kinds = [event.type async for event in stream]

    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_parallel_tool_calls_arrive_whole(
    demo: DemoServer, client: anthropic.AsyncAnthropic, ask: dict[str, Any]
) -> None:
    """Inputs are cut into fragments anywhere, even inside an escape."""
    inputs = [{"command": "printf 'ä\\n\"'"}, {"nested": {"list": [1, 2.5, None, True]}, "empty": {}}]
    demo.play({"tools": [{"name": "Bash", "input": each} for each in inputs]})

    message = await streamed(client, {**ask, "tools": [BASH]})

    calls = [block for block in message.content if isinstance(block, ToolUseBlock)]
    assert [call.input for call in calls] == inputs
    assert len({call.id for call in calls}) == 2
    assert message.stop_reason == "tool_use"


async def test_a_tool_loop_ends(client: anthropic.AsyncAnthropic, ask: dict[str, Any]) -> None:
    """A directive must not be obeyed again when the results come back."""
    request = saying(ask, "[[tools:2]]", tools=[BASH])
    first = await streamed(client, request)
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": f"result {i}"}
        for i, block in enumerate(first.content)
        if isinstance(block, ToolUseBlock)
    ]
    turns = [
        *request["messages"],
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": results},
    ]

    second = await streamed(client, {**request, "messages": turns})

    assert len(results) == 2
    assert second.stop_reason == "end_turn"
    assert "result 0; result 1" in str(second.content)


class TestThinking:
    """Blocks are signed, and must come back as they were."""

    def request(self, ask: dict[str, Any], content: list[Any]) -> dict[str, Any]:
        turns = [
            {"role": "user", "content": "[[thinking:hm, well]] [[redacted]]"},
            {"role": "assistant", "content": content},
            {"role": "user", "content": "go on"},
        ]
        return {**ask, "messages": turns if content else turns[:1], "thinking": SHOWN}

    async def first(self, client: anthropic.AsyncAnthropic, ask: dict[str, Any]) -> list[Any]:
        message = await streamed(client, self.request(ask, []))
        assert [block.type for block in message.content] == ["thinking", "redacted_thinking", "text"]
        return [block.to_dict() for block in message.content]

    async def test_an_unchanged_block_is_accepted(self, client: anthropic.AsyncAnthropic, ask: dict[str, Any]) -> None:
        content = await self.first(client, ask)

        assert content[0]["thinking"] == "hm, well"
        await streamed(client, self.request(ask, content))

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"thinking": "hm, well!"}, "Invalid `signature` in `thinking` block"),
            ({"signature": "EuYBCkQYAiJA"}, "Invalid `signature` in `thinking` block"),
            ({"signature": ""}, "Invalid `signature` in `thinking` block"),
            ({"signature": None}, "Invalid `signature` in `thinking` block"),
        ],
    )
    async def test_a_changed_block_is_refused(
        self, client: anthropic.AsyncAnthropic, ask: dict[str, Any], change: dict[str, Any], problem: str
    ) -> None:
        """In the words that Claude Code recognises."""
        content = await self.first(client, ask)

        with pytest.raises(anthropic.BadRequestError) as caught:
            await streamed(client, self.request(ask, [content[0] | change, *content[1:]]))
        assert problem in str(caught.value)
        assert "messages.1.content.0" in str(caught.value)

    async def test_a_block_without_signature_is_refused(
        self, client: anthropic.AsyncAnthropic, ask: dict[str, Any]
    ) -> None:
        with pytest.raises(anthropic.BadRequestError, match=r"thinking\.signature: Field required"):
            await streamed(client, self.request(ask, [{"type": "thinking", "thinking": "of another vendor"}]))

    async def test_changed_redacted_data_is_refused(
        self, client: anthropic.AsyncAnthropic, ask: dict[str, Any]
    ) -> None:
        content = await self.first(client, ask)

        with pytest.raises(anthropic.BadRequestError, match="redacted_thinking"):
            await streamed(client, self.request(ask, [content[0], content[1] | {"data": content[0]["signature"]}]))

    async def test_omitted_thinking_is_signed_too(self, client: anthropic.AsyncAnthropic, ask: dict[str, Any]) -> None:
        """From Opus 4.7 on the text stays away by default, the signature does not."""
        request = self.request(ask, []) | {"thinking": {"type": "adaptive"}}
        message = await streamed(client, request)

        block = message.content[0]
        assert isinstance(block, ThinkingBlock)
        assert block.thinking == ""
        assert len(block.signature) > 100
        await streamed(client, self.request(ask, [each.to_dict() for each in message.content]))

    async def test_blocks_of_another_account_are_refused_when_bound(
        self, demo: DemoServer, client: anthropic.AsyncAnthropic, ask: dict[str, Any]
    ) -> None:
        content = await self.first(client, ask)
        demo.configure(account_bound=True, key_organizations={"sk-other": "other"})

        await streamed(client, self.request(ask, content))
        other = client.with_options(api_key="sk-other")
        with pytest.raises(anthropic.BadRequestError, match="different organization"):
            await streamed(other, self.request(ask, content))

    async def test_blocks_behind_another_prefix_are_refused_when_bound(
        self, demo: DemoServer, client: anthropic.AsyncAnthropic, ask: dict[str, Any]
    ) -> None:
        """Moving a cache marker changes nothing, nor does a text as a string; another system prompt does."""
        content = await self.first(client, ask)
        demo.configure(prefix_bound=True)
        request = self.request(ask, content)
        marked = {"type": "text", "text": request["messages"][0]["content"], "cache_control": {"type": "ephemeral"}}

        await streamed(client, request)
        with pytest.raises(anthropic.BadRequestError, match="bound to a different conversation"):
            await streamed(client, {**request, "system": "Another one."})

        first = await streamed(client, {**request, "messages": [{"role": "user", "content": [marked]}]})
        blocks = [block.to_dict() for block in first.content]
        again = [request["messages"][0], {"role": "assistant", "content": blocks}, request["messages"][2]]
        await streamed(client, {**request, "messages": again})


async def test_a_prompt_is_written_to_the_cache_once_and_read_then(
    client: anthropic.AsyncAnthropic, ask: dict[str, Any]
) -> None:
    """Leaving a pinned target has a price; tests see it in these numbers."""
    system = [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}]

    first = (await client.messages.create(**ask, system=system)).usage
    second = (await client.messages.create(**saying(ask, "something else"), system=system)).usage

    assert first.cache_read_input_tokens == 0
    assert first.cache_creation_input_tokens == 3400
    assert first.cache_creation is not None
    assert first.cache_creation.ephemeral_5m_input_tokens == 3400
    assert (second.cache_read_input_tokens, second.cache_creation_input_tokens) == (3400, 0)
    assert (first.input_tokens, second.input_tokens) == (1, 4)


async def test_count_tokens_is_what_a_request_is_charged(client: anthropic.AsyncAnthropic, ask: dict[str, Any]) -> None:
    request = {**ask, "system": LONG, "tools": [BASH]}
    counted = await client.messages.count_tokens(
        **{key: value for key, value in request.items() if key != "max_tokens"}
    )
    usage = (await client.messages.create(**request)).usage

    assert counted.input_tokens == usage.input_tokens


async def test_structured_output_is_json_of_the_schema(client: anthropic.AsyncAnthropic, ask: dict[str, Any]) -> None:
    """Claude Code asks for titles like that and would retry anything else."""
    schema = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    message = await client.messages.create(
        **ask, extra_body={"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    )

    assert isinstance(message.content[0], TextBlock)
    assert message.content[0].text == '{"title": "demo"}'
