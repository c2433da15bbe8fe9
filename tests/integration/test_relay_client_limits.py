"""Limits and budgets of clients: what is beyond them is answered before anything goes upstream."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.client import Answer
from support.relay import BODY, client, config, provider, reconfigured, relaying
from support.serving import Relay, until
from support.upstream import MESSAGE, RawUpstream, Request, Wire, json_answer

LIMITED, FREE = "relay-key-of-a-limited-client", "relay-key-of-another-client"


def limited(url: str, budget: object = None, prices: object = None, **limits: object) -> str:
    """A configuration in which one of two clients has limits."""
    one: dict[str, object] = {"name": "laptop", "key": LIMITED}
    if limits:
        one["limits"] = limits
    if budget:
        one["budget"] = budget
    more = {"prices": prices} if prices else {}
    return config(provider("one", url, **more), server={"auth": {"keys": [one, {"name": "other", "key": FREE}]}})


@pytest.fixture
def upstream() -> Iterator[RawUpstream]:
    with RawUpstream() as server:
        yield server
        assert not server.failures


def ask(relay: Relay, key: str = LIMITED, path: str = "/v1/messages", body: bytes = BODY) -> Answer:
    with client(relay, 60.0) as connection:
        return connection.ask("POST", path, body, f"x-api-key: {key}")


def test_requests_a_minute(tmp_path: Path, upstream: RawUpstream) -> None:
    """The third of two is refused, without a word to the provider; others and token counts are not concerned."""
    with relaying(tmp_path, limited(upstream.url, rpm=2)) as relay:
        answers = [ask(relay) for _ in range(3)]
        others = [ask(relay, FREE) for _ in range(3)]
        counted = ask(relay, path="/v1/messages/count_tokens")

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert [answer.status for answer in others] == [200] * 3
    assert counted.status == 200
    assert len(upstream.requests) == 6
    error = json.loads(answers[2].body)
    assert error["error"]["type"] == "rate_limit_error"
    assert "client laptop is at its limit of 2 requests a minute" in error["error"]["message"]
    assert 30 < int(answers[2].header("retry-after") or 0) <= 61
    assert answers[2].header("x-should-retry") == "false"


@pytest.mark.parametrize("arguments", [(), ("--workers", "1")], ids=["as the file said", "as was asked for"])
def test_parts_are_those_of_the_workers_that_there_are(
    tmp_path: Path, upstream: RawUpstream, arguments: tuple[str, ...]
) -> None:
    """The file says four; but it was edited since the start, which takes a restart, or the command line says one."""

    def text(workers: int) -> str:
        told = json.loads(limited(upstream.url, rpm=4))
        return json.dumps(told | {"server": told["server"] | {"workers": workers}})

    with relaying(tmp_path, text(4 if arguments else 1), *arguments) as relay:
        reconfigured(relay, text(4))
        assert [ask(relay).status for _ in range(5)] == [200] * 4 + [429]


def test_tokens_a_minute(tmp_path: Path, upstream: RawUpstream) -> None:
    """They count as the provider says; cache reads do not."""
    usage = b'"usage":{"input_tokens":300,"cache_read_input_tokens":90000,"output_tokens":700}'
    message = re.sub(rb'"usage":\{.*?\}', usage, MESSAGE)
    upstream.answer = lambda request, wire: wire.send(json_answer(message))
    with relaying(tmp_path, limited(upstream.url, tpm=2500)) as relay:
        answers = [ask(relay) for _ in range(4)]

    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    assert "2500 tokens a minute" in json.loads(answers[2].body)["error"]["message"]


def test_requests_at_a_time(tmp_path: Path, upstream: RawUpstream) -> None:
    """One that is too many is to come again soon; there is room as soon as one has ended, also if its client just left."""
    may_answer = threading.Event()

    def answer(request: Request, wire: Wire) -> None:
        assert may_answer.wait(20)
        wire.send(json_answer(MESSAGE))

    upstream.answer = answer
    with relaying(tmp_path, limited(upstream.url, concurrency=2)) as relay, ThreadPoolExecutor(2) as pool:
        leaving = client(relay)
        leaving.request("POST", "/v1/messages", BODY, f"x-api-key: {LIMITED}")
        staying = pool.submit(ask, relay)
        until(lambda: len(upstream.requests) == 2, "both are open")
        refused = ask(relay)
        leaving.sock.close()
        until(lambda: relay.events("request_done"), "one has left")
        may_answer.set()
        until(lambda: ask(relay).status == 200, "there is room again")
        assert staying.result().status == 200
        assert [ask(relay).status for _ in range(5)] == [200] * 5, "nothing is held for ever"

    assert (refused.status, refused.header("retry-after"), refused.header("x-should-retry")) == (429, "1", None)


PRICES = {"claude-test": {"input": 1000, "output": 1000}}  # 8 tokens an answer: 0.008 USD


@pytest.mark.parametrize("workers", [1, 2])
def test_a_budget_a_day(tmp_path: Path, upstream: RawUpstream, workers: int) -> None:
    """Once it is spent every worker says so until it begins anew, also when the control plane was killed meanwhile."""
    text = limited(upstream.url, {"day": "0.04 USD", "month": "100 USD"}, PRICES)
    with relaying(tmp_path, text, "--workers", str(workers)) as relay:
        until(lambda: ask(relay).status == 429, "the budget is spent")
        refused = ask(relay)
        assert ask(relay, FREE).status == 200
        assert ask(relay, path="/v1/messages/count_tokens").status == 200
        served = sum(event["client"] == "laptop" and event["status"] == 200 for event in relay.events("request_done"))
        ready = len(relay.events("control_ready"))
        os.kill(relay.pids("ccr-control")[-1], signal.SIGKILL)
        assert ask(relay).status == 429
        until(lambda: len(relay.events("control_ready")) > ready, "it is back")
        newest = max(int(str(event["version"])) for event in relay.events("snapshot_published"))
        until(
            lambda: sum(event["version"] == newest for event in relay.events("snapshot_accepted")) >= workers,
            "every worker serves what it published",
        )
        assert {ask(relay).status for _ in range(6)} == {429}

    assert served >= 5, "the whole budget could be spent"
    error = json.loads(refused.body)["error"]
    assert error["type"] == "rate_limit_error"
    said = r"client laptop has spent its budget of 0\.04 USD a day; it begins anew at \d{4}-\d\d-\d\dT00:00:00Z"
    assert re.fullmatch(said, error["message"])
    assert 1 <= int(refused.header("retry-after") or 0) <= 86_400
    assert refused.header("x-should-retry") == "false"
    assert len(relay.events("client_budget_spent")) >= 1


def test_a_model_without_a_price_costs_nothing_and_that_is_said_once(tmp_path: Path, upstream: RawUpstream) -> None:
    """A budget that silently counts nothing would be believed."""
    with relaying(tmp_path, limited(upstream.url, {"day": "0.01 USD"})) as relay:
        assert {ask(relay).status for _ in range(20)} == {200}
        until(lambda: relay.events("price_unknown"), "it is said")
        assert {ask(relay).status for _ in range(5)} == {200}
        assert [(event["provider"], event["model"]) for event in relay.events("price_unknown")] == [
            ("one", "claude-test")
        ]
