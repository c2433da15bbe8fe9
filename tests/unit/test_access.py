"""Who may call what, and who seems to guess."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import ccr_rpc.v1
import pytest
from ccr_control.core.access import (
    MAX_FAILURES,
    NEEDED,
    ROLES,
    WINDOW_S,
    Caller,
    Role,
    Token,
    bearer,
    digest,
    machine_of,
    may,
)
from ccr_control.core.errors import Forbidden, TooManyFailures, Unauthenticated
from ccr_control.shell.access import OWNER, Doorman, caller, needs_token, peer_host, permitted

STATS = "/ccr.rpc.v1.StatsService/GetStats"
DISABLE = "/ccr.rpc.v1.ProviderService/SetProviderState"
ADD_KEY = "/ccr.rpc.v1.KeyService/AddKey"


def methods() -> set[str]:
    """Every method of every service of the contract."""
    found = set()
    for module in pkgutil.iter_modules(ccr_rpc.v1.__path__):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"ccr_rpc.v1.{module.name}").DESCRIPTOR
            for service in file.services_by_name.values():
                found |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    return found


def test_every_method_of_the_contract_is_in_the_table() -> None:
    """One that is forgotten is for nobody; one that is no more is a mistake waiting to happen."""
    assert methods() == NEEDED.keys()


def test_every_method_needs_a_token() -> None:
    assert all(needs_token(method) for method in methods())


def test_who_sees_may_not_change() -> None:
    """What a viewer may call only reads: the names say so, and stay so."""
    reading = ("Get", "List", "Watch", "Tail", "Explain", "Diff", "WhoAmI")
    for method, role in NEEDED.items():
        if role == "viewer":
            assert method.rpartition("/")[2].startswith(reading), method


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("needed", ROLES)
def test_each_role_may_what_those_before_it_may(role: Role, needed: Role) -> None:
    assert may(role, needed) is (ROLES.index(role) >= ROLES.index(needed))


def test_a_method_that_nobody_knows_is_for_nobody() -> None:
    with pytest.raises(Forbidden):
        permitted("/ccr.rpc.v1.StatsService/Drop", Caller("socket", "admin"))


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_token_lets_its_holder_in_until_it_ends() -> None:
    clock = Clock()
    doorman = Doorman("bootstrap", clock)
    doorman.add(Token("ci", digest("secret"), "operator", 1000.0, expires_at_s=2000.0))
    assert doorman.admit(DISABLE, "Bearer secret", "unix:") == Caller("ci", "operator")
    assert doorman.last_used() == {"ci": 1000.0}
    with pytest.raises(Forbidden):
        doorman.admit(ADD_KEY, "Bearer secret", "unix:")
    clock.now_s = 2000.0
    with pytest.raises(Unauthenticated):
        doorman.admit(DISABLE, "Bearer secret", "unix:")
    clock.now_s = 1500.0
    doorman.drop("ci")
    with pytest.raises(Unauthenticated):
        doorman.admit(STATS, "Bearer secret", "unix:")


def test_who_guesses_is_told_of_once_and_shuts_nobody_else_out() -> None:
    """Not even a right token from the same host: every program of this machine is that host."""
    clock, alerts = Clock(), list[str]()
    doorman = Doorman("bootstrap", clock, lambda host, words: alerts.append(f"{host}: {words}"))
    for _ in range(MAX_FAILURES - 1):
        with pytest.raises(Unauthenticated):
            doorman.admit(STATS, "Bearer guess", "ipv4:10.0.0.1:4000")
    for _ in range(5):
        with pytest.raises(TooManyFailures):
            doorman.admit(STATS, None, "ipv4:10.0.0.1:4001")
    assert len(alerts) == 1
    assert alerts[0].startswith("10.0.0.1: ")
    assert doorman.admit(STATS, "Bearer bootstrap", "ipv4:10.0.0.1:4002").role == "admin"
    with pytest.raises(Unauthenticated):
        doorman.admit(STATS, "Bearer guess", "ipv4:10.0.0.2:4000")
    clock.now_s += WINDOW_S
    with pytest.raises(Unauthenticated):
        doorman.admit(STATS, "Bearer guess", "ipv4:10.0.0.1:4000")
    assert doorman.failures.total == MAX_FAILURES + 6


def test_nobody_is_a_viewer_by_mistake() -> None:
    """Outside of a call there is nobody, and nobody may change anything."""
    assert caller().role == "viewer"
    assert caller().name == ""


@pytest.mark.parametrize(
    ("peer", "host"),
    [("ipv4:127.0.0.1:41234", "127.0.0.1"), ("ipv6:%5B::1%5D:41234", "%5B::1%5D"), ("unix:", "unix"), ("", "unknown")],
)
def test_a_peer_is_known_by_its_host(peer: str, host: str) -> None:
    """A port is another one with every connection."""
    assert peer_host(peer) == host


def test_only_bearers_carry_a_credential() -> None:
    assert bearer("Bearer  x ") == b"x"
    assert bearer("Basic x") is bearer("Bearer") is bearer("") is bearer(None) is None


def test_only_the_door_says_who_calls() -> None:
    """A second place that decided about roles would be forgotten in one of them."""
    root = Path(importlib.import_module("ccr_control").__path__[0])
    for file in root.rglob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Name)}
        if "acting_as" in names:
            assert file.name in ("guard.py", "web_grpc.py", "access.py"), file


@pytest.mark.parametrize(
    ("uris", "machine"),
    [
        (["spiffe://cc-relay/node/edge"], "edge"),
        (["spiffe://cc-relay/node/edge-1.example_2"], "edge-1.example_2"),
        (["spiffe://cc-relay/edge"], None),
        (["spiffe://cc-relay/node/"], None),
        (["spiffe://cc-relay/node/a/b"], None),
        (["spiffe://cc-relay/node/edge\n"], None),
        (["spiffe://elsewhere/node/edge"], None),
        (["spiffe://cc-relay/node/edge", "spiffe://cc-relay/node/other"], None),  # says two things: believed in none
        ([], None),
    ],
)
def test_a_certificate_is_for_the_nodes_of_one_machine_or_for_none(uris: list[str], machine: str | None) -> None:
    assert machine_of(uris) == machine


@pytest.mark.parametrize(
    ("node_id", "is_its"),
    [
        ("edge", True),
        ("edge/worker-0", True),
        ("edges/worker-0", False),
        ("edge-1", False),
        ("", False),
        ("/edge", False),
    ],
)
def test_a_machine_has_the_nodes_below_its_name(node_id: str, is_its: bool) -> None:
    """And whoever uses the private socket any."""
    assert Caller("spiffe://cc-relay/node/edge", "viewer", "edge").may_be_node(node_id) is is_its
    assert OWNER.may_be_node(node_id)
