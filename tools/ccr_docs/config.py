"""docs/reference/config.md, from the JSON Schema of the configuration, which is made from its types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ccr_control.core.editor_schema import json_schema

from ccr_docs.markdown import made_from, table
from ccr_docs.markdown import page as joined

Schema = dict[str, Any]

INTRO = """\
YAML or TOML, searched for in this order: `--config`, `$CCR_CONFIG`, `./ccr.yaml`, `~/.config/cc-relay/config.yaml`.
`ccr config init` writes one to begin with, `ccr config validate FILE` checks one, `ccr config show FILE` prints one with
every default filled in, `ccr config schema` prints the JSON Schema that this page is made from."""

RULES = """\
- Unknown and repeated keys are errors. Every problem of a file is reported at once, with line and column.
- `${NAME}` takes a value from the environment, `${NAME:-default}` falls back, `$${` stands for a plain `${`. This happens after
  the file is decoded, so that a value cannot change the file's structure.
- Durations carry a unit: `250ms`, `30s`, `10m`, `1h`, `1d`. So do sizes: `1024B`, `512KiB`, `10MB`, `32MiB`.
- Model patterns: `*` stands for any run of characters. Upper and lower case differ.
- Top-level keys that begin with `x-` are ignored: a place for YAML anchors.
- The file is watched. A valid change takes effect at once, but for the settings that `ccr status` then lists as waiting for
  the next start; a change with a mistake has no effect, and `ccr status` shows it."""


def page(_root: Path) -> str:
    """The whole page."""
    schema = json_schema()
    blocks: list[str] = []
    _section(schema, schema, "", blocks)
    return joined("# Configuration", made_from("the types in controlplane/ccr_control/core"), INTRO, RULES, *blocks)


def _section(schema: Schema, section: Schema, path: str, blocks: list[str]) -> None:
    rows, below = [], []
    for name, key in section["properties"].items():
        here = f"{path}.{name}" if path else name
        required = name in section.get("required", ())
        inner = _sections(schema, key, here)
        about = key.get("description") or (inner[0][1].get("description", "") if inner else "")
        rows.append((f"`{name}`", _kind(schema, key, here), _default(key, required=required), about))
        below += inner
    about = "" if not path else section.get("description", "")
    blocks.append(f"## `{path}`" if path else "## Top level")
    blocks.append(about)
    blocks.append(table(("key", "value", "default", "meaning"), rows))
    for place, found in below:
        _section(schema, found, place, blocks)


def _plain(node: Schema) -> list[Schema]:
    """The shapes a value may have, without "absent" and without `${VARIABLE}`."""
    shapes = [shape for option in node.get("anyOf", ()) for shape in _plain(option)] or [node]
    return [shape for shape in shapes if shape.get("type") != "null" and shape.get("pattern") != r"\$\{"]


def _sections(schema: Schema, node: Schema, path: str) -> list[tuple[str, Schema]]:
    """The sections directly below a key, with their paths."""
    found = []
    for shape in _plain(node):
        if "$ref" in shape:
            found.append((path, schema["$defs"][shape["$ref"].rpartition("/")[2]]))
        elif shape.get("type") == "array":
            found += _sections(schema, shape.get("items", {}), f"{path}[]")
    return found


def _kind(schema: Schema, node: Schema, path: str) -> str:
    return " or ".join(dict.fromkeys(_shape(schema, shape, path) for shape in _plain(node)))


def _shape(schema: Schema, shape: Schema, path: str) -> str:
    if "$ref" in shape:
        return f"[section](#{''.join(c for c in path if c.isalnum() or c in '_-')})"
    if "enum" in shape:
        return ", ".join(f"`{value}`" for value in shape["enum"])
    if "const" in shape:
        return f"`{shape['const']}`"
    kind = shape.get("type")
    if kind == "array":
        return f"list of {_kind(schema, shape.get('items', {}), f'{path}[]')}"
    if kind == "object":
        return "map of text to text"
    if kind == "boolean":
        return "`true`, `false`"
    if kind == "integer":
        low, high = shape.get("minimum"), shape.get("maximum")
        bounds = f" {low}–{high}" if high is not None else f" from {low}" if low is not None else ""
        return f"number{bounds}"
    pattern = str(shape.get("pattern", ""))
    if isinstance(kind, list) or "ms|s|m|h|d" in pattern:
        return "duration"
    return "size" if "[bB]" in pattern else "text"


def _default(key: Schema, *, required: bool) -> str:
    if required:
        return "required"
    default = key.get("default")
    if default is None or isinstance(default, dict):
        return ""
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"
