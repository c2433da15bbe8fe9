"""What a call of the control plane can end in: one exception, with words for people and for programs."""

from __future__ import annotations

from typing import Any

REASON = "ccr-reason"  # metadata of a refusal
CAUSE = "ccr-cause"  # the same of RouteService: "config" or "no-node"


class ControlError(Exception):
    """A call failed. The message is the control plane's own, or says why it could not be reached."""

    def __init__(self, status: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        """gRPC's name of the kind of failure, such as "NOT_FOUND" or "UNAVAILABLE"."""
        self.reason = reason
        """A fixed word for programs, such as "NO_SUCH_PROVIDER" or "ETAG_OUT_OF_DATE"; without one, the status."""

    @property
    def is_unreachable(self) -> bool:
        """Whether nothing answered, or not in time: a repetition may succeed."""
        return self.status in ("UNAVAILABLE", "DEADLINE_EXCEEDED") and self.reason == self.status


def from_rpc(error: Any) -> ControlError:
    """Ours of gRPC's. `error` is a grpc.RpcError that is a grpc.Call, too: the stubs promise it, the types do not know it."""
    status: str = error.code().name
    metadata = {str(name): str(value) for name, value in error.trailing_metadata() or ()}
    reason = metadata.get(REASON) or metadata.get(CAUSE) or status
    return ControlError(status, reason, error.details() or status.lower().replace("_", " "))
