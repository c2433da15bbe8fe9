"""`ccr serve` is upgraded under load, and taken back: workers one by one, then the control plane. No request notices."""

from __future__ import annotations

import os
import signal
from importlib.metadata import version
from pathlib import Path

import pytest
from support.load import Load, SteadyUpstream, at_work, steady_load
from support.relay import config, provider
from support.releases import Installation, environment_of, eventually, nodes_of
from support.serving import REAL_SERVE, Relay, served
from support.totals import assert_totals_exact, spool_files

pytestmark = [pytest.mark.timeout(240), pytest.mark.long]  # many starts, one after another


def roll(relay: Relay, load: Load, runs: str) -> None:
    """Replace everything but the supervisor by what is installed now; `runs` is its version."""
    stopped = len(relay.events("node_stopped"))
    relay.signal(signal.SIGUSR2)
    eventually(lambda: versions(relay) == [runs] * 2, "both workers are of that version")
    eventually(lambda: len(relay.events("node_stopped")) == stopped + 2, "those before have finished, and told all")
    eventually(at_work(load, 20), "the load goes on with the control plane of the other version")
    ready = len(relay.events("control_ready"))
    os.kill(relay.pids("ccr-control")[-1], signal.SIGTERM)
    eventually(lambda: len(relay.events("control_ready")) > ready, "the control plane is back")
    assert relay.events("control_ready")[-1]["software_version"] == runs
    eventually(lambda: versions(relay) == [runs] * 2, "it knows them")
    eventually(at_work(load, 20), "the load goes on")


def versions(relay: Relay) -> list[str]:
    """Of the workers that are connected and serve."""
    return [one.software_version for one in nodes_of(relay.state).values() if one.served_version]


def test_an_installation_is_upgraded_in_place_and_taken_back(
    tmp_path: Path, upstream: SteadyUpstream, release: Path
) -> None:
    """0 failed requests, all of them counted once."""
    installed = Installation(tmp_path / "site-packages", release)
    text = config(provider("steady", upstream.url))
    env = environment_of(installed.place)
    with served(tmp_path, text, "--workers", "2", env=env, command=REAL_SERVE) as relay:
        relay.wait_ready()
        assert relay.events("control_ready")[-1]["software_version"] == release.name
        eventually(lambda: versions(relay) == [release.name] * 2, "both workers have something to serve")
        with steady_load(relay.url, upstream, whole=1, streams=3, gap_ms=15) as load:
            installed.use(None)
            roll(relay, load, version("cc-relay"))
            installed.use(release)
            roll(relay, load, release.name)
        load.check()
        assert len({call.node for call in load.calls}) >= 4
        eventually(lambda: not spool_files(relay), "nothing is left on disk")
        assert_totals_exact(relay, load.calls)
