"""Runs the real Claude Code in print mode and says what came of it, in words that can be compared.

A run sees one home and one project folder, made anew at the same place for every run, so that two runs of a
scenario differ only in what is normalised here: identifiers, signatures, times and costs.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ccr_demo import DemoServer, Record

RUN_LIMIT_S = 90.0
DEVICE_ID = "d3" * 32
SESSION_ID = "5e551017-0000-4000-8000-000000000001"

# Identifiers by kind, in the order of first appearance: `toolu_01…` becomes `<toolu 1>`.
_IDENTIFIERS = re.compile(
    r"(?P<toolu>toolu_01\w{22})|(?P<msg>msg_01\w{22})|(?P<req>req_011C\w{20})"
    r"|(?P<uuid>\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b)"
    r"|(?P<signature>\bEucC[\w+/=]{60,})"
    r"|(?P<agent>\ba[0-9a-f]{16}\b)"
)
# How long something took, when it happened, and where the provider or the relay listened.
_VARYING = re.compile(
    r"(?<=duration_ms: )\d+|(?<=duration_ms>)\d+|\d{4}-\d\d-\d\dT[\d:.]+Z?|(?<=inference gateway \()127\.0\.0\.1:\d+"
)
_COMPARED_HEADERS = re.compile(r"anthropic-.*|x-claude-code-.*|x-app|user-agent|content-type|accept")


@dataclass(frozen=True)
class Scenario:
    """What Claude Code is asked, what the provider plays, and what must come of it."""

    name: str
    prompt: str
    steps: Sequence[Mapping[str, Any]]
    text: str | None  # the final answer, a glob; None: there is none
    requests: int  # POST /v1/messages that the provider gets
    exit_code: int = 0
    steps_left: int = 0  # that are not meant to be taken
    tools: Sequence[str] = ()  # names of the tools that are called, in order
    arguments: Sequence[str] = ("--model", "opus")
    # The relay ends a broken stream with an error event, and Claude Code then repeats without streaming.
    may_repeat_whole: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the demo provider


@dataclass(frozen=True)
class Sent:
    """One request as the provider got it, normalised."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True)
class Outcome:
    """What came of a run, normalised. `errors` is for people, and not compared."""

    exit_code: int
    text: str | None
    is_error: bool
    tool_calls: Sequence[str]
    tool_results: Sequence[str]
    requests: Sequence[Sent]
    errors: str = field(default="", compare=False)


@dataclass
class Workplace:
    """The folders of the runs of one test."""

    root: Path

    @property
    def home(self) -> Path:
        """HOME."""
        return self.root / "home"

    @property
    def project(self) -> Path:
        """The working directory: a small project to read."""
        return self.root / "project"

    def renew(self) -> None:
        """As if nobody had ever worked here."""
        for folder in (self.home, self.project):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        (self.home / ".claude.json").write_text(json.dumps({"userID": DEVICE_ID, "hasCompletedOnboarding": True}))
        (self.project / "one.txt").write_text("the first file\n")
        (self.project / "two.txt").write_text("the second file\n")


@dataclass
class Running:
    """A Claude Code that runs."""

    process: asyncio.subprocess.Process
    output: asyncio.Task[tuple[bytes, bytes]]

    def interrupt(self) -> float:
        """What Ctrl-C does; the time in seconds of time.monotonic()."""
        self.process.send_signal(signal.SIGINT)
        return time.monotonic()

    async def end(self) -> tuple[int, str, str]:
        """Exit code, output and errors, once it has ended. Raises TimeoutError."""
        async with asyncio.timeout(RUN_LIMIT_S):
            output, errors = await asyncio.shield(self.output)  # it is awaited again when the block ends
        assert self.process.returncode is not None
        return self.process.returncode, output.decode(), errors.decode()


@asynccontextmanager
async def running(
    program: Path, scenario: Scenario, workplace: Workplace, url: str, key: str
) -> AsyncIterator[Running]:
    """Claude Code at work on a scenario, against the provider or relay at `url`; gone at the end of the block."""
    workplace.renew()
    process = await asyncio.create_subprocess_exec(
        str(program),
        "-p",
        scenario.prompt,
        *("--output-format", "stream-json", "--verbose", "--session-id", SESSION_ID),
        *("--allowedTools", "Bash,Read,Write,Edit,Task,WebSearch"),
        *scenario.arguments,
        cwd=workplace.project,
        env=environment(workplace, url, key) | dict(scenario.environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output = asyncio.get_running_loop().create_task(process.communicate(), name="output of Claude Code")
    try:
        yield Running(process, output)
    finally:
        if process.returncode is None:
            process.kill()
        await output


def environment(workplace: Workplace, url: str, key: str) -> dict[str, str]:
    """Everything that Claude Code sees of the world; nothing of the developer's own settings.

    Without IS_SANDBOX=1, although that would allow `--dangerously-skip-permissions` to root: with it, Claude Code
    no longer gives up after the third 529.
    """
    return {
        "HOME": str(workplace.home),
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "SHELL": "/bin/bash",
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_AUTH_TOKEN": key,
        "DISABLE_TELEMETRY": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }


async def run(program: Path, scenario: Scenario, workplace: Workplace, demo: DemoServer, url: str, key: str) -> Outcome:
    """One run from beginning to end. The demo forgets what was before."""
    prepare(demo, scenario)
    async with running(program, scenario, workplace, url, key) as claude:
        return outcome(*await claude.end(), demo)


def prepare(demo: DemoServer, scenario: Scenario) -> None:
    """The provider as the scenario wants it."""
    demo.reset()
    demo.configure(**scenario.settings)
    demo.play(*scenario.steps)


def outcome(exit_code: int, output: str, errors: str, demo: DemoServer) -> Outcome:
    """What the lines of `--output-format stream-json` and the provider's records say."""
    names = Names()
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    blocks = [block for line in lines for block in _blocks(line)]
    results = [line for line in lines if line.get("type") == "result"]
    return Outcome(
        exit_code=exit_code,
        text=names.normal(str(results[-1]["result"])) if results and "result" in results[-1] else None,
        is_error=bool(results and results[-1].get("is_error")),
        tool_calls=[
            names.normal(f"{block['name']} {json.dumps(block['input'])}")
            for block in blocks
            if block.get("type") == "tool_use"
        ],
        tool_results=[
            names.normal(json.dumps(block.get("content"))) for block in blocks if block.get("type") == "tool_result"
        ],
        requests=[sent(record, names) for record in demo.requests if record.method != "HEAD"],
        errors=errors,
    )


def sent(record: Record, names: Names) -> Sent:
    """A recorded request, normalised; of the headers only those that a relay must pass on."""
    headers = {name.decode().lower(): value.decode() for name, value in record.headers}
    return Sent(
        record.method,
        record.target,
        {name: names.normal(value) for name, value in headers.items() if _COMPARED_HEADERS.fullmatch(name)},
        names.normal(record.body.decode()),
    )


class Names:
    """Replaces identifiers by their kind and the order in which they appeared, and what varies by one word."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {SESSION_ID: SESSION_ID}
        self._counts: dict[str, int] = {}

    def normal(self, text: str) -> str:
        """The text with all of them replaced."""
        return _VARYING.sub("<varies>", _IDENTIFIERS.sub(self._name, text))

    def _name(self, match: re.Match[str]) -> str:
        found, kind = match[0], str(match.lastgroup)
        if found not in self._known:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._known[found] = f"<{kind} {self._counts[kind]}>"
        return self._known[found]


def _blocks(line: Mapping[str, Any]) -> list[dict[str, Any]]:
    message = line.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
