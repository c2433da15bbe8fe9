"""People hear of a budget that is nearly or wholly spent: as an event, and by a webhook that leads nowhere it must not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from ccr_control.core.config import load
from ccr_control.core.errors import ConfigInvalid
from ccr_control.shell.alerts import is_public
from ccr_rpc.v1 import events_pb2, events_pb2_grpc
from support.clock import Clock
from support.control import CONFIG, Control, running_control, until
from support.fake_node import FakeReporter, batch, record
from support.tls import Certificates, make_certificates

AUTH = "server: {auth: {keys: [{name: laptop, key: key-of-the-laptop, budget: {day: 1 USD}}]}}\n"


@asynccontextmanager
async def hook(certificates: Certificates, status: int = 200) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook on loopback; yields its URL and what it got."""
    got: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        got.append(await request.json())
        return web.Response(status=status, headers={"Location": "https://127.0.0.1:1/elsewhere"})

    application = web.Application()
    application.router.add_post("/hook/s3cret-part", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificates.server_context())
    await site.start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}/hook/s3cret-part", got
    finally:
        await runner.cleanup()


def spending(micro_usd: int, number: int) -> Any:
    """A batch of one request that costs so much, at 15 USD a million output tokens."""
    made = record(started_at_s=int(time.time()), request_id=f"r{number}")
    made.tokens.Clear()
    made.tokens.output = micro_usd // 15
    return batch(number, made)


async def alerts(control: Control) -> list[tuple[str, str]]:
    async with control.channel() as channel:
        stub = events_pb2_grpc.EventServiceStub(channel)
        request = events_pb2.ListEventsRequest(kind=events_pb2.EVENT_KIND_ALERT)
        return [(one.action, one.resource) for one in (await stub.ListEvents(request)).events][::-1]


async def test_a_budget_is_told_of_once_when_it_is_near_and_once_when_it_is_spent(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    async with hook(certificates) as (url, got):
        config = f'{CONFIG}{AUTH}alerts: {{at: 50%, webhook: "{url}", allow_private: true}}\n'
        env = {"SSL_CERT_FILE": str(certificates.ca_file)}
        async with running_control(tmp_path / "control", config, env) as control, control.channel() as channel:
            async with FakeReporter(channel).reporting() as reporter:
                await reporter.report(spending(400_000, 1))
                await reporter.report(spending(200_000, 2))
                await until(lambda: got, "the webhook hears of it", 20)
                await reporter.report(spending(400_050, 3))
                await until(lambda: len(got) == 2, "and of the rest", 20)
            told = [(one["action"], one["resource"]) for one in got]
            near, reached = "budget.near", "budget.reached"
            place = "clients/laptop/budget/day"
            assert told == await alerts(control) == [(near, place), (reached, place)]
            assert "60% of it is used" in got[0]["text"]
            assert "s3cret-part" not in control.log_text()


async def test_a_restart_does_not_tell_again_what_was_told(tmp_path: Path) -> None:
    """An upgrade would wake everybody whose clients had spent their budgets hours ago."""
    clock = Clock(tmp_path)
    noon_s = int(time.time()) // 86_400 * 86_400 + 43_200
    clock.set(noon_s - int(time.time()))  # an hour later it is the same day
    both = AUTH.replace("[{", "[{name: ci, key: key-of-the-ci, budget: {day: 1 USD}}, {")
    async with running_control(tmp_path / "control", f"{CONFIG}{both}", clock.env) as control:
        await spends(control, "laptop", 1, noon_s)
        assert await alerts(control) == [("budget.reached", "clients/laptop/budget/day")]
        control.kill()
        clock.set(noon_s + 3600 - int(time.time()))
        await control.start()
        await spends(control, "ci", 2, noon_s)
        told = ("clients/laptop/budget/day", "clients/ci/budget/day")
        assert await alerts(control) == [("budget.reached", resource) for resource in told]


async def spends(control: Control, client: str, number: int, at_s: int) -> None:
    """A client spends its budget, and people are told."""
    made = record(started_at_s=at_s, request_id=f"r{number}", client=client)
    made.tokens.output = 100_000
    async with control.channel() as channel, FakeReporter(channel).reporting() as reporter:
        await reporter.report(batch(number, made))

        async def is_told() -> bool:
            return f"clients/{client}/budget/day" in [resource for _, resource in await alerts(control)]

        await until(is_told, "it is told", 20)


async def test_a_webhook_on_this_machine_is_not_called_unless_that_is_allowed(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    async with hook(certificates) as (url, got):
        for target in (url, url.replace("127.0.0.1", "localhost")):
            config = f'{CONFIG}{AUTH}alerts: {{at: 50%, webhook: "{target}"}}\n'
            env = {"SSL_CERT_FILE": str(certificates.ca_file)}
            directory = tmp_path / target[8:12]
            async with running_control(directory, config, env) as control, control.channel() as channel:
                async with FakeReporter(channel).reporting() as reporter:
                    await reporter.report(spending(900_000, 1))
                await until(lambda: control.event("webhook_failed"), "it is not sent", 20)
                failed = control.event("webhook_failed")
                assert failed is not None
                assert "public address" in failed["problem"]
                assert "s3cret-part" not in control.log_text()
        assert not got


async def test_a_webhook_that_points_elsewhere_is_not_followed(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    async with hook(certificates, status=307) as (url, got):
        config = f'{CONFIG}{AUTH}alerts: {{at: 50%, webhook: "{url}", allow_private: true}}\n'
        env = {"SSL_CERT_FILE": str(certificates.ca_file)}
        async with running_control(tmp_path / "control", config, env) as control, control.channel() as channel:
            async with FakeReporter(channel).reporting() as reporter:
                await reporter.report(spending(900_000, 1))
            await until(lambda: control.event("webhook_failed"), "it is said", 20)
            failed = control.event("webhook_failed")
            assert failed is not None
            assert failed["problem"] == "it answered 307"
        assert len(got) == 1


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),  # where clouds keep credentials
        ("100.64.0.1", False),
        ("::1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("224.0.0.1", False),
        ("192.0.0.192", False),  # Oracle's
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("::ffff:8.8.8.8", True),
        ("localhost", False),
        ("0.0.0.0", False),
    ],
)
def test_only_the_internets_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize("url", ["http://hooks.example/s3cret-part", "ftp://s3cret-part", "s3cret-part"])
def test_a_webhook_is_https_and_what_was_written_instead_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigInvalid, match="must be an https URL") as caught:
        load(f'{CONFIG}alerts: {{webhook: "{url}"}}\n', file="ccr.yaml", fmt="yaml", env={})
    assert "s3cret-part" not in str(caught.value)
