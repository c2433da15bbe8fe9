"""Credentials that end: an ended one is never sent, a refused one is replaced by the next snapshot's, and the client notices nothing.

The data plane's server in this process, with a store that the test fills.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from ccr_data.core.records import Outcome, RateLimitSighting, Reason, Record
from ccr_data.core.snapshot import (
    NEVER_S,
    AuthStyle,
    AwsCredentials,
    AwsSigning,
    Key,
    Origin,
    Provider,
    ProviderType,
    Snapshot,
)
from ccr_data.shell import renewal
from ccr_data.shell.http_server import Server
from ccr_data.shell.relay import Relay
from support.client import Answer, RawClient
from support.control import until
from support.relay import BODY
from support.routing import snapshot
from support.upstream import MESSAGE, RawUpstream, Request, Wire, error_answer, json_answer

SOON_S = 3600.0


@dataclass
class Store:
    """The newest snapshot."""

    current: Snapshot | None


@dataclass
class Reporter:
    """Keeps what it is told."""

    records: list[Record] = field(default_factory=list)

    def note(self, record: Record) -> None:
        self.records.append(record)

    def note_sighting(self, sighting: RateLimitSighting) -> None: ...

    def note_failure(self, *failure: object, **more: object) -> None: ...

    def note_budgets_changed(self) -> None: ...


def key(secret: str, expires_in_s: float = SOON_S) -> Key:
    return Key("adc", secret, "", expires_at_s=time.time() + expires_in_s if expires_in_s != NEVER_S else NEVER_S)


def provider(upstream: RawUpstream, *keys: Key, name: str = "vertex") -> Provider:
    origin = Origin("http", "127.0.0.1", upstream.port)
    return Provider(name, ProviderType.CLAUDE_GCP, origin, "", AuthStyle.BEARER, keys)


@dataclass(frozen=True)
class Ask:
    """A way to ask, off the loop."""

    url: str

    def __call__(self) -> Answer:
        with RawClient(self.url) as client:
            return client.ask("POST", "/v1/messages", BODY)


@asynccontextmanager
async def serving(store: Store) -> AsyncIterator[tuple[Reporter, Ask]]:
    """A data plane; what it reports, and a way to ask it."""
    reporter = Reporter()
    relay = Relay(store, reporter)
    server = Server(relay, 16)
    sock = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    await server.listen(sock)
    sweeping = asyncio.create_task(server.sweep_forever())

    try:
        yield reporter, Ask(url)
    finally:
        sweeping.cancel()
        await server.drain(1.0)
        relay.pool.close()


@pytest.fixture
def upstream() -> Iterator[RawUpstream]:
    with RawUpstream() as upstream:
        yield upstream


def bearer(request: Request) -> str:
    return (request.header("authorization") or "").removeprefix("Bearer ")


async def test_a_refused_credential_is_renewed_and_the_request_goes_out_again(upstream: RawUpstream) -> None:
    """Somebody revoked the token; the control plane's next snapshot has another."""
    store = Store(snapshot(provider(upstream, key("old"))))

    def answer(request: Request, wire: Wire) -> None:
        if bearer(request) == "new":
            wire.send(json_answer(MESSAGE))
        else:
            wire.send(error_answer("401 No", "authentication_error"))
            store.current = snapshot(provider(upstream, key("new")), version=2)

    upstream.answer = answer
    async with serving(store) as (reporter, ask):
        first = await asyncio.to_thread(ask)
        second = await asyncio.to_thread(ask)

    assert (first.status, first.body) == (200, MESSAGE)
    assert second.status == 200
    assert [bearer(request) for request in upstream.requests] == ["old", "new", "new"]
    assert [attempt.reason for attempt in reporter.records[0].attempts] == [Reason.KEY_REFUSED, None]


async def test_without_a_newer_one_the_refusal_goes_back(
    upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bounded wait, and with the provider's own words."""
    monkeypatch.setattr(renewal, "MAX_WAIT_S", 0.2)
    upstream.answer = lambda request, wire: wire.send(error_answer("403 No", "permission_error"))
    async with serving(Store(snapshot(provider(upstream, key("old"))))) as (_, ask):
        answer = await asyncio.to_thread(ask)

    assert answer.status == 403
    assert b'"permission_error"' in answer.body
    assert len(upstream.requests) == 1


async def test_a_second_refusal_is_the_answer(upstream: RawUpstream) -> None:
    """One retry: a credential that lacks a permission is not renewed for ever."""
    store = Store(snapshot(provider(upstream, key("0"))))

    def answer(request: Request, wire: Wire) -> None:
        wire.send(error_answer("403 No", "permission_error"))
        number = int(bearer(request)) + 1
        store.current = snapshot(provider(upstream, key(str(number))), version=number + 1)

    upstream.answer = answer
    async with serving(store) as (_, ask):
        assert (await asyncio.to_thread(ask)).status == 403

    assert [bearer(request) for request in upstream.requests] == ["0", "1"]


async def test_a_client_that_leaves_ends_the_wait(upstream: RawUpstream) -> None:
    """Nothing goes out for somebody who is gone, whatever comes later."""
    store = Store(snapshot(provider(upstream, key("old"))))
    upstream.answer = lambda request, wire: wire.send(error_answer("403 No", "permission_error"))
    async with serving(store) as (reporter, ask):
        leaver = RawClient(ask.url)
        await asyncio.to_thread(leaver.request, "POST", "/v1/messages", BODY)
        await until(lambda: upstream.requests, "the refusal")
        leaver.sock.close()
        await until(lambda: reporter.records, "the end of the exchange")
        upstream.answer = lambda request, wire: wire.send(json_answer(MESSAGE))
        store.current = snapshot(provider(upstream, key("new")), version=2)
        assert (await asyncio.to_thread(ask)).status == 200

    assert reporter.records[0].outcome is Outcome.CLIENT_LEFT
    assert [bearer(request) for request in upstream.requests] == ["old", "new"]


async def test_a_static_key_is_not_waited_for(upstream: RawUpstream) -> None:
    """Nobody renews it: the client hears at once."""
    upstream.answer = lambda request, wire: wire.send(error_answer("403 No", "permission_error"))
    async with serving(Store(snapshot(provider(upstream, key("old", NEVER_S))))) as (reporter, ask):
        assert (await asyncio.to_thread(ask)).status == 403

    assert len(upstream.requests) == 1
    assert reporter.records[0].total_s < renewal.MAX_WAIT_S / 2


async def test_another_target_goes_before_waiting(upstream: RawUpstream) -> None:
    """Failover is faster than a renewal."""
    with RawUpstream() as other:
        upstream.answer = lambda request, wire: wire.send(error_answer("401 No", "authentication_error"))
        store = Store(snapshot(provider(upstream, key("old")), provider(other, key("other"), name="other")))
        async with serving(store) as (_, ask):
            assert (await asyncio.to_thread(ask)).status == 200

        assert len(other.requests) == 1


async def test_an_ended_credential_is_never_sent(upstream: RawUpstream) -> None:
    """While cut off from its control plane a node's tokens end; what is left serves, and the decision says why."""
    with RawUpstream() as other:
        ended = provider(upstream, key("old", -1.0))
        async with serving(Store(snapshot(ended))) as (_, ask):
            answer = await asyncio.to_thread(ask)
        both = snapshot(ended, provider(other, key("good"), name="other"))
        async with serving(Store(both)) as (reporter, ask):
            assert (await asyncio.to_thread(ask)).status == 200

    assert (answer.status, b'"api_error"' in answer.body) == (503, True)
    assert b"expired" in answer.body
    assert not upstream.requests
    decision = reporter.records[0].decision
    assert decision is not None
    assert ("vertex/adc", "credential expired") in decision.passed_over


async def test_a_credential_that_ends_between_routing_and_sending_is_not_sent(upstream: RawUpstream) -> None:
    """A request may wait for its turn, for a connection or for another target's failure."""
    with RawUpstream() as slow:
        ending = provider(upstream, key("old", 0.4), name="ending")
        store = Store(snapshot(provider(slow, key("first"), name="slow"), ending))

        def answer(request: Request, wire: Wire) -> None:
            while time.time() < ending.keys[0].expires_at_s:
                time.sleep(0.01)
            wire.send(error_answer("500 Error", "api_error"))
            store.current = snapshot(replace(ending, keys=(key("new"),)), version=2)

        slow.answer = answer
        async with serving(store) as (_, ask):
            assert (await asyncio.to_thread(ask)).status == 200

    assert [bearer(request) for request in upstream.requests] == ["new"]


async def test_a_renewed_signature_is_made_of_the_new_material(upstream: RawUpstream) -> None:
    """Also where a key has no secret of its own: AWS credentials of a role."""
    role = Key("role", "", "", aws=AwsCredentials("AKIDOLD", "s", "token-1"), expires_at_s=time.time() + SOON_S)
    aws = replace(
        provider(upstream, role, name="claude-aws"),
        auth_style=AuthStyle.SIGV4,
        type=ProviderType.CLAUDE_AWS,
        aws_signing=AwsSigning("us-east-1", "aws-external-anthropic"),
    )
    newer = replace(role, aws=AwsCredentials("AKIDNEW", "s", "token-2"))
    store = Store(snapshot(aws))

    def answer(request: Request, wire: Wire) -> None:
        if request.header("x-amz-security-token") == "token-2":
            wire.send(json_answer(MESSAGE))
        else:
            wire.send(
                json_answer(
                    b'{"message":"The security token is expired"}', "403 X", "x-amzn-errortype: ExpiredTokenException"
                )
            )
            store.current = snapshot(replace(aws, keys=(newer,)), version=2)

    upstream.answer = answer
    async with serving(store) as (_, ask):
        assert (await asyncio.to_thread(ask)).status == 200

    assert "Credential=AKIDNEW/" in (upstream.requests[-1].header("authorization") or "")
