"""Clouds' credentials: found in threads, renewed ahead of their end, written into each snapshot.

A search that fails takes nothing away: what was found before is used until it ends, and the failure is logged and shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from ccr_rpc.v1 import snapshot_pb2

from ccr_control.core.circuits import Failures
from ccr_control.core.health import Evidence
from ccr_control.core.material import Material, fill
from ccr_control.core.provider_schema import KeyConfig, ProviderConfig
from ccr_control.core.refreshing import Standing, begun, failed, found, is_due, is_usable, put_back, refused, wakes_s
from ccr_control.core.schema import Config
from ccr_control.credentials.searching import NotFound, Search, search_for, told
from ccr_control.shell.log import Log

KEY_REFUSED = "key_refused"
LOOK_ANYWAY_S = 60.0  # the wall clock may have been set
PUT_BACK_S = 1.0  # less is no reason to look for everything anew

log = Log("credentials")

Tell = Callable[[str, str, str, str], None]
SearchFor = Callable[[ProviderConfig, KeyConfig], Search | None]


@dataclass(slots=True)
class Held:
    """One credential: how it is found, and what was found."""

    provider: str
    label: str
    identity: str  # differs if what the configuration says of it does
    search: Search = field(repr=False)
    standing: Standing
    material: Material | None = None


class CredentialKeeper:
    """Holds the credentials that have to be found. All methods are for the event loop."""

    def __init__(
        self,
        config: Callable[[], Config],
        publish: Callable[[], None],
        now: Callable[[], float],
        *,
        roll: Callable[[], float] = random.random,
        search_for: SearchFor = search_for,
        tell: Tell = lambda *_: None,
    ) -> None:
        """`config` gives the configuration in force; `publish` has the snapshot published with the credentials of now.

        `tell` gets what happens to credentials: a word for it, provider, key, and words.
        """
        self._told, self._told_problems = tell, dict[tuple[str, str], str]()
        self._config, self._publish, self._now, self._roll, self._search_for = config, publish, now, roll, search_for
        self._known: Config | None = None
        self._held: dict[tuple[str, str], Held] = {}
        self._news = asyncio.Event()  # something changed that `run` may have to act on
        self._looked_s = 0.0  # at the clock

    async def first_chance(self, within_s: float) -> None:
        """Look for every credential; wait until each search has ended, but no longer than that."""
        self._configure()
        self._begin_due()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while any(held.standing.is_sought for held in self._held.values()):
                    self._news.clear()
                    await self._news.wait()

    async def run(self) -> None:
        """Keep the credentials fresh, until cancelled."""
        while True:
            self._news.clear()
            self._configure()
            self._begin_due()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s()):
                    await self._news.wait()
            self._end_expired()

    def overlay(self, snapshot: snapshot_pb2.Snapshot) -> None:
        """Write what was found into a snapshot, and take out the keys of which nothing usable was."""
        self._configure()
        fill(snapshot, self._usable)

    def heard(self, evidence: Iterable[Evidence]) -> None:
        """A node told what happened: a credential that was refused is looked for anew."""
        self._look_at_clock()
        refusals = {(one.provider, one.key_label) for one in evidence if _is_refusal(one)}
        for place in refusals & self._held.keys():
            held, now_s = self._held[place], self._now()
            before, held.standing = held.standing, refused(held.standing, now_s)
            if held.standing != before:
                log.warning("credential_refused", provider=held.provider, key=held.label)
                self._news.set()

    def of(self, provider: str) -> Sequence[Held]:
        """The credentials of a provider that have to be found."""
        self._configure()
        return [held for held in self._held.values() if held.provider == provider]

    def _usable(self, provider: str, label: str) -> Material | None:
        held = self._held.get((provider, label))
        return held.material if held is not None and is_usable(held.standing, self._now()) else None

    def _configure(self) -> None:
        """Take up the configuration in force. What it says nothing new of is kept."""
        config = self._config()
        if config is self._known:
            return
        self._known = config
        before, self._held = self._held, {}
        for provider in config.providers:
            for key in provider.keys if provider.enabled else ():
                place, search = (provider.name, key.label or ""), self._search_for(provider, key)
                if search is None or key.state == "disabled":
                    continue
                identity, known = f"{provider.type} {provider.region} {key.digest()}", before.get(place)
                if known is not None and known.identity == identity:
                    self._held[place] = known
                else:
                    self._held[place] = Held(*place, identity, search, Standing(next_s=self._now()))
        self._news.set()

    def _look_at_clock(self) -> float:
        """The time; if it is earlier than before, nothing is put off until the clock has caught up."""
        now_s = self._now()
        if now_s < self._looked_s - PUT_BACK_S:
            for held in self._held.values():
                held.standing = put_back(held.standing, now_s)
            self._news.set()
        self._looked_s = now_s
        return now_s

    def _begin_due(self) -> None:
        now_s = self._look_at_clock()
        for held in self._held.values():
            if is_due(held.standing, now_s):
                held.standing = begun(held.standing)
                # A thread of its own, as a library may block for minutes and the end must not wait for that.
                seeking = _Seeking(held, asyncio.get_running_loop(), self._ended)
                threading.Thread(target=seeking.run, name=f"credential of {held.provider}", daemon=True).start()

    def _ended(self, held: Held, outcome: Material | str) -> None:
        """A search has ended; its result counts only for what is still configured."""
        if self._held.get((held.provider, held.label)) is held:
            now_s = self._now()
            if isinstance(outcome, Material):
                standing = found(held.standing, outcome.expires_at_s, now_s, self._roll())
            else:
                standing = failed(held.standing, outcome, now_s, self._roll())
            held.standing = standing
            self._tell(held, now_s)
            if isinstance(outcome, Material) and not standing.problem and outcome != held.material:
                held.material = outcome
                self._publish()
        self._news.set()

    def _end_expired(self) -> None:
        now_s = self._now()
        for held in self._held.values():
            if held.material is not None and not is_usable(held.standing, now_s):
                held.material = None
                log.error("credential_expired", provider=held.provider, key=held.label, problem=held.standing.problem)
                self._told("credential.expire", held.provider, held.label, held.standing.problem)
                self._publish()

    def _tell(self, held: Held, now_s: float) -> None:
        standing, named = held.standing, {"provider": held.provider, "key": held.label}
        before = self._told_problems.get((held.provider, held.label), "")
        if standing.problem != before:  # not again at every attempt
            self._told_problems[held.provider, held.label] = standing.problem
            action = "credential.fail" if standing.problem else "credential.recover"
            self._told(action, held.provider, held.label, standing.problem)
        left_s = None if standing.expires_s == inf else round(standing.expires_s - now_s, 1)
        if not standing.problem:
            log.info("credential_found", **named, expires_in_s=left_s)
        elif is_usable(standing, now_s):
            log.warning(
                "credential_not_renewed",
                **named,
                problem=standing.problem,
                failures=standing.failures,
                still_valid_for_s=left_s,
            )
        else:
            log.warning("credential_not_found", **named, problem=standing.problem, failures=standing.failures)

    def _pause_s(self) -> float:
        now_s = self._now()
        next_s = min([wakes_s(held.standing, now_s) for held in self._held.values()], default=inf)
        return min(max(next_s - now_s, 0.01), LOOK_ANYWAY_S)


@dataclass(frozen=True, slots=True)
class _Seeking:
    """One search in its thread."""

    held: Held
    loop: asyncio.AbstractEventLoop
    ended: Callable[[Held, Material | str], None]

    def run(self) -> None:
        outcome: Material | str
        try:
            outcome = self.held.search()
        except NotFound as error:
            outcome = str(error)
        except (
            Exception
        ) as error:  # of a library; a thread that ended with it would leave the search under way for ever
            outcome = told(error)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self.loop.call_soon_threadsafe(self.ended, self.held, outcome)


def _is_refusal(one: Evidence) -> bool:
    return isinstance(one, Failures) and one.reason == KEY_REFUSED
