"""Follows a stream of the control plane for as long as the screen wants it: reconnects, and says how the line is."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from ccr_client import AsyncControlPlane, ControlError
from ccr_rpc.v1 import dashboard_pb2

from ccr_tui.core.linking import UNABLE_WAIT_S, fault_words, is_away, wait_s
from ccr_tui.core.world import Away, Connecting, Link, Live, Unable

ENDED = "the control plane ended the stream"


async def follow(
    plane: AsyncControlPlane,
    request: dashboard_pb2.WatchRequest,
    take: Callable[[dashboard_pb2.WatchResponse], None],
    note: Callable[[Link], None],
) -> None:
    """Hand every message to `take` and every change of the line to `note`, until cancelled."""
    failures = 0
    note(Connecting())
    while True:
        try:
            stream = plane.dashboard.Watch(request)
            try:
                async for said in stream:
                    failures = 0
                    note(Live())
                    take(said)
            finally:
                stream.cancel()
            status, why = "UNAVAILABLE", ENDED
        except ControlError as error:
            status, why = error.status, fault_words(error.status, str(error))
        failures += 1
        if is_away(status):
            pause_s = wait_s(failures, random.random())  # noqa: S311 - spreads what would come at once
            note(Away(why, time.time() + pause_s))
        else:
            pause_s = UNABLE_WAIT_S
            note(Unable(why))
        await asyncio.sleep(pause_s)
