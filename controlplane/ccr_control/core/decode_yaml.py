"""YAML text → a `Document`.

Pure. YAML 1.2's idea of plain values: `no`, `on`, `12:30` and dates stay strings. Anchors, aliases and merge keys work.
Sources: yaml.org/spec/1.2.2 section 10.3 (core schema), PyYAML's loader (libyaml).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Protocol

import yaml

from ccr_control.core.document import UNKNOWN, Document, Path, Place, Tree, path_text
from ccr_control.core.errors import ConfigInvalid, Problem

MAX_DEPTH = 64  # levels of nesting; libyaml's composer recurses in C and would crash the process far above
MAX_VALUES = 200_000  # values after aliases are followed; 1,000 routes and 200 providers are about 20,000

_TAG = "tag:yaml.org,2002:"
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Mark(Protocol):
    """What a position of PyYAML's and one of libyaml's have in common; both count from 0."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


class _Loader(yaml.CSafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way to begin a resolver table; filled just below


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]{1,18}|0o[0-7]{1,18}|0x[0-9a-fA-F]{1,16}", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)


def decode_yaml(text: str, file: str) -> Document:
    """What a YAML text says. Raises ConfigInvalid."""
    _refuse_unprintable(text, file)
    try:
        _refuse_nesting(text, file)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ConfigInvalid([_syntax_problem(error, file)]) from None
    if root is None or (isinstance(root, yaml.ScalarNode) and root.tag == _TAG + "null"):
        raise ConfigInvalid([Problem(file, 1, 1, "", "the file is empty: `ccr config init` writes one to begin with")])
    if not isinstance(root, yaml.MappingNode):
        place = _place(root.start_mark)
        problem = "the file must be a mapping of sections (`version: 1`, `providers: …`)"
        raise ConfigInvalid([Problem(file, place.line, place.column, "", problem)])
    builder = _Builder(file)
    data = builder.value(root, (), 0)
    if builder.problems:
        raise ConfigInvalid(dict.fromkeys(builder.problems))  # an alias repeats its mistakes wherever it is used
    return Document(file, data, builder.places, builder.key_places)


def _refuse_unprintable(text: str, file: str) -> None:
    """Names the place of the first character YAML does not allow; libyaml would only name a byte offset."""
    if found := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        column = found.start() - text.rfind("\n", 0, found.start())
        problem = f"the control character U+{ord(found.group()):04X} is not allowed"
        raise ConfigInvalid([Problem(file, line, column, "", problem)])


def _refuse_nesting(text: str, file: str) -> None:
    """Reads the events alone, which needs no recursion, before anything recurses."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise ConfigInvalid([_too_deep(file, event.start_mark)])
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _too_deep(file: str, mark: _Mark | None) -> Problem:
    place = _place(mark)
    message = f"nested more than {MAX_DEPTH} levels deep (does an anchor contain itself?)"
    return Problem(file, place.line, place.column, "", message)


def _syntax_problem(error: yaml.YAMLError, file: str) -> Problem:
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(file, 0, 0, "", "this is not YAML")
    mark = error.problem_mark or error.context_mark
    place = _place(mark)
    if error.problem == "but found another document":
        message = "a second document begins here: a configuration is one document, remove the `---`"
    else:
        message = ", ".join(part for part in (error.context, error.problem) if part)
        begun = error.context_mark.line + 1 if error.context_mark else place.line
        where = f" (it began on line {begun})" if begun != place.line else ""
        message = f"not valid YAML: {message}{where}"
    return Problem(file, place.line, place.column, "", message)


def _place(mark: _Mark | None) -> Place:
    return Place(mark.line + 1, mark.column + 1) if mark else UNKNOWN


@dataclass
class _Builder:
    """Turns composed nodes into plain values, noting places and problems on the way."""

    file: str
    places: dict[Path, Place] = field(default_factory=dict)
    key_places: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    values_left: int = MAX_VALUES

    def value(self, node: yaml.Node, path: Path, depth: int) -> Tree:
        self._spend(node, depth)
        self.places[path] = _place(node.start_mark)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        return self._refuse(node, path, f"the tag {node.tag.replace(_TAG, '!!')} is not supported")

    def _spend(self, node: yaml.Node, depth: int) -> None:
        self.values_left -= 1
        if depth > MAX_DEPTH:
            raise ConfigInvalid([_too_deep(self.file, node.start_mark)])
        if self.values_left < 0:
            place = _place(node.start_mark)
            message = f"more than {MAX_VALUES} values once the aliases are followed"
            raise ConfigInvalid([Problem(self.file, place.line, place.column, "", message)])

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Tree]:
        merged: dict[str, Tree] = {}
        own: dict[str, Tree] = {}
        for source in reversed(self._merge_sources(node, path)):  # of several, the first one wins
            self._spend(source, depth)
            merged |= self._mapping(source, path, depth + 1)
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                continue
            if not isinstance(key, yaml.ScalarNode):
                self._refuse(key, path, "a key must be plain text")
                continue
            if key.value in own:
                first = self.key_places[(*path, key.value)].line
                self._refuse(key, (*path, key.value), f"this key is given twice (first on line {first}): keep one")
                continue
            self.key_places[(*path, key.value)] = _place(key.start_mark)
            own[key.value] = self.value(value, (*path, key.value), depth + 1)
        return merged | own

    def _merge_sources(self, node: yaml.MappingNode, path: Path) -> list[yaml.MappingNode]:
        sources: list[yaml.MappingNode] = []
        for key, value in node.value:
            if key.tag != _TAG + "merge":
                continue
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(source, yaml.MappingNode):
                    sources.append(source)
                else:
                    self._refuse(source, path, "`<<` merges mappings only")
        return sources

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Tree:
        text: str = node.value
        try:
            match node.tag.removeprefix(_TAG):
                case "str" | "merge":
                    return text
                case "null":
                    return None
                case "bool":
                    return {"true": True, "false": False}[text.lower()]
                case "int":
                    return int(text, 0 if text[:2] in ("0o", "0x") else 10)
                case "float":
                    return float(text)
        except (KeyError, ValueError):
            return self._refuse(node, path, f"this is not a {node.tag.removeprefix(_TAG)}")
        return self._refuse(node, path, f"the tag {node.tag.replace(_TAG, '!!')} is not supported")

    def _refuse(self, node: yaml.Node, path: Path, message: str) -> None:
        place = _place(node.start_mark)
        self.problems.append(Problem(self.file, place.line, place.column, path_text(path), message))
