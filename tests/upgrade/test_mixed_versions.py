"""A release and the present code in one fleet: an old and a new node under a control plane of either version.

The fleet does what it promises as if all were of one version: configurations reach every node, usage is counted once, limits hold over
all nodes, and the death of any process costs no more than elsewhere.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from support.client import RawClient
from support.load import SteadyUpstream, at_work, steady_load
from support.relay import AUTH, config, provider
from support.releases import Code, Mixed, commands, mixed
from support.serving import until
from support.totals import assert_totals_exact, counted, safe, spool_files

pytestmark = pytest.mark.timeout(240)  # many starts, one after another
LIMIT = 12
LIMITED = {"name": "limited", "type": "anthropic", "allow_private": True}
READING = (
    "status --json",
    "nodes list --json",
    "providers list --json",
    "keys list --json",
    "stats --json",
    "records --json",
    "cost --json",
    "config revisions --json",
    "config show",
    "events --json",
    "route --model claude-test --client tester",
    "tokens whoami",
)
CHANGING = ("providers weight steady 3", "strategy round-robin")


def text(upstream: SteadyUpstream, mark: str) -> str:
    """Everything goes to one provider, but for a model of which there is little."""
    keys = [{"label": "few", "key": "sk-few", "scope": "few", "rpm_limit": LIMIT}]
    few = {**LIMITED, "base_url": upstream.url, "keys": keys, "headers": {"x-mark": mark}}
    steady = provider("steady", upstream.url, headers={"x-mark": mark})
    routes = [
        {"match": {"model": "claude-few"}, "to": [{"provider": "limited"}]},
        {"match": {"model": "*"}, "to": [{"provider": "steady"}]},
    ]
    return config(steady, few, routing={"routes": routes})


@contextmanager
def fleet_of(directory: Path, upstream: SteadyUpstream, control: Code, release: Path) -> Iterator[Mixed]:
    with mixed(directory, text(upstream, "one"), workers=2) as fleet:
        fleet.start("control", control)
        fleet.start("old", release)
        fleet.start("new", None)
        yield fleet


def serve_the_same(fleet: Mixed) -> bool:
    """Whether both nodes are connected and serve the newest snapshot that either was offered."""
    found = fleet.nodes().values()
    versions = {one.served_version for one in found}
    return len(found) == 2 and versions == {max(one.offered_version for one in found)}


@pytest.mark.parametrize("control", ["new", "old"])
def test_a_mixed_fleet_keeps_every_promise(
    tmp_path: Path, upstream: SteadyUpstream, release: Path, control: str
) -> None:
    code = None if control == "new" else release
    with fleet_of(tmp_path, upstream, code, release) as fleet:
        until(lambda: serve_the_same(fleet), "both serve the newest snapshot")
        versions = {"old": release.name, "new": version("cc-relay")}
        assert {name: node.software_version for name, node in fleet.nodes().items()} == versions
        with steady_load(fleet.url, upstream, whole=4, streams=4, keep_alive=False) as load:
            until(at_work(load, 50), "the load is on")
            fleet.file.write_text(text(upstream, "two"))
            until(
                lambda: len({call.node for call in load.answered if call.mark == "two"}) == 2,
                "the new configuration reaches both nodes",
            )
            fleet.end("control", signal.SIGKILL)
            until(at_work(load, 50), "the load goes on without a control plane")
            fleet.start("control", code)
            until(at_work(load, 50), "the load goes on")
        load.check()
        until(lambda: serve_the_same(fleet), "both are back")
        until(lambda: safe(fleet.relay) >= len(load.calls), "every record is counted or on disk")
        for name, of in (("old", release), ("new", None)):
            fleet.end(name, signal.SIGKILL)
            fleet.start(name, of)
        with steady_load(fleet.url, upstream, whole=2, streams=2) as again:
            until(at_work(again, 30), "killed nodes are back")
        again.check()
        until(lambda: not spool_files(fleet.relay), "nothing is left on disk")
        assert_totals_exact(fleet.relay, [*load.calls, *again.calls])
        assert sum(served_of_few(fleet, upstream) for _ in range(2)) <= LIMIT, "leases hold over both versions"
        assert upstream_saw_few(upstream) <= LIMIT


def ask_for_few(fleet: Mixed) -> int:
    """Status of one request for the model of which there is little; each on a connection of its own."""
    body = (
        b'{"model":"claude-few","max_tokens":9,"messages":[{"role":"user","content":"call 0 of 0 events every 0 ms"}]}'
    )
    with RawClient(fleet.url, 20.0) as connection:
        return connection.ask("POST", "/v1/messages", body, AUTH).status


def served_of_few(fleet: Mixed, upstream: SteadyUpstream) -> int:
    statuses = [ask_for_few(fleet) for _ in range(LIMIT)]
    assert set(statuses) <= {200, 429}, statuses
    return statuses.count(200)


def upstream_saw_few(upstream: SteadyUpstream) -> int:
    return sum(one.model == "claude-few" for one in upstream.arrivals)


@pytest.mark.parametrize("cli", ["old", "new"])
def test_commands_of_one_version_with_a_control_plane_of_the_other(
    tmp_path: Path, upstream: SteadyUpstream, release: Path, cli: str
) -> None:
    """What they show is what happened, and what they change is changed."""
    client, control = (release, None) if cli == "old" else (None, release)
    with mixed(tmp_path, text(upstream, "one")) as fleet:
        fleet.start("control", control)
        fleet.start("node", None)
        with steady_load(fleet.url, upstream, whole=1, streams=1) as load:
            until(at_work(load, 5), "there is something to show")
        count = len(load.calls)
        until(lambda: counted(fleet.relay) >= count, "it is counted")
        explaining = f"explain {load.calls[0].headers['x-cc-relay-request-id']}"
        lines = (*READING, explaining, *CHANGING, "config overlay --json")
        said = commands(client, fleet.state, *lines)

    assert {line: (one.code, one.err) for line, one in said.items() if one.code or one.err} == {}
    shown: Any = {line: one.json for line, one in said.items() if line.endswith("--json")}
    (node,) = shown["nodes list --json"]["nodes"]
    assert (node["node_id"].endswith("/node"), node["software_version"]) == (True, version("cc-relay"))
    assert shown["cost --json"]["total"]["requests"] == count
    assert sum(one["requests"] for one in shown["keys list --json"]) == count
    assert len(shown["records --json"]) == count
    assert [one["figures"]["requests"] for one in shown["stats --json"]["lines"]] == [count]
    assert "steady/steady-key" in said["route --model claude-test --client tester"].out
    assert "steady/steady-key" in said[explaining].out
    changed = {(one["resource"], one["field"], one["value"]) for one in shown["config overlay --json"]["entries"]}
    assert changed == {("providers/steady", "weight", "3"), ("routing", "strategy", "round-robin")}
