"""A release and the present code in one fleet: an old and a new node under a control plane of either version.

The fleet does what it promises as if all were of one version: configurations reach every node, usage is counted once, limits hold over
all nodes, and the death of any process costs no more than elsewhere.
"""

from __future__ import annotations

import signal
from importlib.metadata import version
from pathlib import Path

import pytest
from support.client import RawClient
from support.load import INPUT_TOKENS, OUTPUT_TOKENS, SteadyUpstream, at_work, request_body, steady_load
from support.relay import AUTH, config, provider
from support.releases import Code, Mixed, commands, eventually, mixed
from support.totals import counted, safe, spool_files

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


def serve_the_same(fleet: Mixed) -> bool:
    """Whether both nodes are connected and serve the newest snapshot that either was offered."""
    found = fleet.nodes().values()
    versions = {one.served_version for one in found}
    return len(found) == 2 and versions == {max(one.offered_version for one in found)}


@pytest.mark.parametrize("control", ["new", "old"])
def test_a_mixed_fleet_keeps_every_promise(
    tmp_path: Path, upstream: SteadyUpstream, release: Path, control: str
) -> None:
    """The commands are of the other version than the control plane."""
    code, client = (None, release) if control == "new" else (release, None)
    with mixed(tmp_path, text(upstream, "one"), workers=2) as fleet:
        for name, of in (("control", code), ("old", release), ("new", None)):
            fleet.start(name, of)
        eventually(lambda: serve_the_same(fleet), "both serve the newest snapshot")
        versions = {"old": release.name, "new": version("cc-relay")}
        assert {name: node.software_version for name, node in fleet.nodes().items()} == versions
        with steady_load(fleet.url, upstream, whole=1, streams=3, gap_ms=15, keep_alive=False) as load:
            eventually(at_work(load, 20), "the load is on")
            fleet.file.write_text(text(upstream, "two"))
            eventually(
                lambda: len({call.node for call in load.answered if call.mark == "two"}) == 2,
                "the new configuration reaches both nodes",
            )
            fleet.end("control", signal.SIGKILL)
            eventually(at_work(load, 20), "the load goes on without a control plane")
            fleet.start("control", code)
            eventually(at_work(load, 20), "the load goes on")
        load.check()
        eventually(lambda: serve_the_same(fleet), "both are back")
        eventually(lambda: safe(fleet.relay) >= len(load.calls), "every record is counted or on disk")
        for name, of in (("old", release), ("new", None)):
            fleet.end(name, signal.SIGKILL)
            fleet.start(name, of)
        with steady_load(fleet.url, upstream, whole=2, streams=0) as again:
            eventually(at_work(again, 20), "killed nodes are back")
        again.check()
        eventually(lambda: not spool_files(fleet.relay), "nothing is left on disk")
        calls = [*load.calls, *again.calls]
        check_counted_once(fleet, len(calls))
        check_commands(fleet, client, versions, len(calls), calls[-1].headers["x-cc-relay-request-id"])
        assert LIMIT / 2 <= served_of_few(fleet) <= LIMIT, "leases hold over both versions"


def check_counted_once(fleet: Mixed, count: int) -> None:
    eventually(lambda: counted(fleet.relay) >= count, "everything is counted")
    columns = ("requests", "served", "input_tokens", "output_tokens")
    found = [counted(fleet.relay, column) for column in columns]
    assert found == [count, count, count * INPUT_TOKENS, count * OUTPUT_TOKENS]


def served_of_few(fleet: Mixed) -> int:
    """How many of twice the limit are served, each on a connection of its own, by whichever node takes it."""
    body = request_body(0, 0, 0).replace(b"claude-test", b"claude-few")
    statuses = []
    for _ in range(2 * LIMIT):
        with RawClient(fleet.url, 20.0) as connection:
            statuses.append(connection.ask("POST", "/v1/messages", body, AUTH).status)
    assert set(statuses) == {200, 429}
    return statuses.count(200)


def check_commands(fleet: Mixed, client: Code, versions: dict[str, str], count: int, request_id: str) -> None:
    """What commands show is what happened, and what they change is changed."""
    explaining = f"explain {request_id}"
    said = commands(client, fleet.state, *READING, explaining, *CHANGING, "config overlay --json")
    assert {line: (one.code, one.err) for line, one in said.items() if one.code or one.err} == {}
    shown = {line: one.json for line, one in said.items() if line.endswith("--json")}
    nodes = shown["nodes list --json"]["nodes"]
    assert {one["node_id"].rpartition("/")[2]: one["software_version"] for one in nodes} == versions
    assert shown["cost --json"]["total"]["requests"] == count
    assert shown["records --json"]
    assert [one["name"] for one in shown["stats --json"]["lines"]] == ["steady"]
    assert "steady/steady-key" in said["route --model claude-test --client tester"].out
    assert "steady/steady-key" in said[explaining].out
    changed = {(one["resource"], one["field"], one["value"]) for one in shown["config overlay --json"]["entries"]}
    assert changed == {("providers/steady", "weight", "3"), ("routing", "strategy", "round-robin")}
