"""Where the control plane is: as told, as the environment says, or as the state directory knows.

The state directory is shared with ccr-control, ccr-data and the supervisor; its layout is part of the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class NoDoor(Exception):
    """Nothing says where the control plane is, or what does makes no sense."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where gRPC dials, and the token to show there. A private socket needs none."""

    target: str  # "unix:/path" or "host:port"
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None  # certificates to trust: the door is TLS. None: it is not
    cert_file: Path | None = None  # our own certificate, where the door asks for one
    key_file: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is a socket of this machine."""
        return self.target.startswith("unix:")


def state_dir(named: str | None, env: Mapping[str, str]) -> Path:
    """The state directory: as named, $CCR_STATE_DIR, or the user's. Not made here."""
    default = Path(env.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "cc-relay"
    return Path(named or env.get("CCR_STATE_DIR") or default).expanduser().absolute()


def find(named: str | None, state: Path, env: Mapping[str, str]) -> Door | None:
    """The control plane: as named, $CCR_CONTROL, or the one that uses the state directory; None if there is none.

    A token comes from $CCR_CONTROL_TOKEN or the state directory; $CCR_CONTROL_CA names the certificates of a door with TLS,
    $CCR_CONTROL_CERT and $CCR_CONTROL_KEY our own. Raises NoDoor if the address is none, or another machine's without TLS.
    """
    target = named or env.get("CCR_CONTROL") or read_line(state / "control.address")
    if not target:
        return None
    if target.startswith("unix:"):
        return Door(target)
    if not target.rpartition(":")[2].isdigit():
        raise NoDoor(f"{target!r} is not the address of a control plane: unix:/path or host:port")
    token = env.get("CCR_CONTROL_TOKEN") or read_line(state / "control.token")
    ca_file, cert_file, key_file = (_file(env, f"CCR_CONTROL_{what}") for what in ("CA", "CERT", "KEY"))
    if ca_file is None and target.rpartition(":")[0].strip("[]") not in _LOOPBACK:
        raise NoDoor(
            f"{target} is another machine's: set $CCR_CONTROL_CA to the certificates that it is to be trusted by "
            "(ca.pem of `ccr tls init`), or the token would be sent in the clear"
        )
    return Door(target, token, ca_file, cert_file, key_file)


def _file(env: Mapping[str, str], variable: str) -> Path | None:
    named = env.get(variable)
    return Path(named).expanduser() if named else None


def read_line(path: Path) -> str | None:
    """The text of a small file; None if it is not there, is not ours to read, or is empty."""
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
