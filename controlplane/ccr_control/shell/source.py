"""Where `ccr serve` takes its configuration from: a file, the provider keys in the environment, or the demo."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ccr_control.core import builtin
from ccr_control.shell.listening import listen
from ccr_control.shell.paths import NoConfig, StateDir, config_file, write_private


@dataclass(frozen=True, slots=True)
class Source:
    """A configuration file, and what to say about it."""

    file: Path
    shown: str
    demo: socket.socket | None = None  # the listening socket for the demo provider
    demo_reason: str | None = None


class ContradictoryRequest(Exception):
    """What was asked for cannot be had together; the message says what to leave out."""


def find(named: str | None, wants_demo: bool, state: StateDir, env: Mapping[str, str]) -> Source:
    """The configuration to use; one of our own is written to the state directory.

    Raises ContradictoryRequest, or CannotStart if it cannot be written.
    """
    if wants_demo and named:
        raise ContradictoryRequest(f"--demo brings its own configuration: leave out --demo or --config {named}")
    if wants_demo:
        return _demo(state, "as asked for with --demo")
    try:
        file = config_file(named, env)
    except NoConfig:
        return _builtin(state, env)
    return Source(file, str(file))


def _builtin(state: StateDir, env: Mapping[str, str]) -> Source:
    text = builtin.from_environment(env)
    if text is None:
        return _demo(state, "no configuration was found, and no provider key in the environment")
    file = _written(state, text)
    used = ", ".join(name for name in builtin.VARIABLES if env.get(name))
    return Source(file, f"built-in, from {used} ({file})")


def _demo(state: StateDir, reason: str) -> Source:
    listening = listen("127.0.0.1", 0)
    file = _written(state, builtin.for_demo(listening.getsockname()[1]))
    return Source(file, f"built-in, for the demo ({file})", listening, reason)


def _written(state: StateDir, text: str) -> Path:
    file = state.path / "builtin.yaml"
    write_private(file, text)
    return file
