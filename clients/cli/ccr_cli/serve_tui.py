"""`ccr serve --tui`: the supervisor in a process of its own with its log in a file, the dashboard in front.

Whoever ends the dashboard is asked about the relay first; then the relay ends in order. Should the dashboard fail, the relay
goes on, and this process waits for it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from ccr_cli import places
from ccr_cli.failure import EXIT_USAGE, Failure
from ccr_cli.tui import check_terminal, dashboard

LOG = "serve.log"
_MAX_LOG_BYTES = 32 << 20
_READY = b'"event": "ready"'
_TAIL_LINES = 20
_AS_BEFORE = (
    "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?2004l\x1b[?1004l\x1b[<u\x1b[?1049l\x1b[?25h\x1b[0m"
)
"""No mouse, no pasted brackets, no focus, plain keys, the screen from before, a cursor, no colour."""


class _Told(Exception):
    """A signal asks us to end."""


def serve_behind_dashboard(options: Sequence[str], state_dir: str | None) -> int:
    """Run both until the dashboard is quit. `options` are the supervisor's. Returns the exit code.

    Raises Failure if there is no terminal, or the log cannot be written.
    """
    check_terminal()
    state = places.state_dir(state_dir, os.environ)
    log = state / LOG
    begin = _fresh(log)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _told)
    with log.open("ab") as output:
        relay = subprocess.Popen(  # noqa: S603 - our own
            _supervisor(options), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        if not _is_ready(relay, log, begin):
            print(_tail(log, begin), end="", file=sys.stderr)
            return relay.wait()
        done = _look(state_dir)
        if done:
            print(f"ccr: the dashboard failed; the relay goes on, Ctrl-C ends it (its log: {log})", file=sys.stderr)
            return relay.wait()
    except (_Told, KeyboardInterrupt):
        pass
    finally:
        _end(relay)
    return relay.wait()


def _supervisor(options: Sequence[str]) -> list[str]:
    """Its command line; it ends with us, however we end."""
    python = [sys.executable, "-P", "-m"]
    ending_with_us = [*python, "ccr_control.shell.die_with_parent", str(os.getpid())]
    return [*ending_with_us, *python, "ccr_control.serve", *options, "--quiet", "--log-format", "json"]


def _fresh(log: Path) -> int:
    """Make the log, private; one that has grown large is put aside. Returns where new lines begin."""
    try:
        log.parent.parent.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(mode=0o700, exist_ok=True)
        if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        log.touch(mode=0o600)
        return log.stat().st_size
    except OSError as error:
        raise Failure(f"the log {log} cannot be written: {error.strerror}", EXIT_USAGE) from error


def _is_ready(relay: subprocess.Popen[bytes], log: Path, begin: int) -> bool:
    """Wait until it serves; False if it ended instead."""
    while relay.poll() is None:
        with log.open("rb") as lines:
            lines.seek(begin)
            if _READY in lines.read():
                return True
        time.sleep(0.05)  # a file has no event to wait for
    return False


def _tail(log: Path, begin: int) -> str:
    """What it said before it ended."""
    with log.open("rb") as lines:
        lines.seek(begin)
        return "\n".join(lines.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]) + "\n"


def _look(state_dir: str | None) -> int:
    """The dashboard, to its end. Returns its exit code."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is a key there
    settings = termios.tcgetattr(sys.stdin.fileno())
    screen = subprocess.Popen([*dashboard(None, state_dir), "--ends-relay"])  # noqa: S603 - our own
    try:
        return screen.wait()
    finally:
        signal.signal(signal.SIGINT, before)
        if screen.poll() is None:
            screen.terminate()
            screen.wait()
        if screen.returncode:  # it could not tidy up: Ctrl-C would go on being a key, and the mouse would type
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, settings)
            print(_AS_BEFORE, end="", flush=True)


def _end(relay: subprocess.Popen[bytes]) -> None:
    """Let it finish its requests; a second Ctrl-C ends it at once."""
    if relay.poll() is not None:
        return
    relay.terminate()
    print("ccr: the relay finishes its requests; Ctrl-C ends it at once", file=sys.stderr)
    while relay.poll() is None:
        try:
            relay.wait()
        except (_Told, KeyboardInterrupt):
            relay.terminate()


def _told(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's interface
    raise _Told
