"""Build hook: generates the Python code of the contract (proto/ → proto/gen).

`make proto` runs the same code, so that a checkout and a wheel cannot differ.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def generate(root: pathlib.Path, out: pathlib.Path) -> None:
    """Generate messages, stubs and their types from every .proto below `root`/proto into `out`.

    Raises CalledProcessError if a .proto is wrong.
    """
    import grpc_tools  # noqa: PLC0415 (needed only where there are .proto files)

    source = root / "proto"
    protos = sorted(str(path.relative_to(source)) for path in source.glob("ccr_rpc/**/*.proto"))
    if not protos:  # an sdist that already holds the generated code
        return
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    google = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    outputs = [f"--{kind}_out={fresh}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    plugins = [
        f"--plugin={name}={found}"
        for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
        if (found := pathlib.Path(sys.executable).parent / name).exists()
    ]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(source), "-I", str(google), *plugins, *outputs]
    subprocess.run([*command, *protos], check=True, cwd=root)  # noqa: S603 (our own command)
    for folder in (path for path in fresh.rglob("*") if path.is_dir()):
        (folder / "__init__.py").touch()
    (fresh / "ccr_rpc" / "py.typed").touch()
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)  # at once: a process that starts meanwhile must not see half of it


COMPILES = "CCR_COMPILE"  # =1: the wheel holds the worker's hot modules compiled, and is for one Python on one platform


class Hook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs `generate` before anything is packed or installed."""

    def dependencies(self) -> list[str]:
        """What building needs beyond what pyproject.toml says."""
        return ["mypy==2.4.1", "setuptools>=80", "msgspec>=0.22,<0.23"] if os.environ.get(COMPILES) == "1" else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before each build."""
        root = pathlib.Path(self.root)
        generate(root, root / "proto" / "gen")
        if version != "editable" and os.environ.get(COMPILES) == "1" and self.target_name == "wheel":
            subprocess.run([sys.executable, str(root / "tools" / "compile_worker.py")], check=True, cwd=root)  # noqa: S603
            build_data["artifacts"].append("dataplane/ccr_data/_compiled/**")
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
        if version != "editable" and not (root / "controlplane" / "ccr_control" / "webui" / "index.html").is_file():
            self.app.display_warning("the web page is not built and will be missing: run `make web` first")


if __name__ == "__main__":
    here = pathlib.Path(__file__).resolve().parent
    generate(here, pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else here / "proto" / "gen")
