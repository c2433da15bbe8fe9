"""Where a secret comes from: a variable of the environment, a pipe, or a prompt that shows nothing. Never an argument."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from ccr_cli.failure import EXIT_USAGE, Failure

_VARIABLE = re.compile(r"(?:\$\{)?([A-Za-z_][A-Za-z0-9_]*)\}?")
MAX_SECRET_BYTES = 64 * 1024


def secret_from(variable: str | None, env: Mapping[str, str]) -> str:
    """The secret in the variable (`NAME` or `${NAME}`), else in standard input. Raises Failure; what it says holds none."""
    if variable is not None:
        named = _VARIABLE.fullmatch(variable)
        if named is None:
            raise Failure(
                "--secret-env takes the name of a variable, such as NEW_KEY; a secret does not belong into arguments, "
                "which every user of this machine can see",
                EXIT_USAGE,
            )
        found = env.get(named[1], "")
        where = f"${named[1]}"
    elif sys.stdin.isatty():
        import getpass

        found, where = getpass.getpass("Secret (not shown): "), "what was typed"
    else:
        found, where = sys.stdin.read(MAX_SECRET_BYTES + 1), "standard input"
    secret = found.strip()
    if not secret:
        raise Failure(
            f"{where} holds no secret: pipe it in (ccr keys add … < file) or name a variable with --secret-env",
            EXIT_USAGE,
        )
    if len(secret) > MAX_SECRET_BYTES:
        raise Failure(f"{where} holds more than {MAX_SECRET_BYTES // 1024} KiB: that is no key", EXIT_USAGE)
    return secret
