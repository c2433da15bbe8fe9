"""pydantic's validation errors → problems that say what to do.

Pure. Built-in errors are put in our words; refusals of our own types are passed on. The value is shown as it was
written in the text, never as it became, and not at all where credentials belong.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from ccr_control.core import cloud_schema
from ccr_control.core.document import Document, Path, Tree, at, quote
from ccr_control.core.errors import Problem
from ccr_control.core.schema import Config

# Where a credential may stand, in full or as a part: the value is never shown.
_SHY = frozenset(
    (
        "key",
        "webhook",
        "headers",
        "base_url",
        "subscription_origins",
        "ca_file",
        "access_key_id",
        "secret_access_key",
        "session_token",
        "client_secret",
        "external_id",
    )
)

# What people coming from other tools write.
_OTHER_NAMES = {
    "api_key": 'keys: [{key: "${NAME}"}]',
    "apikey": 'keys: [{key: "${NAME}"}]',
    "token": 'keys: [{key: "${NAME}"}]',
    "url": "base_url",
    "endpoint": "base_url",
    "api_base": "base_url",
    "host": "listen: host:port",
    "port": "listen: host:port",
    "model_map": "model_mapping",
    "timeout": "timeouts: {first_byte: 10m}",
    "targets": "to",
    "candidates": "to",
    "secret": "key",
    "log_level": "log_format",
}
_EXPECTED = {
    "string_type": "must be text: put it in quotes",
    "tuple_type": "must be a list: [a, b], or lines that begin with `-`",
    "mapping_type": "must be a mapping of names to values",
    "dict_type": "must be a mapping of names to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
}
_REQUIRED = {
    "version": "is required: begin the file with `version: 1`",
    "providers": "is required: at least one provider",
    "to": "is required: the candidates, such as [{provider: anthropic}]",
    "type": "is required: anthropic, zai, ollama, bedrock, azure, vertex, claude-aws, claude-gcp or anthropic-compatible",
}
_PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}$": "must be 1 to 64 letters, digits, blanks or any of `._@-`",
    r"^[a-z0-9][a-z0-9._-]{0,63}$": "must be 1 to 64 lower-case letters, digits or any of `._-`",
    cloud_schema.REGION: "must be an AWS region, such as us-east-1",
    cloud_schema.LOCATION: "must be global, us, eu or a region of Google Cloud, such as us-east5",
    cloud_schema.PROJECT: "must be the id of a Google Cloud project: 6 to 30 lower-case letters, digits and `-`",
    cloud_schema.RESOURCE: "must be the name of a Foundry resource: letters, digits and `-`",
    cloud_schema.WORKSPACE: "must be the id of a workspace: letters, digits or any of `._-`",
    cloud_schema.ROLE_ARN: "must be the ARN of a role, such as arn:aws:iam::123456789012:role/cc-relay",
    cloud_schema.SESSION_NAME: "must be 2 to 64 letters, digits or any of `_+=,.@-`",
    cloud_schema.NAME: "must be text without line breaks, and without blanks at its ends",
    cloud_schema.IDENTITY: "must be an id as Entra shows it: letters, digits or any of `._-`",
    cloud_schema.ACCOUNT: "must be a service account, such as name@project.iam.gserviceaccount.com",
    cloud_schema.SCOPE: "must be a scope such as https://ai.azure.com/.default",
    cloud_schema.AUTHORITY: "must be an address such as https://login.microsoftonline.com",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A validation error at its place in the data."""

    path: Path  # of the value; for a missing one, where it would be
    is_key: bool  # the key is meant, not its value
    kind: str
    message: str
    context: Mapping[str, Any]


def fault_of(error: ErrorDetails, data: Tree) -> Fault:
    """The error, its location reduced to what exists in the data: pydantic mixes in names of types."""
    path: list[str | int] = []
    here = data
    is_missing = error["type"] == "missing"
    for step in error["loc"]:
        if (isinstance(here, dict) and step in here) or (isinstance(here, list) and isinstance(step, int)):
            path.append(step)
            here = at(here, (step,))
        elif is_missing and step == error["loc"][-1]:
            path.append(step)
    is_key = error["loc"][-1:] == ("[key]",) or error["type"] == "extra_forbidden"
    return Fault(tuple(path), is_key, error["type"], error["msg"], error.get("ctx", {}))


def worded(fault: Fault, document: Document) -> Problem:
    """The fault as a problem for people."""
    if fault.kind == "extra_forbidden":
        return document.problem(fault.path, _unknown_key(fault.path), at_key=True)
    if fault.kind == "missing":
        message = _REQUIRED.get(str(fault.path[-1]), "is required")
        return document.problem(fault.path, message)
    message = _message(fault)
    written = document.written(fault.path)
    is_shown = isinstance(written, str | int | float) and not fault.is_key and _SHY.isdisjoint(fault.path)
    shown = f", not {quote(written)}" if is_shown and message.startswith("must ") else ""
    if is_shown and not shown:
        shown = f" ({quote(written)})"
    if fault.kind == "literal_error":
        shown += did_you_mean(str(written), _choices(fault)) if is_shown else ""
    return document.problem(fault.path, message + shown, at_key=fault.is_key)


def did_you_mean(word: str, known: list[str]) -> str:
    """The end of a message that names the closest known word; empty if none is close."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f" - did you mean {close[0]!r}?" if close else ""


def _message(fault: Fault) -> str:
    context = fault.context
    match fault.kind:
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f"must be one of {', '.join(_choices(fault))}"
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case "too_short" | "string_too_short":
            return "must not be empty"
        case "string_pattern_mismatch":
            return _PATTERNS[context["pattern"]]
        case kind:
            return _EXPECTED.get(kind, "is not valid here")


def _choices(fault: Fault) -> list[str]:
    return str(fault.context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")


def _unknown_key(path: Path) -> str:
    section = section_at(path[:-1])
    known = list(section.model_fields) if section else []
    key = str(path[-1])
    if close := did_you_mean(key, known):
        return f"unknown key{close}"
    if other := _OTHER_NAMES.get(key.lower()):
        return f"unknown key - here it is written {other}"
    return f"unknown key; known here: {', '.join(known)}"


def section_at(path: Path) -> type[BaseModel] | None:
    """The section of the configuration's shape that a path leads to."""
    section: type[BaseModel] | None = Config
    for step in path:
        if isinstance(step, str):
            field = section.model_fields.get(step) if section else None
            section = _section_in(field.annotation) if field else None
    return section


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section within Optional, Annotated and tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, tuple) or hasattr(annotation, "__metadata__"):
        return next((found for part in get_args(annotation) if (found := _section_in(part))), None)
    return None
