"""Checks that the present contract breaks nothing for the releases that are kept.

    PYTHONPATH=tools python -m releases.check

The present contract is what proto/gen was generated from. Exit code 1 says what is broken, and for which release.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from releases.breaking import breaks

ROOT = Path(__file__).resolve().parents[2]
RELEASED = ROOT / "proto" / "released"


def present() -> FileDescriptorSet:
    """The contract that proto/gen has."""
    files = FileDescriptorSet()
    for path in sorted((ROOT / "proto" / "gen").glob("ccr_rpc/v1/*_pb2.py")):
        module = importlib.import_module(f"ccr_rpc.v1.{path.stem}")
        files.file.append(FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb))
    return files


def released() -> dict[str, FileDescriptorSet]:
    """The contracts of the releases that are kept, by version."""
    paths = sorted(RELEASED.glob("*.binpb"))
    return {path.stem: FileDescriptorSet.FromString(path.read_bytes()) for path in paths}


def main() -> int:
    """Compare with each of them."""
    now, kept = present(), released()
    found = [f"{version}: {said}" for version, before in kept.items() for said in breaks(before, now)]
    for said in found:
        print(f"the contract breaks release {said}", file=sys.stderr)
    if found:
        print("What to do instead: docs/how-to/upgrade.md, 'Changing the contract'.", file=sys.stderr)
    elif kept:
        print(f"the contract fits {', '.join(kept)}")
    else:
        print(f"no release is kept in {RELEASED}", file=sys.stderr)
    return 1 if found or not kept else 0


if __name__ == "__main__":
    sys.exit(main())
