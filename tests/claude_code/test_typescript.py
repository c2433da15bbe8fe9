"""The official TypeScript client through the relay, at Anthropic and on every cloud: the same answers and the same errors."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from corpus.cloud_inputs import OPUS
from support.clouds import CLOUDS, demo_settings, provider_of
from support.demo import demo
from support.relay import KEY, config, provider, relaying

from claude_code.install import CannotInstall, node, typescript_client

pytestmark = [pytest.mark.claude_code, pytest.mark.timeout(300), pytest.mark.long]

FACES = [each for each in CLOUDS if not each.is_variant]
SCRIPT = Path(__file__).parent / "typescript" / "talk.cjs"


@pytest.fixture(scope="session")
def client() -> Path:
    """The folder in which the client is installed; without it as with Claude Code itself."""
    try:
        return typescript_client()
    except CannotInstall as error:
        if os.environ.get("CCR_REQUIRE_CLAUDE_CODE") == "1":
            pytest.fail(f"the TypeScript client is required here and cannot be installed: {error}")
        pytest.skip(f"THE TYPESCRIPT CLIENT IS MISSING, the relay is not tested with it: {error}")


def test_every_cloud_looks_like_anthropic(client: Path, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(demo())
        providers = [provider("anthropic", plain.url)]
        providers += [provider_of(each, stack.enter_context(demo(**demo_settings(each))).url) for each in FACES]
        names = [str(each["name"]) for each in providers]
        routes = [{"match": {"headers": {"x-cloud": name}}, "to": [{"provider": name}]} for name in names]
        text = config(
            *providers,
            routing={"routes": routes, "cooldown": "0s", "affinity": "none"},
            health={"circuit": {"failures": 1000}},
        )
        relay = stack.enter_context(relaying(tmp_path, text))
        asked = {"url": relay.url, "key": KEY, "model": OPUS, "headers": [{"x-cloud": name} for name in names]}
        done = subprocess.run(
            [*node(), str(SCRIPT), json.dumps(asked)],
            cwd=client,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert done.returncode == 0, done.stderr
    at_anthropic, *on_clouds = json.loads(done.stdout)
    assert at_anthropic["whole"] == ["whole ü", {"place": "demo"}]
    assert at_anthropic["streamed"] == ["thinking", "streamed 😀", {"place": "demo"}]
    assert (at_anthropic["first"], at_anthropic["last"]) == ("message_start", "message_stop")
    assert at_anthropic["tokens"][0] == at_anthropic["tokens"][1] > 0
    assert at_anthropic["throttled"] == {"kind": "RateLimitError", "status": 429, "type": "rate_limit_error"}
    assert at_anthropic["missing"] == {"kind": "NotFoundError", "status": 404, "type": "not_found_error"}
    assert at_anthropic["broken"]["type"] == "overloaded_error"
    for name, seen in zip(names[1:], on_clouds, strict=True):
        assert seen == at_anthropic, name
