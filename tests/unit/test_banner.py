"""What `ccr serve` says when it is ready."""

from __future__ import annotations

from dataclasses import replace

from ccr_control.core.banner import Started, banner

STARTED = Started(
    version="0.1.0",
    url="http://127.0.0.1:8787",
    listens_on="127.0.0.1:8787",
    config="/etc/ccr.yaml",
    providers=("anthropic", "zai"),
    workers=2,
    needs_key=False,
    allows_subscription=False,
    demo_reason=None,
)


def test_the_lines_for_claude_code_can_be_copied() -> None:
    """This is the first thing a new user does."""
    lines = [line.strip() for line in banner(STARTED).splitlines()]
    assert "export ANTHROPIC_BASE_URL=http://127.0.0.1:8787" in lines
    assert any(line.startswith("export ANTHROPIC_AUTH_TOKEN=relay ") for line in lines)
    assert "ccr run claude" in lines
    assert any(line.startswith("curl http://127.0.0.1:8787/v1/messages") for line in lines)
    assert "DEMO" not in banner(STARTED)


def test_with_relay_keys_it_asks_for_one() -> None:
    """It cannot show one: only hashes leave the configuration."""
    text = banner(replace(STARTED, needs_key=True))
    assert "export ANTHROPIC_AUTH_TOKEN='<one of your relay keys>'" in text
    assert "claude.ai" not in text
    assert "claude.ai login" in banner(replace(STARTED, needs_key=True, allows_subscription=True))


def test_the_demo_says_that_it_is_one_and_how_to_leave_it() -> None:
    """Nobody should take scripted answers for a model's."""
    text = banner(replace(STARTED, demo_reason="no key was found"))
    assert "DEMO: no key was found." in text
    assert "no model is behind it" in text
    assert "ANTHROPIC_API_KEY" in text
