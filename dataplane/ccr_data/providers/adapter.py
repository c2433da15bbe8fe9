"""What every provider's adapter turns a client's request into, and out of what."""

from __future__ import annotations

from typing import Protocol

import msgspec

from ccr_data.core.http1 import RequestHead
from ccr_data.core.peek import Peek
from ccr_data.core.snapshot import Target


class ClientRequest(msgspec.Struct):
    """A client's whole request. The body is as it came, without any transfer coding."""

    head: RequestHead
    body: bytes
    peek: Peek | None  # None where the body is not a Messages request
    own_token: bytes | None = None  # a subscription token to be passed on

    def __repr__(self) -> str:
        return f"ClientRequest({len(self.body)} bytes)"


class UpstreamRequest(msgspec.Struct, frozen=True):
    """The bytes that go upstream."""

    head: bytes  # with the empty line
    body: tuple[bytes, ...]
    size: int  # of the body

    def __repr__(self) -> str:
        return f"UpstreamRequest({self.size} bytes)"


class ProviderAdapter(Protocol):
    """What differs between kinds of provider. Pure. Source of each rule: docs/providers/<name>.md."""

    def prepare(self, request: ClientRequest, target: Target) -> UpstreamRequest:
        """The request to send to the target. Raises BadRequest where the provider could only misread it."""
        ...
