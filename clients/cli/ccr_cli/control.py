"""Talks to the control plane over gRPC; what goes wrong there becomes one line and an exit code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ccr_client import ControlError, ControlPlane, NoDoor, connect

from ccr_cli import places
from ccr_cli.failure import EXIT_DENIED, EXIT_INTERNAL, EXIT_NOT_WELL, EXIT_UNREACHABLE, EXIT_USAGE, Failure
from ccr_cli.places import START_HINT, Door

PROBED_WITHIN_S = 60.0  # its own limit is the configuration's


@contextmanager
def opened(control: str | None, state_dir: str | None) -> Iterator[ControlPlane]:
    """The control plane as a command's options name it. Raises Failure for whatever goes wrong within the block."""
    with dialled(places.control_door(control, places.state_dir(state_dir, os.environ), os.environ)) as plane:
        yield plane


@contextmanager
def dialled(door: Door) -> Iterator[ControlPlane]:
    """The control plane behind a door. Raises Failure for whatever goes wrong within the block."""
    try:
        with connect(door) as plane:
            yield plane
    except ControlError as error:
        raise failure(error, door) from error
    except NoDoor as error:
        raise Failure(str(error), EXIT_USAGE) from error


def failure(error: ControlError, door: Door) -> Failure:
    """What to tell the person and the script."""
    if error.is_unreachable:
        return Failure(f"no control plane answers at {door.target}: {_what_to_do(error, door)}", EXIT_UNREACHABLE)
    match error.status, error.reason:
        case _, "config":
            return Failure(f"the configuration has problems\n{error}", EXIT_NOT_WELL)
        case _, "no-node":
            return Failure(f"no worker can say it: {error}", EXIT_UNREACHABLE)
        case "UNAVAILABLE" | "DEADLINE_EXCEEDED", _:
            return Failure(str(error), EXIT_UNREACHABLE)
        case "UNAUTHENTICATED", _:
            return Failure(
                f"the control plane at {door.target} refuses us ({error}): set $CCR_CONTROL_TOKEN to the content of "
                "control.token in its state directory, or to a token of `ccr tokens create`",
                EXIT_DENIED,
            )
        case "PERMISSION_DENIED" | "RESOURCE_EXHAUSTED", _:
            return Failure(f"the control plane at {door.target} refuses us: {error}", EXIT_DENIED)
        case "NOT_FOUND" | "INVALID_ARGUMENT" | "OUT_OF_RANGE", _:
            return Failure(str(error), EXIT_USAGE)
        case "ABORTED" | "FAILED_PRECONDITION" | "ALREADY_EXISTS", _:
            return Failure(f"{error}; nothing has changed", EXIT_NOT_WELL)
        case "UNIMPLEMENTED", _:
            return Failure(f"the control plane at {door.target} does not know this command: update it", EXIT_INTERNAL)
        case _:
            return Failure(f"the control plane at {door.target} reports {error.status}: {error}", EXIT_INTERNAL)


def _what_to_do(error: ControlError, door: Door) -> str:
    """Where nothing answers, or TLS comes to nothing, which gRPC does not tell apart."""
    if door.ca_file is None or door.is_local:
        return START_HINT
    if "CERTIFICATE_VERIFY_FAILED" in str(error) or "verification failed" in str(error).lower():
        return f"{door.ca_file} ($CCR_CONTROL_CA) does not vouch for what answers there by that name"
    return "if it runs, does it speak TLS, and take our certificate ($CCR_CONTROL_CERT, $CCR_CONTROL_KEY)?"
