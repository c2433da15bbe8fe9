"""Claude Code's settings: whatever else is in them survives, and what was there before comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ccr_cli.claude import DETOURS
from ccr_cli.settings_file import OURS, NotUnderstood, digest, masked, note_from, with_relay, without_relay
from hypothesis import given
from hypothesis import strategies as st

URL, TOKEN = "http://127.0.0.1:8787", "relay-key-0123456789"
_HELPERS = ("apiKeyHelper", "awsAuthRefresh", "awsCredentialExport")
_NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(
    lambda name: name not in (*OURS, *DETOURS)
)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=8,
)
_CREDENTIALS = {"ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"}
_ENV = st.dictionaries(_NAMES.filter(lambda name: name not in _CREDENTIALS), st.text(max_size=10), max_size=4)
_OURS = st.dictionaries(st.sampled_from(OURS), st.text(max_size=10), max_size=3)


@st.composite
def settings(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = draw(
        st.dictionaries(_NAMES.filter(lambda name: name not in (*_HELPERS, "env")), _VALUES, max_size=4)
    )
    if draw(st.booleans()):
        found["env"] = {**draw(_ENV), **draw(_OURS)}
    return found


@given(settings(), st.sampled_from([2, 4, "\t"]))
def test_init_and_remove_leave_everything_as_it_was(before: dict[str, Any], indent: int | str) -> None:
    text = json.dumps(before, indent=indent, ensure_ascii=False)
    changed = with_relay(text, URL, TOKEN, None)
    assert changed.note is not None
    after = json.loads(changed.text)
    assert {name: value for name, value in after.items() if name != "env"} == {
        name: value for name, value in before.items() if name != "env"
    }
    others = {name: value for name, value in after["env"].items() if name not in OURS}
    assert others == {name: value for name, value in before.get("env", {}).items() if name not in OURS}
    assert after["env"]["ANTHROPIC_BASE_URL"] == URL
    assert TOKEN not in changed.note.text()
    assert TOKEN not in masked(changed.text)

    note = note_from(changed.note.text())
    assert note == changed.note
    assert json.loads(without_relay(changed.text, note).text) == before


@given(settings())
def test_a_second_init_forgets_nothing_of_what_was_before_the_first(before: dict[str, Any]) -> None:
    text = json.dumps(before)
    first = with_relay(text, URL, TOKEN, None)
    second = with_relay(first.text, "http://127.0.0.1:9999", "another-key", first.note)
    assert second.note is not None
    assert json.loads(second.text)["env"]["ANTHROPIC_AUTH_TOKEN"] == "another-key"
    assert json.loads(without_relay(second.text, second.note).text) == before


def test_what_somebody_changed_since_stays() -> None:
    changed = with_relay('{"env": {"A": "1"}}', URL, TOKEN, None)
    assert changed.note is not None
    theirs = json.loads(changed.text)
    theirs["env"]["ANTHROPIC_BASE_URL"] = "https://elsewhere.example"
    back = without_relay(json.dumps(theirs), changed.note)
    assert json.loads(back.text) == {"env": {"A": "1", "ANTHROPIC_BASE_URL": "https://elsewhere.example"}}
    assert back.left == ("ANTHROPIC_BASE_URL",)


def test_a_subscription_gets_no_token() -> None:
    changed = with_relay("", URL, None, None)
    assert set(json.loads(changed.text)["env"]) == {"ANTHROPIC_BASE_URL", "CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY"}
    assert changed.note is not None
    assert changed.note.written["ANTHROPIC_BASE_URL"] == digest(URL)
    assert json.loads(without_relay(changed.text, changed.note).text) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not plain JSON"),
        ("[]", "must be an object"),
        ('{"a": 1, "a": 2}', '"a" is in it twice'),
        ('{"env": []}', "not an object of strings"),
        ('{"env": {"A": 1}}', "not an object of strings"),
        ('{// a comment\n"env": {}}', "not plain JSON"),
        ('{"env": {"CLAUDE_CODE_USE_BEDROCK": "1"}}', "CLAUDE_CODE_USE_BEDROCK"),
        ('{"env": {"ANTHROPIC_API_KEY": "sk-ant-secret"}}', "ANTHROPIC_API_KEY"),
        ('{"apiKeyHelper": "/bin/key"}', "apiKeyHelper"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, words: str) -> None:
    """Without repeating what may be a secret."""
    with pytest.raises(NotUnderstood) as caught:
        with_relay(text, URL, TOKEN, None)
    assert words in str(caught.value)
    assert "sk-ant-secret" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_either_taken_or_refused(text: str) -> None:
    try:
        changed = with_relay(text, URL, TOKEN, None)
    except NotUnderstood:
        return
    assert json.loads(changed.text)["env"]["ANTHROPIC_BASE_URL"] == URL


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"before": 1, "written": {}, "had_env": true}'])
def test_a_damaged_note_is_told(text: str) -> None:
    with pytest.raises(NotUnderstood, match="by hand"):
        note_from(text)
