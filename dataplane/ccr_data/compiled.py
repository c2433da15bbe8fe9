"""The worker's hot modules, compiled to machine code where that was possible (docs/adr/0017-compiled-hot-path.md).

`tools/compile_worker.py` leaves them in the folder FOLDER beside the sources, with a manifest that says what they were made of. They
stand in for their sources only while these are the very same, for the same Python; else the sources run, with the same results and at
two thirds of the speed. `CCR_INTERPRETED=1` in the environment asks for the sources, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

FOLDER = "_compiled"
MANIFEST = "manifest.json"
INTERPRETED = "CCR_INTERPRETED"
PACKAGE = Path(__file__).parent


def digest(package: Path = PACKAGE) -> str:
    """What compiled code depends on: every source of the package, and the Python that it is for."""
    found = hashlib.sha256(str(sysconfig.get_config_var("SOABI")).encode())
    for path in sorted(package.rglob("*.py")):
        source = path.read_bytes()
        found.update(f"\0{path.relative_to(package).as_posix()}\0{len(source)}\0".encode())
        found.update(source)
    return found.hexdigest()


class _Finder(MetaPathFinder):
    """Finds compiled modules in a folder of their own."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 (the interface of finders)
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Called at the first import of each module."""
        file = self._files.get(fullname)
        return None if file is None else spec_from_file_location(fullname, file)


def files(package: Path = PACKAGE) -> dict[str, Path]:
    """The compiled modules that may be used, by their full names. Empty: none, or of other sources, or for another Python."""
    folder = package / FOLDER
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        found = {str(name): folder / str(file) for name, file in manifest["files"].items()}
        is_current = manifest["made_of"] == digest(package) and all(file.is_file() for file in found.values())
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return {}
    return found if is_current else {}


def install() -> bool:
    """Have the compiled modules imported instead of their sources, if they may be; whether they are."""
    found = {} if os.environ.get(INTERPRETED) == "1" else files()
    if found:
        sys.meta_path.insert(0, _Finder(found))
    return bool(found)
