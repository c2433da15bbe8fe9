"""Batches and files where several accounts have them; what is refused before it is routed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ccr import ccr
from support.client import Answer
from support.relay import AUTH, BODY, client, config, provider, records, relaying
from support.serving import Relay, until
from support.upstream import MESSAGE, RawUpstream, Request, Wire, error_answer, json_answer

HEALTH = {"circuit": {"open_for": "60s"}}


class Home:
    """A provider with batches and files of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kept: set[str] = set()
        self.is_ill = False
        self.upstream = RawUpstream(self._answer)

    def _answer(self, request: Request, wire: Wire) -> None:
        method, path = request.line.split(" ")[0], request.path.partition("?")[0]
        if self.is_ill:
            wire.reset()
        elif path == "/v1/messages":
            wire.send(json_answer(MESSAGE))
        elif method == "POST" and path in ("/v1/messages/batches", "/v1/files"):
            made = f"{self.name}-{len(self.kept)}"
            self.kept.add(made)
            wire.send(json_answer(self._shown(made)))
        elif named := next((one for one in self.kept if f"/{one}" in path), None):
            wire.send(json_answer(self._shown(named)))
        elif path.startswith(("/v1/messages/batches", "/v1/files")):
            wire.send(error_answer("404 Not Found", "not_found_error"))
        else:
            wire.send(json_answer(b'{"data":[]}'))

    def _shown(self, name: str) -> bytes:
        url = f"https://api.anthropic.com/v1/messages/batches/{name}/results"
        return json.dumps({"id": name, "results_url": url}).encode()


@contextlib.contextmanager
def homes(directory: Path) -> Iterator[tuple[Relay, Home, Home]]:
    first, second = Home("first"), Home("second")
    with first.upstream, second.upstream:
        text = config(
            provider("first", first.upstream.url, priority=0),
            provider("second", second.upstream.url, priority=1),
            routing={"cooldown": "0", "affinity": "none"},
            health=HEALTH,
        )
        with relaying(directory, text) as relay:
            yield relay, first, second


def ask(relay: Relay, method: str, path: str, *lines: str) -> Answer:
    with client(relay) as connection:
        return connection.ask(method, path, b"{}" if method == "POST" else b"", AUTH, *lines)


def open_circuit(relay: Relay) -> None:
    def is_served() -> bool:
        with client(relay) as connection:
            connection.ask("POST", "/v1/messages", BODY, AUTH)
        opened = relay.events("circuit_opened")
        later = [
            one["version"] for one in relay.events("snapshot_published") if opened and one["ts"] >= opened[0]["ts"]
        ]  # type: ignore[operator]
        return bool(later) and later[0] in [one["version"] for one in relay.events("snapshot_served")]

    until(is_served, "passed by")


@pytest.mark.parametrize("root", ["/v1/messages/batches", "/v1/files"])
def test_what_was_made_elsewhere_meanwhile_is_found_again(tmp_path: Path, root: str) -> None:
    """While the first is passed by, the second takes new ones; afterwards both are found where they live."""
    with homes(tmp_path) as (relay, first, second):
        assert json.loads(ask(relay, "POST", root).body)["id"] == "first-0"
        first.is_ill = True
        open_circuit(relay)
        assert json.loads(ask(relay, "POST", root).body)["id"] == "second-0"
        lost = ask(relay, "GET", f"{root}/first-0")
        assert lost.status == 502, "it may be there: another account's 404 is no answer"
        assert b"first" in lost.body
        assert ask(relay, "GET", f"{root}/second-0").status == 200
        first.is_ill = False
        for name in ("first-0", "second-0"):
            assert json.loads(ask(relay, "GET", f"{root}/{name}").body)["id"] == name
            assert ask(relay, "DELETE", f"{root}/{name}").status == 200
        nowhere = ask(relay, "GET", f"{root}/nowhere")
        assert (nowhere.status, json.loads(nowhere.body)["error"]["type"]) == (404, "not_found_error")
        until(lambda: any(one["status"] == 404 for one in records(relay)), "told")
        told = next(one for one in records(relay) if one["status"] == 404)
        assert [one["reason"] for one in told["attempts"]] == ["not_there", ""]  # type: ignore[attr-defined]
        assert told["outcome"] == "served"
        assert second.kept == {"second-0"}
        assert len(relay.events("circuit_opened")) == 1, "a 404 opens nothing"


def test_a_drained_provider_gets_no_new_ones(tmp_path: Path) -> None:
    """It is about to go, and they would be gone with it. What it has is still there."""
    with homes(tmp_path) as (relay, first, second):
        assert json.loads(ask(relay, "POST", "/v1/files").body)["id"] == "first-0"
        for name in ("first", "second"):
            served = len(relay.events("snapshot_served"))
            assert ccr("providers", "drain", name, "--state-dir", str(relay.state)).returncode == 0
            until(lambda: len(relay.events("snapshot_served")) > served, "drained")  # noqa: B023 - used in this round
            if name == "first":
                assert json.loads(ask(relay, "POST", "/v1/files").body)["id"] == "second-0"
        refused = ask(relay, "POST", "/v1/files")
        assert (refused.status, json.loads(refused.body)["error"]["type"]) == (529, "overloaded_error")
        assert [ask(relay, "GET", f"/v1/files/{name}").status for name in ("first-0", "second-0")] == [200, 200]
    assert (first.kept, second.kept) == ({"first-0"}, {"second-0"})


def test_results_lead_back_by_the_scheme_that_the_client_used(tmp_path: Path) -> None:
    """Behind a proxy that ends TLS, `http://` would be refused or, worse, followed in the clear."""
    with homes(tmp_path) as (relay, _, _):
        ask(relay, "POST", "/v1/messages/batches")
        for said, scheme in (("https", "https"), ("ftp", "http"), ("", "http")):
            lines = [f"x-forwarded-proto: {said}"] if said else []
            url = json.loads(ask(relay, "GET", "/v1/messages/batches/first-0", *lines).body)["results_url"]
            assert url == f"{scheme}://{relay.url.partition('//')[2]}/v1/messages/batches/first-0/results"


def test_what_is_refused_before_it_is_routed_is_told_now_and_then(tmp_path: Path) -> None:
    """Somebody with an old key shows in the log and in `ccr status`, without the key and without filling the disk."""
    secret = "sk-ant-somebody-pasted-this"
    with homes(tmp_path) as (relay, _, _):
        for _ in range(30):
            with client(relay) as connection:  # it hangs up on whoever it refuses
                assert connection.ask("POST", "/v1/messages", BODY, f"x-api-key: {secret}").status == 401
        assert ask(relay, "GET", f"/v2/{secret}").status == 404
        until(lambda: len(relay.events("requests_refused")) == 2, "two lines, one of a kind")
        lines = relay.events("requests_refused")
        assert [(one["status"], one["error"], one["requests"]) for one in lines] == [
            (401, "authentication_error", 1),
            (404, "not_found_error", 1),
        ]
        command = [sys.executable, "-P", "-m", "ccr_cli.main", "status", "--json", "--state-dir", str(relay.state)]

        def unauthorized() -> int:
            shown = json.loads(subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout)
            return sum(node["unauthorized_total"] for node in shown["nodes"])

        until(lambda: unauthorized() == 30, "counted")
        assert secret not in relay.output
