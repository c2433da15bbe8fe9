"""A relay with scripted providers and steady traffic, as whoever looks at a dashboard would meet it.

with scene(tmp_path) as stage, stage.traffic(clients=4):
    print(stage.web, stage.token)
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from support.demo import DemoProcess, demo
from support.serving import REAL_SERVE, Relay, environment, served, until

MODELS = ("claude-sonnet-4-5", "claude-sonnet-4-5", "claude-opus-4-5", "claude-haiku-4-5")
AGENTS = ("", "", "explore", "review")
CONFIG = """\
version: 1
server:
  listen: "127.0.0.1:0"
  workers: 1
  auth:
    keys:
      - {{name: laptop, key: relay-laptop, budget: {{day: 40 USD}}}}
      - {{name: ci, key: relay-ci}}
control: {{listen: "127.0.0.1:0", web_listen: "127.0.0.1:{web_port}"}}
routing: {{strategy: simple-shuffle, affinity: none}}
health: {{probe: {{interval: 60s}}}}
providers:
  - name: anthropic
    type: anthropic-compatible
    base_url: {anthropic}
    allow_private: true
    models: ["claude-*"]
    keys:
      - {{label: team-a, key: sk-a, scope: org-a, rpm_limit: 900, tpm_limit: 900000, weight: 2}}
      - {{label: team-b, key: sk-b, scope: org-b, rpm_limit: 600}}
  - name: zai
    type: anthropic-compatible
    base_url: {zai}
    allow_private: true
    models: ["claude-*"]
    keys: [{{label: main, key: sk-z, rpm_limit: 2000}}]
  - name: spare
    type: anthropic-compatible
    base_url: {spare}
    allow_private: true
    models: ["claude-*"]
    keys: [{{label: main, key: sk-s}}]
"""


@dataclass
class Stage:
    """A running relay, its web page, and the providers behind it."""

    relay: Relay
    providers: dict[str, DemoProcess]
    config: Path
    control: str  # the address of the control plane's socket
    sent: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def web(self) -> str:
        """The page's URL."""
        return (self.relay.state / "web.address").read_text().strip()

    @property
    def token(self) -> str:
        """The admin's token."""
        return (self.relay.state / "control.token").read_text().strip()

    def restart_control(self) -> None:
        """Kill the control plane; its supervisor starts it again."""
        before = self.relay.pids("ccr-control")
        os.kill(before[-1], signal.SIGKILL)
        until(lambda: len(self.relay.pids("ccr-control")) > len(before), "the control plane is started again")

    @contextlib.contextmanager
    def traffic(self, clients: int = 3, gap_s: float = 0.05, seed: int = 1) -> Iterator[None]:
        """Clients that ask one question after another while the block runs."""
        over = threading.Event()
        threads = [
            threading.Thread(target=self._ask, args=(random.Random(seed * 1000 + at), at, gap_s, over), daemon=True)
            for at in range(clients)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join(10)

    def _ask(self, dice: random.Random, number: int, gap_s: float, over: threading.Event) -> None:
        connection: http.client.HTTPConnection | None = None
        while not over.is_set():
            session = f"{number % 3:08x}-1a2b-4c3d-8e4f-{(number % 3 + 1) * 0x5F3759DF1B:012x}"[:36]
            body = _body(dice, session)
            headers = {
                "content-type": "application/json",
                "anthropic-version": "2023-06-01",
                "x-api-key": dice.choice(("relay-laptop", "relay-ci")),
                "x-claude-code-session-id": session,
            }
            if agent := dice.choice(AGENTS):
                headers["x-claude-code-agent-id"] = agent
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(urlsplit(self.relay.url).netloc, timeout=20)
                connection.request("POST", "/v1/messages", json.dumps(body), headers)
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                connection = None
            with self._lock:
                self.sent += 1
            over.wait(gap_s * dice.uniform(0.5, 1.5))
        if connection is not None:
            connection.close()


def _free_port() -> int:
    """A port that the page keeps when the control plane starts again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def _body(dice: random.Random, session: str) -> dict[str, object]:
    return {
        "model": dice.choice(MODELS),
        "max_tokens": 200,
        "stream": dice.random() < 0.7,
        "metadata": {"user_id": f"user_x_account_y_session_{session}"},
        "system": [{"type": "text", "text": "You are helpful. " * 300, "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": "Bash", "description": "Runs a command.", "input_schema": {"type": "object"}}],
        "messages": [{"role": "user", "content": "hello " * dice.randint(5, 300)}],
    }


@contextlib.contextmanager
def scene(directory: Path, *, pace_ms: float = 0.0) -> Iterator[Stage]:
    """The relay of `CONFIG` with a scripted provider for each that it names."""
    with ExitStack() as stack:
        names = ("anthropic", "zai", "spare")
        providers = {
            name: stack.enter_context(demo(pace_ms=pace_ms * (1 + at), organization=name))
            for at, name in enumerate(names)
        }
        config = CONFIG.format(web_port=_free_port(), **{name: one.url for name, one in providers.items()})
        relay = stack.enter_context(served(directory, config, "--quiet", env=environment(), command=REAL_SERVE))
        relay.wait_ready()
        control = (relay.state / "control.address").read_text().strip()
        yield Stage(relay, providers, directory / "ccr.yaml", control)
