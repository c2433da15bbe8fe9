"""Records what Claude Code sends into `tests/corpus/claude_code/`, scrubbed: run by hand when its version changes.

    PYTHONPATH=tests python -m claude_code.record [OTHER_CLAUDE_CODE…]

The pinned version is recorded with everything below, other programs with the few that older versions do differently.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import json
import os
import platform
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccr_demo import DemoServer, Record
from corpus import RecordedRequest, write_recorded_request

from claude_code import scenarios
from claude_code.harness import DEVICE_ID, SESSION_ID, Scenario, Workplace, environment, prepare, running
from claude_code.install import claude_code

ROOT = Path("/tmp/claude-code-corpus")
KEY = "sk-ant-api03-corpus"
TALK_LIMIT_S = 30.0

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ODD_TEXT = 'ä 漢字 🏳️‍🌈 \u2028 \u0007 \\ud83d "quoted" \\n 1e400 0.1000 12345678901234567890\t\ufeff end'


def bash(command: str) -> Mapping[str, Any]:
    """A step in which Claude Code runs a command."""
    return {"tools": [{"name": "Bash", "input": {"command": command, "description": "Run"}}]}


def asking(name: str, prompt: str, steps: Sequence[Mapping[str, Any]], *arguments: str, **more: Any) -> Scenario:
    """A scenario that is only there to be recorded."""
    return Scenario(name, prompt, steps, None, 0, arguments=arguments or ("--model", "opus"), **more)


@dataclass(frozen=True)
class Take:
    """One request to keep: the `index`-th of the scenario's to `path`."""

    name: str
    scenario: Scenario
    index: int = 0
    path: str = "/v1/messages"


HELLO = [{"text": "Hello.", "times": 0}]
NOTHING: Mapping[str, str] = {}
SMALL_MODEL = {"ANTHROPIC_DEFAULT_HAIKU_MODEL": "claude-haiku-4-5", "ANTHROPIC_SMALL_FAST_MODEL": "claude-haiku-4-5"}
NO_SYSTEM_TURNS = {"accepts_system_turns": False}
SCHEMA = '{"type":"object","properties":{"title":{"type":"string"}},"required":["title"]}'

TAKES = (
    Take("plain", scenarios.PLAIN),
    Take("tool-results", scenarios.PARALLEL_TOOLS, 1),
    Take("tool-results-twice", scenarios.PARALLEL_TOOLS, 2),
    Take("thinking-echo", scenarios.THINKING, 1),
    Take("repeated-without-stream", scenarios.ERROR_EVENT, 1),
    Take("subagent-first", scenarios.SUBAGENT, 1),
    Take("subagent-tool-result", scenarios.SUBAGENT, 2),
    Take("subagent-parent", scenarios.SUBAGENT, 3),
    Take("models", scenarios.DISCOVERY, 0, "/v1/models"),
    Take("count-tokens-short", asking("context", "/context", []), 0, "/v1/messages/count_tokens"),
    Take("count-tokens-long", asking("context", "/context", []), -1, "/v1/messages/count_tokens"),
    Take("sonnet", asking("sonnet", "Say hello.", HELLO, "--model", "sonnet")),
    Take("sonnet-4-6", asking("sonnet 4.6", "Say hello.", HELLO, "--model", "claude-sonnet-4-6")),
    Take("haiku", asking("haiku", "Say hello.", HELLO, "--model", "haiku")),
    Take("unknown-model", asking("glm", "Say hello.", HELLO, "--model", "glm-5")),
    Take("one-million", asking("1m", "Say hello.", HELLO, "--model", "sonnet[1m]", "--effort", "high")),
    Take("json-schema", asking("schema", "Say hello.", HELLO, "--model", "sonnet", "--json-schema", SCHEMA)),
    Take(
        "web-search",
        asking("search", "Search.", [{"tools": [{"name": "WebSearch", "input": {"query": "relays"}}]}, *HELLO]),
        1,
    ),
    Take("system-turn-folded", asking("folded", "Say hello.", HELLO, settings=NO_SYSTEM_TURNS), 1),
    Take("odd-text", asking("odd", ODD_TEXT.replace("\u0007", ""), [bash("cat odd.txt"), *HELLO]), 1),
    Take(
        "image",
        asking("image", "Look.", [{"tools": [{"name": "Read", "input": {"file_path": "pixel.png"}}]}, *HELLO]),
        1,
    ),
    Take("long-output", asking("long", "Count.", [bash("seq 4000"), *HELLO]), 1),
    Take(
        "few-betas",
        asking("betas", "Say hello.", HELLO, environment={"CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS": "1"}),
    ),
    Take(
        "api-key",
        asking("key", "Say hello.", HELLO, environment={"ANTHROPIC_AUTH_TOKEN": "", "ANTHROPIC_API_KEY": KEY}),
    ),
)
OLD_TAKES = (
    Take("plain", asking("plain", "Say hello.", HELLO)),
    Take("thinking-echo", scenarios.THINKING, 1),
    Take("haiku", asking("haiku", "Say hello.", HELLO, "--model", "haiku")),
)


async def main(others: Sequence[str]) -> None:
    """Records everything."""
    async with DemoServer() as demo:
        await record(claude_code(), TAKES, demo)
        for other in others:
            await record(Path(other), OLD_TAKES, demo)


async def record(program: Path, takes: Sequence[Take], demo: DemoServer) -> None:
    """The takes of one version, and what it sends at a terminal."""
    version = await version_of(program)
    workplace = Workplace(ROOT)
    for take in takes:
        prepare(demo, take.scenario)
        async with running(program, take.scenario, workplace, demo.url, KEY) as claude:
            (workplace.project / "odd.txt").write_text(ODD_TEXT)
            (workplace.project / "pixel.png").write_bytes(PIXEL)
            await claude.end()
        found = demo.message_requests(take.path)
        if len(found) <= max(take.index, 0):
            print(f"{version}: {take.name}: only {len(found)} requests", file=sys.stderr)
            continue
        keep(take.name, version, found[take.index])
    await at_a_terminal(program, version, demo, workplace, "terminal")
    await at_a_terminal(program, version, demo, workplace, "terminal-haiku", SMALL_MODEL)


async def version_of(program: Path) -> str:
    """Like 2.1.329."""
    process = await asyncio.create_subprocess_exec(program, "--version", stdout=asyncio.subprocess.PIPE)
    shown, _ = await process.communicate()
    return shown.decode().split(maxsplit=1)[0]


async def at_a_terminal(
    program: Path, version: str, demo: DemoServer, workplace: Workplace, name: str, more: Mapping[str, str] = NOTHING
) -> None:
    """Titles are only made for a person at a terminal, and permissions only asked of one."""
    demo.reset()
    demo.play(*HELLO)
    async with typed(program, "Why do relays need titles?", workplace, demo.url, more):
        with contextlib.suppress(TimeoutError):
            await demo.until(lambda: len(demo.message_requests()) >= 2, TALK_LIMIT_S)
    for request in demo.message_requests():
        if not request.json().get("tools"):
            keep(f"{name}-title", version, request)
        elif not more:  # otherwise it is the same as before
            keep(name, version, request)
    for head in [each for each in demo.requests if each.method == "HEAD"]:
        keep("probe", version, head)


@asynccontextmanager
async def typed(
    program: Path, prompt: str, workplace: Workplace, url: str, more: Mapping[str, str]
) -> AsyncIterator[None]:
    """Claude Code at a terminal, with a prompt already typed; gone at the end of the block."""
    workplace.renew()
    trusted = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
    settings = {
        "userID": DEVICE_ID,
        "hasCompletedOnboarding": True,
        "theme": "dark",
        "projects": {str(workplace.project): trusted},
    }
    (workplace.home / ".claude.json").write_text(json.dumps(settings))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    # Titles count as nonessential; whatever else does, finds no network.
    offline = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1", "DISABLE_ERROR_REPORTING": "1"}
    process = await asyncio.create_subprocess_exec(
        *(str(program), "--session-id", SESSION_ID, "--model", "opus", prompt),
        cwd=workplace.project,
        env=environment(workplace, url, KEY)
        | offline
        | {"TERM": "xterm-256color", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": ""}
        | dict(more),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, _drain(ours, loop))
    try:
        yield
    finally:
        process.kill()
        await process.wait()
        loop.remove_reader(ours)
        os.close(ours)


def _drain(terminal: int, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    def read() -> None:
        try:
            os.read(terminal, 65536)
        except OSError:
            loop.remove_reader(terminal)

    return read


def keep(name: str, version: str, record: Record) -> None:
    """Scrubs one request and puts it into the corpus."""
    fakes = Fakes()
    write_recorded_request(
        RecordedRequest(
            f"{version}-{name}",
            version,
            record.method,
            record.target,
            tuple((key, fakes.scrub(value)) for key, value in record.headers),
            fakes.scrub(record.body),
        )
    )
    print(f"{version} {name}: {record.method} {record.target}, {len(record.body)} bytes")


class Fakes:
    """Replaces what belongs to the recording machine by fakes of equal length."""

    _FOUND = re.compile(
        rb"(?P<kernel>(?<=OS Version: )[^\\\n]+)"
        rb"|(?P<machine>" + re.escape(platform.node().encode() or b"localhost") + rb"(?=\b)(?<=\w{6}))"
        rb"|(?P<port>(?<=127\.0\.0\.1:)\d+)"
        rb"|(?P<agent>\ba[0-9a-f]{16}\b)"
        rb"|(?P<uuid>\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b)"
    )

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {SESSION_ID.encode(): SESSION_ID.encode()}

    def scrub(self, data: bytes) -> bytes:
        """The same bytes with fakes in them, as many as before."""
        scrubbed = self._FOUND.sub(self._fake, data)
        assert len(scrubbed) == len(data)
        return scrubbed

    def _fake(self, match: re.Match[bytes]) -> bytes:
        found, kind = match[0], match.lastgroup
        number = b"%d" % len(self._known)
        if found not in self._known:
            pattern = {
                "kernel": b"Linux 6.1.0-generic" + b"0" * 100,
                "machine": b"demo" + b"x" * 100,
                "port": b"48787",
                "agent": b"a" + number.rjust(16, b"0"),
                "uuid": b"00000000-0000-4000-8000-" + number.rjust(12, b"0"),
            }[str(kind)]
            self._known[found] = pattern[: len(found)].ljust(len(found), b"0")
        return self._known[found]


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
