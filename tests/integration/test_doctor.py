"""`ccr doctor` over a whole relay: all is well, and every fault that is put in is named."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import pytest
from support.ccr import ccr, ccr_beside
from support.control import running_control
from support.demo import DemoProcess, demo
from support.relay import KEY, config, provider, relaying
from support.serving import Relay
from support.upstream import EVENTS, RawUpstream, Request, Wire, event, json_answer


@dataclass
class Whole:
    """A relay before the demo provider, and the doctor for it."""

    relay: Relay
    demo: DemoProcess

    def examined(self, *arguments: str, key: str = KEY, **env: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
        """Exit code, and findings by check."""
        done = ccr("doctor", "--json", "--state-dir", str(self.relay.state), *arguments, CCR_CLIENT_KEY=key, **env)
        assert done.stdout, done.stderr
        return done.returncode, by_check(done.stdout)

    def ccr(self, *arguments: str) -> None:
        done = ccr(*arguments, "--state-dir", str(self.relay.state))
        assert done.returncode == 0, done.stderr


def by_check(output: str) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for one in json.loads(output)["findings"]:
        found.setdefault(one["check"], []).append(one)
    return found


def says(found: dict[str, list[dict[str, str]]], check: str, level: str, words: str) -> None:
    """A check has this level, says this, and has a fix."""
    assert any(one["level"] == level and words in one["found"] and one["fix"] for one in found.get(check, ())), found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    directory = tmp_path_factory.mktemp("doctor")
    with demo() as upstream:
        text = config(provider("demo", upstream.url, models=["claude-sonnet-5-5"]), provider("spare", upstream.url))
        with relaying(directory, text) as relay:
            yield Whole(relay, upstream)


def test_a_relay_that_is_well_passes_every_check(whole: Whole) -> None:
    code, found = whole.examined()
    levels = {check: [one["level"] for one in each] for check, each in found.items()}
    assert code == 0, found
    assert {level for each in levels.values() for level in each} == {"ok"}, levels
    assert set(levels) >= {
        *("state-dir", "file-modes", "lock", "disk", "control", "clock", "config", "workers", "provider demo"),
        *(
            "claude-code",
            "subscription",
            "port",
            "auth",
            "count-tokens",
            "stream",
            "pings",
            "parallel-tools",
            "thinking",
        ),
        *("cancel", "records"),
    }


def test_people_get_a_line_for_each_check(whole: Whole) -> None:
    done = ccr("doctor", "--no-probe", "--state-dir", str(whole.relay.state), CCR_CLIENT_KEY=KEY)
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert all(line.startswith("ok    ") for line in lines[:-2]), lines
    assert lines[-1].startswith("all is well")
    assert KEY not in done.stdout


def test_a_viewer_from_elsewhere_sees_as_much_as_a_viewer_may(whole: Whole) -> None:
    """Probes are for operators: what the last one found is shown instead."""
    token = ccr("tokens", "create", "doctor", "--state-dir", str(whole.relay.state)).stdout.strip()
    listen = str(whole.relay.events("control_ready")[-1]["listen"])
    elsewhere = {"CCR_CONTROL": listen, "CCR_CONTROL_TOKEN": token, "CCR_URL": whole.relay.url}
    done = ccr("doctor", "--json", CCR_CLIENT_KEY=KEY, CCR_STATE_DIR="/nonexistent", **elsewhere)
    found = by_check(done.stdout)
    assert done.returncode == 0, found
    assert "state-dir" not in found, "that one is another machine's"
    assert found["provider demo"][0]["level"] == "ok"
    bad = ccr("doctor", "--json", CCR_STATE_DIR="/nonexistent", **{**elsewhere, "CCR_CONTROL_TOKEN": "wrong"})
    assert bad.returncode == 1
    says(by_check(bad.stdout), "control", "fail", "refuses us")


def test_a_missing_key(whole: Whole) -> None:
    code, found = whole.examined(key="")
    assert code == 1
    says(found, "auth", "fail", "wants a key")


def test_a_wrong_key(whole: Whole) -> None:
    code, found = whole.examined(key="relay-key-of-nobody")
    assert code == 1
    says(found, "auth", "fail", "does not take the key")
    assert "relay-key-of-nobody" not in json.dumps(found)


def test_a_secret_that_others_can_read(whole: Whole) -> None:
    path = whole.relay.state / "control.token"
    path.chmod(0o644)
    try:
        code, found = whole.examined("--no-probe")
    finally:
        path.chmod(0o600)
    assert code == 1
    says(found, "file-modes", "fail", "control.token")
    assert f"chmod 600 {path}" in found["file-modes"][0]["fix"]


def test_a_state_directory_that_others_can_write(whole: Whole) -> None:
    whole.relay.state.chmod(0o777)
    try:
        code, found = whole.examined("--no-probe")
    finally:
        whole.relay.state.chmod(0o700)
    assert code == 1
    says(found, "state-dir", "fail", "writable by others")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ANTHROPIC_BASE_URL", "https://api.anthropic.com", "points Claude Code at https://api.anthropic.com"),
        ("CLAUDE_CODE_USE_BEDROCK", "1", "CLAUDE_CODE_USE_BEDROCK, which leads past the relay"),
        ("HTTP_PROXY", "http://proxy:3128", "sought behind the proxy"),
    ],
)
def test_an_environment_that_leads_claude_code_elsewhere(whole: Whole, name: str, value: str, words: str) -> None:
    code, found = whole.examined("--no-probe", **{name: value})
    assert code == 0, "a warning is no failure"
    says(found, "claude-code", "warn", words)


def test_settings_of_claude_code_that_lead_elsewhere(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"env": {"ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}}')
    _, found = whole.examined("--no-probe", CLAUDE_CONFIG_DIR=str(tmp_path))
    says(found, "claude-code", "warn", f"{tmp_path}/settings.json points Claude Code at http://127.0.0.1:1")


def test_a_login_that_the_relay_does_not_accept(whole: Whole) -> None:
    code, found = whole.examined("--no-probe", CLAUDE_CODE_OAUTH_TOKEN="sk-ant-oat01-mine")
    assert code == 1
    says(found, "subscription", "fail", "the relay accepts none")


def test_nothing_at_the_port(whole: Whole) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, found = whole.examined("--no-probe", "--url", f"http://127.0.0.1:{port}")
    assert code == 1
    says(found, "port", "fail", "nothing answers")


def test_another_program_at_the_port(whole: Whole) -> None:
    with RawUpstream(lambda request, wire: wire.send(json_answer(b"{}"))) as other:
        code, found = whole.examined("--no-probe", "--url", other.url)
    assert code == 1
    says(found, "port", "fail", "another program answers")


def test_a_provider_that_is_disabled(whole: Whole) -> None:
    whole.ccr("providers", "disable", "spare")
    try:
        _, found = whole.examined("--no-probe")
    finally:
        whole.ccr("providers", "enable", "spare")
    says(found, "provider spare", "warn", "is disabled")


def test_a_provider_without_a_key_that_may_be_used(whole: Whole) -> None:
    whole.ccr("keys", "disable", "spare/spare-key")
    try:
        code, found = whole.examined("--no-probe")
    finally:
        whole.ccr("keys", "enable", "spare/spare-key")
    assert code == 1
    says(found, "keys", "fail", "every key of spare is disabled")


def test_a_provider_that_refuses_its_key(whole: Whole) -> None:
    whole.demo.set(bad_keys=["sk-up-spare"])
    try:
        code, found = whole.examined()
    finally:
        whole.demo.set(bad_keys=["sk-bad"])
        whole.ccr("providers", "reset", "spare")
    assert code == 1
    says(found, "provider spare", "fail", "answers, but")


def test_a_configuration_that_was_refused(whole: Whole) -> None:
    file = whole.relay.state.parent / "ccr.yaml"
    text = file.read_text()
    file.write_text(text.replace('"type": "anthropic"', '"type": "antropic"'))
    try:
        ccr("config", "reload", "--state-dir", str(whole.relay.state))
        code, found = whole.examined("--no-probe")
    finally:
        file.write_text(text)
        whole.ccr("config", "reload")
    assert code == 1
    says(found, "config", "fail", "antropic")


def test_no_relay_at_all(tmp_path: Path) -> None:
    done = ccr("doctor", "--json", "--state-dir", str(tmp_path / "none"))
    found = by_check(done.stdout)
    assert done.returncode == 1
    says(found, "state-dir", "fail", "No such file")
    says(found, "control", "fail", "no control plane runs here")


async def test_a_control_plane_that_died(tmp_path: Path) -> None:
    """Its address and its lock file are still there."""
    async with running_control(tmp_path) as control:
        alive = await ccr_beside("doctor", "--json", "--no-probe", "--state-dir", str(control.state_dir))
        control.kill()
        dead = await ccr_beside("doctor", "--json", "--no-probe", "--state-dir", str(control.state_dir))
    found = by_check(alive.stdout)
    says(found, "workers", "fail", "none is connected")
    assert found["lock"][0]["level"] == "ok"
    found = by_check(dead.stdout)
    assert dead.returncode == 1
    says(found, "lock", "fail", "stale")
    says(found, "control", "fail", "no control plane answers")


def test_a_provider_that_is_not_there_and_only_logins(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"https://127.0.0.1:{port}"
    auth = {"keys": [{"name": "tester", "key": KEY}], "allow_subscription": True, "subscription_origins": [url]}
    with relaying(tmp_path, config(provider("gone", url, keys=[]), server={"auth": auth})) as relay:
        done = ccr("doctor", "--json", "--state-dir", str(relay.state), CCR_CLIENT_KEY=KEY)
    found = by_check(done.stdout)
    assert done.returncode == 1
    says(found, "provider gone", "fail", "does not answer")
    says(found, "subscription", "fail", "no provider has a key")


def damaged(request: Request, wire: Wire) -> None:
    """A provider with a wrong clock, whose streams are wrong in a way of their own each."""
    date = f"date: {formatdate(time.time() - 3600, usegmt=True)}"
    if b'"stream": true' not in request.body:
        wire.send(json_answer(b'{"input_tokens": 2}', "200 OK", date))
        return
    wire.begin_stream()
    if b'"tools"' in request.body:
        call = '{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"weather"}}'
        part = '{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\\"city"}}'
        pieces = [EVENTS[0], event("content_block_start", call), event("content_block_delta", part), *EVENTS[-3:]]
    elif b'"thinking"' in request.body:
        thought = '{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"hm"}}'
        pieces = [EVENTS[0], event("content_block_start", thought), *EVENTS[-3:]]
    else:
        pieces = [one for one in EVENTS if b"content_block_stop" not in one]
    for piece in pieces:
        wire.chunk(piece)
    wire.end_stream()


def test_damage_to_streams_and_a_wrong_clock(tmp_path: Path) -> None:
    """Billed requests only if told to; and then each fault is told apart."""
    with RawUpstream(damaged) as upstream:
        text = config(provider("odd", upstream.url, models=["claude-test"]))
        with relaying(tmp_path, text) as relay:
            where = ("doctor", "--json", "--no-probe", "--state-dir", str(relay.state))
            free = ccr(*where, CCR_CLIENT_KEY=KEY)
            billed = ccr(*where, "--billed", CCR_CLIENT_KEY=KEY)
    found = by_check(free.stdout)
    assert found["stream"][0]["level"] == "skip"
    assert not {"pings", "parallel-tools", "thinking", "cancel"} & set(found)
    assert billed.returncode == 1
    found = by_check(billed.stdout)
    says(found, "clock", "fail", "behind this machine")
    says(found, "stream", "fail", "was begun and not ended")
    says(found, "parallel-tools", "fail", "weather is no JSON")
    says(found, "thinking", "fail", "without its signature")
