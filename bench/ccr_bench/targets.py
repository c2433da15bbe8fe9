"""The programs that are measured, and how each is started."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ccr_bench.processes import Processes, free_port, tree
from ccr_bench.workload import ANSWERS, CLIENT_KEY, UPSTREAM_KEY, asked_model, mock_model

# glibc would hand the 2 MB body buffer back to the kernel after each request, or not, by chance of the heap's layout.
NGINX_ENV = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "268435456"}
RELAY_COMMANDS = {  # in the order of their start; the worker is what the bars are about
    "control": ("ccr-control", "--config", "{config}", "--state-dir", "{state}"),
    "worker": (
        "ccr-data",
        "--listen",
        "127.0.0.1:{port}",
        "--state-dir",
        "{state}",
        "--node-name",
        "worker-0",
        "--log-format",
        "json",
    ),
}
READY_WITHIN_S = 60.0


class CannotStart(Exception):
    """A program that should be measured is missing or does not answer."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """The mock provider, plain and with TLS."""

    port: int
    tls_port: int
    certificate: Path

    def get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request("GET", path)
        body = connection.getresponse().read()
        connection.close()
        return body

    def stats(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.get("/__stats"))
        return found


def _same_model(answer: str, over_tls: bool) -> str:  # noqa: ARG001  the port says whether TLS is used
    return mock_model(answer)


@dataclass(frozen=True, slots=True)
class Target:
    """A running program, and how to ask it."""

    name: str
    port: int
    tls_port: int  # where requests go that shall reach the provider over TLS
    roots: dict[str, int] = field(default_factory=dict)  # its processes by what they do
    headers: dict[str, str] = field(default_factory=dict)
    model: Callable[[str, bool], str] = _same_model
    path: str = "/v1/messages?beta=true"
    log: Path | None = None
    status: tuple[str, ...] = ()  # the command that prints what its control plane has counted
    is_peer: bool = False  # only its speed is of interest, and only over plain HTTP

    def pids(self, *parts: str) -> list[int]:
        """Of the named parts, or of the whole."""
        return tree(pid for part, pid in self.roots.items() if not parts or part in parts)


def direct(upstream: Upstream) -> Target:
    """No proxy. The load generator speaks no TLS, so added times over TLS count the encryption too, for nginx as for the relay."""
    return Target("direct", upstream.port, upstream.port)


def start_nginx(
    processes: Processes, upstream: Upstream, cpus: set[int] | None, connections: int = 8192
) -> Target | None:
    """nginx as a plain proxy, one worker, kept-alive upstream, no buffering; None if it is not installed."""
    if not shutil.which("nginx"):
        return None
    folder, port, tls_port = processes.folder, free_port(), free_port()
    config, text = folder / "nginx.conf", (Path(__file__).parents[1] / "nginx.conf").read_text()
    filled_in = {
        "FOLDER": folder,
        "CERTIFICATE": upstream.certificate,
        "UPSTREAM_PORT": upstream.port,
        "UPSTREAM_TLS_PORT": upstream.tls_port,
        "PORT": port,
        "TLS_PORT": tls_port,
        "CONNECTIONS": connections,  # each takes memory, used or not
    }
    config.write_text(re.sub(r"@([A-Z_]+)@", lambda found: str(filled_in[found[1]]), text))
    process = processes.start("nginx", ["nginx", "-c", str(config)], cpus, NGINX_ENV)
    target = Target("nginx", port, tls_port, {"worker": process.pid})
    wait_until_up(target, process.poll)
    return target


def start_relay(processes: Processes, upstream: Upstream, cpus: set[int] | None, programs: Path | None) -> Target:
    """Both planes with everything on: auth, routes, mapping, affinity, tap, records, a JSON log to a file."""
    folder, port = processes.folder, free_port()
    config, state = folder / "ccr.yaml", folder / "relay-state"
    config.write_text(json.dumps(_relay_config(port, upstream), indent=1))  # JSON is YAML
    state.mkdir(mode=0o700)
    roots, ended = {}, []
    for part, command in RELAY_COMMANDS.items():
        words = [word.format(config=config, state=state, port=port) for word in command]
        process = processes.start(f"relay-{part}", [program(words[0], programs), *words[1:]], cpus)
        roots[part] = process.pid
        ended.append(process.poll)
    status = (program("ccr", programs), "status", "--json", "--state-dir", str(state))
    target = Target(
        "relay",
        port,
        port,
        roots,
        {"x-api-key": CLIENT_KEY},
        asked_model,
        log=folder / "relay-worker.log",
        status=status,
    )
    wait_until_up(target, lambda: next((code for poll in ended if (code := poll()) is not None), None))
    return target


def _relay_config(port: int, upstream: Upstream) -> dict[str, object]:
    def provider(name: str, base_url: str, **more: object) -> dict[str, object]:
        mapping = {asked_model(answer, name == "tls"): mock_model(answer) for answer in ANSWERS}
        keys = [{"label": f"bench-{name}", "key": f"{UPSTREAM_KEY}-{name}"}]
        return {
            "name": name,
            "type": "anthropic",
            "base_url": base_url,
            "allow_private": True,
            "keys": keys,
            "model_mapping": mapping,
            **more,
        }

    return {
        "version": 1,
        "server": {
            "listen": f"127.0.0.1:{port}",
            "log_format": "json",
            "auth": {"keys": [{"name": "bench", "key": CLIENT_KEY}]},
        },
        "control": {"listen": f"127.0.0.1:{free_port()}", "web_listen": f"127.0.0.1:{free_port()}"},
        "routing": {
            "affinity": "session",
            "routes": [
                {"match": {"model": f"claude-{name}-*"}, "to": [{"provider": name}]} for name in ("plain", "tls")
            ],
        },
        "providers": [
            provider("plain", f"http://127.0.0.1:{upstream.port}"),
            provider("tls", f"https://127.0.0.1:{upstream.tls_port}", ca_file=str(upstream.certificate)),
        ],
    }


def program(name: str, programs: Path | None) -> str:
    folders = [programs] if programs else [Path(__file__).parents[2] / ".venv" / "bin", Path(sys.executable).parent]
    found = next((str(folder.absolute() / name) for folder in folders if (folder / name).exists()), shutil.which(name))
    if not found:
        raise CannotStart(f"{name} is not installed: run `make setup`")
    return found


def wait_until_up(target: Target, ended: Callable[[], int | None]) -> None:
    """Raises CannotStart."""
    give_up = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < give_up:
        if (code := ended()) is not None:
            raise CannotStart(f"{target.name} ended with code {code}")
        connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=5)
        try:
            connection.request("GET", "/ready" if target.name == "relay" else "/")
            if connection.getresponse().status < 500:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise CannotStart(f"{target.name} does not answer")
