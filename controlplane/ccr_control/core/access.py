"""Who may call what: roles, the one table of methods, and tokens as hashes.

Pure. Every method of the contract is in `NEEDED`; one that is not is for nobody (and a test says so). Why what is where:

- VIEWER sees everything but secrets. What evaluates a text of the caller's (variables, files) shows parts of the environment of
  the control plane, so it is not for viewers; `DiffConfig` sees to that itself, because comparing revisions is for all.
- OPERATOR changes what can be changed back without knowing a secret.
- ADMIN changes configuration, keys and tokens.
- What nodes call (`NODE_METHODS`) takes a node's certificate at the port, and no token: snapshots hold every secret there is.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Role: TypeAlias = Literal["viewer", "operator", "admin"]

ROLES: Final[tuple[Role, ...]] = ("viewer", "operator", "admin")  # each may do what those before it may
SOCKET: Final = "socket"  # who uses the private socket
BOOTSTRAP: Final = "control.token"  # who holds the token of the state directory
RESERVED_NAMES: Final = frozenset({SOCKET, BOOTSTRAP, "file", "web"})

_PACKAGE: Final = "/ccr.rpc.v1."
_TABLE: Final[dict[Role, tuple[str, ...]]] = {
    "viewer": (
        "AccessService/WhoAmI",
        "ConfigService/DiffConfig",
        "ConfigService/GetConfig",
        "ConfigService/GetOverlay",
        "ConfigService/ListRevisions",
        "DashboardService/Watch",
        "EventService/ListEvents",
        "EventService/WatchEvents",
        "FleetService/ListNodes",
        "KeyService/GetBudgetHistory",
        "KeyService/ListKeys",
        "KeyService/ListScopes",
        "ProviderService/ListHealthEvents",
        "ProviderService/ListProviders",
        "RecordService/ListRecords",
        "RecordService/TailRecords",
        "RouteService/ExplainRequest",
        "RouteService/ExplainRoute",
        "StatsService/GetBreakdown",
        "StatsService/GetSeries",
        "StatsService/GetStats",
        "StatsService/ListSessions",
        "StatsService/ListUnknowns",
        "StatsService/WatchStats",
        "UsageLedgerService/GetCostReport",
        "UsageLedgerService/ListClientBudgets",
        "UsageLedgerService/ListPrices",
    ),
    "operator": (
        "ConfigService/ImportConfig",
        "ConfigService/ReloadConfig",
        "FleetService/DrainNode",
        "KeyService/UpdateKey",
        "ProviderService/ProbeProvider",
        "ProviderService/ResetCircuit",
        "ProviderService/SetProviderState",
        "ProviderService/SetStrategy",
        "ProviderService/UpdateProvider",
    ),
    "admin": (
        "AccessService/CreateToken",
        "AccessService/ListTokens",
        "AccessService/RevokeToken",
        "ConfigService/ApplyConfig",
        "ConfigService/ClearOverlay",
        "ConfigService/RollbackConfig",
        "ConfigService/ValidateConfig",
        "KeyService/AddKey",
        "KeyService/RemoveKey",
        "KeyService/RotateKey",
        "SnapshotService/WatchSnapshots",
        "UsageService/ReportUsage",
    ),
}
NEEDED: Final[dict[str, Role]] = {_PACKAGE + name: role for role, names in _TABLE.items() for name in names}
"""Method (`/package.Service/Method`) → the role that it takes."""

NODE_METHODS: Final = frozenset({f"{_PACKAGE}SnapshotService/WatchSnapshots", f"{_PACKAGE}UsageService/ReportUsage"})
"""What nodes call. Beyond the private socket they show a certificate for it."""

SPIFFE_ID: Final = "spiffe://cc-relay/"  # and the name of a client
NODE_ID: Final = f"{SPIFFE_ID}node/"  # and the name of the machine that a node runs on; names have no slash
_MACHINE: Final = re.compile(re.escape(NODE_ID) + r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls."""

    name: str  # SOCKET, BOOTSTRAP, the name of a token, or the id in a node's certificate
    role: Role
    machine: str = ""  # whose nodes alone the caller may be; empty: any

    def may_be_node(self, node_id: str) -> bool:
        """Whether a node may have that name: its machine's, or one below it, such as `edge/worker-0`."""
        return not self.machine or node_id == self.machine or node_id.startswith(f"{self.machine}/")


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token. Times are seconds since 1970."""

    name: str
    sha256: bytes
    role: Role
    created_at_s: float
    expires_at_s: float  # 0: never
    last_used_at_s: float = 0.0  # 0: never

    def is_valid(self, now_s: float) -> bool:
        """Whether it has not ended."""
        return not self.expires_at_s or now_s < self.expires_at_s


def may(role: Role, needed: Role) -> bool:
    """Whether a role is enough where another one is needed."""
    return ROLES.index(role) >= ROLES.index(needed)


def machine_of(uris: Sequence[str]) -> str | None:
    """The machine whose nodes a certificate is for, by its URIs; None if it is for none, or says more than one thing."""
    found = _MACHINE.fullmatch(uris[0]) if len(uris) == 1 else None
    return found[1] if found else None


def digest(secret: str | bytes) -> bytes:
    """How a token is kept. It has 256 random bits: nothing slower is needed to keep it from being guessed."""
    return hashlib.sha256(secret.encode(errors="replace") if isinstance(secret, str) else secret).digest()


def bearer(header: str | bytes | None) -> bytes | None:
    """The credential of an `authorization` value; None if it carries none."""
    given = header if isinstance(header, bytes) else (header or "").encode(errors="replace")
    scheme, _, credential = given.partition(b" ")
    return credential.strip() if scheme.lower() == b"bearer" and credential.strip() else None


def is_same(one: bytes, other: bytes) -> bool:
    """Whether two digests are the same. Takes the same time for all that are not."""
    return hmac.compare_digest(one, other)


MAX_FAILURES: Final = 20
WINDOW_S: Final = 60.0
MAX_PEERS: Final = 1024


class Failures:
    """Wrong credentials by peer, lately: when does somebody seem to guess?"""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, int]] = {}  # peer → when its window began, and how many since then
        self.total = 0

    def note(self, peer: str, now_s: float) -> int:
        """Another one. Returns how many of this peer that makes within its window."""
        self.total += 1
        began_s, count = self._seen.pop(peer, (now_s, 0))
        if not 0 <= now_s - began_s < WINDOW_S:
            began_s, count = now_s, 0
        if len(self._seen) >= MAX_PEERS:
            del self._seen[next(iter(self._seen))]
        self._seen[peer] = (began_s, count + 1)
        return count + 1
