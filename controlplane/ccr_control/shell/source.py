"""Where `ccr serve` takes its configuration from: a file, the provider keys in the environment, or the demo."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ccr_control.core import builtin
from ccr_control.core.addresses import Address
from ccr_control.shell.listening import listen
from ccr_control.shell.paths import CannotStart, NoConfig, StateDir, config_file, write_private


@dataclass(frozen=True, slots=True)
class Source:
    """A configuration file, and what to say about it."""

    file: Path
    shown: str
    demo: socket.socket | None = None  # the listening socket for the demo provider
    demo_reason: str | None = None


class ContradictoryRequest(Exception):
    """What was asked for cannot be had together; the message says what to leave out."""


def find(named: str | None, wants_demo: bool, relay: Address | None, state: StateDir, env: Mapping[str, str]) -> Source:
    """The configuration to use; one of our own is written to the state directory, with `relay` to listen on.

    Raises ContradictoryRequest, or CannotStart if it cannot be written.
    """
    if wants_demo and named:
        raise ContradictoryRequest(f"--demo brings its own configuration: leave out --demo or --config {named}")
    if wants_demo:
        return _demo(state, relay, "as asked for with --demo")
    try:
        file = config_file(named, env)
    except NoConfig:
        return _builtin(state, relay, env)
    if relay:
        raise ContradictoryRequest(f"--listen is for starts without a configuration: set server.listen in {file}")
    return Source(file, str(file))


def _builtin(state: StateDir, relay: Address | None, env: Mapping[str, str]) -> Source:
    text = builtin.from_environment(env, _listens(relay))
    if text is None:
        return _demo(state, relay, "no configuration was found, and no provider key in the environment")
    file = _written(state, text)
    used = ", ".join(name for name in builtin.VARIABLES if env.get(name))
    return Source(file, f"built-in, from {used} ({file})")


def _demo(state: StateDir, relay: Address | None, reason: str) -> Source:
    listening = listen("127.0.0.1", 0)
    file = _written(state, builtin.for_demo(listening.getsockname()[1], _listens(relay)))
    return Source(file, f"built-in, for the demo ({file})", listening, reason)


def _listens(relay: Address | None) -> builtin.Listens:
    """Where to listen: as usual, or as asked for. The usual port of the control plane is left to the usual relay.

    Without it people lose nothing: the command line finds the private socket.
    """
    usual = builtin.USUAL
    any_port = replace(usual.control, port=0)
    if relay is not None and relay != usual.relay:
        return builtin.Listens(relay, any_port)
    try:
        listen(usual.control.host, usual.control.port).close()
    except CannotStart:
        return replace(usual, control=any_port)
    return usual


def _written(state: StateDir, text: str) -> Path:
    file = state.path / builtin.FILE_NAME
    write_private(file, text)
    return file
