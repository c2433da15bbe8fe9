"""Clients that name no session get one from how their conversation begins."""

from __future__ import annotations

import json

import pytest
from ccr_data.core.conversation import READ_BYTES, SEARCHED_BYTES, is_continued, name_of

Content = str | list[dict[str, object]]
MORE = [{"role": "assistant", "content": "text"}, {"role": "user", "content": [{"type": "text", "text": "next"}]}]
TOOLS = [{"name": "t", "input_schema": {"type": "object", "properties": {"messages": {"type": "array"}}}}]
SYSTEM = [{"type": "text", "text": "of the system"}]


def body(first: Content, *more: object, style: str = "", **fields: object) -> bytes:
    value = {"model": "m", **fields, "messages": [{"role": "user", "content": first}, *more], "system": SYSTEM}
    return json.dumps(value, **({"indent": 1} if style else {"separators": (",", ":")})).encode()  # type: ignore[arg-type]


def block(text: str, **more: object) -> dict[str, object]:
    return {"type": "text", "text": text, **more}


TEXTS = ['say "hi" \\ é', "{[]}", "long " * READ_BYTES, "a"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("style", ["", "pretty"])
def test_every_turn_of_a_conversation_has_the_same_name(text: str, style: str) -> None:
    """Cache markers come and go, and a lone text is a block or a string."""
    marked = [block(text, cache_control={"type": "ephemeral"})]
    names = {
        name_of(body(text, style=style), "c"),
        name_of(body(text, *MORE, style=style), "c"),
        name_of(body(marked, style=style), "c"),
        name_of(body([block(text)], *MORE, tools=TOOLS), "c"),
        name_of(body([{"text": text, "type": "text"}], *MORE), "c"),
    }

    assert len(names) == 1
    assert next(iter(names)).startswith("conv_")


def test_other_conversations_have_other_names() -> None:
    names = [
        name_of(body("a"), "c"),
        name_of(body("b"), "c"),
        name_of(body("a"), "d"),
        name_of(body([block("a"), block("b")]), "c"),
        name_of(body([block("ab")]), "c"),
    ]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "nothing",
    [b"", b"{}", b'{"messages":[]}', b'{"messages":[{"role":"user"', b'{"messages":[{"content":[', b'{"messages":3'],
)
def test_what_has_no_beginning_has_no_name(nothing: bytes) -> None:
    assert name_of(nothing, "c") == ""


def test_an_image_alone_is_no_beginning() -> None:
    """Two conversations about different pictures must not be one."""
    image = {"type": "image", "source": {"type": "base64", "data": "A" * 9000}}
    assert name_of(body([image]), "c") == ""
    assert name_of(body([block("see"), image]), "c")


def test_a_question_alone_is_no_conversation_yet() -> None:
    """A thousand equal questions are spread over the providers; what is too long to look at may be continued."""
    assert not is_continued(body("a"))
    assert is_continued(body("a", *MORE))
    assert is_continued(body("a" * SEARCHED_BYTES))
