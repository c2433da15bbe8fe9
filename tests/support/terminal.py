"""A real terminal for a program: tmux, of a given size, with a server of its own.

with terminal(tmp_path, ["ccr", "tui"], size=(80, 24)) as screen:
    screen.sees("● live")
    screen.press("q")
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.serving import until


def tmux() -> str:
    """Its path. Whoever may install it does; elsewhere the test is skipped and says why."""
    if found := shutil.which("tmux"):
        return found
    if os.geteuid() == 0 and (apt := shutil.which("apt-get")):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 100}
        with contextlib.suppress(subprocess.SubprocessError):
            subprocess.run([apt, "install", "-qq", "-y", "--no-install-recommends", "tmux"], check=False, **quiet)  # type: ignore[call-overload]
        if found := shutil.which("tmux"):
            return found
    pytest.skip("tmux is not here and cannot be had: apt-get install tmux")


@dataclass
class Screen:
    """What a program draws, and the keys for it."""

    command: tuple[str, ...]  # tmux and its socket

    def _run(self, *arguments: str) -> str:
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True, timeout=20, check=False)
        return done.stdout

    @property
    def text(self) -> str:
        """Everything on it."""
        return self._run("capture-pane", "-p")

    @property
    def coloured(self) -> str:
        """The same with escape sequences."""
        return self._run("capture-pane", "-p", "-e")

    @property
    def pid(self) -> int:
        """The process that runs in it."""
        return int(self._run("display-message", "-p", "#{pane_pid}"))

    def flag(self, name: str) -> str:
        """A variable of the terminal's, as tmux calls it."""
        return self._run("display-message", "-p", f"#{{{name}}}").strip()

    def press(self, *keys: str) -> None:
        """As `tmux send-keys` calls them."""
        self._run("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        """As when somebody drags the window."""
        self._run("resize-window", "-x", str(width), "-y", str(height))

    def sees(self, *words: str) -> None:
        """Wait until all of them are there. Raises AssertionError with the screen."""
        try:
            until(lambda: all(word in self.text for word in words), f"{words}", within_s=40.0)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text}") from None

    def hang_up(self) -> None:
        """As when the window is closed, or ssh breaks."""
        self._run("kill-server")


@contextlib.contextmanager
def terminal(
    directory: Path, command: Sequence[str], size: tuple[int, int], env: Mapping[str, str] | None = None
) -> Iterator[Screen]:
    """Run a command in a terminal; its exit code is the last thing drawn. The terminal is gone at the end of the block."""
    program, socket = tmux(), str(directory / "tmux.sock")
    screen = Screen((program, "-S", socket, "-f", "/dev/null"))
    run = " ".join(["env", "-i", *(f"'{name}={value}'" for name, value in (env or {}).items()), *map(repr, command)])
    width, height = size
    fixed = ("new-session", "-d", "-x", str(width), "-y", str(height), f"{run}; echo exit=$?; exec sleep 300")
    subprocess.run(
        [*screen.command, *fixed], check=True, timeout=20, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    )
    try:
        yield screen
    finally:
        screen.hang_up()
