"""Why a command ends early, and the exit codes that scripts can rely on."""

from __future__ import annotations

EXIT_OK = 0
EXIT_NOT_WELL = 1  # the relay is degraded, a configuration is invalid, a change was refused
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3  # no control plane, or no relay, answers at the address
EXIT_DENIED = 4  # it answers, but wants another credential
EXIT_INTERNAL = 5  # it answers, with an error of its own
EXIT_NOT_FOUND = 127  # a program to run is not there; as shells say it


class Failure(Exception):
    """Ends the command: one line for the person, one number for the script."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
