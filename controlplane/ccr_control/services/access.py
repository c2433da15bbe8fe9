"""AccessService: who the caller is, and tokens for the admin API."""

# ruff: noqa: ARG002, N802 - names and arguments of handlers are the contract's

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, TypeAlias

import grpc.aio
from ccr_rpc.v1 import access_pb2, access_pb2_grpc

from ccr_control.core.access import RESERVED_NAMES, Role, Token, digest
from ccr_control.core.errors import Malformed, NoSuchThing, TakenAlready
from ccr_control.core.events import Event
from ccr_control.services.wire import timestamp
from ccr_control.shell.access import Doorman, caller
from ccr_control.shell.changes import Changes, kept_token
from ccr_control.shell.events import EventLog

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic for type checkers only

MAX_TOKENS = 1000
_TOKEN_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")

_ROLES: dict[int, Role] = {
    access_pb2.ROLE_VIEWER: "viewer",
    access_pb2.ROLE_OPERATOR: "operator",
    access_pb2.ROLE_ADMIN: "admin",
}
_ROLE_NUMBERS: dict[Role, access_pb2.Role.ValueType] = {
    "viewer": access_pb2.ROLE_VIEWER,
    "operator": access_pb2.ROLE_OPERATOR,
    "admin": access_pb2.ROLE_ADMIN,
}


class AccessServicer(access_pb2_grpc.AccessServiceServicer):
    """Makes, lists and ends tokens."""

    def __init__(self, doorman: Doorman, changes: Changes, events: EventLog, now: Callable[[], float]) -> None:
        self._doorman, self._changes, self._events, self._now = doorman, changes, events, now

    async def WhoAmI(self, request: access_pb2.WhoAmIRequest, context: Context) -> access_pb2.WhoAmIResponse:
        """Who the caller is."""
        who = caller()
        return access_pb2.WhoAmIResponse(
            name=who.name, role=_ROLE_NUMBERS[who.role], software_version=version("cc-relay")
        )

    async def CreateToken(
        self, request: access_pb2.CreateTokenRequest, context: Context
    ) -> access_pb2.CreateTokenResponse:
        """Make a token; this is the only time that it is told."""
        role = _ROLES.get(request.role)
        if role is None:
            raise Malformed("ROLE_MISSING", "role: say VIEWER, OPERATOR or ADMIN")
        if not _NAME.fullmatch(request.name):
            raise Malformed(
                "NAME_MALFORMED", "name: 1 to 64 letters, digits and . _ @ -, beginning with a letter or digit"
            )
        expires_at_s = request.expires_at.seconds if request.HasField("expires_at") else 0
        if request.HasField("expires_at") and expires_at_s <= self._now():
            raise Malformed("EXPIRED", "expires_at: is in the past")
        secret = f"ccr_{secrets.token_urlsafe(_TOKEN_BYTES)}"
        token = Token(request.name, digest(secret), role, self._now(), expires_at_s)
        who = caller().name

        async def create() -> None:
            held = self._doorman.tokens()
            if token.name in RESERVED_NAMES or any(one.name == token.name for one in held):
                raise TakenAlready("NAME_TAKEN", f"there is a token {token.name!r}: revoke it, or choose another name")
            if len(held) >= MAX_TOKENS:
                raise TakenAlready("TOO_MANY_TOKENS", f"there are {MAX_TOKENS} tokens: revoke some")
            made = self._event("token.create", token.name, who, before={}, after=_view(token))
            kept = await self._changes.keep(lambda tables: tables.changes.keep_token(kept_token(token), [made]))
            self._doorman.add(token)
            self._events.told(kept)

        await self._changes.do(create)
        return access_pb2.CreateTokenResponse(token=secret, info=_info(token, {}))

    async def ListTokens(
        self, request: access_pb2.ListTokensRequest, context: Context
    ) -> access_pb2.ListTokensResponse:
        """The tokens, without themselves."""
        used = self._doorman.last_used()
        return access_pb2.ListTokensResponse(tokens=[_info(one, used) for one in self._doorman.tokens()])

    async def RevokeToken(
        self, request: access_pb2.RevokeTokenRequest, context: Context
    ) -> access_pb2.RevokeTokenResponse:
        """End a token at once, and the calls that were made with it."""
        who = caller().name

        async def revoke() -> None:
            token = next((one for one in self._doorman.tokens() if one.name == request.name), None)
            if token is None:
                raise NoSuchThing("NO_SUCH_TOKEN", f"there is no token {request.name[:100]!r}")
            made = self._event("token.revoke", token.name, who, before=_view(token), after={})
            kept = await self._changes.keep(lambda tables: tables.changes.drop_token(token.name, [made]))
            self._events.told(kept)
            self._doorman.drop(token.name)

        await self._changes.do(revoke)
        return access_pb2.RevokeTokenResponse()

    def _event(self, action: str, name: str, who: str, *, before: dict[str, object], after: dict[str, object]) -> Event:
        return self._events.made("audit", action, f"tokens/{name}", actor=who, before=before, after=after)


def _view(token: Token) -> dict[str, object]:
    """A token for events."""
    return {"role": token.role} | ({"expires_at_s": round(token.expires_at_s)} if token.expires_at_s else {})


def _info(token: Token, used: dict[str, float]) -> access_pb2.TokenInfo:
    message = access_pb2.TokenInfo(
        name=token.name, role=_ROLE_NUMBERS[token.role], created_at=timestamp(token.created_at_s)
    )
    if token.expires_at_s:
        message.expires_at.CopyFrom(timestamp(token.expires_at_s))
    if last := max(token.last_used_at_s, used.get(token.name, 0.0)):
        message.last_used_at.CopyFrom(timestamp(last - last % 60))  # to the minute
    return message
