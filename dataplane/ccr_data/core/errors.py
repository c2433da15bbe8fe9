"""Everything that can go wrong in a data plane, as a tree; each error carries what its handler needs.

`answers.py` is the one table that turns errors into HTTP answers.
"""

from __future__ import annotations


class DataPlaneError(Exception):
    """Base of all errors of ours."""


class SnapshotInvalid(DataPlaneError):
    """A snapshot that must not be served. The message is for an operator and holds no secrets."""


class RequestError(DataPlaneError):
    """The client's request cannot be served as it is; nothing was sent upstream."""


class BadRequest(RequestError):
    """Not HTTP as it should be, or a body that is not what the endpoint takes."""


class HeadTooLarge(RequestError):
    """The request's head exceeds the limit."""


class BodyTooLarge(RequestError):
    """The request's body exceeds the limit of the snapshot."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"the request body exceeds this relay's limit of {limit_bytes} bytes (server.max_body in its configuration)"
        )
        self.limit_bytes = limit_bytes


class TooSlow(RequestError):
    """The client did not finish its request in time."""


class Unauthorized(RequestError):
    """Wrong or missing credential."""


class TooManyStrangers(RequestError):
    """Yet another wrong or missing credential from an address that has sent many."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s  # from 1


class FromWebPage(RequestError):
    """A relay without keys was asked by a web page."""


class NoSuchEndpoint(RequestError):
    """A path that the relay does not serve."""


class WrongMethod(RequestError):
    """A path that exists, asked with another method."""

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class NoSuchModel(RequestError):
    """No provider serves the model that was asked for."""


class NotSupported(RequestError):
    """The model's providers lack what was asked for."""


class CircuitsOpen(RequestError):
    """All providers of the model keep failing, and the configuration says not to try them all the same."""


class ClientLimited(RequestError):
    """The client may not ask now: it is at a limit of its own, or has spent its budget."""

    def __init__(self, message: str, retry_after_s: int, *, should_retry: bool) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s  # from 1
        self.should_retry = should_retry  # whether it is worth while to wait for it


class CredentialsExpired(RequestError):
    """The relay's own credentials for all that could serve the request have ended, and there are no newer ones."""


class NotReady(RequestError):
    """No snapshot has ever arrived."""


class UpstreamError(DataPlaneError):
    """An attempt failed without an answer."""


class UpstreamBroken(UpstreamError):
    """The upstream sent something that is not HTTP, or hung up in the middle of an answer."""
