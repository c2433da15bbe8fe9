"""What every provider's adapter turns a client's request into, and out of what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ccr_data.core.http1 import RequestHead
from ccr_data.core.peek import Peek
from ccr_data.core.snapshot import Target


@dataclass(slots=True, eq=False)
class ClientRequest:
    """A client's whole request. The body is as it came, without any transfer coding."""

    head: RequestHead
    body: bytes = field(repr=False)
    peek: Peek | None  # None where the body is not a Messages request
    own_token: bytes | None = field(default=None, repr=False)  # a subscription token to be passed on


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """The bytes that go upstream."""

    head: bytes = field(repr=False)  # with the empty line
    body: tuple[bytes, ...] = field(repr=False)


class ProviderAdapter(Protocol):
    """What differs between kinds of provider. Pure. Source of each rule: docs/providers/<name>.md."""

    def prepare(self, request: ClientRequest, target: Target) -> UpstreamRequest:
        """The request to send to the target. Raises BadRequest where the provider could only misread it."""
        ...
