"""The queue: requests wait for room in turn, main turns first, and who waits in vain gets an honest answer."""

from __future__ import annotations

import contextlib
import json
import math
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from support.ccr import ccr
from support.client import Answer, RawClient
from support.relay import AUTH, BODY, STREAM_BODY, client, config, provider, records, relaying
from support.serving import Relay, until
from support.upstream import MESSAGE, RawUpstream, Request, Wire, error_answer, json_answer, stream_answer

TOOLS = b'{"model":"claude-test","max_tokens":9,"tools":[{"name":"t"}],"messages":[{"role":"user","content":"hi"}]}'


class Account:
    """An account as Anthropic's: a bucket that refills evenly, told of in each answer."""

    def __init__(self, per_minute: int, left: float) -> None:
        self.per_minute, self.left = per_minute, left
        self.refused = 0
        self._at = math.inf  # it begins to refill with the first request
        self._lock = threading.Lock()

    def take(self) -> list[str] | None:
        """The header lines of an answer; None: it is refused."""
        with self._lock:
            now = time.monotonic()
            self.left = min(self.per_minute, self.left + max(0.0, now - self._at) * self.per_minute / 60)
            self._at = now
            if self.left < 1:
                self.refused += 1
                return None
            self.left -= 1
            return [
                f"anthropic-ratelimit-requests-limit: {self.per_minute}",
                f"anthropic-ratelimit-requests-remaining: {int(self.left)}",
            ]


class Accounts:
    """A provider with an account for each key."""

    def __init__(self, per_minute: int, left: int, keys: str) -> None:
        self.accounts = {f"sk-{one}": Account(per_minute, left) for one in keys}

    @property
    def refused(self) -> int:
        return sum(one.refused for one in self.accounts.values())

    def __call__(self, request: Request, wire: Wire) -> None:
        lines = self.accounts[request.header("x-api-key") or ""].take()
        time.sleep(0.12)  # of a crowd of answers only some are read
        if lines is None:
            wire.send(error_answer("429 Too Many", "rate_limit_error", "retry-after: 1"))
        elif b'"stream":true' in request.body:
            stream_answer(request, wire)
        else:
            wire.send(json_answer(MESSAGE, "200 OK", *lines))


def keyed(url: str, keys: str) -> dict[str, object]:
    made = [{"label": one, "key": f"sk-{one}", "scope": one} for one in keys]
    return {"name": "anthropic", "type": "anthropic", "base_url": url, "allow_private": True, "keys": made}


def queued(url: str, keys: str = "a", **queue: object) -> str:
    return config(keyed(url, keys), routing={"queue": queue, "silence_bound": "300ms", "affinity": "none"})


@pytest.fixture
def upstream() -> Iterator[RawUpstream]:
    with RawUpstream() as server:
        yield server
        assert not server.failures


def ask(relay: Relay, body: bytes, *lines: str) -> Answer:
    with client(relay, 60.0) as connection:
        return connection.ask("POST", "/v1/messages", body, AUTH, *lines)


def spend(relay: Relay, upstream: RawUpstream, accounts: Accounts) -> None:
    """Ask until every account has told of its limit, and has nothing left."""
    known: set[str] = set()
    while len(known) < len(accounts.accounts):
        assert ask(relay, BODY).status == 200
        known.add(upstream.requests[-1].header("x-api-key") or "")
    upstream.requests.clear()


def is_full(relay: Relay) -> bool:
    """Whether main turns have every place. One who asks is told so, or has to go when the last of them comes."""
    return ask(relay, TOOLS, "x-claude-code-agent-id: a").status == 429


def is_main(request: Request) -> bool:
    return request.header("x-claude-code-session-id") == "main"


def test_a_burst_of_subagents_is_served_and_main_turns_go_first(tmp_path: Path, upstream: RawUpstream) -> None:
    """30 subagents of one session at once, and turns of another: none is refused by anybody, and a turn takes the next room.

    The order counts, not the clock: between a turn's arrival and its way to the provider no more go than were on their way.
    """
    accounts = Accounts(180, 1, "ab")
    upstream.answer = accounts
    ahead = []
    with relaying(tmp_path, queued(upstream.url, "ab", max_wait="30s", max_depth=100)) as relay:
        spend(relay, upstream, accounts)
        with ThreadPoolExecutor(30) as pool:
            lines = ("x-claude-code-session-id: crowd", "x-claude-code-agent-id: a")
            crowd: list[Future[Answer]] = [pool.submit(ask, relay, TOOLS, *lines) for _ in range(30)]
            until(lambda: len(upstream.requests) >= 2, "the crowd is being served")
            for _ in range(3):
                before = len(upstream.requests)
                assert ask(relay, TOOLS, "x-claude-code-session-id: main").status == 200
                mine = [at for at, request in enumerate(upstream.requests) if is_main(request)][-1]
                ahead.append(mine - before)
            was_crowded = sum(not one.done() for one in crowd)
            assert [one.result().status for one in crowd] == [200] * 30
        waits = [float(str(one.get("queued_ms", 0))) for one in records(relay)]

    assert accounts.refused == 0
    assert was_crowded >= 10, "the turns were asked while subagents waited"
    assert max(ahead) <= 3
    assert 1000 < max(waits) < 30_000


@pytest.mark.parametrize("body", [BODY, STREAM_BODY], ids=["whole", "streamed"])
def test_who_waits_in_vain_hears_when_to_come_again(tmp_path: Path, upstream: RawUpstream, body: bytes) -> None:
    """A stream has had pings by then, and ends in an error event."""
    accounts = Accounts(6, 1, "a")
    upstream.answer = accounts
    with relaying(tmp_path, queued(upstream.url, max_wait="1s")) as relay:
        spend(relay, upstream, accounts)
        answer = ask(relay, body)
        until(lambda: len(records(relay)) >= 2, "its record")
        record = records(relay)[-1]

    if body is BODY:
        assert answer.status == 429
        assert json.loads(answer.body)["error"]["type"] == "rate_limit_error"
        assert 1 <= int(answer.header("retry-after") or 0) <= 12
        assert answer.header("x-should-retry") is None
    else:
        assert answer.status == 200
        assert answer.body.startswith(b"event: ping")
        last = answer.body.strip().split(b"\n\n")[-1]
        assert last.startswith(b"event: error")
        assert json.loads(last.partition(b"data: ")[2])["error"]["type"] == "rate_limit_error"
    assert 1000 <= float(str(record["queued_ms"])) < 5000
    assert record["outcome"] == "failed"


def test_a_stream_that_waited_has_pings_and_then_its_answer(tmp_path: Path, upstream: RawUpstream) -> None:
    """Claude Code hangs up on silence; what it gets after the pings is the provider's stream. `ccr explain` tells of the wait."""
    accounts = Accounts(60, 1, "a")
    upstream.answer = accounts
    with relaying(tmp_path, queued(upstream.url)) as relay:
        spend(relay, upstream, accounts)
        asked = [ask(relay, STREAM_BODY) for _ in range(2)]
        waited = asked[-1]
        until(lambda: len(records(relay)) >= 3, "its record")
        record = records(relay)[-1]
        explained = ccr("explain", str(record["request_id"]), "--state-dir", str(relay.state)).stdout

    assert waited.status == 200
    assert waited.body.startswith(b"event: ping")
    assert b"event: error" not in waited.body
    assert waited.body.rstrip().endswith(b'data: {"type":"message_stop"}')
    assert float(str(record["queued_ms"])) > 300
    assert float(str(record["overhead_ms"])) < 100, "waiting is not work"
    assert (found := re.search(r"waited (\d+) ms for room in the rate limits", explained))
    assert abs(int(found[1]) - float(str(record["queued_ms"]))) <= 1
    assert accounts.refused == 0


def test_an_answer_that_is_no_stream_ends_a_stream_of_pings_rightly(tmp_path: Path, upstream: RawUpstream) -> None:
    """The client has a head of the relay's own already: the provider's 400 comes as an event."""
    accounts = Accounts(60, 1, "a")
    upstream.answer = accounts
    with relaying(tmp_path, queued(upstream.url)) as relay:
        spend(relay, upstream, accounts)
        ask(relay, BODY)
        upstream.answer = lambda request, wire: wire.send(error_answer("400 Bad", "invalid_request_error"))
        answer = ask(relay, STREAM_BODY)

    assert answer.status == 200
    assert answer.body.startswith(b"event: ping")
    assert b'event: error\ndata: {"type":"error","error":{"type":"invalid_request_error"' in answer.body


def test_a_client_that_leaves_frees_its_place(tmp_path: Path, upstream: RawUpstream) -> None:
    """With one place: the second is told at once, a third has it when the first has gone."""
    accounts = Accounts(20, 1, "a")
    upstream.answer = accounts
    with relaying(tmp_path, queued(upstream.url, max_wait="20s", max_depth=1)) as relay:
        spend(relay, upstream, accounts)
        assert ask(relay, BODY).status == 200
        first = RawClient(relay.url)
        first.request("POST", "/v1/messages", TOOLS, AUTH)
        until(lambda: is_full(relay), "the place is taken")
        served = len(upstream.requests)
        first.sock.close()
        until(lambda: any(one["outcome"] == "client_left" for one in records(relay)), "it has left")
        assert ask(relay, TOOLS).status == 200

    assert len(upstream.requests) == served + 1, "who left was never sent"


def test_who_waits_goes_on_waiting_when_the_organisation_is_learned(tmp_path: Path, upstream: RawUpstream) -> None:
    """The first answers name it, and the next snapshot has the limit under another name than the requests that wait know."""
    body = json_answer(MESSAGE, "200 OK", "anthropic-organization-id: org-1")
    upstream.answer = lambda _, wire: wire.send(body)
    one = provider("one", upstream.url, keys=[{"label": "a", "key": "sk-a", "rpm_limit": 2}])
    with (
        relaying(tmp_path, config(one, routing={"queue": {"max_wait": "90s", "max_depth": 50}})) as relay,
        contextlib.ExitStack() as clients,
    ):
        crowd = [clients.enter_context(client(relay)) for _ in range(5)]
        for waiting in crowd:
            waiting.request("POST", "/v1/messages", BODY, AUTH)
        until(lambda: relay.events("organisation_learned") and len(relay.events("snapshot_served")) > 1, "it is known")
        last = RawClient(relay.url)
        last.request("POST", "/v1/messages", BODY, AUTH)
        last.sock.close()
        until(lambda: any(one["outcome"] == "client_left" for one in records(relay)), "it has left")
        assert len(upstream.requests) == 2, "the others wait"


def test_nobody_waits_for_what_will_not_come_in_time(tmp_path: Path, upstream: RawUpstream) -> None:
    """The minute is used up, and everybody knows for how long."""
    provider = keyed(upstream.url, "a")
    provider["keys"] = [{"label": "a", "key": "sk-a", "scope": "a", "rpm_limit": 1}]
    with relaying(tmp_path, config(provider, routing={"queue": {"max_wait": "20s"}})) as relay:
        began = time.monotonic()
        first, second = ask(relay, BODY), ask(relay, BODY)
        took_s = time.monotonic() - began
        until(lambda: len(records(relay)) == 2, "its record")

    assert (first.status, second.status) == (200, 429)
    assert second.header("x-should-retry") == "false"
    assert took_s < 15
    assert "queued_ms" not in records(relay)[-1]


def test_a_node_that_stops_answers_who_waits(tmp_path: Path, upstream: RawUpstream) -> None:
    """Within its time to drain: served if there is room, else told, but never hung up on."""
    accounts = Accounts(30, 1, "a")
    upstream.answer = accounts
    with relaying(tmp_path, queued(upstream.url, max_wait="60s", max_depth=3)) as relay:
        spend(relay, upstream, accounts)
        assert ask(relay, BODY).status == 200
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(ask, relay, TOOLS) for _ in range(3)]
            until(lambda: is_full(relay), "they wait")
            relay.signal(signal.SIGTERM)
            statuses = sorted(one.result().status for one in waiting)
        assert relay.wait_end() == 0

    assert statuses[-1] == 429
    assert 200 in statuses
    assert accounts.refused == 0


def test_nobody_is_forgotten(tmp_path: Path, upstream: RawUpstream) -> None:
    """A crowd of clients, some of which leave at any moment: everybody else is answered, and the queue is empty after it."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    accounts = Accounts(1200, 1, "ab")
    upstream.answer = accounts

    def come(number: int) -> int:
        roll = random.Random(seed + number)
        lines = [AUTH, f"x-claude-code-session-id: s{roll.randrange(5)}"]
        lines += ["x-claude-code-agent-id: a"] if roll.random() < 0.7 else []
        with client(relay, 30.0) as connection:
            connection.request("POST", "/v1/messages", roll.choice([BODY, TOOLS, STREAM_BODY]), *lines)
            if roll.random() < 0.3:
                connection.sock.settimeout(roll.uniform(0.01, 1.0))
                with contextlib.suppress(TimeoutError):
                    connection.head()
                return 0
            return connection.answer().status

    with relaying(tmp_path, queued(upstream.url, "ab", max_wait="2s", max_depth=58)) as relay:
        spend(relay, upstream, accounts)
        with ThreadPoolExecutor(60) as pool:
            statuses = list(pool.map(come, range(300)))
        until(lambda: len(records(relay)) >= 302, "all records")
        assert ask(relay, TOOLS).status == 200
        waits = [float(str(one.get("queued_ms", 0))) for one in records(relay)]

    assert set(statuses) <= {0, 200, 429}
    assert statuses.count(200) > 100
    assert 100 < max(waits) < 2500
    assert accounts.refused <= 15, "answers may overtake one another, and what is left is told with them"
