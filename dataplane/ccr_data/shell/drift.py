"""The drift sentinel: looks at one request and one stream a second, beside the request path, and reports names that are not known.

All that the path does is to ask whether one is wanted, and to hand it over; it is read later, when its turn comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ccr_data.core.drift import NamingTap, UnknownName, unknown_in_request
from ccr_data.core.records import Tokens
from ccr_data.shell.logs import Log, may_hold_secret

EVERY_S = 1.0

log = Log("drift")


class Sentinel:
    """What it was handed, until it looks at it."""

    def __init__(self) -> None:
        self.wants_request = True
        self.wants_stream = True
        self._request: tuple[Sequence[bytes], bytes] | None = None
        self._provider = ""
        self._names: set[str] = set()

    def take(self, lines: Sequence[bytes], body: bytes) -> None:
        """A request, as it came."""
        self.wants_request = False
        self._request = (lines, body)

    def tap(self, tokens: Tokens, provider: str) -> NamingTap:
        """What to read the usage of a provider's stream with."""
        self.wants_stream = False
        self._provider, self._names = provider, set()
        return NamingTap(tokens, self._names)

    async def run(self, report: Callable[[UnknownName], None]) -> None:
        """Look again and again, until cancelled; `report` gets each name seen."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                for found in self.look():
                    report(found)
            except Exception:  # it reads what others sent; a mistake in that must not end the node
                log.exception("drift_not_read")

    def look(self) -> list[UnknownName]:
        """Read what was handed over, and want more."""
        found: list[UnknownName] = []
        if self._request is not None:
            found += unknown_in_request(*self._request)
            self._request = None
        found += [UnknownName("event_type", name, self._provider) for name in sorted(self._names)]
        self._names.clear()  # the tap may go on adding to it
        self.wants_request = self.wants_stream = True
        return [one for one in found if not may_hold_secret(one.name)]
