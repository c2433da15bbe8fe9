"""Texts that are not configurations yet: syntax, size and hostile shapes."""

from __future__ import annotations

import time

import pytest
from ccr_control.core.decode import MAX_BYTES, Format, as_text, decode
from ccr_control.core.document import Place
from ccr_control.core.errors import ConfigInvalid


def refusal(text: str, fmt: Format = "yaml") -> str:
    with pytest.raises(ConfigInvalid) as raised:
        decode(text, file="f", fmt=fmt)
    assert len(raised.value.problems) == 1
    return str(raised.value.problems[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f:1:1: the file is empty"),
        ("# only a comment\n", "f:1:1: the file is empty"),
        ("null", "f:1:1: the file is empty"),
        ("- a\n", "f:1:1: the file must be a mapping"),
        ("\n  hello\n", "f:2:3: the file must be a mapping"),
        (
            "a: [1\nb: 2",
            "f:2:2: not valid YAML: while parsing a flow sequence, did not find expected ',' or ']' (it began",
        ),
        ("a: 1\n\tb: 2", "f:2:1: not valid YAML"),
        ("a: *nowhere", "f:1:4: not valid YAML"),
        ("a: 1\n---\nb: 1", "f:2:1: a second document begins here"),
        ("a: !!python/object:os.system x", "f:1:4: a: the tag !!python/object:os.system is not supported"),
        ("a: !secret x", "f:1:4: a: the tag !secret is not supported"),
        ("a: !!set {x, y}", "f:1:4: a: the tag !!set is not supported"),
        ("a: !!int many", "f:1:4: a: this is not a int"),
        ("a: !!bool 1", "f:1:4: a: this is not a bool"),
        ("? [a, b]\n: 1", "f:1:3: a key must be plain text"),
        ("a: {<<: 1}", "f:1:9: a: `<<` merges mappings only"),
        ("a: b\x00", "f:1:5: the control character U+0000 is not allowed"),
        ("a: 1\nb: \x1b[31m", "f:2:4: the control character U+001B is not allowed"),
        ("a: \ud800", "f:1:0: a character is not valid Unicode"),
    ],
)
def test_what_is_not_a_yaml_mapping_is_refused_with_its_place(text: str, message: str) -> None:
    """The first thing an editor's half-saved file meets."""
    assert refusal(text).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f:1:1: the file is empty"),
        ("a = ", "f:1:5: not valid TOML: Invalid value"),
        ("a = 1\nb = [1", "f:2:7: not valid TOML: Unclosed array"),
        ("a = 1\na = 2", "f:2:6: a key or table is given twice"),
        ("[a]\n[a]", "f:2:3: a key or table is given twice"),
        ("a = {b = 1, b = 2}", "f:1:18: a key or table is given twice"),
        ("a = " + "9" * 5000, "f:0:0: a number or date cannot be read"),
        ("a = " + "[" * 100 + "]" * 100, "f:0:0: nested more than 64"),
        ("a = " + "[" * 50_000, "f:0:0: nested more than 64"),
    ],
)
def test_what_is_not_toml_is_refused(text: str, message: str) -> None:
    """As good as tomllib allows."""
    assert refusal(text, "toml").startswith(message)


def test_deep_nesting_is_refused_before_anything_recurses() -> None:
    """libyaml's composer recurses in C: this text would end the process."""
    assert "nested more than 64 levels" in refusal("a: " + "[" * 500_000)


def test_an_anchor_that_contains_itself_is_refused() -> None:
    """It would be followed for ever."""
    assert "nested more than 64 levels" in refusal("a: &a [*a]")
    assert "nested more than 64 levels" in refusal("a: &a {<<: *a}")


def test_an_alias_bomb_is_refused_quickly() -> None:
    """Nine lines that stand for a thousand million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    started = time.perf_counter()
    assert "200000 values" in refusal("\n".join(lines))
    assert time.perf_counter() - started < 5


def test_a_text_that_is_too_long_is_refused_unread() -> None:
    """Nobody writes four megabytes of configuration; somebody may send them."""
    assert f"the limit is {MAX_BYTES}" in refusal("a: " + "x" * MAX_BYTES)


def test_every_duplicate_key_is_told() -> None:
    """With YAML's own rules the last one would win, silently."""
    with pytest.raises(ConfigInvalid) as raised:
        decode("a: 1\na: 2\nb: {c: 1, c: 2}\n", file="f", fmt="yaml")
    assert [str(problem) for problem in raised.value.problems] == [
        "f:2:1: a: this key is given twice (first on line 1): keep one",
        "f:3:11: b.c: this key is given twice (first on line 3): keep one",
    ]


def test_plain_words_stay_words() -> None:
    """YAML 1.1 would read these as false, true, 45000 seconds, a date and 8."""
    text = "{a: no, b: on, c: 12:30:00, d: 2026-01-02, e: 010, f: 0o10, g: 1_000, h: y, i: 1.5, j: ~, k: true}"
    assert decode(text, file="f", fmt="yaml").data == {
        "a": "no",
        "b": "on",
        "c": "12:30:00",
        "d": "2026-01-02",
        "e": 10,
        "f": 8,
        "g": "1_000",
        "h": "y",
        "i": 1.5,
        "j": None,
        "k": True,
    }


def test_anchors_and_merges_work_and_point_to_where_the_text_stands() -> None:
    """A mistake in a merged mapping is shown where it was written."""
    text = "x-a: &a {b: 1, c: 2}\nx-d: &d {c: 3, e: 4}\nf: {<<: [*a, *d], b: 5}\ng: *a\n"
    document = decode(text, file="f", fmt="yaml")
    assert document.data == {"f": {"b": 5, "c": 2, "e": 4}, "g": {"b": 1, "c": 2}}
    assert document.places["f", "b"] == Place(3, 22)
    assert document.places["f", "e"] == Place(2, 19)
    assert document.places["g", "c"] == Place(1, 19)


@pytest.mark.parametrize("fmt", ["yaml", "toml"])
def test_a_byte_order_mark_is_no_character(fmt: Format) -> None:
    """Editors on Windows write one."""
    text = "version: 1" if fmt == "yaml" else "version = 1"
    assert as_text(b"\xef\xbb\xbf" + text.encode(), file="f") == text
    assert decode("\ufeff" + text, file="f", fmt=fmt).data == {"version": 1}


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"a: 1\nb: \xe9\n", "f:2:4: byte 0xe9 is not UTF-8: save the file as UTF-8"),
        ("ä: ö\n".encode() + b"\xff", "f:2:1: byte 0xff is not UTF-8: save the file as UTF-8"),
        ("a: 1".encode("utf-16"), "f:1:1: this is UTF-16: save the file as UTF-8"),
    ],
)
def test_bytes_that_are_no_text_are_shown_where_they_are(blob: bytes, message: str) -> None:
    """Otherwise a copied key in Latin-1 is hard to find."""
    with pytest.raises(ConfigInvalid) as raised:
        as_text(blob, file="f")
    assert str(raised.value) == message


def test_toml_places() -> None:
    """Headers, arrays of tables, dotted and quoted keys, all kinds of strings."""
    text = "\n".join(
        [
            "# a comment",  # 1
            "a.b = 1",
            "[[c]] # [not] = a key",
            "d = '''x\n[y]\n'''",  # 4 to 6
            '[c."e.f"]',
            "g = [ # ]",
            '  "a\\"]",',
            '  { h = 2026-01-02T03:04:05Z, i.j = """k"""" },'.replace('""""', '"""'),
            "]",
            "[[c]]",
            "d = 0x1F",
        ]
    )
    document = decode(text, file="f", fmt="toml")
    expected = {
        ("a", "b"): Place(2, 7),
        ("c",): Place(3, 1),
        ("c", 0): Place(3, 1),
        ("c", 0, "d"): Place(4, 5),
        ("c", 0, "e.f"): Place(7, 1),
        ("c", 0, "e.f", "g"): Place(8, 5),
        ("c", 0, "e.f", "g", 0): Place(9, 3),
        ("c", 0, "e.f", "g", 1, "h"): Place(10, 9),
        ("c", 0, "e.f", "g", 1, "i", "j"): Place(10, 37),
        ("c", 1): Place(12, 1),
        ("c", 1, "d"): Place(13, 5),
    }
    assert {path: document.places[path] for path in expected} == expected
    assert document.key_places["c", 0, "e.f", "g", 1, "i", "j"] == Place(10, 31)
