"""The demo provider as a process that a test can set up, break and end."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class DemoProcess:
    """A running demo provider."""

    process: subprocess.Popen[str]
    url: str

    def set(self, **settings: object) -> None:
        """Change settings (ccr_demo.settings)."""
        self._call("POST", "settings", json.dumps(settings).encode())

    def play(self, *steps: object) -> None:
        """Set the script (ccr_demo.script)."""
        self._call("POST", "script", json.dumps(list(steps)).encode())

    def request_count(self) -> int:
        """Requests to /v1/messages so far."""
        requests = json.loads(self._call("GET", "requests"))["requests"]
        return sum(1 for request in requests if request["target"].split("?")[0] == "/v1/messages")

    def kill(self) -> None:
        """It is gone, and its address answers no more."""
        self.process.kill()
        self.process.wait()

    def _call(self, method: str, name: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{self.url}/__demo/{name}", data=body, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return bytes(answer.read())


@contextlib.contextmanager
def demo(**settings: object) -> Iterator[DemoProcess]:
    """A demo provider while the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "ccr_demo", "--listen", "127.0.0.1:0", "--pace", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        running = DemoProcess(process, process.stdout.readline().strip().rpartition(" ")[2])
        assert running.url.startswith("http"), "the demo provider did not start"
        running.set(**settings)
        yield running
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
