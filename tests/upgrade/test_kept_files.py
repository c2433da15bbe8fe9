"""What a release kept on disk is taken up by the present code, and the other way round: nothing is lost, counted twice or forgotten."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.client import Answer, RawClient
from support.load import INPUT_TOKENS, OUTPUT_TOKENS, SteadyUpstream, request_body, steady_load
from support.relay import AUTH, config, provider
from support.releases import Code, Mixed, commands, eventually, mixed
from support.totals import counted, safe, spool_files, spooled

pytestmark = [pytest.mark.timeout(240), pytest.mark.long]  # many starts, one after another
LIMIT = 12
SESSIONS = [f"x-claude-code-session-id: 0a0a0a0a-0000-0000-0001-{number:012}" for number in range(6)]


def text(upstream: SteadyUpstream) -> str:
    """Two places that take turns, but for sessions that have one; and a model of which there is little."""
    keys = [{"label": "few", "key": "sk-few", "scope": "few", "rpm_limit": LIMIT}]
    few = {"name": "limited", "type": "anthropic", "base_url": upstream.url, "allow_private": True, "keys": keys}
    routes = [
        {"match": {"model": "claude-few"}, "to": [{"provider": "limited"}]},
        {"match": {"model": "*"}, "to": [{"provider": "a"}, {"provider": "b"}], "strategy": "round-robin"},
    ]
    return config(provider("a", upstream.url), provider("b", upstream.url), few, routing={"routes": routes})


@dataclass
class Story:
    """One fleet through its upgrade; every request that reaches the provider is served."""

    fleet: Mixed
    upstream: SteadyUpstream
    refused: int = 0

    @property
    def served(self) -> int:
        return len(self.upstream.arrivals)

    def start(self, code: Code) -> None:
        self.fleet.start("control", code)
        self.fleet.start("node", code)

    def ask(self, *headers: str, model: str = "claude-test") -> Answer:
        body = request_body(0, 0, 0).replace(b"claude-test", model.encode())
        with RawClient(self.fleet.url, 20.0) as connection:
            return connection.ask("POST", "/v1/messages", body, AUTH, *headers)

    def places(self) -> list[str | None]:
        """Where each session goes, asked in an order that turns would not repeat."""
        found = {session: self.ask(session).header("x-cc-relay-provider") for session in reversed(SESSIONS)}
        return [found[session] for session in SESSIONS]

    def served_of_few(self, count: int) -> int:
        statuses = [self.ask(model="claude-few").status for _ in range(count)]
        assert set(statuses) <= {200, 429}
        self.refused += statuses.count(429)
        return statuses.count(200)

    def leave_a_spool(self) -> None:
        """Requests that the control plane does not hear of; then everything is killed."""
        self.fleet.processes["control"].send_signal(signal.SIGSTOP)
        with steady_load(self.fleet.url, self.upstream, whole=1, streams=1, events=5) as load:
            eventually(lambda: spooled(self.fleet.relay) > 5, "usage is kept on disk")
        load.check()
        eventually(lambda: safe(self.fleet.relay) >= self.served + self.refused, "all of it is")
        self.fleet.end_all()
        assert spool_files(self.fleet.relay)

    def take_over(self, code: Code, homes: list[str | None], room: int) -> None:
        """Start with what the other version left: first without a control plane, then with one."""
        version, before = self.fleet.snapshot_version, self.served
        self.fleet.start("node", code)
        assert self.fleet.events("snapshot_loaded")[-1]["version"] == version, "the copy on disk is served"
        assert self.places() == homes, "sessions are where they were"
        assert self.served_of_few(LIMIT) <= room, "what was used of a limit stays used"
        assert self.served > before
        self.fleet.start("control", code)
        eventually(lambda: not spool_files(self.fleet.relay), "the spool is delivered")
        self.check_counted_once()

    def check_counted_once(self) -> None:
        eventually(lambda: counted(self.fleet.relay) >= self.served + self.refused, "everything is counted")
        columns = ("requests", "served", "input_tokens", "output_tokens")
        assert [counted(self.fleet.relay, column) for column in columns] == [
            self.served + self.refused,
            self.served,
            self.served * INPUT_TOKENS,
            self.served * OUTPUT_TOKENS,
        ]

    def check_kept(self, code: Code) -> None:
        """What people changed is still so, and no file was put aside."""
        lines = ("config overlay --json", "tokens list --json", "config revisions --json")
        overlay, tokens, revisions = commands(code, self.fleet.state, *lines).values()
        assert [(one["resource"], one["value"]) for one in overlay.json["entries"]] == [("providers/limited", "7")]
        assert "reader" in tokens.out
        assert revisions.json[-1]["number"] == 1
        assert not [path for path in self.fleet.state.rglob("*") if "corrupt" in path.name]


def test_the_present_code_goes_on_where_a_release_was_killed_and_back(
    tmp_path: Path, upstream: SteadyUpstream, release: Path
) -> None:
    with mixed(tmp_path, text(upstream)) as fleet:
        story = Story(fleet, upstream)
        story.start(release)
        said = commands(release, fleet.state, "providers weight limited 7", "tokens create reader --role viewer")
        assert {one.code for one in said.values()} == {0}
        homes = [story.ask(session).header("x-cc-relay-provider") for session in SESSIONS]
        assert set(homes) == {"a", "b"}
        assert story.served_of_few(8) == 8
        story.check_counted_once()
        story.leave_a_spool()

        story.take_over(None, homes, room=LIMIT - 8)
        story.check_kept(None)
        story.leave_a_spool()

        story.take_over(release, homes, room=LIMIT)
        story.check_kept(release)
