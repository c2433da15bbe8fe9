"""The JSON Schema of configuration files, by which editors complete and check.

Pure. Made from the configuration's types, so that it cannot drift. It is a little wider than they are: a
`${VARIABLE}` may stand wherever a number or a word is asked for, because nobody knows its value beforehand.
"""

from __future__ import annotations

from typing import Any

from ccr_control.core.schema import Config
from ccr_control.core.section import Section, meanings

Schema = dict[str, Any]

_VARIABLE: Schema = {"type": "string", "pattern": r"\$\{"}
_ABOUT = ("description", "default")  # what belongs to the key rather than to its value
_BOUNDS = {"ge": "minimum", "le": "maximum"}  # pydantic keeps its own names behind a validator of ours


def json_schema() -> Schema:
    """The JSON Schema, draft 2020-12."""
    schema = Config.model_json_schema()
    for section in Section.__subclasses__():
        shape = schema if section is Config else schema["$defs"][section.__name__]
        written = section.model_construct().model_dump(mode="json")  # defaults as one would write them: "30s"
        about = meanings(section)
        for name, key in shape["properties"].items():
            key.pop("default", None)
            if name in about:
                key["description"] = about[name]
            if written.get(name) is not None:
                key["default"] = written[name]
            shape["properties"][name] = _widened(key)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "cc-relay configuration"
    schema["patternProperties"] = {"^x-": {}}
    return schema


def _widened(node: Any) -> Any:
    """The part of a schema, with variables allowed where a single value is asked for, and without noise."""
    if isinstance(node, list):
        return [_widened(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {
        _BOUNDS.get(name, name): value if name in (*_ABOUT, "propertyNames") else _widened(value)
        for name, value in node.items()
        if name != "title"
    }
    if not (plain.get("type") in ("integer", "boolean") or "enum" in plain or "pattern" in plain):
        return plain
    about = {name: plain.pop(name) for name in _ABOUT if name in plain}
    return {**about, "anyOf": [plain, _VARIABLE]}
