"""Relays of any size: so many providers, keys and workers; and their configuration changing while they run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ccr_bench.processes import Processes, free_port, tree
from ccr_bench.targets import RELAY_COMMANDS, CannotStart, Target, Upstream, program, wait_until_up
from ccr_bench.workload import CLIENT_KEY, UPSTREAM_KEY, asked_model, mock_model

_SERVED = re.compile(rb'"event": ?"snapshot_served"')


@dataclass(frozen=True, slots=True)
class Shape:
    """What a configuration holds. Requests go to the first provider, or may go to any key of any."""

    providers: int = 1
    keys: int = 1  # of each provider
    workers: int = 1
    is_spread: bool = False

    @property
    def name(self) -> str:
        """As the tables call it."""
        return f"{self.providers} × {self.keys}"


def config(shape: Shape, port: int, upstream: Upstream, answers: tuple[str, ...], generation: int = 0) -> str:
    """The configuration. Another `generation` has other credentials, and nothing else changed. JSON is YAML."""
    mapping = {asked_model(answer): mock_model(answer) for answer in answers}
    providers = [
        {
            "name": f"p{number}",
            "type": "anthropic",
            "base_url": f"http://127.0.0.1:{upstream.port}",
            "allow_private": True,
            "keys": [
                {"label": f"p{number}-k{key}", "key": f"{UPSTREAM_KEY}-{number}-{key}-{generation}"}
                for key in range(shape.keys)
            ],
            "model_mapping": mapping,
        }
        for number in range(shape.providers)
    ]
    candidates = [{"provider": one["name"]} for one in providers[: None if shape.is_spread else 1]]
    return json.dumps(
        {
            "version": 1,
            "server": {
                "listen": f"127.0.0.1:{port}",
                "workers": shape.workers,
                "log_format": "json",
                "auth": {"keys": [{"name": "bench", "key": CLIENT_KEY}]},
            },
            "control": {"listen": f"127.0.0.1:{free_port()}", "web_listen": f"127.0.0.1:{free_port()}"},
            "routing": {"affinity": "session", "routes": [{"match": {"model": "claude-plain-*"}, "to": candidates}]},
            "providers": providers,
        }
    )


class Relay:
    """A relay of some shape, as processes of its own: both planes, or `ccr serve` if it has several workers."""

    def __init__(
        self,
        name: str,
        shape: Shape,
        answers: tuple[str, ...],
        processes: Processes,
        upstream: Upstream,
        cpus: set[int] | None,
        *,
        state: Path | None = None,
    ) -> None:
        self.shape, self._answers, self._upstream = shape, answers, upstream
        self.port, self._processes, self._cpus = free_port(), processes, cpus
        self.folder = processes.folder / name
        self.folder.mkdir()
        self.config, self.state = self.folder / "ccr.yaml", state or self.folder / "state"
        if state is None:
            self.state.mkdir(mode=0o700)
        self.config.write_text(config(shape, self.port, upstream, answers))
        self.name = name
        self.log = processes.folder / f"{name}-worker.log"
        self.generation = 0

    def start(self) -> Target:
        """Both planes. Raises CannotStart."""
        roots, ended = {}, []
        for part, command in RELAY_COMMANDS.items():
            words = [word.format(config=self.config, state=self.state, port=self.port) for word in command]
            process = self._processes.start(f"{self.name}-{part}", [program(words[0], None), *words[1:]], self._cpus)
            roots[part] = process.pid
            ended.append(process.poll)
        return self._up(roots, ended)

    def serve(self) -> Target:
        """`ccr serve`, which starts the rest. Raises CannotStart."""
        where = ["--config", str(self.config), "--state-dir", str(self.state), "--log-format", "json", "--quiet"]
        process = self._processes.start(f"{self.name}-worker", [program("ccr", None), "serve", *where], self._cpus)
        return self._up({"serve": process.pid}, [process.poll])

    def worker_alone(self, control: str) -> Target:
        """A worker, whose control plane is elsewhere or nowhere. Does not wait for it."""
        where = ["--listen", f"127.0.0.1:{self.port}", "--state-dir", str(self.state), "--node-name", "worker-0"]
        command = [program("ccr-data", None), *where, "--control", control, "--log-format", "json"]
        process = self._processes.start(f"{self.name}-worker", command, self._cpus)
        return self.target({"worker": process.pid})

    def target(self, roots: dict[str, int]) -> Target:
        """How to ask it."""
        return Target("relay", self.port, self.port, roots, {"x-api-key": CLIENT_KEY}, asked_model, log=self.log)

    def _up(self, roots: dict[str, int], ended: list[Callable[[], int | None]]) -> Target:
        target = self.target(roots)
        wait_until_up(target, lambda: next((code for poll in ended if (code := poll()) is not None), None))
        return target

    def change(self, within_s: float = 30.0, **shape: int) -> float:
        """Give all its keys other credentials, or it another shape; the seconds until the worker serves that. Raises CannotStart."""
        self.shape = replace(self.shape, **shape)
        self.generation += 1
        served = self._served()
        text = config(self.shape, self.port, self._upstream, self._answers, self.generation)
        # Ports of the control plane take effect with a restart only, so they stay.
        before = json.loads(self.config.read_text())
        new = self.config.with_suffix(".new")
        new.write_text(json.dumps(json.loads(text) | {"control": before["control"]}))
        began_s = time.monotonic()
        new.rename(self.config)
        while self._served() <= served:
            if time.monotonic() > began_s + within_s:
                raise CannotStart(f"{self.name} does not serve its changed configuration after {within_s:g} s")
            time.sleep(0.002)
        return time.monotonic() - began_s

    def _served(self) -> int:
        return len(_SERVED.findall(self.log.read_bytes()))

    def empty_logs(self) -> None:
        """What was logged is not needed any more."""
        for log in self._processes.folder.glob(f"{self.name}-*.log"):
            with log.open("r+b") as file:
                file.truncate(0)


def workers_of(target: Target) -> list[int]:
    """The data-plane processes among those of a target."""
    return [pid for pid in tree(target.roots.values()) if b"ccr-data" in _command(pid) or b"ccr_data" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
