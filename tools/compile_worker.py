"""Compiles the data plane's hot modules (dataplane/ccr_data/_compiled), if their sources have changed since.

    python tools/compile_worker.py                compile; exit code 1 says why it cannot be done
    python tools/compile_worker.py --if-possible  the same, but what cannot be done is only spoken of

Needs a C compiler, Python's headers, mypy and setuptools. Nothing needs what this makes: without it the sources run
(docs/adr/0017-compiled-hot-path.md).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATAPLANE = ROOT / "dataplane"
PACKAGE = DATAPLANE / "ccr_data"
LIMIT_S = 600.0
# What every request or event passes through. Modules of plain records gain nothing: msgspec's are machine code already.
MODULES = (
    "core/admit",
    "core/answers",
    "core/bucket",
    "core/budget",
    "core/conversation",
    "core/drift",
    "core/folding",
    "core/framing",
    "core/handover",
    "core/http1",
    "core/limit_headers",
    "core/limits",
    "core/matching",
    "core/measured",
    "core/peek",
    "core/pins",
    "core/records",
    "core/routing",
    "core/sse",
    "providers/adapter",
    "providers/anthropic_shaped",
    "shell/answering",
    "shell/budgeting",
    "shell/exchange",
    "shell/http_server",
    "shell/mending",
    "shell/relay",
    "shell/report",
    "shell/request_log",
    "shell/upstream",
)
GROUP = "ccr_data"
# Run by itself, in DATAPLANE, so that mypy finds the modules by the names that they are imported by.
_STEP = """
import sys
from mypyc.build import mypycify
from setuptools import setup
build, *paths = sys.argv[1:]
options = ["--no-error-summary", "--ignore-missing-imports", "--cache-dir", build + "/types"]
extensions = mypycify([*options, *paths], opt_level="1", debug_level="0", group_name=%r, target_dir=build + "/c")
setup(name="ccr_data", ext_modules=extensions, script_args=[
    "--quiet", "build_ext", "--build-lib", build + "/lib", "--build-temp", build + "/objects"])
"""


class CannotCompile(Exception):
    """The modules cannot be compiled here; the message says why and what to do."""


def compile_worker() -> bool:
    """Compile if need be. Returns whether what was there was out of date. Raises CannotCompile."""
    sys.path.insert(0, str(DATAPLANE))
    os.environ["CCR_INTERPRETED"] = "1"
    from ccr_data import compiled  # noqa: PLC0415 (not before it can be found)

    if compiled.files(PACKAGE):
        return False
    _require_tools()
    made_of = compiled.digest(PACKAGE)
    with tempfile.TemporaryDirectory(prefix="ccr-compile-") as name:
        build = Path(name)
        _run(build)
        fresh = PACKAGE / f"{compiled.FOLDER}.{os.getpid()}"
        shutil.rmtree(fresh, ignore_errors=True)
        library = build / "lib"
        files: dict[str, str] = {}
        for path in sorted(library.rglob("*.so")):
            place = path.relative_to(library)
            (fresh / place.parent).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, fresh / place)
            files[".".join((*place.parent.parts, path.name.partition(".")[0]))] = place.as_posix()
    manifest = {"made_of": made_of, "files": files}
    (fresh / compiled.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(PACKAGE / compiled.FOLDER, ignore_errors=True)
    fresh.rename(PACKAGE / compiled.FOLDER)  # at once: a worker that starts meanwhile must not see half of it
    return True


def _require_tools() -> None:
    """Raises CannotCompile."""
    compiler = str(sysconfig.get_config_var("CC") or "cc").split()[0]
    header = Path(sysconfig.get_path("include")) / "Python.h"
    for is_there, what in (
        (shutil.which(os.environ.get("CC", compiler)) is not None, f"a C compiler ({compiler})"),
        (header.is_file(), f"Python's headers ({header}; Debian has them in python3-dev)"),
        (find_spec("mypyc") is not None, "mypy (pip install mypy)"),
        (find_spec("setuptools") is not None, "setuptools (pip install setuptools)"),
    ):
        if not is_there:
            raise CannotCompile(f"{what} is missing")


def _run(build: Path) -> None:
    paths = [f"ccr_data/{module}.py" for module in MODULES]
    search = os.pathsep.join(str(path) for path in (DATAPLANE, ROOT / "proto" / "gen"))
    step = subprocess.run(  # noqa: S603 (our own command)
        [sys.executable, "-c", _STEP % GROUP, str(build), *paths],
        cwd=DATAPLANE,
        env={**os.environ, "MYPYPATH": search},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if step.returncode:
        raise CannotCompile("the compiler failed:\n" + step.stdout[-4000:])


def main(arguments: list[str]) -> int:
    """The command."""
    try:
        if compile_worker():
            print("compiled the worker's hot modules")
    except (CannotCompile, OSError, subprocess.TimeoutExpired) as error:  # no room, no right to write, no time
        if "--if-possible" in arguments:
            print(f"the worker's hot modules are not compiled, which costs speed and nothing else: {error}")
            return 0
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
