"""What attacks share: a relay of real processes, two upstreams that remember every byte, and a look at the worker."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.client import Answer, RawClient
from support.relay import AUTH, BODY, config, provider, relaying
from support.serving import Relay, is_alive
from support.upstream import MESSAGE, RawUpstream, json_answer

QUIET_BODY = BODY.replace(b"claude-test", b"quiet-model")
MAX_GROWN_MB = 64  # of a worker, over everything one test throws at it


@dataclass
class Target:
    """A relay under attack, and a second provider behind it that serves everybody else."""

    relay: Relay
    upstream: RawUpstream
    quiet: RawUpstream

    @property
    def worker(self) -> int:
        """The process id of the node, which must never change."""
        pids = self.relay.pids("worker-0")
        assert len(pids) == 1
        return pids[0]

    def memory_mb(self) -> float:
        """What the worker holds in memory."""
        lines = Path(f"/proc/{self.worker}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def connect(self, timeout_s: float = 20.0) -> RawClient:
        """A new connection."""
        return RawClient(self.relay.url, timeout_s)

    def serves_others(self, within_s: float = 10.0) -> None:
        """Another client is served, from beginning to end, while whatever goes on goes on."""
        with self.connect(within_s) as client:
            answer = client.ask("POST", "/v1/messages", QUIET_BODY, AUTH)
        assert (answer.status, answer.body) == (200, MESSAGE)

    def talk(self, data: bytes, within_s: float = 10.0) -> list[Answer]:
        """The answer to these bytes, none if the relay just hangs up, and whatever else it says of its own."""
        answers: list[Answer] = []
        with self.connect(within_s) as client, contextlib.suppress(ConnectionError):
            client.sock.sendall(data)
            answers.append(client.answer())
            client.sock.shutdown(socket.SHUT_WR)  # the relay takes that for an end
            while True:
                answers.append(client.answer())
        return answers


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with RawUpstream() as upstream, RawUpstream() as quiet:
        text = config(
            provider("loud", upstream.url, serves=["claude-*", "m"], timeouts={"first_byte": "3s", "idle": "3s"}),
            provider("quiet", quiet.url, serves=["quiet-*"]),
            server={"read_timeout": "1s", "max_body": "1MiB"},
            routing={"failover_timeout": "2s", "cooldown": "0s"},
            health={"circuit": {"failures": 1000}},
        )
        with relaying(tmp_path_factory.mktemp("attack"), text) as relay:
            yield Target(relay, upstream, quiet)


@pytest.fixture(autouse=True)
def unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Before and after each test of a target: alive, the same process, not much larger, still serving."""
    if "target" not in request.fixturenames:
        yield
        return
    target: Target = request.getfixturevalue("target")
    target.upstream.requests.clear()
    target.upstream.answer = lambda request, wire: wire.send(json_answer(MESSAGE))
    pid, before_mb = target.worker, target.memory_mb()
    yield
    assert target.worker == pid
    assert is_alive(pid)
    assert target.memory_mb() - before_mb < MAX_GROWN_MB
    target.serves_others()
    assert not target.upstream.failures
    assert not [line for line in target.relay.output.splitlines() if "Traceback" in line or '"exception"' in line]
