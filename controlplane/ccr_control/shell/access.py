"""The doorman: who is at the door, and may they do this? One for all doors (sockets, port, web page).

Who was let in is known to whatever serves the call: `caller()`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import NoReturn

from ccr_control.core.access import (
    BOOTSTRAP,
    MAX_FAILURES,
    NEEDED,
    NODE_ID,
    NODE_METHODS,
    SOCKET,
    WINDOW_S,
    Caller,
    Failures,
    Role,
    Token,
    bearer,
    digest,
    is_same,
    machine_of,
    may,
)
from ccr_control.core.errors import Forbidden, TooManyFailures, Unauthenticated
from ccr_control.shell.events import Asking
from ccr_control.shell.log import Log
from ccr_control.shell.peers import PeerCertificate
from ccr_control.store.actor import StoreUnavailable

USED_TO_S = 60.0
OPEN_SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.")
"""Services that need no token: they say nothing about anybody."""

OWNER = Caller(SOCKET, "admin")
"""Who uses the private socket: the same user on the same machine."""

log = Log("access")
_NOBODY = Caller("", "viewer")
_caller: ContextVar[Caller] = ContextVar("caller")

Alert = Callable[[str, str], None]
"""Told who (a peer's host) seems to guess, and in words."""


def caller() -> Caller:
    """Who made the call that is being served."""
    return _caller.get(_NOBODY)


@contextlib.contextmanager
def acting_as(who: Caller) -> Iterator[None]:
    """Serve a call of somebody who was let in."""
    before = _caller.set(who)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the block ended in another context, which ends anyway
            _caller.reset(before)


def require(role: Role, what: str) -> None:
    """Raises Forbidden unless the caller may do what a role may."""
    if not may(caller().role, role):
        raise Forbidden("ROLE_TOO_LOW", f"{what} takes the role {role}; {caller().name} is {caller().role}")


def require_node(node_id: str) -> None:
    """Raises Forbidden unless the caller may be the node of that name."""
    who = caller()
    if not who.may_be_node(node_id):
        raise Forbidden(
            "NOT_THIS_NODE", f"the certificate is for nodes of {who.machine!r}; this one calls itself {node_id[:200]!r}"
        )


def needs_token(method: str) -> bool:
    """Whether a method (`/package.Service/Method`) is for holders of a token only."""
    return not method.startswith(OPEN_SERVICES)


class Doorman:
    """Knows the tokens. All methods are for the event loop."""

    def __init__(self, bootstrap: str, now: Callable[[], float], alert: Alert = lambda *_: None) -> None:
        """`bootstrap` is the token of the state directory: its holder is admin."""
        assert bootstrap, "an empty token would let everybody in"
        self._bootstrap, self._now, self._alert = digest(bootstrap), now, alert
        self._tokens: dict[bytes, Token] = {}
        self._last_used: dict[str, float] = {}
        self._unkept: set[str] = set()  # whose last use is news to the store
        self._long: dict[asyncio.Timeout, str] = {}  # calls that last, and whose they are
        self.failures = Failures()

    def hold(self, tokens: Iterable[Token]) -> None:
        """These are the tokens from now on."""
        self._tokens = {one.sha256: one for one in tokens}

    def tokens(self) -> list[Token]:
        """All of them, by name."""
        return sorted(self._tokens.values(), key=lambda one: one.name)

    def add(self, token: Token) -> None:
        """One more."""
        self._tokens[token.sha256] = token

    def drop(self, name: str) -> None:
        """One less, at once."""
        self._tokens = {key: one for key, one in self._tokens.items() if one.name != name}
        self._last_used.pop(name, None)
        self._unkept.discard(name)
        self.end_calls()

    @contextlib.asynccontextmanager
    async def ending_with(self, who: Caller) -> AsyncIterator[None]:
        """Raises Unauthenticated if the caller's token ends while the block runs."""
        try:
            async with asyncio.timeout(None) as limit:
                self._long[limit] = who.name
                try:
                    yield
                finally:
                    del self._long[limit]
        except TimeoutError:
            if not limit.expired():  # one of the block's own
                raise
            raise Unauthenticated("TOKEN_ENDED", f"the token {who.name} has ended") from None

    def end_calls(self) -> None:
        """End the calls of those who would not be let in any more."""
        now_s = self._now()
        known = {BOOTSTRAP, *(one.name for one in self._tokens.values() if one.is_valid(now_s))}
        for limit, name in self._long.items():
            if name not in known:
                limit.reschedule(asyncio.get_running_loop().time())

    def last_used(self) -> dict[str, float]:
        """When tokens were used last, in this life, by name."""
        return self._last_used

    async def keep_used(self, store: Asking) -> None:
        """Have it kept when tokens were used, and end the calls of those that have ended. Until cancelled."""
        while True:
            await asyncio.sleep(USED_TO_S)
            self.end_calls()
            used = [(name, self._last_used[name]) for name in self._unkept]
            if used:
                with contextlib.suppress(StoreUnavailable):
                    await store.ask(lambda tables: tables.changes.note_used(used))  # noqa: B023 - done when this returns
                    self._unkept.difference_update(name for name, _ in used)

    def admit(self, method: str, authorization: str | bytes | None, peer: str) -> Caller:
        """Who calls a method, if they may. Raises Unauthenticated, TooManyFailures or Forbidden."""
        who = self._known(authorization)
        if who is None:
            self._turn_away(method, peer)
        return permitted(method, who)

    def admit_node(
        self, method: str, certificate: PeerCertificate | None, authorization: str | bytes | None, peer: str
    ) -> Caller:
        """Which machine's node calls one of NODE_METHODS at the port. Raises as `admit` does; a token alone is not enough."""
        assert method in NODE_METHODS, "everything else is for tokens"
        machine = machine_of(certificate.uris) if certificate is not None else None
        if machine is not None:
            return Caller(f"{NODE_ID}{machine}", "viewer", machine)  # the role is not asked for
        name, wanted = method.removeprefix("/ccr.rpc.v1."), f"{NODE_ID}NAME (`ccr tls init --node NAME`)"
        if certificate is not None:
            shown = ", ".join(certificate.uris)[:200] or "nobody"
            raise Forbidden("NOT_A_NODE", f"{name} is for nodes: the certificate must be for {wanted}, not for {shown}")
        self.admit(method, authorization, peer)
        raise Forbidden(
            "NODE_CERTIFICATE_NEEDED",
            f"{name} is for nodes: from another machine it takes a certificate for {wanted}, "
            "and control.tls.client_ca_file in the configuration",
        )

    @contextlib.asynccontextmanager
    async def ending_with_certificate(self, ends_at_s: float) -> AsyncIterator[None]:
        """Raises Unauthenticated if a certificate ends (seconds since 1970) while the block runs."""
        try:
            async with asyncio.timeout(max(0.0, ends_at_s - self._now())) as limit:
                yield
        except TimeoutError:
            if not limit.expired():  # one of the block's own
                raise
            raise Unauthenticated("CERTIFICATE_ENDED", "the node's certificate has ended: renew it") from None

    def _known(self, authorization: str | bytes | None) -> Caller | None:
        credential = bearer(authorization)
        if credential is None:
            return None
        given = digest(credential)
        if is_same(given, self._bootstrap):
            return Caller(BOOTSTRAP, "admin")
        token = self._tokens.get(given)  # by its hash: how long that takes tells nothing of any token
        now_s = self._now()
        if token is None or not token.is_valid(now_s):
            return None
        self._last_used[token.name] = now_s
        self._unkept.add(token.name)
        return Caller(token.name, token.role)

    def _turn_away(self, method: str, peer: str) -> NoReturn:
        host = peer_host(peer)
        count = self.failures.note(host, self._now())
        if count == MAX_FAILURES:
            words = f"{count} calls with a bad or missing token from {host} within {WINDOW_S:.0f} s"
            log.warning("access_guessed", peer=host, failures=count, method=method)
            self._alert(host, words)
        if count >= MAX_FAILURES:
            raise TooManyFailures("TOO_MANY_FAILURES", f"too many bad or missing tokens from {host}: wait a minute")
        raise Unauthenticated("TOKEN_NEEDED", "bad or missing token: send `authorization: Bearer <token>`")


def permitted(method: str, who: Caller) -> Caller:
    """The caller, if they may call a method. Raises Forbidden."""
    needed = NEEDED.get(method)
    if needed is None or not may(who.role, needed):
        name = method.removeprefix("/ccr.rpc.v1.")
        takes = f"takes the role {needed}" if needed is not None else "is for nobody"
        raise Forbidden("ROLE_TOO_LOW", f"{name} {takes}; {who.name} is {who.role}")
    return who


def peer_host(peer: str) -> str:
    """The host of gRPC's name of a peer: `ipv4:127.0.0.1:41234`, `ipv6:%5B::1%5D:41234`, `unix:`."""
    kind, _, rest = peer.partition(":")
    return rest.rpartition(":")[0] if kind in ("ipv4", "ipv6") else kind or "unknown"
