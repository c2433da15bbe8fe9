"""`${NAME}` in a configuration's strings → the value of an environment variable.

Pure. Works on decoded values, so that no value of a variable can change the structure of the document. `${NAME}` must
be set, `${NAME:-default}` falls back if it is unset or empty, `$${` stands for `${`. Keys are not expanded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ccr_control.core.document import Document, Path, Tree
from ccr_control.core.errors import Problem

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_BODY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Expanded:
    """A document's values with their variables filled in; what could not be filled in stands as it was written."""

    data: dict[str, Tree]
    unresolved: frozenset[Path]
    problems: tuple[Problem, ...]


def expand(document: Document, env: Mapping[str, str]) -> Expanded:
    """All values of the document, expanded; every missing variable and malformed reference is a problem."""
    walk = _Walk(document, env)
    data = walk.value(document.data, ())
    return Expanded(data, frozenset(walk.unresolved), tuple(walk.problems))


def _is_unicode(text: str) -> bool:
    """False for the lone surrogates that stand for undecodable bytes of the environment."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def escape(text: str) -> str:
    """The text as it must be written to come out of `expand` unchanged."""
    return text.replace("${", "$${")


@dataclass
class _Walk:
    document: Document
    env: Mapping[str, str]
    unresolved: set[Path] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def value(self, value: Tree, path: Path) -> Tree:
        if isinstance(value, str):
            return self._text(value, path) if "${" in value else value
        if isinstance(value, list):
            return [self.value(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, dict):
            for key in value:
                if "${" in key:
                    message = "variables are filled in in values, not in keys: write the key out"
                    self.problems.append(self.document.problem((*path, key), message, at_key=True))
            return {key: self.value(item, (*path, key)) for key, item in value.items()}
        return value

    def _text(self, text: str, path: Path) -> str:
        mistakes: list[str] = []

        def replaced(found: re.Match[str]) -> str:
            if found.group() == "$${":
                return "${"
            value, mistake = self._resolve(found.group(1))
            if mistake:
                mistakes.append(mistake)
            return value

        expanded = _REFERENCE.sub(replaced, text)
        if not mistakes:
            return expanded
        self.unresolved.add(path)
        self.problems += [self.document.problem(path, mistake) for mistake in dict.fromkeys(mistakes)]
        return text

    def _resolve(self, body: str | None) -> tuple[str, str]:
        """The value, and what is wrong, one of them empty."""
        if body is None:
            return "", "`${` is not closed: write ${NAME}, or $${ for a plain `${`"
        parsed = _BODY.fullmatch(body)
        if parsed is None:
            return "", "a variable is written ${NAME} or ${NAME:-default}; write $${ for a plain `${`"
        name, default = parsed[1], parsed[2]
        if default is not None and "${" in default:
            return "", f"the default of ${{{name}:-…}} cannot hold another variable"
        value = self.env.get(name)
        if value and not _is_unicode(value):
            return "", f"the environment variable {name} is not UTF-8"
        if value or (value is not None and default is None):
            return value, ""
        if default is not None:
            return default, ""
        return "", f"the environment variable {name} is not set: set it, or write ${{{name}:-default}}"
