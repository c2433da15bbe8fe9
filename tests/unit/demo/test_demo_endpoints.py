"""The demo provider beside messages: models, batches, files, probes."""

from typing import Any

import aiohttp
import anthropic
import pytest
from anthropic.types import TextBlock
from ccr_demo import DemoServer


async def test_models_come_in_pages(client: anthropic.AsyncAnthropic) -> None:
    """The SDK walks them by after_id."""
    everything = [model.id async for model in await client.models.list(limit=1000)]
    in_pages = [model.id async for model in await client.models.list(limit=5)]

    assert in_pages == everything
    assert len(everything) > 10
    page = await client.models.list(limit=2, before_id=everything[4])
    assert [model.id for model in page.data] == everything[2:4]
    assert page.has_more
    one = await client.models.retrieve("claude-opus-5")
    assert (one.display_name, one.lifecycle) == ("Claude Opus 5", "active")


async def test_odd_pages_are_refused(client: anthropic.AsyncAnthropic) -> None:
    for query in ({"limit": 0}, {"limit": 1001}, {"after_id": "nobody"}):
        with pytest.raises(anthropic.BadRequestError):
            await client.models.list(**query)
    with pytest.raises(anthropic.NotFoundError):
        await client.models.retrieve("nobody")


async def test_listed_models_can_be_chosen(demo: DemoServer, client: anthropic.AsyncAnthropic) -> None:
    demo.configure(models=["glm-5", "claude-opus-5"])

    assert [model.id async for model in await client.models.list()] == ["glm-5", "claude-opus-5"]


async def test_a_batch_runs_from_creation_to_deletion(
    demo: DemoServer, client: anthropic.AsyncAnthropic, ask: dict[str, Any]
) -> None:
    """The absolute results_url is what a relay must rewrite."""
    bad = {**ask, "messages": []}
    batch = await client.messages.batches.create(
        requests=[{"custom_id": "good", "params": ask}, {"custom_id": "bad", "params": bad}]  # type: ignore[typeddict-item]
    )
    assert (batch.processing_status, batch.results_url) == ("in_progress", None)

    ended = await client.messages.batches.retrieve(batch.id)
    assert ended.processing_status == "ended"
    assert ended.results_url == f"{demo.url}/v1/messages/batches/{batch.id}/results"
    results = {each.custom_id: each.result async for each in await client.messages.batches.results(batch.id)}

    good = results["good"]
    assert good.type == "succeeded"
    assert isinstance(good.message.content[0], TextBlock)
    assert results["bad"].type == "errored"
    assert [each.id async for each in await client.messages.batches.list()] == [batch.id]
    await client.messages.batches.delete(batch.id)
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.batches.retrieve(batch.id)


async def test_a_batch_can_be_cancelled_while_it_runs(client: anthropic.AsyncAnthropic, ask: dict[str, Any]) -> None:
    batch = await client.messages.batches.create(requests=[{"custom_id": "one", "params": ask}])  # type: ignore[typeddict-item]

    assert (await client.messages.batches.cancel(batch.id)).processing_status == "canceling"
    assert (await client.messages.batches.retrieve(batch.id)).request_counts.canceled == 1
    with pytest.raises(anthropic.BadRequestError):
        await client.messages.batches.cancel(batch.id)


async def test_files_come_back_byte_for_byte(client: anthropic.AsyncAnthropic) -> None:
    content = bytes(range(256)) * 300 + b"\r\n--not a boundary\r\n"
    stored = await client.files.upload(file=("ä.bin", content, "application/x-odd"))

    assert (stored.size_bytes, stored.mime_type) == (len(content), "application/x-odd")
    assert await (await client.files.download(stored.id)).read() == content
    assert (await client.files.retrieve_metadata(stored.id)).id == stored.id
    more = [(await client.files.upload(file=(f"{i}.txt", b"", "text/plain"))).id for i in range(4)]
    assert [each.id async for each in await client.files.list(limit=2)] == [*reversed(more), stored.id]
    await client.files.delete(stored.id)
    with pytest.raises(anthropic.NotFoundError):
        await client.files.retrieve_metadata(stored.id)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/", 200),
        ("HEAD", "/api/hello", 200),
        ("GET", "/v1/messages", 405),
        ("POST", "/v1/complete", 404),
        ("GET", "/v1/skills", 404),
        ("PUT", "/v1/files/file_1", 404),
    ],
)
async def test_probes_and_strange_paths(demo: DemoServer, method: str, path: str, status: int) -> None:
    headers = {} if method == "HEAD" else {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, demo.url + path, headers=headers) as response,
    ):
        assert response.status == status
        assert response.headers["request-id"].startswith("req_011C")


async def test_anything_can_be_scripted(demo: DemoServer, client: anthropic.AsyncAnthropic) -> None:
    """A provider without count_tokens, or whose models list is broken, is a script away."""
    demo.play(
        {"when": {"path": "/v1/models*"}, "json": {"data": [], "has_more": False}},
        {"when": {"path": "/v1/messages/count_tokens", "method": "POST"}, "status": 404, "times": 0},
    )

    assert (await client.models.list()).data == []
    for _ in range(2):
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.count_tokens(model="m", messages=[{"role": "user", "content": "hi"}])
