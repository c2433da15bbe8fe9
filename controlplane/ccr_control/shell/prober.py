"""Asks providers whether they are alive: those that are passed by often, the others now and then.

A scope that is passed by is probed with one of its own keys. One probe of a provider or scope at a time. A probe sends
no user's request, follows no redirect and reads little of the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import aiohttp

from ccr_control.core.circuits import Circuit, Closed, HalfOpen, Open
from ccr_control.core.health import ProbeResult
from ccr_control.core.probing import ProbePlan, judge, probe_plan
from ccr_control.core.provider_schema import ProviderConfig
from ccr_control.core.schema import ProbeConfig
from ccr_control.shell.health import HealthKeeper
from ccr_control.shell.log import Log

MAX_ANSWER_BYTES = 64 << 10
MAX_AT_A_TIME = 16
LOOK_ANYWAY_S = 60.0
MIN_PAUSE_S = 0.01  # also if the clock says something else
JITTER = 0.2

_Probed = tuple[str, str]  # provider, and the scope or none

log = Log("prober")


class Prober:
    """Probes every provider in its time, and any on demand."""

    def __init__(
        self, keeper: HealthKeeper, now: Callable[[], float], roll: Callable[[], float] = random.random
    ) -> None:
        self._keeper, self._now, self._roll = keeper, now, roll
        self._due_s: dict[_Probed, tuple[Circuit, float]] = {}  # when to probe next, while the circuit is this one
        self._locks: dict[_Probed, asyncio.Lock] = {}
        self._slots = asyncio.Semaphore(MAX_AT_A_TIME)
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def run(self) -> None:
        """Probe, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._keeper.news.clear()
                for provider, scope in self._due():
                    tasks.create_task(self._probe_quietly(provider, scope), name=f"probe {provider.name} {scope}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_s()):
                        await self._keeper.news.wait()

    async def probe(self, provider: ProviderConfig, scope: str = "") -> ProbeResult:
        """Probe now, and note the result. Bounded by the configuration's timeout for each probe ahead and this one."""
        async with self._locks.setdefault((provider.name, scope), asyncio.Lock()), self._slots:
            key = next(iter(self._keeper.keys_of(provider, scope)), None)
            result = await self._ask(probe_plan(provider, key), self._settings.timeout.total_seconds())
            self._keeper.probed(provider.name, result, scope)
            return result

    @property
    def _settings(self) -> ProbeConfig:
        return self._keeper.settings().health.probe

    def _due(self) -> list[tuple[ProviderConfig, str]]:
        """Those whose time has come, with the scope or none; when it comes next is settled at once."""
        self._keeper.pass_time()
        now_s, due = self._now(), list[tuple[ProviderConfig, str]]()
        before, self._due_s = self._due_s, {}
        for provider, scope, circuit in self._watched():
            known, at_s = before.get((provider.name, scope), (None, 0.0))
            if not _is_same_state(known, circuit) or at_s > self._latest_s(circuit, now_s):
                at_s = self._first_s(circuit, now_s)
            if at_s <= now_s:
                due.append((provider, scope))
                at_s = self._next_s(circuit, now_s)
            self._due_s[provider.name, scope] = (circuit, at_s)
        return due

    def _watched(self) -> Iterator[tuple[ProviderConfig, str, Circuit]]:
        """Every provider that is enabled, and its scopes that are passed by."""
        for provider, health in self._keeper.providers():
            if provider.enabled:
                yield provider, "", health.circuit
                for scope, one in health.scopes.items():
                    if not isinstance(one.circuit, Closed):
                        yield provider, scope, one.circuit

    def _latest_s(self, circuit: Circuit, now_s: float) -> float:
        """Beyond this no probe can have been put off to, unless the clock was put back or the interval was another."""
        settings = self._settings
        interval = settings.interval if isinstance(circuit, HalfOpen) else settings.idle_interval
        return now_s + (1 + JITTER) * interval.total_seconds() if interval else float("inf")

    def _first_s(self, circuit: Circuit, now_s: float) -> float:
        """When to probe a circuit that has just got into its state."""
        return now_s if isinstance(circuit, HalfOpen) else self._next_s(circuit, now_s)

    def _next_s(self, circuit: Circuit, now_s: float) -> float:
        match circuit:
            case HalfOpen():
                return now_s + self._jittered(self._settings.interval.total_seconds())
            case Closed():
                idle_s = self._settings.idle_interval.total_seconds()
                return now_s + self._jittered(idle_s) if idle_s else float("inf")
            case Open():
                return float("inf")  # it is left alone

    def _jittered(self, interval_s: float) -> float:
        return interval_s * (1 - JITTER + 2 * JITTER * self._roll())

    def _pause_s(self) -> float:
        """Until something is due: a probe, or the end of an opening."""
        ends_s = [circuit.until_s for _, _, circuit in self._watched() if isinstance(circuit, Open)]
        next_s = min([*ends_s, *(at_s for _, at_s in self._due_s.values())], default=float("inf"))
        return min(max(next_s - self._now(), MIN_PAUSE_S), LOOK_ANYWAY_S)

    async def _probe_quietly(self, provider: ProviderConfig, scope: str) -> None:
        """A mistake in one probe must not end the others."""
        lock = self._locks.get((provider.name, scope))
        if lock is not None and lock.locked():
            return
        try:
            await self.probe(provider, scope)
        except Exception:
            log.exception("probe_failed", provider=provider.name)

    async def _ask(self, plan: ProbePlan, timeout_s: float) -> ProbeResult:
        began_s = time.perf_counter()
        status, problem = 0, ""
        try:
            async with asyncio.timeout(timeout_s), self._answer(plan) as answer:
                status = answer.status
                await answer.content.read(MAX_ANSWER_BYTES)
        except TimeoutError:
            problem = f"no answer within {timeout_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            problem = _worded(error)
        latency_ms = (time.perf_counter() - began_s) * 1000
        if status and not problem:
            return judge(plan, status, at_s=self._now(), latency_ms=latency_ms)
        return ProbeResult(self._now(), False, latency_ms, status, problem)

    @asynccontextmanager
    async def _answer(self, plan: ProbePlan) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer's head. A connection of its own, as one from before would say less."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("accept-encoding",),
        ) as session:
            trusted = self._trusted(plan.ca_pem)
            async with session.get(plan.url, headers=dict(plan.headers), ssl=trusted, allow_redirects=False) as answer:
                yield answer

    def _trusted(self, ca_pem: str) -> ssl.SSLContext:
        """Raises ValueError or OSError for certificates that cannot be read."""
        found = self._contexts.get(ca_pem)
        if found is None:
            found = self._contexts[ca_pem] = ssl.create_default_context(cadata=ca_pem or None)
        return found


def _is_same_state(known: Circuit | None, circuit: Circuit) -> bool:
    return known is not None and type(known) is type(circuit) and known.since_s == circuit.since_s


def _worded(error: Exception) -> str:
    """Why a connection failed, for an operator. These errors name hosts and ports, no credentials."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {error.certificate_error}"[:300]
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection: {error.os_error.strerror or error.os_error}"[:300]
    return f"{type(error).__name__}: {error}"[:300]
