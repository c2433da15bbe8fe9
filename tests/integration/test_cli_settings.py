"""`ccr config cc`: Claude Code's settings as a file."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ccr import ccr
from support.upstream import RawUpstream, json_answer

KEY = "relay-key-of-a-laptop"


@pytest.fixture
def relay() -> Iterator[RawUpstream]:
    """Answers what is asked before anything is written: is it well, does it take the key?"""

    def answer(request: object, wire: object) -> None:
        is_known = request.path == "/health" or request.header("authorization") == f"Bearer {KEY}"  # type: ignore[attr-defined]
        wire.send(json_answer(b"{}", "200 OK" if is_known else "401 Unauthorized"))  # type: ignore[attr-defined]

    with RawUpstream(answer) as upstream:
        yield upstream


def test_settings_are_written_and_taken_back(relay: RawUpstream, tmp_path: Path) -> None:
    """The mode stays, a backup is beside it, and a link stays a link."""
    real = tmp_path / "dotfiles.json"
    before = '{\n    "model": "opus",\n    "env": {"FOO": "bar", "ANTHROPIC_AUTH_TOKEN": "mine"}\n}\n'
    real.write_text(before)
    real.chmod(0o640)
    (tmp_path / "settings.json").symlink_to(real)
    env = {"CLAUDE_CONFIG_DIR": str(tmp_path), "CCR_CLIENT_KEY": KEY, "CCR_URL": relay.url}

    dry = ccr("config", "cc", "init", "--dry-run", **env)
    assert dry.returncode == 0, dry.stderr
    assert f'+    "ANTHROPIC_BASE_URL": "{relay.url}"' in dry.stdout.replace("        ", "    ")
    assert KEY not in dry.stdout
    assert "mine" not in dry.stdout
    assert real.read_text() == before
    assert len(os.listdir(tmp_path)) == 2

    done = ccr("config", "cc", "init", **env)
    assert done.returncode == 0, done.stderr
    found = json.loads(real.read_text())
    assert found["model"] == "opus"
    assert found["env"]["FOO"] == "bar"
    assert found["env"]["ANTHROPIC_BASE_URL"] == relay.url
    assert found["env"]["ANTHROPIC_AUTH_TOKEN"] == KEY
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert (tmp_path / "settings.json").is_symlink()
    backup = tmp_path / "dotfiles.json.cc-relay-backup"
    assert backup.read_text() == before
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600

    again = ccr("config", "cc", "init", **env)
    assert again.returncode == 0, again.stderr
    assert backup.read_text() == before
    back = ccr("config", "cc", "remove", **env)
    assert back.returncode == 0, back.stderr
    assert json.loads(real.read_text()) == json.loads(before)
    once_more = ccr("config", "cc", "remove", **env)
    assert once_more.returncode == 1
    assert "nothing was written" in once_more.stderr


def test_without_settings_some_are_made_for_this_user_alone(relay: RawUpstream, tmp_path: Path) -> None:
    path = tmp_path / "new" / "settings.json"
    done = ccr("config", "cc", "init", "--settings", str(path), "--url", relay.url, CCR_CLIENT_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_written_if_it_would_not_work(relay: RawUpstream, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    named = ("config", "cc", "init", "--settings", str(path))
    wrong_key = ccr(*named, "--url", relay.url, CCR_CLIENT_KEY="wrong")
    no_relay = ccr(*named, "--url", "http://127.0.0.1:1", CCR_CLIENT_KEY=KEY)
    assert (wrong_key.returncode, no_relay.returncode) == (4, 3)
    assert not path.exists()
    path.write_text('{"env": {"CLAUDE_CODE_USE_VERTEX": "1"}}')
    past = ccr(*named, "--url", relay.url, CCR_CLIENT_KEY=KEY)
    assert past.returncode == 1
    assert "CLAUDE_CODE_USE_VERTEX" in past.stderr
    assert "nothing has changed" in past.stderr
    assert os.listdir(tmp_path) == ["settings.json"]
