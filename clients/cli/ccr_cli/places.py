"""Where the relay and its control plane are: as told, as the environment says, or as the state directory knows.

The state directory is shared with ccr-control, ccr-data and the supervisor; its layout is part of the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ccr_cli.failure import EXIT_UNREACHABLE, EXIT_USAGE, Failure

DEFAULT_URL = "http://127.0.0.1:8787"
START_HINT = "start one with `ccr serve`"


@dataclass(frozen=True, slots=True)
class Door:
    """Where gRPC dials, and the token to show there. A private socket needs none."""

    target: str  # "unix:/path" or "host:port"
    token: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is a socket of this machine."""
        return self.target.startswith("unix:")


def state_dir(named: str | None, env: Mapping[str, str]) -> Path:
    """The state directory: as named, $CCR_STATE_DIR, or the user's. Not made here."""
    default = Path(env.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "cc-relay"
    return Path(named or env.get("CCR_STATE_DIR") or default).expanduser().absolute()


def control_door(named: str | None, state: Path, env: Mapping[str, str]) -> Door:
    """The control plane: as named, $CCR_CONTROL, or the one that uses the state directory.

    Raises Failure if nothing says where it is.
    """
    target = named or env.get("CCR_CONTROL") or read_line(state / "control.address")
    if not target:
        raise Failure(
            f"no control plane runs here ({state / 'control.address'} is not there): {START_HINT}, "
            "or say where one is with --control",
            EXIT_UNREACHABLE,
        )
    if target.startswith("unix:"):
        return Door(target)
    if not target.rpartition(":")[2].isdigit():
        raise Failure(f"{target!r} is not the address of a control plane: unix:/path or host:port", EXIT_USAGE)
    return Door(target, env.get("CCR_CONTROL_TOKEN") or read_line(state / "control.token"))


def relay_url(named: str | None, state: Path, env: Mapping[str, str]) -> str | None:
    """The relay's base URL: as named, $CCR_URL, or where the one that uses the state directory says it is."""
    url = named or env.get("CCR_URL") or read_line(state / "relay.address")
    return url.rstrip("/") if url else None


def url_of_listen(listen: str) -> str:
    """The base URL for clients on this machine of a relay whose `server.listen` this is."""
    host, _, port = listen.rpartition(":")
    return f"http://{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(host, host) }:{port}"  # noqa: S104 - compared


def read_line(path: Path) -> str | None:
    """The text of a small file; None if it is not there, is not ours to read, or is empty."""
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
