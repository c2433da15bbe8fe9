"""What can go wrong in the control plane: one tree, each error carrying what its handler needs.

Pure. `services/` turns these into gRPC statuses, the command line into exit codes, each in one table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration, for the person who has to mend it. Never holds a secret."""

    file: str
    line: int  # from 1; 0: unknown
    column: int  # from 1; 0: unknown
    path: str  # where in the document: "providers[0].keys[1].label"; empty: the document itself
    message: str  # what is wrong and what to do

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}"
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ControlError(Exception):
    """The root of the control plane's errors."""


class ConfigInvalid(ControlError):
    """A configuration that cannot be used. gRPC INVALID_ARGUMENT, or an answer that lists the problems."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)  # in the order of the text; at least one
        assert self.problems, "an invalid configuration has at least one problem"
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SnapshotInvalid(ControlError):
    """A compiled snapshot that nodes would reject: a mistake of ours, never published. gRPC INTERNAL."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class Refused(ControlError):
    """Something that was asked for is not done, and nothing has changed. A gRPC status by its subclass (shell/guard.py)."""

    def __init__(self, reason: str, message: str) -> None:
        """`reason` is for programs: upper-case words, for example "NO_SUCH_PROVIDER". The message says what to do."""
        self.reason = reason
        super().__init__(message)


class NoSuchThing(Refused):
    """What it is about is not there. gRPC NOT_FOUND."""


class TakenAlready(Refused):
    """The name is taken. gRPC ALREADY_EXISTS."""


class OutOfDate(Refused):
    """It was made upon a state that is not the newest any more. gRPC ABORTED."""


class Malformed(Refused):
    """The request itself is wrong. gRPC INVALID_ARGUMENT."""


class NotPossible(Refused):
    """It cannot be done as things are. gRPC FAILED_PRECONDITION."""


class NotNow(Refused):
    """It cannot be done now, but may soon. gRPC UNAVAILABLE."""


class Unauthenticated(Refused):
    """Nobody knows who calls. gRPC UNAUTHENTICATED."""


class TooManyFailures(Refused):
    """Nobody knows who calls, and that far too often. gRPC RESOURCE_EXHAUSTED."""


class Forbidden(Refused):
    """The caller may not. gRPC PERMISSION_DENIED."""
