"""Workers are replaced while limits are being used up: the minute of an account or a client is not over because a process is.

A provider counts every request that reaches it over a sliding minute and refuses what is too much; clients ask as fast as they can, on
connections that they keep.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from ccr_rpc.v1 import keys_pb2, keys_pb2_grpc
from support.relay import AUTH, BODY, client, config, relaying
from support.serving import Relay, until
from support.upstream import MESSAGE, RawUpstream, Request, Wire, error_answer, json_answer

LIMITED, FREE = "relay-key-of-a-limited-client", "relay-key-of-another-client"
CLIENT_LIMIT = 100
CLIENTS = 4  # of each
KEEPING_S = 0.5  # that it may take to write it
PAUSE_S = 0.01  # between two requests of a client


class Strict:
    """A provider that counts requests over a sliding minute, and refuses what is too much."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.times: deque[float] = deque()
        self.refused = 0
        self._lock = threading.Lock()

    def __call__(self, _: Request, wire: Wire) -> None:
        with self._lock:
            now = time.monotonic()
            while self.times and self.times[0] <= now - 60:
                self.times.popleft()
            self.times.append(now)
            has_room = len(self.times) <= self.limit
            self.refused += not has_room
        wire.send(json_answer(MESSAGE) if has_room else error_answer("429 Too Many", "rate_limit_error"))


class Hammer:
    """Clients that ask again and again, and what they were answered."""

    def __init__(self, relay: Relay, key: str) -> None:
        self.statuses: Counter[int] = Counter()
        self.broken: list[BaseException] = []
        self.may_break = False  # connections do
        self._relay, self._key = relay, key
        self._is_over = threading.Event()
        self._lock = threading.Lock()

    def run(self) -> None:
        """One client, until the end."""
        while not self._is_over.is_set():
            try:
                with client(self._relay) as connection:
                    while not self._is_over.wait(PAUSE_S):
                        answer = connection.ask("POST", "/v1/messages", BODY, f"x-api-key: {self._key}")
                        with self._lock:
                            self.statuses[answer.status] += 1
                        if answer.header("connection") == "close":
                            break
            except ConnectionError as error:
                if not self.may_break:
                    self.broken.append(error)
                    return
            except Exception as error:  # the test says it
                self.broken.append(error)
                return

    def end(self) -> None:
        """Let them finish."""
        self._is_over.set()


@contextlib.contextmanager
def hammering(relay: Relay, key: str) -> Iterator[Hammer]:
    """A crowd of clients while the block runs."""
    hammer = Hammer(relay, key)
    crowd = [threading.Thread(target=hammer.run, daemon=True) for _ in range(CLIENTS)]
    for one in crowd:
        one.start()
    try:
        yield hammer
    finally:
        hammer.end()
        for one in crowd:
            one.join(30)
    assert not hammer.broken


def limited(url: str, limit: int, workers: int) -> str:
    """An account has the limit, and one of two clients has a lower one."""
    keys = [{"label": "a", "key": "sk-a", "scope": "a", "rpm_limit": limit}]
    clients = [
        {"name": "laptop", "key": LIMITED, "limits": {"rpm": workers * CLIENT_LIMIT}},
        {"name": "ci", "key": FREE},
    ]
    provider = {"name": "anthropic", "type": "anthropic", "base_url": url, "allow_private": True, "keys": keys}
    return config(provider, server={"workers": workers, "auth": {"keys": clients}})


def roll(relay: Relay, workers: int) -> None:
    """Replace all workers."""
    replaced, starts = len(relay.events("workers_replaced")), len(relay.events("node_ready"))
    relay.signal(signal.SIGUSR2)
    until(lambda: len(relay.events("node_ready")) == starts + workers, "the successors are there")
    until(lambda: len(relay.events("workers_replaced")) > replaced, "all are replaced")


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_rolling_restart_overdraws_nothing(tmp_path: Path, workers: int) -> None:
    """Twice while budgets are used up, and once afterwards; nothing of them gets lost either."""
    limit = 500
    strict = Strict(limit)
    with (
        RawUpstream(strict) as upstream,
        relaying(tmp_path, limited(upstream.url, limit, workers)) as relay,
        hammering(relay, FREE) as free,
        hammering(relay, LIMITED) as laptop,
    ):
        for _ in range(2):
            roll(relay, workers)
        until(lambda: free.statuses[429] and laptop.statuses[429], "all is used", within_s=60.0)
        roll(relay, workers)
        until(lambda: free.statuses[200] + laptop.statuses[200] == limit, "what one worker had kept another one used")
        assert {*free.statuses, *laptop.statuses} == {200, 429}

    assert strict.refused == 0
    assert len(strict.times) == limit
    assert laptop.statuses[200] <= workers * CLIENT_LIMIT
    assert workers > 1 or laptop.statuses[200] == CLIENT_LIMIT


@pytest.mark.long
def test_a_killed_worker_overdraws_by_what_it_could_not_write_down(tmp_path: Path) -> None:
    """At most what it sent since it last wrote down what was used, which it does every second."""
    limit = 300
    strict = Strict(limit)
    kept = tmp_path / "state" / "nodes" / "worker-0" / "budgets.json"
    with (
        RawUpstream(strict) as upstream,
        relaying(tmp_path, limited(upstream.url, limit, 1)) as relay,
        hammering(relay, FREE) as hammer,
    ):
        hammer.may_break = True
        until(lambda: len(strict.times) >= limit // 3 and kept.exists(), "some of it is used")
        os.kill(relay.pids("worker-0")[-1], signal.SIGKILL)
        written_s = kept.stat().st_mtime - time.time() + time.monotonic()
        unknown = len([at for at in tuple(strict.times) if at > written_s - KEEPING_S])
        until(lambda: hammer.statuses[429], "all is used", within_s=60.0)

    assert strict.refused <= unknown


class Telling:
    """A provider whose limits only its answers tell: a bucket that refills."""

    LIMIT = 6000

    def __init__(self) -> None:
        self.refused = 0
        self._left, self._at_s = float(self.LIMIT), time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, _: Request, wire: Wire) -> None:
        with self._lock:
            now = time.monotonic()
            self._left = min(self.LIMIT, self._left + (now - self._at_s) * self.LIMIT / 60)
            self._at_s = now
            has_room = self._left >= 1
            self._left -= has_room
            self.refused += not has_room
            told = [
                f"anthropic-ratelimit-{kind}-{what}: {count}"
                for kind, limit, left in (
                    ("requests", self.LIMIT, int(self._left)),
                    ("input-tokens", 900_000, 900_000),
                    ("output-tokens", 900_000, 900_000),
                )
                for what, count in (("limit", limit), ("remaining", left))
            ]
        wire.send(
            json_answer(MESSAGE, "200 OK", *told) if has_room else error_answer("429 Too Many", "rate_limit_error")
        )


def told_to_have_used(relay: Relay) -> int:
    """Requests of the last minute, as the control plane has been told; 0 while it does not answer."""
    try:
        with grpc.insecure_channel((relay.state / "control.address").read_text().strip()) as channel:
            stub = keys_pb2_grpc.KeyServiceStub(channel)
            scopes = stub.ListScopes(keys_pb2.ListScopesRequest(), timeout=5)
    except (OSError, grpc.RpcError):
        return 0
    return sum(one.used.requests for one in scopes.budgets)


@pytest.mark.parametrize(
    "limits",
    [pytest.param({}, id="only told"), pytest.param({"rpm_limit": 5000}, id="also configured", marks=pytest.mark.long)],
)
def test_restarts_of_both_planes_refuse_nothing(tmp_path: Path, limits: dict[str, int]) -> None:
    """Limits are known from answers, and parts of them from leases of a control plane that is gone."""
    telling = Telling()
    keys = [{"label": "a", "key": "sk-a", "scope": "a", **limits}]

    def serves_while_it_is_told() -> None:
        """Every request is answered while the control plane hears of what is used, answers, and hears of it again."""
        told, asked_s = {told_to_have_used(relay)}, 0.0

        def asked() -> bool:
            nonlocal asked_s
            if time.monotonic() - asked_s < PAUSE_S * 10:
                return False
            asked_s = time.monotonic()
            with client(relay) as connection:
                assert connection.ask("POST", "/v1/messages", BODY, AUTH).status == 200
            told.add(told_to_have_used(relay))
            return len(told) > 2

        until(asked, "the control plane was told", within_s=20.0)

    with RawUpstream(telling) as upstream:
        provider = {"name": "p", "type": "anthropic", "base_url": upstream.url, "allow_private": True, "keys": keys}
        with relaying(tmp_path, config(provider)) as relay:
            serves_while_it_is_told()
            kept = relay.state / "nodes" / "worker-0" / "budgets.json"
            until(lambda: json.loads(kept.read_bytes())["spent"][0][3] is not None, "there is a lease", within_s=20.0)
            for kill in (None, "ccr-control", "worker-0", "ccr-control", None):
                if kill is None:
                    roll(relay, 1)
                else:
                    starts = len(relay.pids(kill))
                    os.kill(relay.pids(kill)[-1], signal.SIGKILL)
                    until(lambda: len(relay.pids(kill)) > starts, "it is there again")  # noqa: B023 - called at once
                serves_while_it_is_told()
    assert not telling.refused
