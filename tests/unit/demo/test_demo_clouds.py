"""The demo provider as a cloud: what the official SDK's client for that cloud says, it understands, and the other way round."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import pytest
from botocore.eventstream import ChecksumMismatch
from ccr_demo import DemoServer
from ccr_demo.clouds import frames
from corpus.cloud_inputs import OPUS
from support.clouds import API_KEY, BEARER, BEDROCK, CLOUDS, KEYS, NATIVE, SESSION_TOKEN, Cloud, sdk_client

HAVE_CLIENTS = [each for each in CLOUDS if each is not NATIVE]
every_cloud = pytest.mark.parametrize("cloud", HAVE_CLIENTS, ids=lambda cloud: cloud.name)
signed_clouds = pytest.mark.parametrize(
    "cloud", [each for each in HAVE_CLIENTS if each.service], ids=lambda cloud: cloud.name
)
STEPS = [
    {"thinking": "So.", "text": "Hello – ü", "tools": [{"name": "Read", "input": {"file_path": "a.txt"}}], "times": 0}
]


def playing(cloud: Cloud, *steps: object, **settings: Any) -> DemoServer:
    return DemoServer(list(steps) or STEPS, cloud=cloud.face, cloud_keys=KEYS, good_keys=[BEARER, API_KEY], **settings)


def asked(client: Any, cloud: Cloud, **fields: Any) -> Any:
    model = cloud.names.get(OPUS, OPUS)
    return client.messages.create(model=model, max_tokens=99, messages=[{"role": "user", "content": "hi"}], **fields)


def streamed(client: Any, cloud: Cloud) -> Any:
    model = cloud.names.get(OPUS, OPUS)
    with client.messages.stream(model=model, max_tokens=99, messages=[{"role": "user", "content": "hi"}]) as stream:
        return stream.get_final_message()


@every_cloud
async def test_the_official_client_gets_its_answer(cloud: Cloud) -> None:
    """Whole and streamed, signed or with a key: the same content."""
    async with playing(cloud) as demo:
        client = sdk_client(cloud, demo.url)
        whole = await asyncio.to_thread(asked, client, cloud)
        in_parts = await asyncio.to_thread(streamed, client, cloud)

    for message in (whole, in_parts):
        kinds = [block.type for block in message.content]
        assert kinds == ["thinking", "text", "tool_use"]
        assert message.content[1].text == "Hello – ü"
        assert message.content[2].input == {"file_path": "a.txt"}
    assert whole.usage.output_tokens == in_parts.usage.output_tokens


@signed_clouds
async def test_a_wrong_secret_is_found_out(cloud: Cloud) -> None:
    async with playing(cloud) as demo:
        demo.configure(cloud_keys=dict.fromkeys(KEYS, "another"))
        with pytest.raises(anthropic.PermissionDeniedError, match="does not match") as caught:
            await asyncio.to_thread(asked, sdk_client(cloud, demo.url), cloud)

    assert caught.value.response.headers["x-amzn-errortype"].startswith("InvalidSignatureException")


@every_cloud
async def test_an_expired_credential_is_refused(cloud: Cloud) -> None:
    async with playing(cloud, expired_tokens=[SESSION_TOKEN, BEARER, API_KEY]) as demo:
        with pytest.raises((anthropic.PermissionDeniedError, anthropic.AuthenticationError)):
            await asyncio.to_thread(asked, sdk_client(cloud, demo.url), cloud)


@every_cloud
@pytest.mark.parametrize("status", [400, 404, 429, 500, 529])
async def test_errors_have_the_clouds_own_shape(cloud: Cloud, status: int) -> None:
    """In a cloud's words, not in Anthropic's, where the cloud itself speaks."""
    async with playing(cloud, {"status": status, "times": 0}) as demo:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await asyncio.to_thread(asked, sdk_client(cloud, demo.url), cloud)

    body = json.loads(caught.value.response.content)
    match cloud.face:
        case "bedrock":
            assert set(body) == {"message"}
            assert caught.value.response.headers["x-amzn-errortype"].endswith("Exception")
        case "vertex" if status != 400:
            assert body["error"]["code"] == caught.value.status_code
            assert "type" not in body
        case "foundry" if status in (429, 500, 529):
            assert set(body["error"]) == {"code", "message"}
        case _:
            assert body["type"] == "error"


def test_a_frame_is_the_published_one() -> None:
    """Computed by hand with botocore's reader (docs/providers/bedrock.md)."""
    written = frames.frame(
        b'{"message":"Too many requests"}',
        exception_type="throttlingException",
        content_type="application/json",
        message_type="exception",
    )

    assert written[8:12].hex() == "8e91a9b7"
    assert written[-4:].hex() == "e67f8005"


async def test_frames_may_come_in_pieces_of_any_size() -> None:
    """AWS's own reader puts them together."""
    for size in (1, 7, 4096):
        async with playing(BEDROCK, split_bytes=size) as demo:
            message = await asyncio.to_thread(streamed, sdk_client(BEDROCK, demo.url), BEDROCK)
        assert message.content[1].text == "Hello – ü"


async def test_a_damaged_frame_is_what_awss_reader_calls_damaged() -> None:
    async with playing(BEDROCK, corrupt_frame=3) as demo:
        with pytest.raises(ChecksumMismatch):
            await asyncio.to_thread(streamed, sdk_client(BEDROCK, demo.url), BEDROCK)


async def test_a_stream_may_end_in_the_middle_of_a_frame() -> None:
    """As if whole: the SDK's reader does not even notice; a relay has to."""
    async with playing(BEDROCK, truncate_frame=4) as demo:
        message = await asyncio.to_thread(streamed, sdk_client(BEDROCK, demo.url), BEDROCK)

    assert message.stop_reason is None


@pytest.mark.parametrize(
    ("kind", "name"), [("overloaded_error", "serviceUnavailableException"), ("modelStreamErrorException",) * 2]
)
async def test_an_error_in_a_stream_is_an_exception_frame(kind: str, name: str) -> None:
    """A script may say it in Anthropic's words or in AWS's."""
    async with playing(BEDROCK, {"text": "one two", "error_event": kind, "error_event_after": 4}) as demo:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await asyncio.to_thread(streamed, sdk_client(BEDROCK, demo.url), BEDROCK)

    body: Any = caught.value.body
    assert body["error"]["type"] == name
