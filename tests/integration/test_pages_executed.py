"""What people copy from the tutorial and from the page on scripts works, in order, against the demo provider."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.serving import is_alive, until

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w+)( no-test)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each block that is to be run or compared, in order."""
    found = _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [(language, text) for language, skipped, text in found if not skipped]


class Shell:
    """A shell of a person's: one for the whole page, as variables and background jobs live on."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        kept = {name: os.environ[name] for name in ("TMPDIR",) if name in os.environ}
        scripts = Path(sys.executable).parent
        self.env = {
            **kept,
            "PATH": f"{scripts}:{os.environ['PATH']}",
            "HOME": str(directory),
            "LC_ALL": "C.UTF-8",
            "CCR_STATE_DIR": str(self.state),
        }

    def run(self, text: str) -> str:
        """What it prints. Fails if any line of it fails."""
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", text],
            cwd=self.directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def python(self, text: str) -> str:
        """The same for Python, in an interpreter of the relay's."""
        command = [sys.executable, "-W", "error", "-c", text]
        done = subprocess.run(
            command, cwd=self.directory, env=self.env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Whatever is started in it is ended by the pids of the relay's own locks."""
    found = Shell(tmp_path)
    yield found
    lock = found.state / "serve.lock"
    pid = int(lock.read_text().strip() or 0) if lock.exists() else 0
    if pid and is_alive(pid):
        os.kill(pid, signal.SIGTERM)
        until(lambda: not is_alive(pid), "the relay ends", within_s=30)


def serve(shell: Shell) -> None:
    """As the tutorial starts it, but on a port that is free."""
    shell.run("ccr serve --demo --listen 127.0.0.1:0 > serve.log 2>&1 &")
    until(lambda: "is ready on" in (shell.directory / "serve.log").read_text(), "the relay is ready", within_s=30)


def test_the_tutorial_works_from_its_first_line_to_its_last(shell: Shell) -> None:
    """Blocks marked `text` hold what must be in the output of the commands before."""
    printed, run = "", 0
    for language, text in blocks("docs/tutorial.md"):
        if language == "text":
            for line in text.splitlines():
                assert line in printed, f"not printed: {line}\n{printed}"
        elif text.startswith("ccr serve"):
            serve(shell)
        else:
            printed, run = shell.run(text), run + 1
    assert run >= 10


def test_the_scripts_of_the_page_work(shell: Shell) -> None:
    serve(shell)
    url = (shell.state / "relay.address").read_text().strip()
    body = '{"model":"claude-sonnet-5-5","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
    for _ in range(3):
        shell.run(
            f"curl -sSf {url}/v1/messages -H 'content-type: application/json' -H 'anthropic-version: 2023-06-01' -d '{body}'"
        )
    deadline_s = time.monotonic() + 20
    while shell.run("ccr records --json").count('"request_id"') < 3:
        assert time.monotonic() < deadline_s
    printed = [
        shell.python(text) if language == "python" else shell.run(text)
        for language, text in blocks("docs/how-to/scripts.md")
        if language in ("python", "sh")
    ]
    everything = "".join(printed)
    for words in ("demo True 1", "5\nABORTED ETAG_OUT_OF_DATE", "req_ccr_", "total 3 ", "200 claude-sonnet-5-5"):
        assert words in everything, everything
