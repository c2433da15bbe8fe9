"""One account of a provider fails: only its keys are passed by; circuits and their history outlive the control plane."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.relay import AUTH, BODY, client, config, provider, records, relaying
from support.serving import Relay, is_alive, until
from support.upstream import MESSAGE, RawUpstream, Request, Wire, error_answer, json_answer

QUICK = {
    "circuit": {"open_for": "300ms", "max_open_for": "300ms"},
    "probe": {"interval": "50ms", "idle_interval": "0"},
}
KEYS = [
    {"label": "a1", "key": "sk-up-a1", "scope": "org-a"},
    {"label": "a2", "key": "sk-up-a2", "scope": "org-a"},
    {"label": "b1", "key": "sk-up-b1", "scope": "org-b"},
]


class Accounts:
    """A provider with accounts, each of which can be well or not, by the letter in its keys."""

    def __init__(self) -> None:
        self.ill: dict[str, bytes] = {}  # letter → answer
        self.upstream = RawUpstream(self._answer)

    def _answer(self, request: Request, wire: Wire) -> None:
        key = request.header("x-api-key") or ""
        answer = self.ill.get(key.removeprefix("sk-up-")[:1])
        if answer is not None:
            wire.send(answer)
        elif request.line.startswith("GET "):
            wire.send(json_answer(b'{"data":[]}'))
        else:
            wire.send(json_answer(MESSAGE))

    def asked(self, method: str, since: int = 0) -> list[str]:
        found = [one for one in self.upstream.requests[since:] if one.line.startswith(method)]
        return [(one.header("x-api-key") or "").removeprefix("sk-up-") for one in found]


OVERLOADED = error_answer("529 Overloaded", "overloaded_error")
REFUSED = error_answer("401 Unauthorized", "authentication_error")
SUSPENDED = error_answer("403 Forbidden", "permission_error")


@contextlib.contextmanager
def accounts(directory: Path, *arguments: str, health: object = None) -> Iterator[tuple[Relay, Accounts]]:
    found = Accounts()
    with found.upstream:
        made = provider("p", found.upstream.url, keys=KEYS, key_selection="round-robin")
        text = config(made, routing={"cooldown": "0", "affinity": "none"}, health=health or QUICK)
        with relaying(directory, text, *arguments) as relay:
            yield relay, found


def ask(relay: Relay) -> int:
    with client(relay) as connection:
        return connection.ask("POST", "/v1/messages", BODY, AUTH).status


def ccr(relay: Relay, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "ccr_cli.main", *arguments, "--state-dir", str(relay.state)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def served(relay: Relay) -> int:
    return max([int(str(one["version"])) for one in relay.events("snapshot_served")], default=0)


def is_served(relay: Relay, change: str) -> bool:
    """Whether the newest change of this kind is in what the node serves."""
    changed = str(relay.events(change)[-1]["ts"])
    published = [int(str(one["version"])) for one in relay.events("snapshot_published") if str(one["ts"]) >= changed]
    return bool(published) and served(relay) >= published[0]


@pytest.mark.parametrize("answer", [OVERLOADED, REFUSED, SUSPENDED], ids=["529", "401", "403"])
def test_an_account_that_fails_is_passed_by_alone_and_comes_back(tmp_path: Path, answer: bytes) -> None:
    """Suspended, over a quota, or with revoked keys: the other account serves, and no client sees any of it."""
    with accounts(tmp_path, health={**QUICK, "circuit": {"open_for": "60s"}}) as (relay, found):
        found.ill["a"] = answer
        until(lambda: ask(relay) == 200 and relay.events("circuit_opened"), "opened")
        until(lambda: is_served(relay, "circuit_opened"), "served")
        since = len(found.upstream.requests)
        assert {ask(relay) for _ in range(20)} == {200}
        assert set(found.asked("POST", since)) == {"b1"}
        (opened,) = relay.events("circuit_opened")
        assert (opened["provider"], opened["scope"]) == ("p", "org-a")

        listed = json.loads(ccr(relay, "providers", "list", "--json").stdout)
        scopes = {one["scope"]: one for one in listed[0]["scopes"]}
        assert (listed[0]["circuit"], scopes["org-a"]["circuit"], scopes["org-b"]["circuit"]) == (
            "closed",
            "open",
            "closed",
        )
        assert scopes["org-a"]["key_labels"] == ["a1", "a2"]
        shown = ccr(relay, "status")
        assert shown.returncode == 1
        assert "p/org-a" in shown.stdout + shown.stderr

        found.ill.clear()
        probed = ccr(relay, "providers", "probe", "p", "--scope", "org-a")
        assert probed.returncode == 0, probed.stderr
        assert found.asked("GET")[-1].startswith("a"), "with a key of that account"
        assert ccr(relay, "providers", "reset", "p", "--scope", "org-a").returncode == 0
        since = len(found.upstream.requests)
        until(lambda: ask(relay) and {"a1", "a2", "b1"} == set(found.asked("POST", since)), "all keys are used again")
        statuses = {event["status"] for event in records(relay)}
        events = ccr(relay, "providers", "events", "p", "--json")
    assert statuses == {200}
    told = [(one["circuit"], one["scope"], one["reason"]) for one in json.loads(events.stdout)]
    reason = "overloaded" if answer is OVERLOADED else "key_refused"
    assert told == [("closed", "org-a", "reset by an operator"), ("open", "org-a", reason)], "newest first"


def test_an_account_comes_back_by_itself_when_its_own_key_is_accepted(tmp_path: Path) -> None:
    with accounts(tmp_path) as (relay, found):
        found.ill["a"] = REFUSED
        until(lambda: ask(relay) == 200 and relay.events("circuit_half_open"), "half-open")
        until(lambda: found.asked("GET").count("a1") + found.asked("GET").count("a2") >= 2, "probed, and refused")
        assert not relay.events("circuit_closed")
        found.ill.clear()
        until(lambda: relay.events("circuit_closed"), "closed")
        assert relay.events("circuit_closed")[0]["scope"] == "org-a"
        assert not [key for key in found.asked("GET") if key.startswith("b")], "the other one needs no probe"


def test_what_hits_all_accounts_is_the_providers(tmp_path: Path) -> None:
    with accounts(tmp_path, health={**QUICK, "circuit": {"open_for": "60s"}}) as (relay, found):
        found.ill = {"a": OVERLOADED, "b": OVERLOADED}
        until(lambda: ask(relay) == 529 and relay.events("circuit_opened"), "opened")
        opened = relay.events("circuit_opened")
    assert [one.get("scope") for one in opened][-1] is None


def test_circuits_and_their_history_outlive_the_control_plane(tmp_path: Path) -> None:
    """It is killed while two circuits are open: its successor passes by what it did, and knows what happened."""
    with accounts(tmp_path, health={**QUICK, "circuit": {"open_for": "60s"}}) as (relay, found):
        found.ill["a"] = REFUSED
        until(lambda: ask(relay) == 200 and relay.events("circuit_opened"), "opened")
        until(
            lambda: json.loads(ccr(relay, "providers", "events", "--json").stdout or "[]"),
            "kept",
        )
        before = json.loads(ccr(relay, "providers", "list", "--json").stdout)
        pid = relay.pids("ccr-control")[-1]
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid) and len(relay.events("control_ready")) == 2, "its successor is up")
        until(lambda: relay.events("circuit_restored"), "restored")
        after = json.loads(ccr(relay, "providers", "list", "--json").stdout)
        until(lambda: is_served(relay, "circuit_restored"), "served")
        since = len(found.upstream.requests)
        assert {ask(relay) for _ in range(10)} == {200}
        assert set(found.asked("POST", since)) == {"b1"}
        events = json.loads(ccr(relay, "providers", "events", "p", "--json").stdout)

    (scope_before,) = [one for one in before[0]["scopes"] if one["scope"] == "org-a"]
    (scope_after,) = [one for one in after[0]["scopes"] if one["scope"] == "org-a"]
    for name in ("circuit", "circuit_since", "open_until", "last_failure_reason"):
        assert scope_before[name] == scope_after[name], name
    assert scope_after["circuit"] == "open"
    assert before[0]["events"] == after[0]["events"]
    assert [(one["circuit"], one["scope"]) for one in events] == [("open", "org-a")]
