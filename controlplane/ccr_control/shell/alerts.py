"""Alerts: looks now and then at what is nearly used, notes it as an event, and tells a webhook of every alert there is.

A webhook's address comes from the configuration, and what it points to from whoever owns the name: so it must be https, it must lead to
a public address (checked when it is connected to, not before), it is not followed elsewhere, and its answer is not read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from ccr_rpc.v1 import keys_pb2

from ccr_control.core.alerts import Alerts
from ccr_control.core.events import Event
from ccr_control.core.schema import AlertsConfig
from ccr_control.core.spending import NANO, ClientBudget
from ccr_control.shell.events import EventLog
from ccr_control.shell.log import Log
from ccr_control.store.actor import StoreUnavailable

LOOK_EVERY_S = 5.0
SEND_WITHIN_S = 5.0
TRIES = 3
TRY_AGAIN_S = 5.0
AGAIN_AFTER_TROUBLE_S = 5.0

_KINDS = ("requests", "input_tokens", "output_tokens", "tokens")

_PROTOCOLS = ipaddress.IPv4Network("192.0.0.0/24")  # Oracle's metadata service is here
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

log = Log("alerts")

Sender = Callable[[str, Mapping[str, str | int], bool], Awaitable[str]]
"""Sends a message to a URL, which may be private or not. Returns what went wrong; empty: nothing."""
Shares = Callable[[], Mapping[str, float]]
"""How much is used of what: resource → share."""


class Spending(Protocol):
    """What is known of clients' budgets."""

    @property
    def budgets(self) -> Mapping[str, ClientBudget]: ...
    def spent(self, client: str) -> tuple[int, int]:
        """What a client has spent today and this month, in nano-USD."""


def budget_shares(spending: Spending) -> dict[str, float]:
    """How much clients have spent of their budgets."""
    found = {}
    for client, budget in spending.budgets.items():
        today, this_month = spending.spent(client)
        for period, allowed, spent in (("day", budget.day_usd, today), ("month", budget.month_usd, this_month)):
            if allowed is not None:
                found[f"clients/{client}/budget/{period}"] = spent / (float(allowed) * NANO)
    return found


def limit_shares(budgets: Iterable[keys_pb2.ScopeBudget]) -> dict[str, float]:
    """How much of the accounts' limits was used in the last minute: of the tightest of each."""
    found = {}
    for one in budgets:
        pairs = ((getattr(one.limits, kind), getattr(one.used, kind)) for kind in _KINDS)
        shares = [used / limit for limit, used in pairs if limit]
        if shares:
            found["/".join(filter(None, ("scopes", one.provider, one.scope, one.model_class)))] = max(shares)
    return found


class AlertKeeper:
    """Notes alerts and sends them. All methods are for the event loop."""

    def __init__(
        self,
        config: Callable[[], AlertsConfig],
        events: EventLog,
        sources: Iterable[Shares],
        send: Sender | None = None,
    ) -> None:
        self._config, self._events, self._sources = config, events, tuple(sources)
        self._alerts = Alerts()
        self._send: Sender = send or post

    def begin(self, events: Iterable[Event], now_s: float) -> None:
        """A store was opened, with these alerts in it: they are not told again by every restart."""
        self._alerts.resume(events, now_s)

    async def run(self) -> None:
        """Look and send, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look(), name="alerts")
            tasks.create_task(self._send_all(), name="webhook")

    async def _look(self) -> None:
        while True:
            self.look_once()
            await asyncio.sleep(LOOK_EVERY_S)

    def look_once(self) -> None:
        """Note what is nearly or wholly used and was not before."""
        shares = {resource: share for source in self._sources for resource, share in source().items()}
        for alert in self._alerts.new(shares, self._config().at):
            words = f"{alert.share:.0%} of it is used"
            log.warning("alert", resource=alert.resource, level=alert.level, share=round(alert.share, 3))
            self._events.note("alert", f"budget.{alert.level}", alert.resource, message=words)

    async def _send_all(self) -> None:
        number = self._events.last_number
        while True:
            try:
                found = await self._events.after(number)
            except StoreUnavailable:
                await asyncio.sleep(AGAIN_AFTER_TROUBLE_S)
                continue
            for event in found:
                number = event.number
                if event.kind == "alert" and self._config().webhook is not None:
                    await self._send_one(event)

    async def _send_one(self, event: Event) -> None:
        for attempt in range(TRIES):
            config = self._config()
            if config.webhook is None:
                return
            problem = await self._send(config.webhook.reveal(), as_message(event), config.allow_private)
            if not problem:
                return
            log.warning("webhook_failed", action=event.action, resource=event.resource, problem=problem)
            if attempt < TRIES - 1:
                await asyncio.sleep(TRY_AGAIN_S)


def as_message(event: Event) -> dict[str, str | int]:
    """What a webhook gets; `text` is what chat programs show."""
    return {
        "text": f"cc-relay: {event.resource}: {event.message}",
        "id": event.number,
        "at": datetime.fromtimestamp(event.at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "action": event.action,
        "resource": event.resource,
        "message": event.message,
    }


class _PublicOnly(AbstractResolver):
    """Finds public addresses only: what it answers is what is connected to."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        public = [one for one in found if is_public(one["host"])]
        if not public:
            raise OSError(f"{host} leads to no public address; `alerts.allow_private: true` would allow it")
        return public

    async def close(self) -> None:
        await self._resolver.close()


def is_public(address: str) -> bool:
    """Whether an address is one of the internet's: not of this machine, this network, or a cloud's metadata.

    An IPv6 address that stands for an IPv4 address is judged as that (RFC 3056, RFC 4291, RFC 6052).
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # with a zone: link-local
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is None:
            return found.is_global and not found.is_multicast
        found = inner
    return found.is_global and not found.is_multicast and found not in _PROTOCOLS


async def post(url: str, message: Mapping[str, str | int], allow_private: bool) -> str:
    """Send a message. Returns what went wrong, in words without the URL (it may hold a secret); empty: nothing."""
    host = url.removeprefix("https://").split("/")[0].rpartition("@")[2]
    name = host.rsplit(":", 1)[0].strip("[]")
    if not allow_private and _is_address(name) and not is_public(name):
        return "it is no public address; `alerts.allow_private: true` would allow it"
    resolver = None if allow_private else _PublicOnly()
    timeout = aiohttp.ClientTimeout(total=SEND_WITHIN_S)
    try:
        connector = aiohttp.TCPConnector(resolver=resolver, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session,
            session.post(url, json=dict(message), allow_redirects=False) as response,
        ):
            return "" if 200 <= response.status < 300 else f"it answered {response.status}"
    except TimeoutError:
        return f"no answer within {SEND_WITHIN_S:.0f} s"
    except aiohttp.ClientConnectorError as error:
        return f"no connection: {error.os_error.strerror or error.os_error}"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"it cannot be sent: {type(error).__name__}"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
