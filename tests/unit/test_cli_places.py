"""Where the command line looks for the relay and its control plane."""

from __future__ import annotations

from pathlib import Path

import pytest
from ccr_cli import places
from ccr_cli.claude import environment
from ccr_cli.failure import Failure
from ccr_cli.places import Door
from ccr_control.shell import paths


@pytest.mark.parametrize("env", [{}, {"XDG_STATE_HOME": "xdg"}, {"CCR_STATE_DIR": "own"}])
@pytest.mark.parametrize("named", [None, "named"])
def test_both_planes_and_the_command_line_agree_on_the_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], named: str | None
) -> None:
    """They share no code, so a test holds them together."""
    monkeypatch.setenv("HOME", str(tmp_path))
    env = {name: str(tmp_path / value) for name, value in env.items()}
    told = str(tmp_path / named) if named else None
    assert places.state_dir(told, env) == paths.state_dir(told, env).path


def test_the_control_plane_is_found_by_name_then_environment_then_state(tmp_path: Path) -> None:
    """The nearer word wins."""
    (tmp_path / "control.address").write_text("unix:/run/ccr.sock\n")
    (tmp_path / "control.token").write_text("from-disk\n")
    env = {"CCR_CONTROL": "127.0.0.1:9090", "CCR_CONTROL_TOKEN": "from-env"}
    assert places.control_door("unix:/named", tmp_path, env) == Door("unix:/named")
    assert places.control_door(None, tmp_path, env) == Door("127.0.0.1:9090", "from-env")
    assert places.control_door("[::1]:9090", tmp_path, {}) == Door("[::1]:9090", "from-disk")
    assert places.control_door(None, tmp_path, {}) == Door("unix:/run/ccr.sock")
    with pytest.raises(Failure, match="ccr serve"):
        places.control_door(None, tmp_path / "empty", {})
    with pytest.raises(Failure, match="not the address"):
        places.control_door("localhost", tmp_path, {})


def test_a_wildcard_address_is_reached_on_loopback() -> None:
    """`server.listen: 0.0.0.0:8787` is no address to connect to."""
    assert places.url_of_listen("0.0.0.0:80") == "http://127.0.0.1:80"
    assert places.url_of_listen("[::]:80") == "http://[::1]:80"
    assert places.url_of_listen("relay.lan:80") == "http://relay.lan:80"


def test_the_proxy_is_left_alone_where_there_is_none() -> None:
    """NO_PROXY is only set beside a proxy."""
    assert "NO_PROXY" not in environment({}, "http://127.0.0.1:1", "relay")
    assert environment({"http_proxy": "p"}, "http://[::1]:1", "relay")["no_proxy"] == "::1"


def test_a_token_replaces_every_other_credential() -> None:
    """Else Claude Code asks which to use, or sends a login to the relay."""
    mine = {"ANTHROPIC_API_KEY": "a", "CLAUDE_CODE_OAUTH_TOKEN": "b", "ANTHROPIC_AUTH_TOKEN": "c", "EDITOR": "vi"}
    env = environment(mine, "http://127.0.0.1:1", "relay")
    assert env["ANTHROPIC_AUTH_TOKEN"] == "relay"
    assert env["EDITOR"] == "vi"
    assert not {"ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"} & env.keys()
    assert mine.items() <= environment(mine, "http://127.0.0.1:1", None).items()
