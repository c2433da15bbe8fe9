"""Where batches and files live. Pure.

A batch or file exists in the one account where it was created, and its id does not say in which. So:

- What creates one (`POST /v1/messages/batches`, `POST /v1/files`) goes to the first account whose circuit is closed, to the
  first of all if none is, and nowhere else: asked twice, it would exist twice. Accounts that are being left, because their provider
  is drained or their keys are deprecated, get no new ones.
- What names one goes to the accounts in turn, those of closed circuits first, for as long as they answer 404: nothing lives
  there. If one of them failed instead, that failure is the answer and not another's 404: it may be there.
- A listing tells of one account only, the first: lists of several cannot be put together page by page.
"""

from __future__ import annotations

import re

from ccr_data.core.errors import CircuitsOpen, NotSupported
from ccr_data.core.snapshot import AuthStyle, KeyState, Provider, ProviderType, Snapshot, Target, target

_ROOTS = (b"/v1/messages/batches", b"/v1/files")
# Below them: an id, and a part of what it names. Nothing that a server may take for a way up to its other endpoints, which
# the relay's own key would open: no dots alone, no empty part, nothing percent-encoded.
_BELOW = re.compile(rb"(?:/(?!\.{1,2}(?:/|$))[0-9A-Za-z._~:@-]{1,256}){1,3}")


def names_one(path: bytes) -> bool:
    """Whether a path below the roots is one that may be passed on as it came."""
    root = next((root for root in _ROOTS if path.startswith(root)), None)
    return root is not None and (path == root or _BELOW.fullmatch(path, len(root)) is not None)


def homes(snapshot: Snapshot, method: bytes, path: bytes, *, has_own_token: bool) -> list[Target]:
    """The accounts to ask, in order. Raises NotSupported if none has batches and files, CircuitsOpen if all of them are being left."""
    found = [
        one
        for provider in snapshot.providers.values()
        if provider.is_enabled and provider.type is ProviderType.ANTHROPIC and provider.traits.batches_and_files
        for one in _of(provider, has_own_token=has_own_token)
    ]
    if not found:
        raise NotSupported("no provider of this relay has batches and files")
    if path not in _ROOTS:
        return sorted(found, key=_is_open)
    if method == b"POST":
        staying = [one for one in found if not _is_left(one)]
        if not staying:
            raise CircuitsOpen("every provider with batches and files is being drained: nothing new goes there")
        return sorted(staying, key=_is_open)[:1]
    return found[:1]


def _of(provider: Provider, *, has_own_token: bool) -> list[Target]:
    """A target for each account of a provider that a request may go to, with the first of its keys, an active one if there is one."""
    if has_own_token:
        return [target(provider, None, None)] if provider.accepts_subscription else []
    if not provider.keys and provider.auth_style is AuthStyle.NONE:
        return [target(provider, None, None)]
    usable = [target(provider, key, None) for key in provider.keys if key.state is not KeyState.DISABLED]
    active_first = sorted(usable, key=_is_deprecated)
    by_account = {one.scope: one for one in reversed(active_first)}
    return [by_account[scope] for scope in dict.fromkeys(one.scope for one in usable)]


def _is_open(home: Target) -> bool:
    return home.provider.is_open or (home.key is not None and home.key.is_open)


def _is_deprecated(home: Target) -> bool:
    return home.key is not None and home.key.state is KeyState.DEPRECATED


def _is_left(home: Target) -> bool:
    return home.provider.is_draining or _is_deprecated(home)
