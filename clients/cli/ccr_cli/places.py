"""Where the relay and its control plane are: as told, as the environment says, or as the state directory knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ccr_client import door as doors
from ccr_client.door import Door, NoDoor, read_line, state_dir

from ccr_cli.failure import EXIT_UNREACHABLE, EXIT_USAGE, Failure

__all__ = ["DEFAULT_URL", "START_HINT", "Door", "control_door", "read_line", "relay_url", "state_dir", "url_of_listen"]

DEFAULT_URL = "http://127.0.0.1:8787"
START_HINT = "start one with `ccr serve`"


def control_door(named: str | None, state: Path, env: Mapping[str, str]) -> Door:
    """The control plane: as named, $CCR_CONTROL, or the one that uses the state directory.

    Raises Failure if nothing says where it is.
    """
    try:
        door = doors.find(named, state, env)
    except NoDoor as error:
        raise Failure(str(error), EXIT_USAGE) from error
    if door is None:
        raise Failure(
            f"no control plane runs here ({state / 'control.address'} is not there): {START_HINT}, "
            "or say where one is with --control",
            EXIT_UNREACHABLE,
        )
    return door


def relay_url(named: str | None, state: Path, env: Mapping[str, str]) -> str | None:
    """The relay's base URL: as named, $CCR_URL, or where the one that uses the state directory says it is."""
    url = named or env.get("CCR_URL") or read_line(state / "relay.address")
    return url.rstrip("/") if url else None


def url_of_listen(listen: str) -> str:
    """The base URL for clients on this machine of a relay whose `server.listen` this is."""
    host, _, port = listen.rpartition(":")
    return f"http://{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(host, host) }:{port}"  # noqa: S104 - compared
