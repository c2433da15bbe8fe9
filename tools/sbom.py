"""The software bill of materials: what cc-relay needs to run, as CycloneDX 1.6, from the metadata of what is installed.

    .venv/bin/python tools/sbom.py > sbom.cdx.json

Only what the project itself requires, and what that requires, is listed; tools of developers are not, `--dev` adds them. It is the
same for the same packages: no time and no random number is in it.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

PROJECT = "cc-relay"
_LICENCES = {  # classifiers of older packages → SPDX
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def main(arguments: list[str]) -> None:
    """Print it."""
    print(json.dumps(bill(PROJECT, with_dev="--dev" in arguments), indent=2, sort_keys=True))


def bill(project: str, *, with_dev: bool = False) -> dict[str, object]:
    """The bill of a project that is installed, its components sorted by name."""
    needed = closure(project, {"dev"} if with_dev else set())
    root = distribution(project)
    components = [component(one) for name, (one, _) in sorted(needed.items()) if name != normal(project)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**component(root), "type": "application"}},
        "components": components,
        "dependencies": [
            {"ref": purl(one), "dependsOn": sorted(purl(needed[name][0]) for name in wants if name in needed)}
            for _, (one, wants) in sorted(needed.items())
        ],
    }


def closure(project: str, extras: set[str]) -> dict[str, tuple[Distribution, set[str]]]:
    """Everything that is installed because the project wants it: name → what it is, and what it wants itself."""
    found: dict[str, tuple[Distribution, set[str]]] = {}
    waiting = [(project, frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, asked = waiting.pop()
        if (normal(name), asked) in seen:
            continue
        seen.add((normal(name), asked))
        try:
            one = distribution(name)
        except PackageNotFoundError:  # for another platform, or an extra nobody installed
            continue
        wants = found.setdefault(normal(name), (one, set()))[1]
        for requirement in map(Requirement, one.requires or ()):
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in asked | {""}
            ):
                wants.add(normal(requirement.name))
                waiting.append((requirement.name, frozenset(requirement.extras)))
    return found


def component(one: Distribution) -> dict[str, object]:
    """A package as CycloneDX has it."""
    licence = licence_of(one)
    return {
        "type": "library",
        "bom-ref": purl(one),
        "name": one.metadata["Name"],
        "version": one.version,
        "purl": purl(one),
        "licenses": [{"expression": licence}] if licence else [],
    }


def purl(one: Distribution) -> str:
    """Its package URL."""
    return f"pkg:pypi/{normal(one.metadata['Name'])}@{one.version}"


def licence_of(one: Distribution) -> str:
    """Its licence as an SPDX expression; empty if its metadata does not say it in such words."""
    expression = one.metadata.get("License-Expression")
    if expression:
        return str(expression)
    for classifier in one.metadata.get_all("Classifier") or ():
        if classifier.startswith("License ::"):
            found = _LICENCES.get(classifier.rpartition(" :: ")[2])
            if found:
                return found
    return ""


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main(sys.argv[1:])
