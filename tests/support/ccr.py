"""The `ccr` command as a process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path


def ccr(*arguments: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in an environment without the developer's own settings."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "ccr_cli.main", *arguments],
        cwd=cwd,
        env={**kept, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def ccr_beside(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The same while the event loop goes on, for the servers in it."""
    return await asyncio.to_thread(ccr, *arguments, **env)
