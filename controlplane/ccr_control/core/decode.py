"""Text of a configuration → a `Document`: syntax, duplicate keys and size, nothing about meaning.

Pure. Every mistake is a `Problem` with its place; hostile input (alias bombs, deep nesting) is refused before it
costs anything.
"""

from __future__ import annotations

from typing import Literal

from ccr_control.core.decode_toml import decode_toml
from ccr_control.core.decode_yaml import decode_yaml
from ccr_control.core.document import Document
from ccr_control.core.errors import ConfigInvalid, Problem

Format = Literal["yaml", "toml"]

MAX_BYTES = 4 * 1024 * 1024


def as_text(blob: bytes, *, file: str) -> str:
    """The text of a file's bytes: UTF-8, with or without a byte order mark.

    Raises ConfigInvalid, with the place of the first byte that is not UTF-8.
    """
    if blob.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigInvalid([Problem(file, 1, 1, "", "this is UTF-16: save the file as UTF-8")])
    try:
        return blob.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        good = blob[: error.start].decode("utf-8-sig")
        line, column = good.count("\n") + 1, len(good) - (good.rfind("\n") + 1) + 1
        problem = f"byte 0x{blob[error.start]:02x} is not UTF-8: save the file as UTF-8"
        raise ConfigInvalid([Problem(file, line, column, "", problem)]) from None


def decode(text: str, *, file: str, fmt: Format) -> Document:
    """What the text says, `x-…` sections of the top level left out.

    Raises ConfigInvalid with every syntax error, or every duplicate key, that could be found.
    """
    text = text.removeprefix("\ufeff")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise ConfigInvalid([Problem(file, line, 0, "", "a character is not valid Unicode")]) from None
    if size > MAX_BYTES:
        raise ConfigInvalid([Problem(file, 0, 0, "", f"the text is {size} bytes long; the limit is {MAX_BYTES}")])
    document = decode_yaml(text, file) if fmt == "yaml" else decode_toml(text, file)
    return Document(
        file,
        {key: value for key, value in document.data.items() if not key.startswith("x-")},
        document.places,
        document.key_places,
    )
