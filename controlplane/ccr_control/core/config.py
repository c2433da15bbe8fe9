"""Text of a configuration → a `Config`, or everything that is wrong with it.

Pure: decode → expand `${VAR}` → validate → check between fields → complete from presets. Environment and files come
in as arguments.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from ccr_control.core.advice import advice
from ccr_control.core.completion import completed
from ccr_control.core.crosscheck import crosscheck
from ccr_control.core.decode import Format, as_text, decode
from ccr_control.core.document import Path, Tree, ancestry, at
from ccr_control.core.errors import ConfigInvalid, Problem
from ccr_control.core.expand import Expanded, expand
from ccr_control.core.schema import Config
from ccr_control.core.wording import Fault, fault_of, worded

__all__ = ["Config", "ConfigInvalid", "Format", "Loaded", "Problem", "as_text", "load"]

_ROUNDS: Final = 6  # a wrong value is removed, what then is missing is put in, one level further out each time

# Stands in for what is required and wrong, so that the rest can be checked. Never shown, never returned.
_PLACEHOLDERS: Final[dict[str, Tree]] = {
    "version": 1,
    "name": "placeholder",
    "type": "anthropic",
    "provider": "placeholder",
    "id": "placeholder",
    "key": "placeholder",
    "to": [{"provider": "placeholder"}],
    "providers": [{"name": "placeholder", "type": "anthropic"}],
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used: complete, with what presets know filled in."""

    config: Config
    warnings: tuple[Problem, ...]  # in the order of the text


def load(
    text: str,
    *,
    file: str,
    fmt: Format,
    env: Mapping[str, str],
    read_file: Callable[[str], str] | None = None,
) -> Loaded:
    """The configuration that the text says.

    `file` names the text in problems. `read_file` gives the text of a `ca_file`, raising OSError or ValueError.
    Raises ConfigInvalid with all problems, in the order of the text; no message holds the value of a variable.
    """
    document = decode(text, file=file, fmt=fmt)
    expanded = expand(document, env)
    checked = _validated(expanded, {"read_file": read_file})
    problems = [*expanded.problems, *(worded(fault, document) for fault in checked.faults)]
    if checked.config is not None:
        problems += crosscheck(checked.config, document, checked.broken)
    if problems or checked.config is None:
        raise ConfigInvalid(_in_order(problems))
    return Loaded(completed(checked.config), _in_order(advice(checked.config, document)))


@dataclass(frozen=True, slots=True)
class _Checked:
    """What validation made of the data."""

    config: Config | None  # placeholders stand at the broken paths; None: beyond repair
    faults: tuple[Fault, ...]
    broken: frozenset[Path]


def _validated(expanded: Expanded, context: dict[str, Any]) -> _Checked:
    """Validates; then repairs and tries again, so that rules between fields can be checked all the same."""
    data = copy.deepcopy(expanded.data)
    broken: set[Path] = set(expanded.unresolved)
    reported: tuple[Fault, ...] | None = None
    for _ in range(_ROUNDS):
        config, faults = _attempt(data, context)
        if reported is None:  # an unresolved variable has been reported; what it is not matters no more
            reported = tuple(fault for fault in faults if fault.path not in expanded.unresolved)
        if config is not None:
            return _Checked(config, reported, frozenset(broken))
        for fault in faults:
            broken.add(fault.path)
            _repair(data, fault)
    return _Checked(None, reported or (), frozenset(broken))


def _attempt(data: Tree, context: dict[str, Any]) -> tuple[Config | None, list[Fault]]:
    try:
        return Config.model_validate(data, context=context), []
    except ValidationError as error:
        faults = [fault_of(detail, data) for detail in error.errors(include_input=False, include_url=False)]
    # pydantic counts only the good items of a list: one whose items are all wrong is "too short", too
    return None, [fault for fault in faults if fault.kind != "too_short" or not _holds_another(fault, faults)]


def _holds_another(fault: Fault, faults: list[Fault]) -> bool:
    depth = len(fault.path)
    return any(len(other.path) > depth and other.path[:depth] == fault.path for other in faults)


def _repair(data: Tree, fault: Fault) -> None:
    """Takes the wrong value out, or puts in what is missing. Items of lists stay, so that positions hold."""
    path = fault.path
    if fault.kind == "missing":
        parent = at(data, path[:-1])
        if isinstance(parent, dict):
            parent[path[-1]] = copy.deepcopy(_PLACEHOLDERS.get(str(path[-1])))
        return
    for outer in ancestry(path):
        if outer and isinstance(outer[-1], str) and isinstance(parent := at(data, outer[:-1]), dict):
            parent.pop(outer[-1], None)
            return


def _in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    unique = dict.fromkeys(problems)
    return tuple(sorted(unique, key=lambda problem: (problem.line or 1 << 31, problem.column)))
