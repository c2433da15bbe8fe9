"""Checks of the path itself: requests through the relay, as Claude Code sends them.

Those that a provider may bill are made if told to, or if only the demo provider can get them.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from ccr_cli.doctor import plane
from ccr_cli.doctor.findings import Finding, fail, ok, skip, warn
from ccr_cli.doctor.talk import Answer, Event, NoAnswer, Talker
from ccr_cli.overview import time_words

LOG_HINT = "see the log of `ccr serve`, or `ccr records`"
TOOLS = [
    {
        "name": name,
        "description": f"Tells the {what} of a city.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
    for name, what in (("weather", "weather"), ("time_of_day", "time of day"))
]
THINKING = {"type": "enabled", "budget_tokens": 1024}


@dataclass(frozen=True, slots=True)
class Told:
    """What the requests say: the demo takes orders in double brackets, a model has to be asked."""

    stream: str
    tools: str
    thinking: str
    long: str


TO_DEMO = Told("[[slow:6x60ms]] [[pings:2]]", "[[tools:2]]", "[[thinking]]", "[[slow:400x50ms]]")
TO_MODEL = Told(
    "Count from one to twenty in words.",
    "What are the weather and the time of day in Paris? Call both tools at once.",
    "What is 27 times 453? Think first.",
    "Count from one to five hundred in words.",
)


def port(url: str) -> Iterator[Finding]:
    """Is it the relay that answers there?"""
    try:
        answer = Talker(url, None, "").get("/health")
    except NoAnswer as error:
        yield fail("port", f"nothing answers at {url}: {error}", "start it with `ccr serve`, or name it with --url")
        return
    if answer.json.get("status") in ("ok", "degraded", "draining") and "server" not in answer.headers:
        if answer.status == 200:
            yield ok("port", f"the relay answers at {url}")
        else:
            yield fail("port", f"the relay at {url} is not well: {answer.words}", LOG_HINT)
    else:
        yield fail(
            "port",
            f"another program answers at {url} ({answer.words})",
            "end it, or let the relay listen elsewhere (server.listen)",
        )


def auth(talker: Talker, needs_key: bool | None) -> Iterator[Finding]:
    """Does it take our key, and nobody's? `needs_key`: as the configuration says; None: unknown."""
    answer = talker.get("/v1/models?limit=1")
    if answer.status in (401, 403):
        if talker.key is None:
            yield fail("auth", "the relay wants a key", "set $CCR_CLIENT_KEY, or name a variable with --key-env")
        else:
            yield fail("auth", f"the relay does not take the key: {answer.words}", "is it one of server.auth.keys?")
        return
    if answer.status != 200:
        yield fail("auth", f"/v1/models: {answer.words}", LOG_HINT)
        return
    if needs_key is False:
        yield ok("auth", "the relay needs no key")
        return
    stranger = talker.get("/v1/models?limit=1", key=f"nobody-{secrets.token_hex(8)}")
    if stranger.status == 401:
        yield ok("auth", "our key is taken, an unknown one is not")
    else:
        yield fail("auth", f"an unknown key is answered with HTTP {stranger.status}", "check server.auth")


def count_tokens(talker: Talker, model: str, clock: Callable[[], float]) -> Iterator[Finding]:
    """A request that costs nothing goes the whole way and back."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    answer = talker.post("/v1/messages/count_tokens", body)
    if answer.status == 200 and isinstance(answer.json.get("input_tokens"), int):
        by = answer.headers.get("x-cc-relay-provider", "the relay itself")
        yield ok("count-tokens", f"{model}: {answer.json['input_tokens']} tokens, says {by}")
    elif answer.status in (404, 501):
        yield warn("count-tokens", f"{model}: {answer.words}", "harmless: Claude Code estimates then")
    else:
        yield fail("count-tokens", f"{model}: {answer.words}", LOG_HINT)
    yield from provider_clock(answer, clock())


def provider_clock(answer: Answer, now_s: float) -> Iterator[Finding]:
    """The provider's clock is in its answer."""
    if date := answer.headers.get("date"):
        try:
            at_s = parsedate_to_datetime(date).timestamp()
        except ValueError:
            return
        yield from plane.clock("clock", "the provider's clock", at_s - now_s)


def stream(talker: Talker, model: str, told: Told, is_demo: bool) -> Iterator[Finding]:
    """A streamed message, event by event as it was made; and pings, where they can be ordered."""
    answer = talker.stream(_body(model, told.stream))
    if (wrong := problem(answer)) is not None:
        yield fail("stream", wrong, LOG_HINT)
        return
    events = answer.events
    deltas = [one.at_s for one in events if one.name == "content_block_delta"]
    if is_demo and len(deltas) > 3 and deltas[-1] - deltas[0] < 0.1:
        yield fail(
            "stream",
            "its events came all at once: something on the way keeps them back",
            "look for a proxy that buffers",
        )
    else:
        began = time_words(events[0].at_s * 1000)
        by = answer.headers.get("x-cc-relay-provider", "?")
        yield ok("stream", f"{len(events)} events from {by}, the first after {began}")
    pings = sum(one.name == "ping" for one in events)
    if pings:
        yield ok("pings", f"{pings} passed through")
    elif is_demo:
        yield fail("pings", "none came, though the provider sends some", "look for a proxy that alters streams")
    else:
        yield skip("pings", "the provider sent none")


def tools(talker: Talker, model: str, told: Told, is_demo: bool) -> Iterator[Finding]:
    """Two tools called in one message, with inputs that can be read."""
    body = {**_body(model, told.tools), "tools": TOOLS, "tool_choice": {"type": "any"}}
    answer = talker.stream(body)
    if (wrong := problem(answer)) is not None:
        yield fail("parallel-tools", wrong, LOG_HINT)
        return
    calls = blocks(answer.events, "tool_use")
    broken = [one for one in calls if not _is_object(one["text"])]
    if broken:
        yield fail("parallel-tools", f"the input of {broken[0].get('name')} is no JSON", LOG_HINT)
    elif len(calls) >= 2:
        yield ok("parallel-tools", f"{len(calls)} calls in one message, inputs whole")
    elif is_demo:
        yield fail("parallel-tools", f"{len(calls)} calls came, 2 were ordered", LOG_HINT)
    else:
        yield skip("parallel-tools", f"the model made {len(calls)} call, which is its own choice")


def thinking(talker: Talker, model: str, told: Told) -> Iterator[Finding]:
    """Signed thinking, and that it is accepted when it comes back in the next turn."""
    body = {**_body(model, told.thinking), "thinking": THINKING, "max_tokens": 2048}
    answer = talker.stream(body)
    if answer.status == 400:  # newer models decide by themselves
        body = {**body, "thinking": {"type": "adaptive"}}
        answer = talker.stream(body)
    if (wrong := problem(answer)) is not None:
        yield fail("thinking", wrong, LOG_HINT)
        return
    thoughts = blocks(answer.events, "thinking")
    if not thoughts:
        yield skip("thinking", "the model did not think")
        return
    if not all(one.get("signature") for one in thoughts):
        yield fail("thinking", "a thinking block came without its signature", "look for a proxy that alters streams")
        return
    said = [{"type": "thinking", "thinking": one["text"], "signature": one["signature"]} for one in thoughts] + [
        {"type": "text", "text": one["text"]} for one in blocks(answer.events, "text") if one["text"]
    ]
    turns = [*body["messages"], {"role": "assistant", "content": said}, {"role": "user", "content": "Thank you."}]
    again = talker.stream({**body, "messages": turns})
    if (wrong := problem(again)) is not None:
        yield fail("thinking", f"its next turn: {wrong}", LOG_HINT)
    else:
        yield ok("thinking", "signed, and accepted in the next turn")


def cancel(talker: Talker, model: str, told: Told, outcome_of: Callable[[str], str | None]) -> Iterator[Finding]:
    """Leaving in the middle ends the provider's work. `outcome_of` tells how a request ended; None: it has not."""
    answer = talker.stream({**_body(model, told.long), "max_tokens": 4000}, leave_after=4)
    if answer.status != 200:
        yield fail("cancel", answer.words, LOG_HINT)
        return
    began_s = time.monotonic()
    while (outcome := outcome_of(answer.request_id)) is None:
        if time.monotonic() - began_s > 5:
            yield fail("cancel", "the request goes on 5 s after its client left", LOG_HINT)
            return
        time.sleep(0.05)
    if outcome == "client-left":
        yield ok("cancel", f"noticed {time_words((time.monotonic() - began_s) * 1000)} after the client left")
    else:
        yield fail("cancel", f"the request was finished ({outcome}) though its client had left", LOG_HINT)


def problem(answer: Answer) -> str | None:
    """What is wrong with a streamed message; None: nothing."""
    if answer.status != 200:
        return answer.words
    names = [one.name for one in answer.events]
    for one in answer.events:
        if one.name == "error":
            error = one.data.get("error") or {}
            return f"the stream ended in an error: {error.get('type')}: {error.get('message')}"
        if one.name != one.data.get("type"):
            return f"an event {one.name!r} holds something of the type {one.data.get('type')!r}"
    names = [name for name in names if name != "ping"]
    if not names:
        return "the stream was empty"
    if names[0] != "message_start" or names[-1] != "message_stop":
        return f"the stream began with {names[0]} and ended with {names[-1]}"
    if names.count("content_block_start") != names.count("content_block_stop"):
        return "a content block was begun and not ended"
    return None


def blocks(events: Sequence[Event], kind: str) -> list[dict[str, Any]]:
    """The content blocks of a kind, each with its whole `text` (of tools: the input's JSON) and `signature`."""
    found: dict[int, dict[str, Any]] = {}
    for one in events:
        index = one.data.get("index", -1)
        if one.name == "content_block_start":
            found[index] = {**one.data.get("content_block", {}), "text": "", "signature": ""}
        elif one.name == "content_block_delta" and index in found:
            delta: Mapping[str, Any] = one.data.get("delta", {})
            found[index]["text"] += delta.get("text") or delta.get("thinking") or delta.get("partial_json") or ""
            found[index]["signature"] += delta.get("signature") or ""
    return [one for one in found.values() if one.get("type") == kind]


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text or "{}"), dict)
    except ValueError:
        return False


def _body(model: str, text: str) -> dict[str, Any]:
    return {"model": model, "max_tokens": 256, "messages": [{"role": "user", "content": text}]}
