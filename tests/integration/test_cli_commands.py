"""The `ccr` commands that need no control plane."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ccr import ccr

RELAY_KEY = "relay-key-of-a-laptop"


class _FakeRelay(http.server.BaseHTTPRequestHandler):
    """Answers the two questions that `ccr run` asks; wants RELAY_KEY if the server has `needs_key`."""

    def do_GET(self) -> None:
        needs_key = getattr(self.server, "needs_key", False)
        is_known = self.headers.get("authorization") == f"Bearer {RELAY_KEY}"
        is_free = self.path == "/health" or not needs_key
        self.send_response(200 if is_free or is_known else 401)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def relay() -> Iterator[http.server.ThreadingHTTPServer]:
    """A relay that needs no key, until a test says otherwise."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _FakeRelay) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def claude(tmp_path: Path) -> Path:
    """Stands in for Claude Code: prints its arguments and its environment as JSON."""
    program = tmp_path / "claude"
    program.write_text(
        "#!/usr/bin/env python3\nimport json, os, sys\nprint(json.dumps([sys.argv[1:], dict(os.environ)]))\n"
    )
    program.chmod(0o755)
    return program


def url_of(server: http.server.ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_claude_gets_the_relay_and_its_own_arguments(
    relay: http.server.ThreadingHTTPServer, claude: Path, tmp_path: Path
) -> None:
    """Everything after -- is Claude Code's; nothing it could use to go elsewhere is left."""
    done = ccr(
        *("run", "claude", "--url", url_of(relay), "--", "-p", "hello there", "--model", "opus"),
        CCR_STATE_DIR=str(tmp_path),
        CCR_CLAUDE=str(claude),
        ANTHROPIC_API_KEY="sk-ant-mine",
        CLAUDE_CODE_USE_BEDROCK="1",
        HTTPS_PROXY="http://proxy:3128",
        NO_PROXY="intranet",
    )
    assert done.returncode == 0, done.stderr
    arguments, env = json.loads(done.stdout)
    assert arguments == ["-p", "hello there", "--model", "opus"]
    assert env["ANTHROPIC_BASE_URL"] == url_of(relay)
    assert env["ANTHROPIC_AUTH_TOKEN"] == "relay"
    assert env["CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY"] == "1"
    assert env["NO_PROXY"] == "intranet,127.0.0.1"
    assert "ANTHROPIC_API_KEY" not in env
    assert "CLAUDE_CODE_USE_BEDROCK" not in env


def test_claude_is_found_on_the_path_and_the_relay_in_the_state_directory(
    relay: http.server.ThreadingHTTPServer, claude: Path, tmp_path: Path
) -> None:
    """`ccr run claude` is the whole command on the machine of the relay."""
    (tmp_path / "relay.address").write_text(url_of(relay) + "\n")
    done = ccr("run", "claude", CCR_STATE_DIR=str(tmp_path), PATH=f"{claude.parent}:{os.environ['PATH']}")
    assert json.loads(done.stdout)[1]["ANTHROPIC_BASE_URL"] == url_of(relay)


def test_the_relay_key_comes_from_the_environment(relay: http.server.ThreadingHTTPServer, claude: Path) -> None:
    """The control plane knows hashes only."""
    relay.needs_key = True  # type: ignore[attr-defined]
    common = {"CCR_CLAUDE": str(claude), "CCR_URL": url_of(relay)}
    usual = ccr("run", "claude", CCR_CLIENT_KEY=RELAY_KEY, **common)
    named = ccr("run", "claude", "--key-env", "MY_KEY", MY_KEY=RELAY_KEY, **common)
    for done in (usual, named):
        assert json.loads(done.stdout)[1]["ANTHROPIC_AUTH_TOKEN"] == RELAY_KEY
    missing = ccr("run", "claude", **common)
    wrong = ccr("run", "claude", CCR_CLIENT_KEY="another", **common)
    unset = ccr("run", "claude", "--key-env", "MY_KEY", **common)
    assert [done.returncode for done in (missing, wrong, unset)] == [4, 4, 2]
    assert "CCR_CLIENT_KEY" in missing.stderr
    assert "does not know the key" in wrong.stderr
    assert "MY_KEY is not set" in unset.stderr
    assert "another" not in wrong.stderr


def test_a_subscription_is_left_alone(relay: http.server.ThreadingHTTPServer, claude: Path) -> None:
    """Claude Code's own login is its own business."""
    relay.needs_key = True  # type: ignore[attr-defined]
    done = ccr(
        "run",
        "claude",
        "--subscription",
        CCR_CLAUDE=str(claude),
        CCR_URL=url_of(relay),
        CLAUDE_CODE_OAUTH_TOKEN="sk-ant-oat",
    )
    env = json.loads(done.stdout)[1]
    assert env["CLAUDE_CODE_OAUTH_TOKEN"] == "sk-ant-oat"
    assert "ANTHROPIC_AUTH_TOKEN" not in env


def test_without_a_relay_or_without_claude_it_says_what_to_do(claude: Path, tmp_path: Path) -> None:
    """Instead of Claude Code failing with retries later."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        no_relay = ccr("run", "claude", "--url", url, CCR_CLAUDE=str(claude))
    assert no_relay.returncode == 3
    assert f"no relay answers at {url}: start one with `ccr serve`" in no_relay.stderr
    no_claude = ccr("run", "claude", CCR_CLAUDE=str(tmp_path / "nowhere"))
    assert no_claude.returncode == 127
    assert "install Claude Code" in no_claude.stderr
    bad_url = ccr("run", "claude", "--url", "localhost:99999", CCR_CLAUDE=str(claude))
    assert bad_url.returncode == 2
    for done in (no_relay, no_claude, bad_url):
        assert len(done.stderr.splitlines()) == 1


def test_init_writes_what_validate_accepts(tmp_path: Path) -> None:
    """The way from nothing to a configuration of one's own."""
    assert ccr("config", "init", cwd=tmp_path).returncode == 0
    again = ccr("config", "init", cwd=tmp_path)
    assert again.returncode != 0
    assert "--force" in again.stderr
    assert ccr("config", "init", "--force", cwd=tmp_path).returncode == 0
    valid = ccr("config", "validate", "ccr.yaml", cwd=tmp_path, ANTHROPIC_API_KEY="sk-ant-api03-x")
    assert valid.returncode == 0, valid.stderr
    (tmp_path / "bad.yaml").write_text("version: 1\nproviders: []\nspeed: fast\n")
    bad = ccr("config", "validate", "bad.yaml", cwd=tmp_path)
    assert bad.returncode == 1
    assert "bad.yaml:3:" in bad.stderr


def test_schema_and_version_are_json(tmp_path: Path) -> None:
    """For editors and scripts."""
    assert "properties" in json.loads(ccr("config", "schema").stdout)
    assert set(json.loads(ccr("version", "--json").stdout)) == {"version", "python", "platform"}
    assert ccr("version").stdout.startswith("cc-relay ")


def test_help_is_quick_and_knows_every_command() -> None:
    """Nothing heavy is imported for it."""
    program = (
        "import contextlib, sys\nfrom ccr_cli.main import main\nsys.argv = ['ccr', '--help']\n"
        "with contextlib.suppress(SystemExit):\n    main()\nprint('imported', *sys.modules)"
    )
    text = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert all(command in text for command in ("serve", "status", "config", "run", "version"))
    imported = {name.partition(".")[0] for name in text.rpartition("imported ")[2].split()}
    assert not imported & {"grpc", "google", "pydantic", "aiohttp", "textual", "botocore", "ccr_control", "ccr_data"}


def test_a_module_in_the_current_folder_replaces_nothing(tmp_path: Path) -> None:
    """`ccr config schema` in a project that has an `argparse.py` or `ccr_control` of its own."""
    for name in ("argparse.py", "yaml.py", "ccr_control.py"):
        (tmp_path / name).write_text("raise SystemExit('hijacked')\n")
    done = ccr("config", "validate", "-", cwd=tmp_path)
    assert "hijacked" not in done.stderr


def test_a_locale_without_our_characters_is_no_reason_to_fail() -> None:
    """Latin-1 has no ellipsis and no frame for the help."""
    assert ccr("--help", LC_ALL="de_DE.ISO-8859-1", PYTHONIOENCODING="latin-1").returncode == 0
    assert ccr("run", "--help", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0").returncode == 0
