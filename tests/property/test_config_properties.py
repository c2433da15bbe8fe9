"""What always holds of a configuration, whatever is written in it."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from ccr_control.core.compile import check, compile_snapshot, config_hash, redacted_yaml
from ccr_control.core.config import load
from ccr_control.core.decode import Format, decode
from ccr_control.core.document import Document
from ccr_control.core.editor_schema import json_schema
from ccr_control.core.errors import ConfigInvalid
from ccr_control.core.expand import escape, expand
from ccr_control.core.patterns import covers, fits
from ccr_control.core.quantities import format_duration, format_size, parse_duration, parse_size
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = datetime(2026, 11, 20, tzinfo=UTC)

KEYS = sorted(
    {"version", "providers", "x-note", "nonsense"}
    | {name for shape in json_schema()["$defs"].values() for name in shape["properties"]}
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 10**20),
    st.floats(allow_nan=False),
    st.text(max_size=12),
    st.sampled_from(
        [
            "anthropic",
            "zai",
            "ollama",
            "anthropic-compatible",
            "vllm",
            "30s",
            "0",
            "32MiB",
            "none",
            "failover",
            "true",
            "127.0.0.1:1",
            "0.0.0.0:1",
            "https://x.y/v1",
            "http://[::1]:1",
            "${A}",
            "${A:-b}",
            "${",
            "$${x}",
            "claude*",
        ]
    ),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
SECRETS = st.text(alphabet=string.ascii_letters + string.digits + "-_$", min_size=8, max_size=40).map("sk-".__add__)


def problems_of(text: str, fmt: Format = "yaml", env: dict[str, str] | None = None) -> list[str]:
    try:
        loaded = load(text, file="f", fmt=fmt, env=env or {}, read_file=lambda name: name)
    except ConfigInvalid as error:
        return [str(problem) for problem in error.problems]
    return [str(warning) for warning in loaded.warnings]


@given(text=st.text(max_size=200), fmt=st.sampled_from(["yaml", "toml"]))
def test_any_text_is_a_configuration_or_a_list_of_problems(text: str, fmt: Format) -> None:
    """A half-saved file must never end the process that watches it."""
    problems_of(text, fmt)


@given(
    text=st.text(alphabet='[]{}:,-&*!|>\'"#%@`<> \n\tab1.="', max_size=80),
    fmt=st.sampled_from(["yaml", "toml"]),
)
def test_any_punctuation_is_a_configuration_or_a_list_of_problems(text: str, fmt: Format) -> None:
    """Most texts of the test above fail in their first character; these get further."""
    problems_of("version: 1\n" + text if fmt == "yaml" else "version = 1\n" + text, fmt)


@settings(max_examples=500)  # its mistakes are rare
@given(tree=st.dictionaries(st.sampled_from(KEYS), TREES, max_size=5), provider=TREES, route=TREES)
def test_any_tree_is_a_configuration_or_a_list_of_problems(tree: dict[str, Any], provider: Any, route: Any) -> None:
    """Whatever stands where, the answer is a list of problems with places."""
    whole = {"version": 1, "providers": [provider], "routing": {"routes": [route]}} | tree
    for problem in problems_of(yaml.safe_dump(whole), env={"A": "b"}):
        assert problem.startswith("f:")


def valid(secrets: list[str], header: str, **more: Any) -> dict[str, Any]:
    first, second, client = secrets
    return {
        "version": 1,
        "server": {"auth": {"keys": [{"name": "laptop", "key": escape(client)}]}},
        "providers": [
            {"name": "a", "type": "anthropic", "keys": [{"key": escape(first)}, {"key": escape(second)}]},
            {"name": "z", "type": "zai", "keys": [{"key": escape(first)}], "headers": {"x-api-token": escape(header)}},
            {"name": "l", "type": "ollama"} | more,
        ],
    }


@given(secrets=st.lists(SECRETS, min_size=3, max_size=3, unique=True), header=SECRETS)
def test_no_shown_configuration_holds_a_secret(secrets: list[str], header: str) -> None:
    """`ccr config show` is what people paste into bug reports."""
    loaded = load(yaml.safe_dump(valid(secrets, header)), file="f", fmt="yaml", env={})
    shown = redacted_yaml(loaded.config) + repr(loaded) + str(loaded) + loaded.config.model_dump_json()
    shown += str(loaded.config.model_dump()) + "".join(map(str, loaded.warnings)) + config_hash(loaded.config)
    for secret in (*secrets, header):
        assert secret not in shown


@given(value=st.text(alphabet=string.printable, min_size=12, max_size=40), place=st.integers(0, 11))
def test_no_problem_holds_the_value_of_a_variable(value: str, place: int) -> None:
    """Problems go to logs; a variable may hold a credential wherever it is used."""
    reference = "${SECRET_VALUE}"
    tree: dict[str, Any] = {
        "version": 1,
        "server": {"listen": "127.0.0.1:1", "workers": 1, "log_format": "json", "max_body": "1MB"},
        "routing": {"strategy": "failover", "cooldown": "1s", "routes": [{"to": [{"provider": "p"}]}]},
        "providers": [{"name": "p", "type": "zai", "base_url": "https://x.y", "keys": [{"key": "k", "label": "l"}]}],
    }
    spots = [
        (tree["server"], "listen"),
        (tree["server"], "workers"),
        (tree["server"], "log_format"),
        (tree["server"], "max_body"),
        (tree["routing"], "strategy"),
        (tree["routing"], "cooldown"),
        (tree["routing"]["routes"][0]["to"][0], "provider"),
        (tree["providers"][0], "name"),
        (tree["providers"][0], "type"),
        (tree["providers"][0], "base_url"),
        (tree["providers"][0]["keys"][0], "key"),
        (tree["providers"][0]["keys"][0], "label"),
    ]
    spots[place][0][spots[place][1]] = reference
    for problem in problems_of(yaml.safe_dump(tree), env={"SECRET_VALUE": value}):
        assert value not in problem
        assert repr(value)[1:-1] not in problem


@given(secrets=st.lists(SECRETS, min_size=3, max_size=3, unique=True), header=SECRETS, models=st.booleans())
def test_compiling_is_a_function_of_the_text(secrets: list[str], header: str, models: bool) -> None:
    """The same text must make the same snapshot on every machine, or nodes would be told of changes that are none."""
    text = yaml.safe_dump(valid(secrets, header, **({"models": ["m"]} if models else {})))
    one, other = (load(text, file=name, fmt="yaml", env={}).config for name in ("one", "other"))
    snapshot = compile_snapshot(one, version=3, created_at=NOW)
    assert snapshot == compile_snapshot(other, version=3, created_at=NOW)
    assert check(snapshot) == []


@given(secrets=st.lists(SECRETS, min_size=3, max_size=3, unique=True), header=SECRETS, models=st.booleans())
def test_what_is_shown_means_the_same(secrets: list[str], header: str, models: bool) -> None:
    """With its secrets put back, the shown configuration makes the same snapshot: it hides nothing else."""
    config = load(
        yaml.safe_dump(valid(secrets, header, **({"models": ["m"]} if models else {}))), file="f", fmt="yaml", env={}
    ).config
    shown = yaml.safe_load(redacted_yaml(config))
    for entry, provider in zip(shown["providers"], config.providers, strict=True):
        entry["headers"] = {name: escape(value.reveal()) for name, value in provider.headers.items()}
        for key, source in zip(entry["keys"], provider.keys, strict=True):
            key["key"] = escape(source.key.reveal())
    assert config.server.auth is not None
    for client, holder in zip(shown["server"]["auth"]["keys"], config.server.auth.keys, strict=True):
        client["key"] = escape(holder.key.reveal())
    again = load(yaml.safe_dump(shown), file="f", fmt="yaml", env={}).config
    assert compile_snapshot(again, version=1, created_at=NOW) == compile_snapshot(config, version=1, created_at=NOW)


@given(text=st.text())
def test_an_escaped_text_expands_to_itself(text: str) -> None:
    """`$${` must be able to say everything that `${` says."""
    document = Document("f", {"a": escape(text)})
    assert expand(document, {}).data == {"a": text}


@given(value=st.text(), before=st.text(alphabet="ab$", max_size=3), after=st.text(alphabet="ab}{$", max_size=3))
def test_a_value_is_filled_in_once_and_as_it_is(value: str, before: str, after: str) -> None:
    """A value that looks like a reference is not expanded again, and cannot become structure."""
    before = before.rstrip("$")  # `$${` would be the escape
    document = Document("f", {"a": f"{before}${{X}}{after}"})
    if "${" in after:
        return
    assert expand(document, {"X": value}).data == {"a": f"{before}{value}{after}"}


@given(microseconds=st.integers(0, 10**15))
def test_a_duration_survives_being_written(microseconds: int) -> None:
    """Defaults are shown as one would write them."""
    duration = timedelta(microseconds=microseconds)
    assert parse_duration(format_duration(duration)) == duration


@given(size_bytes=st.integers(0, 10**14))
def test_a_size_survives_being_written(size_bytes: int) -> None:
    """The same for sizes."""
    if len(format_size(size_bytes)) <= 13:
        assert parse_size(format_size(size_bytes)) == size_bytes


PATTERNS = st.text(alphabet="ab*", max_size=6)


@given(pattern=PATTERNS, name=st.text(alphabet="ab", max_size=8))
def test_patterns_agree_with_a_simpler_model_of_them(pattern: str, name: str) -> None:
    """Routes must mean what they seem to."""

    def simple(pattern: str, name: str) -> bool:
        if not pattern:
            return not name
        if pattern[0] == "*":
            return simple(pattern[1:], name) or (bool(name) and simple(pattern, name[1:]))
        return bool(name) and name[0] == pattern[0] and simple(pattern[1:], name[1:])

    assert fits(pattern, name) == simple(pattern, name)


@given(wide=PATTERNS, narrow=PATTERNS, name=st.text(alphabet="ab", max_size=8))
def test_a_covered_pattern_fits_nothing_else(wide: str, narrow: str, name: str) -> None:
    """Otherwise a route would be called unused that is not."""
    if covers(wide, narrow) and fits(narrow, name):
        assert fits(wide, name)


TOML_TEXT = st.text(max_size=8)


@given(
    tree=st.dictionaries(
        TOML_TEXT,
        st.recursive(
            st.integers(-9, 9) | st.booleans() | TOML_TEXT,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TOML_TEXT, inner, max_size=3),
            max_leaves=8,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_every_toml_value_is_found_where_it_stands(tree: dict[str, Any]) -> None:
    """A place that points elsewhere is worse than none."""
    text = "".join(f"{toml_key(key)} = {toml_value(value)}  # {key!r}\n" for key, value in tree.items())
    tree = {key: value for key, value in tree.items() if not key.startswith("x-")}
    document = decode(text, file="f", fmt="toml")
    assert document.data == tree
    lines = text.split("\n")
    for path, value in leaves(tree):
        place = document.places[path]
        assert lines[place.line - 1][place.column - 1 :].startswith(toml_value(value)), path


def toml_key(key: str) -> str:
    return toml_value(key)


def toml_value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            escaped = "".join(f"\\U{ord(char):08x}" if not char.isalnum() else char for char in value)
            return f'"{escaped}"'
        case list():
            return "[" + ", ".join(toml_value(item) for item in value) + "]"
        case dict():
            return "{" + ", ".join(f"{toml_key(key)} = {toml_value(item)}" for key, item in value.items()) + "}"
    return str(value)


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in leaves(item, (*path, key))]
    if isinstance(value, list):
        return [found for index, item in enumerate(value) for found in leaves(item, (*path, index))]
    return [(path, value)]


@pytest.mark.parametrize("fmt", ["yaml", "toml"])
def test_the_empty_text_is_a_problem(fmt: Format) -> None:
    """An editor truncates before it writes: that must not count as "no providers, please"."""
    assert "empty" in problems_of("", fmt)[0]
