"""Another program's configuration → one of ours, and what could not be carried over.

Pure. The result is valid but for variables that have to be set: secrets that were written out become such, so that none is in the
answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import yaml
from pydantic import ValidationError

from ccr_control.core.config import load
from ccr_control.core.decode import decode
from ccr_control.core.document import Path, Tree, path_text
from ccr_control.core.errors import ConfigInvalid, Problem
from ccr_control.core.schema import Config

Source = Literal["cc-relay-go", "claude-code-router", "litellm"]

FILE: Final = "<text>"
MAX_ROUNDS: Final = 200
_REFERENCE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")
_PLACEHOLDER = re.compile(r"\$\{[^}]*\}")


class NotRecognised(Exception):
    """Nobody knows whose configuration it is."""


@dataclass
class Draft:
    """A configuration on its way, and what could not be carried over."""

    providers: list[dict[str, Tree]] = field(default_factory=list)
    routes: list[dict[str, Tree]] = field(default_factory=list)
    server: dict[str, Tree] = field(default_factory=dict)
    routing: dict[str, Tree] = field(default_factory=dict)
    rest: dict[str, Tree] = field(default_factory=dict)
    lost: list[Problem] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)  # name → what it is
    _named: dict[str, str] = field(default_factory=dict, repr=False)  # secret → name of its variable

    def lose(self, path: str, why: str) -> None:
        """Something is not carried over."""
        self.lost.append(Problem(FILE, 0, 0, path, why))

    def secret(self, written: Tree, name: str, what: str) -> str:
        """A secret as a variable: the one it refers to, or one that has to be set."""
        text = str(written)
        text = text.removeprefix("os.environ/") if text.startswith("os.environ/") else text
        refers = _REFERENCE.fullmatch(text) if text.startswith("$") else None
        if refers is not None or str(written).startswith("os.environ/"):
            return f"${{{refers[1] if refers is not None else text}}}"
        variable = self._named.get(text) or self._free(re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_"))
        self._named[text] = variable
        self.variables.setdefault(variable, what)
        return f"${{{variable}}}"

    def _free(self, name: str) -> str:
        taken = self._named.values()
        return name if name not in taken else next(n for i in range(2, 10_000) if (n := f"{name}_{i}") not in taken)


@dataclass(frozen=True, slots=True)
class Imported:
    """A configuration of ours."""

    text: str
    source: Source
    not_carried_over: tuple[Problem, ...]


def imported(text: str, source: Source | None = None) -> Imported:
    """A configuration made of another program's text. Raises NotRecognised, or ConfigInvalid for a text that cannot be read."""
    from ccr_control.core import import_litellm, import_relay, import_router  # noqa: PLC0415 - they use what is here

    tree = _read(text)
    whose = source or _whose(tree)
    draft = Draft()
    carry: Mapping[Source, Callable[[dict[str, Any], Draft], None]] = {
        "cc-relay-go": import_relay.carry,
        "claude-code-router": import_router.carry,
        "litellm": import_litellm.carry,
    }
    try:
        carry[whose](tree, draft)
    except (TypeError, AttributeError, ValueError, KeyError, IndexError):  # anything may stand anywhere in it
        raise NotRecognised(f"it does not have the shape of a configuration of {whose}") from None
    if not draft.providers:
        raise NotRecognised(
            "no provider could be carried over: "
            + ("; ".join(f"{one.path}: {one.message}" for one in draft.lost) or "none")
        )
    config = _valid(_assembled(draft), draft)
    needed = "".join(f"# Set {name}: {what}.\n" for name, what in draft.variables.items())
    shown = yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=120)
    made = f"# Made from a configuration of {whose}.\n{needed}{shown}"
    return Imported(made, whose, (*draft.lost, *_to_mend(made)))


def _to_mend(text: str) -> tuple[Problem, ...]:
    """What is wrong between the fields of a configuration, whatever its variables are."""
    env = {found[1]: "set-later" for found in re.finditer(r"\$\{([A-Za-z0-9_]+)\}", text)}
    try:
        load(text, file="<result>", fmt="yaml", env=env)
    except ConfigInvalid as error:
        return tuple(
            one for one in error.problems if "is used twice" not in one.message
        )  # as all variables are the same
    return ()


def _read(text: str) -> dict[str, Any]:
    """The text as values: JSON (with comments, as claude-code-router takes it), YAML or TOML. Raises ConfigInvalid."""
    try:
        found = json.loads(text)
    except ValueError:
        pass
    else:
        if isinstance(found, dict):
            return found
    try:
        return dict(decode(text, file=FILE, fmt="yaml").data)
    except ConfigInvalid:
        try:
            return dict(decode(text, file=FILE, fmt="toml").data)
        except ConfigInvalid:
            pass
        raise


def _whose(tree: dict[str, Any]) -> Source:
    if "model_list" in tree:
        return "litellm"
    if "Providers" in tree or "Router" in tree:
        return "claude-code-router"
    if "providers" in tree:
        return "cc-relay-go"
    raise NotRecognised(
        "this is no configuration of cc-relay (providers), claude-code-router (Providers, Router) or LiteLLM (model_list)"
    )


def _assembled(draft: Draft) -> dict[str, Tree]:
    routing = {**draft.routing, **({"routes": draft.routes} if draft.routes else {})}
    sections = {"server": draft.server, "routing": routing, **draft.rest}
    return {"version": 1, **{name: value for name, value in sections.items() if value}, "providers": draft.providers}


def _valid(tree: dict[str, Tree], draft: Draft) -> dict[str, Tree]:
    """The tree without what this release does not take, which is added to what is lost."""
    for _ in range(MAX_ROUNDS):
        try:
            Config.model_validate(_filled(tree))
        except ValidationError as error:
            detail = error.errors(include_input=False, include_url=False)[0]
            path = _taken_out(tree, detail["loc"])
            if path is None:
                raise NotRecognised(f"{path_text(_steps(detail['loc']))}: {detail['msg']}") from None
            why = "has no counterpart here" if detail["type"] == "extra_forbidden" else _words(detail["msg"])
            draft.lose(path_text(path), why)
        else:
            return tree
    raise NotRecognised("too much of it is not known here")


def _words(message: str) -> str:
    return message.removeprefix("Value error, ")


def _filled(tree: Tree) -> Tree:
    """The tree with something in place of each variable."""
    if isinstance(tree, dict):
        return {key: _filled(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_filled(item) for item in tree]
    return _PLACEHOLDER.sub("set-later", tree) if isinstance(tree, str) else tree


def _steps(loc: tuple[int | str, ...]) -> Path:
    return tuple(loc)


def _taken_out(tree: Tree, loc: tuple[int | str, ...]) -> Path | None:
    """Take out what a mistake is about: the innermost key that is there. Returns its path."""
    known = list(_known(tree, loc))
    for inner, path in reversed(known):
        if isinstance(inner, dict) and path and path[-1] in inner and path != ("version",):
            del inner[path[-1]]
            return path
    return None


def _known(tree: Tree, loc: tuple[int | str, ...]) -> Iterator[tuple[Tree, Path]]:
    """The containers on the way, each with the path of what is next in it; steps that are pydantic's own are passed over."""
    here = tree
    path: Path = ()
    for step in loc:
        is_there = (isinstance(here, dict) and step in here) or (
            isinstance(here, list) and isinstance(step, int) and step < len(here)
        )
        if not is_there:
            continue
        path = (*path, step)
        yield here, path
        here = here[step]
