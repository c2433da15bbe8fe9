"""TOML text → a `Document`.

Pure. `tomllib` says what the text means, `toml_places` where each value stands.
"""

from __future__ import annotations

import re
import tomllib

from ccr_control.core.decode_yaml import MAX_DEPTH
from ccr_control.core.document import Document, Tree
from ccr_control.core.errors import ConfigInvalid, Problem
from ccr_control.core.toml_places import toml_places

_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TWICE = ("Cannot overwrite a value", "Cannot declare", "Duplicate inline table key", "Cannot mutate")


def decode_toml(text: str, file: str) -> Document:
    """What a TOML text says. Raises ConfigInvalid, with the first syntax error only: tomllib stops there."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid([_syntax_problem(str(error), text, file)]) from None
    except RecursionError:
        raise ConfigInvalid([Problem(file, 0, 0, "", f"nested more than {MAX_DEPTH} levels deep")]) from None
    except ValueError:  # an impossible date, an integer of thousands of digits
        raise ConfigInvalid([Problem(file, 0, 0, "", "a number or date cannot be read")]) from None
    if _depth(data) > MAX_DEPTH:
        raise ConfigInvalid([Problem(file, 0, 0, "", f"nested more than {MAX_DEPTH} levels deep")])
    if not data:
        raise ConfigInvalid([Problem(file, 1, 1, "", "the file is empty: `ccr config init` writes one to begin with")])
    places, key_places = toml_places(text)
    return Document(file, data, places, key_places)


def _syntax_problem(message: str, text: str, file: str) -> Problem:
    found = _AT.search(message)
    what = _AT.sub("", message)
    if found and found[1]:
        line, column = int(found[1]), int(found[2])
    else:
        line, column = text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1
    if what.startswith(_TWICE):
        return Problem(file, line, column, "", "a key or table is given twice: keep one")
    return Problem(file, line, column, "", f"not valid TOML: {what}")


def _depth(tree: Tree) -> int:
    """Levels of nesting, without recursion."""
    deepest, waiting = 0, [(tree, 1)]
    while waiting:
        value, depth = waiting.pop()
        deepest = max(deepest, depth)
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting += [(item, depth + 1) for item in inner]
    return deepest
