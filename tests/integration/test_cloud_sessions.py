"""The official Python SDK and whole sessions through the relay on every cloud, and from one cloud to the next."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import pytest
from corpus import recorded_requests
from corpus.cloud_inputs import OPUS, WEATHER, said
from support.clouds import (
    BEARER,
    BEDROCK,
    CLOUDS,
    FOUNDRY,
    MANTLE,
    SESSION_TOKEN,
    VERTEX,
    Cloud,
    demo_settings,
    plain_client,
    provider_of,
)
from support.demo import DemoProcess, demo
from support.relay import AUTH, KEY, client, config, provider, records, relaying
from support.serving import REAL_SERVE, Relay, environment, served, until
from support.talk import Talk

pytestmark = pytest.mark.long

FACES = [each for each in CLOUDS if not each.is_variant]
every_face = pytest.mark.parametrize("cloud", FACES, ids=lambda cloud: cloud.name)
PASSED = (b"anthropic-version", b"anthropic-beta", b"content-type", b"x-claude-code-session-id")
SESSION = "x-claude-code-session-id: 0c0c0c0c-0000-0000-0000-00000000000"
ANSWER = {
    "thinking": "So.",
    "text": "Hello – ü",
    "tools": [{"name": "get_weather", "input": {"place": "Köln"}}],
    "times": 0,
}


@dataclass
class Sky:
    """A demo provider for each cloud, and one relay before them all: a header says which."""

    demos: dict[str, DemoProcess]
    relay: Relay

    def records(self, session: str, count: int) -> list[dict[str, Any]]:
        """The log lines of a session's requests, once there are so many."""

        def found() -> list[dict[str, Any]]:
            return [record for record in records(self.relay) if record["session"] == session]

        until(lambda: len(found()) >= count, f"{count} records of {session}")
        return found()

    def client(self, cloud: Cloud, more: str = "", session: str = "") -> anthropic.Anthropic:
        """A client of the Claude API."""
        return plain_client(self.relay.url, KEY, x_cloud=cloud.slug + more, x_claude_code_session_id=session)


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sky]:
    with contextlib.ExitStack() as stack:
        demos = {each.slug: stack.enter_context(demo(**demo_settings(each))) for each in FACES}
        rescue = stack.enter_context(demo(organization="rescue"))
        alone = [(each.slug, [{"provider": each.slug}]) for each in FACES]
        rescued = [(f"{each.slug}-or-rescue", [{"provider": each.slug}, {"provider": "rescue"}]) for each in FACES]
        routes = [{"match": {"headers": {"x-cloud": name}}, "to": to} for name, to in alone + rescued]
        providers = [*(provider_of(each, demos[each.slug].url) for each in FACES), provider("rescue", rescue.url)]
        text = config(
            *providers,
            routing={"routes": routes, "cooldown": "0s", "affinity": "none"},
            health={"circuit": {"failures": 1000}},
        )
        yield Sky(demos, stack.enter_context(relaying(tmp_path_factory.mktemp("sky"), text)))


def asked(client: anthropic.Anthropic, **fields: Any) -> Any:
    return client.messages.create(model=OPUS, max_tokens=999, messages=said(), tools=[WEATHER], **fields)


@every_face
def test_the_official_client_cannot_tell_the_cloud(cloud: Cloud, sky: Sky) -> None:
    """Whole, streamed, and counted: as from Anthropic."""
    sky.demos[cloud.slug].play(ANSWER)
    client = sky.client(cloud)

    whole = asked(client)
    with client.messages.stream(model=OPUS, max_tokens=999, messages=said(), tools=[WEATHER]) as stream:  # type: ignore[arg-type]
        names = [event.type for event in stream]
        told = stream.get_final_message()
    count = client.messages.count_tokens(model=OPUS, messages=said(), tools=[WEATHER])  # type: ignore[arg-type]

    for message in (whole, told):
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
        assert message.content[1].text == "Hello – ü"
        assert message.content[2].input == {"place": "Köln"}
        assert message.stop_reason == "tool_use"
    assert whole._request_id
    assert whole.usage.input_tokens == told.usage.input_tokens == count.input_tokens > 0
    assert whole.usage.output_tokens == told.usage.output_tokens > 0
    assert names[0] == "message_start"
    assert names[-1] == "message_stop"
    assert "error" not in names


@every_face
def test_what_was_used_is_recorded(cloud: Cloud, sky: Sky) -> None:
    """Tokens are read in passing, whatever the form of the answer."""
    sky.demos[cloud.slug].play(ANSWER)
    client = sky.client(cloud, session=f"used-{cloud.slug}")
    whole = asked(client)
    for _ in asked(client, stream=True):
        pass

    for record in sky.records(f"used-{cloud.slug}", 2):
        assert record["provider"] == cloud.slug
        assert record["input_tokens"] == whole.usage.input_tokens
        assert record["output_tokens"] == whole.usage.output_tokens


ERRORS = [
    (400, anthropic.BadRequestError, "invalid_request_error"),
    (404, anthropic.NotFoundError, "not_found_error"),
    (429, anthropic.RateLimitError, "rate_limit_error"),
    (500, anthropic.InternalServerError, "api_error"),
    (529, anthropic.OverloadedError, "overloaded_error"),
]


@every_face
@pytest.mark.parametrize(
    ("status", "kind", "name"), ERRORS, ids=lambda each: str(each) if isinstance(each, int) else ""
)
def test_errors_are_of_the_kind_that_clients_know(
    cloud: Cloud, sky: Sky, status: int, kind: type[anthropic.APIStatusError], name: str
) -> None:
    sky.demos[cloud.slug].play({"status": status, "error": "so it is", "times": 0})

    with pytest.raises(anthropic.APIStatusError) as caught:
        asked(sky.client(cloud))

    assert isinstance(caught.value, kind), caught.value
    assert json.loads(caught.value.response.content)["error"]["type"] == name


@every_face
def test_an_error_in_the_stream_is_raised(cloud: Cloud, sky: Sky) -> None:
    sky.demos[cloud.slug].play(
        {"text": "one two three", "error_event": "overloaded_error", "error_event_after": 5, "times": 0}
    )

    with pytest.raises(anthropic.APIStatusError) as caught:
        for _ in asked(sky.client(cloud), stream=True):
            pass

    body: Any = caught.value.body
    assert body["error"]["type"] == "overloaded_error"


@contextlib.contextmanager
def chain(directory: Path, *clouds: Cloud, **settings: object) -> Iterator[tuple[list[DemoProcess], Relay]]:
    """Clouds in this order, each an account of its own, and the relay before them."""
    with contextlib.ExitStack() as stack:
        demos = [
            stack.enter_context(demo(**{**demo_settings(each), "organization": each.slug, **settings}))
            for each in clouds
        ]
        providers = [
            {**provider_of(each, there.url), "priority": number}
            for number, (each, there) in enumerate(zip(clouds, demos, strict=True))
        ]
        text = config(*providers, health={"circuit": {"failures": 1000}})
        yield demos, stack.enter_context(relaying(directory, text))


@pytest.mark.parametrize("streamed", [False, True])
def test_a_session_crosses_clouds(tmp_path: Path, streamed: bool) -> None:
    """Bedrock dies, then Vertex; thinking is bound to each account, and the tool loop in between goes on."""
    bound = {"account_bound": True, "prefix_bound": True}
    with chain(tmp_path, BEDROCK, VERTEX, FOUNDRY, **bound) as ((bedrock, vertex, _), relay):
        talk = Talk(relay.url, OPUS, SESSION + "1", streams=streamed)
        assert talk.say("a").status == 200
        assert talk.say("[[tool:Read {}]]").status == 200
        bedrock.kill()
        assert talk.bring_results().status == 200
        assert talk.say("b").status == 200
        assert talk.say("[[tool:Read {}]]").status == 200
        vertex.kill()
        assert talk.bring_results().status == 200
        assert talk.say("c").status == 200
        until(lambda: len(records(relay)) == 7, "all records")
        served = [record["provider"] for record in records(relay)]

    assert served == ["bedrock"] * 2 + ["vertex"] * 3 + ["foundry"] * 2
    assert all(usage["output_tokens"] > 0 for usage in talk.usages)


@every_face
def test_a_cloud_that_is_full_is_left(cloud: Cloud, sky: Sky) -> None:
    """Its 429 has no time to wait in it, and is not Anthropic's."""
    sky.demos[cloud.slug].play({"status": 429, "times": 0})

    asked(sky.client(cloud, "-or-rescue", f"full-{cloud.slug}"))

    attempts = sky.records(f"full-{cloud.slug}", 1)[0]["attempts"]
    assert [(each["provider"], each["reason"]) for each in attempts] == [(cloud.slug, "rate_limited"), ("rescue", "")]


@pytest.mark.parametrize("cloud", [BEDROCK, MANTLE, VERTEX], ids=lambda cloud: cloud.name)
def test_an_expired_credential_is_left(cloud: Cloud, tmp_path: Path) -> None:
    """However the cloud says it, the next target serves, and the key is not asked again at once."""
    with chain(tmp_path, cloud, FOUNDRY) as ((expired, _), relay):
        expired.set(expired_tokens=[SESSION_TOKEN, BEARER])
        for text in ("a", "b"):
            assert Talk(relay.url, OPUS, SESSION + "3").say(text).status == 200
        until(lambda: len(records(relay)) == 2, "both records")
        providers = [[each["provider"] for each in record["attempts"]] for record in records(relay)]  # type: ignore[attr-defined]

    assert providers[0][-1] == providers[1][-1] == "foundry"
    assert set(providers[0][:-1]) == {cloud.slug}
    assert providers[1] == ["foundry"]


def test_a_stream_that_breaks_before_content_crosses_clouds(tmp_path: Path) -> None:
    """The client sees the next cloud's answer only."""
    with chain(tmp_path, BEDROCK, VERTEX) as ((bedrock, _), relay):
        client = plain_client(relay.url, KEY)
        bedrock.set(corrupt_frame=1)
        with client.messages.stream(model=OPUS, max_tokens=99, messages=said("[[text:whole]]")) as stream:  # type: ignore[arg-type]
            assert stream.get_final_text() == "whole"
        until(lambda: records(relay), "the record")

    assert records(relay)[0]["provider"] == "vertex"


ISSUER = """\
import json, pathlib, sys
count = pathlib.Path(sys.argv[1])
number = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (number + 1))
print(json.dumps({
    "Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "SessionToken": f"token-{number}", "Expiration": "2099-01-01T00:00:00Z",
}))
"""


def test_a_refused_credential_is_renewed_and_nobody_notices(tmp_path: Path) -> None:
    """AWS calls a token expired that should have been good for long: a new one is got, and the request is sent once more."""
    issuer, count, aws_config = tmp_path / "issuer.py", tmp_path / "count", tmp_path / "aws.ini"
    issuer.write_text(ISSUER)
    aws_config.write_text(f"[profile cloud]\ncredential_process = {sys.executable} {issuer} {count}\n")
    with demo(**demo_settings(BEDROCK), expired_tokens=["token-0"]) as bedrock:
        text = config({**provider_of(BEDROCK, bedrock.url), "aws": {"profile": "cloud"}})
        env = environment(AWS_CONFIG_FILE=str(aws_config), AWS_EC2_METADATA_DISABLED="true")
        with served(tmp_path, text, command=REAL_SERVE, env=env) as relay:
            relay.wait_ready()
            talk = Talk(relay.url, OPUS, SESSION + "4")
            assert talk.say("a").status == 200
            assert talk.say("b").status == 200
            until(lambda: len(records(relay)) == 2, "both records")
            attempts = [[each["status"] for each in record["attempts"]] for record in records(relay)]  # type: ignore[attr-defined]
            output = relay.output

    assert attempts == [[401, 200], [200]]
    assert count.read_text() == "xx"
    for secret in ("token-0", "token-1", "wJalrXUtnFEMI"):
        assert secret not in output


@every_face
def test_what_claude_code_sends_is_taken(cloud: Cloud, sky: Sky) -> None:
    """Recorded requests of several versions: the faces are as strict as the clouds, and find nothing to refuse."""
    sky.demos[cloud.slug].play()
    refused = []
    with client(sky.relay) as connection:
        for each in recorded_requests():
            if each.method != "POST" or "unknown-model" in each.name:  # no cloud has that
                continue
            kept = [f"{name.decode()}: {value.decode()}" for name, value in each.headers if name.lower() in PASSED]
            answer = connection.ask("POST", each.target, each.body, AUTH, f"x-cloud: {cloud.slug}", *kept)
            if answer.status != 200 or b"event: error" in answer.body:
                refused.append((each.name, answer.status, answer.body[:300]))

    assert not refused
