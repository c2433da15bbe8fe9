"""Who is asking? Decides from the credentials of a request whether it may pass, and as whom.

Keys are compared as SHA-256 hashes: the look-up's time depends on the hash, which nobody can steer, not on the key.
"""

from __future__ import annotations

from hashlib import sha256
from urllib.parse import urlsplit

from ccr_data.core.client_limits import ClientRules
from ccr_data.core.errors import FromWebPage, Unauthorized
from ccr_data.core.snapshot import AuthMode, AuthPolicy

SUBSCRIPTION_PREFIX = b"sk-ant-oat"  # claude.ai OAuth tokens (docs/providers/anthropic.md)
SUBSCRIPTION = "subscription"
_LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))


class Admitted:
    """A request that may pass."""

    def __init__(self, client: str, own_token: bytes | None = None, rules: ClientRules | None = None) -> None:
        self.client = client  # name of the relay key's holder; empty where no key is needed
        self.own_token = own_token  # a subscription token, to be passed on
        self.rules = rules  # what it may do; None: anything

    def __repr__(self) -> str:
        return f"Admitted(client={self.client!r})"


def admit(policy: AuthPolicy, special: dict[bytes, bytes]) -> Admitted:
    """Who sent a request with these headers (lower-case names). Raises Unauthorized or FromWebPage.

    A relay key may come in `x-api-key` or as a bearer token, whatever the client's habit; one valid credential suffices.
    """
    bearer = _bearer(special.get(b"authorization", b""))
    for credential in (special.get(b"x-api-key"), bearer):
        if credential:
            digest = sha256(credential).digest()
            name = policy.clients.get(digest)
            if name is not None:
                return Admitted(name, None, policy.rules.get(name) if policy.rules else None)
    if policy.allow_subscription and bearer.startswith(SUBSCRIPTION_PREFIX):
        if policy.mode is AuthMode.NONE:
            refuse_web_pages(special)
        return Admitted(SUBSCRIPTION, bearer)
    if policy.mode is AuthMode.NONE:
        refuse_web_pages(special)
        return Admitted("")
    if not bearer and not special.get(b"x-api-key"):
        raise Unauthorized("no credential: send a relay key in x-api-key, or as Authorization: Bearer")
    raise Unauthorized("invalid credential: this is not one of the relay's keys")


def refuse_web_pages(special: dict[bytes, bytes]) -> None:
    """Raise FromWebPage if a browser sent this from a page of another host, or under a name that is not this machine's.

    Without keys, a page on the web could otherwise spend the user's money through a relay on loopback (also by DNS rebinding).
    """
    if _host(b"//" + special.get(b"host", b"localhost")) not in _LOOPBACK_NAMES:
        raise FromWebPage(
            "a relay without keys answers only as localhost; configure server.auth.keys to use other names"
        )
    origin = special.get(b"origin")
    if origin is not None and _host(origin) not in _LOOPBACK_NAMES:
        raise FromWebPage("a relay without keys does not answer web pages; configure server.auth.keys")


def _bearer(authorization: bytes) -> bytes:
    scheme, _, token = authorization.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def _host(url: bytes) -> str | None:
    try:
        return urlsplit(url.decode("latin-1")).hostname
    except ValueError:
        return None
