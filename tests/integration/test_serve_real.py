"""`ccr serve` with its real programs: the path of a new user, and what must hold while parts of it die."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support.ccr import ccr
from support.serving import CONFIG, REAL_SERVE, RELAY_KEY, SECRET, Relay, environment, served, until

DEMO = ("--demo", "--listen", "127.0.0.1:0")

pytestmark = pytest.mark.timeout(180)


def ask(relay: Relay, text: str, *, stream: bool = False, key: str = "relay") -> Any:
    """An answer of the relay, not yet read. Raises HTTPError for anything but 200."""
    body = {"model": "claude-sonnet-4-5", "max_tokens": 256, "stream": stream}
    body["messages"] = [{"role": "user", "content": text}]
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01", "authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{relay.url}/v1/messages", json.dumps(body).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=30)


def text_of(answer: Any) -> str:
    return str(json.load(answer)["content"][0]["text"])


def status(relay: Relay) -> dict[str, Any]:
    """What `ccr status --json` says."""
    done = ccr("status", "--json", "--state-dir", str(relay.state))
    return {"exit_code": done.returncode, **json.loads(done.stdout)}


def requests_counted(relay: Relay) -> list[int]:
    """Requests by provider; none while the control plane is not there yet."""
    return [one["requests"] for one in status(relay).get("providers", ())]


def wait_well(relay: Relay, workers: int = 1) -> None:
    """Wait until every worker serves the newest snapshot."""

    def is_well() -> bool:
        now = status(relay)
        return now["exit_code"] == 0 and len([node for node in now["nodes"] if node["is_connected"]]) == workers

    until(is_well, "all is well")


def test_the_demo_answers_and_status_is_well(tmp_path: Path) -> None:
    """The first minute of a new user."""
    with served(tmp_path, None, *DEMO, "--workers", "2", command=REAL_SERVE) as relay:
        relay.wait_ready()
        with ask(relay, "[[text:Hello there]]") as answer:
            assert text_of(answer) == "Hello there"
        wait_well(relay, workers=2)
        until(lambda: requests_counted(relay) == [1], "the request is counted")
        relay.signal(signal.SIGTERM)
        assert relay.wait_end() == 0
        assert relay.events("child_ended") == relay.events("child_killed") == []


def test_stopping_lets_a_real_stream_finish(tmp_path: Path) -> None:
    """And its usage is in the store when the relay is back: the control plane ends after the workers."""
    with served(tmp_path, None, *DEMO, command=REAL_SERVE) as relay:
        relay.wait_ready()
        with ask(relay, "[[slow:30x100ms]]", stream=True) as answer:
            assert answer.readline().startswith(b"event: message_start")
            relay.signal(signal.SIGTERM)
            assert b"event: message_stop" in answer.read()
        assert relay.wait_end() == 0
        assert relay.events("child_killed") == []
    (tmp_path / "serve.log").unlink()
    with served(tmp_path, None, *DEMO, command=REAL_SERVE) as relay:
        relay.wait_ready()
        until(lambda: requests_counted(relay) == [1], "the usage was kept")


def test_requests_go_on_while_the_control_plane_is_down(tmp_path: Path) -> None:
    """Killed again and again, it costs no request."""
    with served(tmp_path, None, *DEMO, command=REAL_SERVE) as relay:
        relay.wait_ready()
        for starts in (1, 2):
            until(lambda: len(relay.pids("ccr-control")) == starts, "ccr-control is back")  # noqa: B023 - used in this round
            os.kill(relay.pids("ccr-control")[-1], signal.SIGKILL)
            for _ in range(5):
                with ask(relay, "[[text:still here]]") as answer:
                    assert text_of(answer) == "still here"
        wait_well(relay)
        assert len(relay.pids("worker-0")) == 1


def test_workers_are_replaced_under_load(tmp_path: Path) -> None:
    """Every request around the replacement is answered."""
    with served(tmp_path, None, *DEMO, "--workers", "2", command=REAL_SERVE) as relay:
        relay.wait_ready()
        relay.signal(signal.SIGUSR2)
        answers = []

        def is_replaced() -> bool:
            with ask(relay, "[[text:ok]]") as answer:
                answers.append(text_of(answer))
            return bool(relay.events("workers_replaced"))

        until(is_replaced, "the replacement", within_s=60.0)
        assert set(answers) == {"ok"}
        wait_well(relay, workers=2)
        assert relay.events("child_ended") == relay.events("child_killed") == []


def test_a_reload_takes_effect_and_a_bad_one_does_not(tmp_path: Path) -> None:
    """SIGHUP reaches the file's owner; a mistake is seen in `ccr status` and changes nothing."""
    config = (
        "version: 1\n"
        'server: {listen: "127.0.0.1:0", auth: {keys: [{name: laptop, key: "${TEST_KEY}"}]}}\n'
        'control: {listen: "127.0.0.1:0"}\n'
        'providers: [{name: anthropic, type: anthropic, keys: [{label: a, key: "${TEST_SECRET}"}]}]\n'
    )
    with served(tmp_path, config, command=REAL_SERVE, env=environment(TEST_KEY=RELAY_KEY)) as relay:
        relay.wait_ready()
        wait_well(relay)
        before = status(relay)["newest_version"]
        (tmp_path / "ccr.yaml").write_text(config.replace("laptop", "desktop"))
        relay.signal(signal.SIGHUP)
        until(lambda: status(relay)["newest_version"] > before, "the reload")
        (tmp_path / "ccr.yaml").write_text(config + "providers: []\n")
        relay.signal(signal.SIGHUP)
        until(lambda: status(relay)["exit_code"] == 1, "the refusal is seen")
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(relay, "hello", key="a-wrong-key")
        with refused.value as answer:
            assert answer.code == 401
        relay.signal(signal.SIGTERM)
        assert relay.wait_end() == 0
        for secret in (SECRET, RELAY_KEY, "a-wrong-key"):
            assert secret not in relay.output


def test_what_is_applied_to_the_built_in_configuration_is_said_to_pass(tmp_path: Path) -> None:
    """The next start writes that file anew. Whoever reads only that a revision is in force has lost it then."""
    with served(tmp_path, None, *DEMO, command=REAL_SERVE) as relay:
        relay.wait_ready()
        text = (relay.state / "builtin.yaml").read_text()
        mine = tmp_path / "mine.yaml"
        mine.write_text(text + "ledger: {keep: 30d}\n")
        for more in (("--dry-run",), ()):
            done = ccr("config", "apply", str(mine), *more, "--state-dir", str(relay.state))
            assert done.returncode == 0, done.stderr
            assert "writes this file anew" in done.stderr
    own = tmp_path / "own"
    own.mkdir()
    with served(own, CONFIG, command=REAL_SERVE) as relay:
        relay.wait_ready()
        mine.write_text(CONFIG + "ledger: {keep: 30d}\n")
        done = ccr("config", "apply", str(mine), "--state-dir", str(relay.state))
        assert (done.returncode, "anew" in done.stderr) == (0, False), done.stderr


def test_what_waits_for_a_restart_is_named_after_the_control_plane_was_restarted(tmp_path: Path) -> None:
    """An upgrade kills the control plane; the next one has to know what `ccr serve` and the workers were started with."""
    with served(tmp_path, CONFIG, command=REAL_SERVE) as relay:
        relay.wait_ready()
        wait_well(relay)
        (tmp_path / "ccr.yaml").write_text(CONFIG.replace("20s", "25s"))
        until(lambda: status(relay)["config"]["restart_needed"] == ["server.drain_timeout"], "it is named")
        first = relay.pids("ccr-control")[0]
        os.kill(first, signal.SIGKILL)
        until(
            lambda: relay.pids("ccr-control")[-1] != first and status(relay)["exit_code"] != 3, "the next control plane"
        )
        assert status(relay)["config"]["restart_needed"] == ["server.drain_timeout"]
        (tmp_path / "ccr.yaml").write_text(CONFIG)
        until(lambda: status(relay)["config"]["restart_needed"] == [], "put back: nothing waits any more")
