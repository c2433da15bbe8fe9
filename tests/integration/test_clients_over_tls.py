"""Commands and the terminal dashboard in front of a control plane on another machine: by TLS, certificate and token."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ccr_control.shell.authority import Authority
from integration.test_nodes_elsewhere import Fleet, relay_with_tls
from support.ccr import ccr
from support.serving import environment
from support.terminal import terminal

CCR = (sys.executable, "-m", "ccr_cli.main")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with relay_with_tls(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


def settings(fleet: Fleet, role: str = "viewer") -> dict[str, str]:
    """What somebody on another machine sets: nothing of the state directory's is there."""
    name = f"{role}-of-a-test"
    state = ("--state-dir", str(fleet.relay.state))
    ccr("tokens", "revoke", name, *state)  # of the test before
    made = ccr("tokens", "create", name, "--role", role, *state)
    assert made.returncode == 0, made.stderr
    return {
        "CCR_STATE_DIR": "/nonexistent/state",
        "CCR_CONTROL": fleet.port,
        "CCR_CONTROL_TOKEN": made.stdout.strip(),
        "CCR_CONTROL_CA": str(fleet.tls / "ca.pem"),
        "CCR_CONTROL_CERT": str(fleet.tls / "laptop.pem"),
        "CCR_CONTROL_KEY": str(fleet.tls / "laptop-key.pem"),
    }


def test_a_command_asks_and_may_what_its_token_may(fleet: Fleet) -> None:
    env = settings(fleet)
    shown = ccr("providers", "list", "--json", **env)
    assert shown.returncode == 0, shown.stderr
    assert '"only"' in shown.stdout
    refused = ccr("providers", "disable", "only", **env)
    assert refused.returncode == 4
    assert "operator" in refused.stderr
    assert json.loads(shown.stdout)
    named = ccr("status", "--json", "--control", env.pop("CCR_CONTROL"), **env)
    assert named.returncode == 0, named.stderr


@pytest.mark.parametrize("wrong", ["no certificate", "other authority", "no TLS", "missing file"])
def test_what_does_not_fit_is_one_line_and_a_code(fleet: Fleet, tmp_path: Path, wrong: str) -> None:
    env, code, said = settings(fleet), 3, "no control plane answers"
    match wrong:
        case "no certificate":
            del env["CCR_CONTROL_CERT"], env["CCR_CONTROL_KEY"]
            said = "take our certificate"
        case "other authority":
            Authority.at(tmp_path, datetime.now(UTC))
            env["CCR_CONTROL_CA"], said = str(tmp_path / "ca.pem"), "does not vouch"
        case "no TLS":
            del env["CCR_CONTROL_CA"]
        case _:
            env["CCR_CONTROL_CA"], code = str(tmp_path / "none.pem"), 2
            said = "cannot be read"
    done = ccr("status", **env)
    assert done.returncode == code
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert said in done.stderr
    assert env["CCR_CONTROL_TOKEN"] not in done.stderr


def test_the_dashboard_is_live(fleet: Fleet, tmp_path: Path) -> None:
    with terminal(tmp_path, [*CCR, "tui"], (100, 30), environment(TERM="xterm-256color", **settings(fleet))) as screen:
        screen.sees("● live", "viewer", "only")
        screen.press("q")
        screen.sees("exit=0")
