"""Keeps a release in the repository: its contract, and its Python code, for tests of upgrades.

    PYTHONPATH=tools python -m releases.freeze v0.2.0        any commit or tag; its pyproject.toml says the version

Writes proto/released/VERSION.binpb (a FileDescriptorSet, without comments) and tests/upgrade/releases/VERSION.tar.xz (the wheel's
contents without the web page, metadata included). The same commit gives the same bytes with the same tools. What to drop, and when:
docs/how-to/upgrade.md.
"""

from __future__ import annotations

import io
import lzma
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = ROOT / "proto" / "released"
CODE = ROOT / "tests" / "upgrade" / "releases"
_LEFT_OUT = ("ccr_control/webui/", "ccr_demo/")  # built files; and a demo that no release talks to
_STUBS = ".pyi"


def main(arguments: list[str]) -> int:
    """Freeze one commit."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        _check_out(arguments[0], source)
        wheel = _wheel(source, Path(name) / "dist")
        version = wheel.name.split("-")[1]
        for path, data in (
            (CONTRACTS / f"{version}.binpb", _descriptors(source)),
            (CODE / f"{version}.tar.xz", packed(wheel)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(f"{path.relative_to(ROOT)}: {len(data):,} bytes")
    return 0


def _check_out(commit: str, directory: Path) -> None:
    archive = subprocess.run(["git", "archive", commit], check=True, cwd=ROOT, capture_output=True).stdout  # noqa: S603, S607
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(directory, filter="data")


def _wheel(source: Path, directory: Path) -> Path:
    """The release's wheel, as its own build makes it."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, check=True, cwd=source, stdout=subprocess.DEVNULL)  # noqa: S603
    return next(directory.glob("*.whl"))


def _descriptors(source: Path) -> bytes:
    import grpc_tools  # type: ignore[import-untyped]  # noqa: PLC0415 - it has no types; only a release needs it

    google = Path(grpc_tools.__file__).parent / "_proto"
    protos = sorted(str(path.relative_to(source / "proto")) for path in (source / "proto").glob("ccr_rpc/**/*.proto"))
    out = source / "contract.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "proto", "-I", str(google)]
    subprocess.run([*command, f"--descriptor_set_out={out}", *protos], check=True, cwd=source)  # noqa: S603
    return out.read_bytes()


def packed(wheel: Path) -> bytes:
    """What is needed of a wheel to run it, as small as it gets."""
    bare = io.BytesIO()
    with zipfile.ZipFile(wheel) as files, tarfile.open(fileobj=bare, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files.namelist()):
            if name.startswith(_LEFT_OUT) or name.endswith(_STUBS):
                continue
            member, data = tarfile.TarInfo(name), files.read(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return lzma.compress(bare.getvalue(), preset=9 | lzma.PRESET_EXTREME)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
