"""What a credential turned out to be, and its place in a snapshot.

Pure. A snapshot is compiled with the keys that the configuration says; those whose credential has to be found first are empty in it
(`is_awaited`) until `fill` writes in what was found, or takes them out: nodes never see an empty key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ccr_rpc.v1 import snapshot_pb2 as pb


@dataclass(frozen=True, slots=True)
class AwsKey:
    """What AWS requests are signed with."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)  # empty: not a temporary key


@dataclass(frozen=True, slots=True)
class Material:
    """A credential as it goes to nodes."""

    value: str | AwsKey = field(repr=False)  # a token, or what to sign with
    expires_at_s: float | None = None  # seconds since 1970; None: never


Found = Callable[[str, str], Material | None]
"""Provider's name, key's label → what was found, if it can be used now."""


def is_awaited(key: pb.Key) -> bool:
    """Whether a key's credential has to be found first."""
    return key.state != pb.KEY_STATE_DISABLED and not key.secret and not key.HasField("aws")


def awaited(snapshot: pb.Snapshot) -> Iterator[tuple[str, str]]:
    """Provider and label of each key whose credential has to be found first."""
    for provider in snapshot.providers:
        for key in provider.keys:
            if is_awaited(key):
                yield provider.name, key.label


def fill(snapshot: pb.Snapshot, found: Found) -> None:
    """Write in what was found; take out the keys of which nothing was."""
    for provider in snapshot.providers:
        missing = [index for index, key in enumerate(provider.keys) if not _filled(provider.name, key, found)]
        for index in reversed(missing):
            del provider.keys[index]


def _filled(provider: str, key: pb.Key, found: Found) -> bool:
    if not is_awaited(key):
        return True
    material = found(provider, key.label)
    if material is None:
        return False
    match material.value:
        case AwsKey(access_key_id, secret_access_key, session_token):
            key.aws.access_key_id = access_key_id
            key.aws.secret_access_key = secret_access_key
            key.aws.session_token = session_token
        case str(token):
            key.secret = token
    if material.expires_at_s is not None:
        key.expires_at.FromNanoseconds(round(material.expires_at_s * 1e9))
    return True
