"""Scripts: which answer does the demo provider give to which request?

Pure. A script is a list of steps. Each request takes the first step that matches it and is not used up; without
one the directives in the user's text decide (`directives.py`), and without those the demo answers kindly.

A step is an answer with the conditions for taking it, as JSON or YAML:

    - text: "Let me look."                      # streamed word by word; a list gives the exact deltas
      thinking: "First the file."               # a signed block before the text
      tools: [{name: Read, input: {file_path: a.txt}}, {name: Bash, input: {command: ls}}]
    - {status: 529}                             # an error in the API's shape; `error` gives type or message
    - {status: 502, html: true}                 # the same as a web page
    - {status: 429, retry_after_s: 1, times: 2} # twice; times 0: for ever
    - when: {model: "claude-haiku-*", body_contains: title, call: 3, header: {x-app: cli}, stream: true}
      text: "A title"
    - {text: "cut short", cut_after_event: 3, cut: reset}   # reset, close, or end: no message_stop
    - {error_event: overloaded_error, error_event_after: 2}
    - {text: "one by one", step: true, id: slow}            # POST /__demo/step?id=slow before each further event
    - {raw_chunks: ["ZXZlbnQ6…"]}                           # base64: each is one HTTP chunk and one write
    - {raw_response: ["SFRUUC8xLjEg…"]}                     # base64: head and body as written, then close
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec
import yaml

from ccr_demo.errors import ScriptInvalid


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tool_use block. Without `id` it gets a fresh one."""

    name: str
    input: dict[str, Any] = msgspec.field(default_factory=dict)
    id: str | None = None


class When(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Conditions; all that are given must hold."""

    path: str = "/v1/messages"  # glob
    method: str = "*"
    model: str | None = None  # glob
    header: dict[str, str] = msgspec.field(default_factory=dict)  # name in any case -> exact value
    body_contains: str | None = None
    call: int | None = None  # the n-th request to its path since the script was set, from 1
    stream: bool | None = None
    has_tools: bool | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to answer and how to send it. Numbers of events count every event, pings too, from 1."""

    # Content, in this order: thinking, redacted_thinking, text, tool_use, blocks.
    thinking: str | list[str] | None = None
    redacted: bool = False
    text: str | list[str] | None = None
    tools: list[ToolCall] = msgspec.field(default_factory=list)
    blocks: list[dict[str, Any]] = msgspec.field(default_factory=list)  # any other block, sent as it stands

    model: str | None = None  # the name in the answer; otherwise the one asked for
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: dict[str, Any] = msgspec.field(default_factory=dict)  # replaces single values

    # Instead of a message.
    status: int = 200
    error: str | dict[str, Any] | None = None  # message, or {type, message, details}
    html: bool = False
    json: Any = msgspec.UNSET  # this JSON body, for any path
    body: str | None = None  # this body, verbatim
    events: list[str] | None = None  # these SSE events, verbatim, one write each
    raw_chunks: list[bytes] | None = None
    raw_response: list[bytes] | None = None

    headers: dict[str, str] = msgspec.field(default_factory=dict)  # added to or replacing the usual ones
    retry_after_s: float | None = None
    should_retry: bool | None = None  # x-should-retry

    # Timing.
    pause_before_head_ms: float = 0
    pause_before_first_ms: float = 0  # after the head
    delay_ms: float | None = None  # before every further event; otherwise the demo's pace
    gap_s: float = 0
    gap_after_event: int = 1
    ping_every: int = 0  # a further ping after every n events
    step: bool = False  # before every further event, wait for POST /__demo/step?id=…
    id: str = ""  # what this waits for; also names the step in the records

    # Ends that are none.
    cut_after_event: int | None = None  # 0: after the head; -1: before it
    cut: Literal["close", "reset", "end"] = "close"
    error_event: str | None = None  # its type
    error_event_after: int = 1
    error_event_message: str = ""

    content_encoding: Literal["gzip", "deflate"] | None = None

    @property
    def is_message(self) -> bool:
        """Is it an ordinary message, which only a valid request can get?"""
        unusual = (self.body, self.events, self.raw_chunks, self.raw_response)
        plain = all(each is None for each in unusual) and self.json is msgspec.UNSET
        return plain and self.status == 200 and self.cut_after_event != -1


class Step(Answer, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An answer, the requests that may take it, and how many of them."""

    when: When = When()
    times: int = 1  # 0: for ever


@dataclass(frozen=True, slots=True)
class Facts:
    """What conditions can see of a request."""

    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    fields: Mapping[str, Any]  # of the JSON body; empty if it is none

    @property
    def model(self) -> str:
        """The model asked for, or nothing."""
        return str(self.fields.get("model", ""))

    @property
    def wants_stream(self) -> bool:
        """Was `stream: true` asked for?"""
        return self.fields.get("stream") is True


@dataclass(frozen=True, slots=True)
class Script:
    """The steps and how often each was taken."""

    steps: tuple[Step, ...] = ()
    taken: tuple[int, ...] = ()
    calls: Mapping[str, int] = field(default_factory=dict)  # path -> requests seen

    @classmethod
    def of(cls, steps: tuple[Step, ...]) -> "Script":
        """A script of which nothing has been played."""
        return cls(steps, (0,) * len(steps))

    def extended(self, steps: tuple[Step, ...]) -> "Script":
        """The same with further steps behind."""
        return Script(self.steps + steps, self.taken + (0,) * len(steps), self.calls)

    def counted(self, path: str) -> "Script":
        """The script after one more request to `path` has come."""
        return Script(self.steps, self.taken, {**self.calls, path: self.calls.get(path, 0) + 1})

    def find(self, facts: Facts) -> int | None:
        """The number of the step for this request, already counted; None if no step is left for it."""
        call = self.calls.get(facts.path, 0)
        for i, step in enumerate(self.steps):
            if (step.times == 0 or self.taken[i] < step.times) and matches(step.when, facts, call):
                return i
        return None

    def took(self, i: int) -> "Script":
        """The script after step `i` was given away."""
        taken = (*self.taken[:i], self.taken[i] + 1, *self.taken[i + 1 :])
        return Script(self.steps, taken, self.calls)

    @property
    def steps_left(self) -> int:
        """Steps that a finished test should have used up."""
        return sum(1 for step, taken in zip(self.steps, self.taken, strict=True) if step.times and taken < step.times)


def matches(when: When, facts: Facts, call: int) -> bool:
    """Do all the conditions hold for this request, the `call`-th to its path?"""
    return (
        fnmatchcase(facts.path, when.path)
        and fnmatchcase(facts.method, when.method)
        and (when.model is None or fnmatchcase(facts.model, when.model))
        and all(facts.headers.get(name.lower()) == value for name, value in when.header.items())
        and (when.body_contains is None or when.body_contains.encode() in facts.body)
        and (when.call is None or when.call == call)
        and (when.stream is None or when.stream == facts.wants_stream)
        and (when.has_tools is None or when.has_tools == bool(facts.fields.get("tools")))
    )


def read_steps(value: object) -> tuple[Step, ...]:
    """The steps of a decoded script: a list, one step, or `{steps: […]}`. Raises ScriptInvalid."""
    if isinstance(value, dict) and "steps" in value:
        value = value["steps"]
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list) and all(isinstance(each, Step) for each in value):
        return tuple(value)
    try:
        return tuple(msgspec.convert(value, list[Step]))
    except msgspec.ValidationError as error:
        raise ScriptInvalid(f"script: {error}; see the docstring of ccr_demo.script for the fields") from None


def read_script_text(text: str) -> Any:
    """A script or settings as JSON or YAML. Raises ScriptInvalid."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ScriptInvalid(f"neither JSON nor YAML: {error}") from None
