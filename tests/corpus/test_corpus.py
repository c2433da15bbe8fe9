"""The corpus is what it says: real, various, scrubbed, and whole."""

from __future__ import annotations

import json
import platform
import re

import pytest
from ccr_demo.api import Api
from ccr_demo.request import Request
from ccr_demo.script import Script
from ccr_demo.settings import Settings

from corpus import RecordedRequest, recorded_requests

every_request = pytest.mark.parametrize("request_", recorded_requests(), ids=lambda each: each.name)


@every_request
def test_it_is_whole(request_: RecordedRequest) -> None:
    """Scrubbing has kept every length."""
    headers = {name.lower(): value for name, value in request_.headers}

    assert len(request_.body) == int(headers.get(b"content-length", b"0"))
    assert not request_.body or isinstance(json.loads(request_.body), dict)


@every_request
def test_it_says_nothing_about_where_it_was_recorded(request_: RecordedRequest) -> None:
    text = (request_.body.decode() + str(request_.headers)).replace("/tmp/claude-code-corpus/home", "~")

    assert not re.search(r"/root\b|/home/|\.venv|\.pyenv", text)
    assert set(re.findall(r"working directory: (/\w+/[\w-]+)", text)) <= {"/tmp/claude-code-corpus"}
    assert set(re.findall(r"OS Version: Linux ([\w.]+)", text)) <= {"6.1.0"}
    assert len(platform.node()) < 4 or platform.node() not in text


@every_request
def test_the_provider_takes_it(request_: RecordedRequest) -> None:
    """As the API would; echoed thinking was signed by a demo provider too."""
    api = Api(Settings(), Script())
    asked = Request(request_.method, request_.target, request_.headers, request_.body, "http://h")

    performance, _ = api.answer(asked, 0.0)

    assert performance.head is not None
    assert performance.head.status == 200


def test_it_is_various() -> None:
    """Everything that Claude Code does on a usual day is in it."""
    bodies = [json.loads(each.body) for each in recorded_requests() if each.body]
    blocks = [
        block
        for body in bodies
        for message in body["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
    ]
    names = {name.lower() for each in recorded_requests() for name, _ in each.headers}

    assert len(recorded_requests()) >= 12
    assert {"thinking", "redacted_thinking", "tool_use", "tool_result", "text"} <= {block["type"] for block in blocks}
    assert len({body["model"] for body in bodies}) >= 4
    assert {True, False} <= {body.get("stream") for body in bodies}
    assert {b"authorization", b"x-api-key", b"x-claude-code-agent-id", b"x-claude-code-session-id"} <= names
    assert any("count_tokens" in each.target for each in recorded_requests())
