"""What a process costs: its CPU time and memory, read from /proc; starting, pinning and ending processes."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU time of some processes so far, by two clocks."""

    exact_ns: int  # of the threads that live now
    ticks_ns: int  # coarse, but knows ended threads and children

    def since(self, before: CpuTime) -> int:
        """Nanoseconds between the two: the exact clock, unless a thread or child ended meanwhile."""
        exact, coarse = self.exact_ns - before.exact_ns, self.ticks_ns - before.ticks_ns
        return exact if exact > 0 and abs(exact - coarse) < 30e6 + 0.03 * coarse else coarse


def tree(roots: Iterable[int]) -> list[int]:
    """The living processes among `roots`, with all their descendants."""
    children: dict[int, list[int]] = {}
    alive = set()
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(OSError, ValueError):
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            children.setdefault(int(stat[stat.rindex(b")") + 2 :].split()[1]), []).append(pid)
            alive.add(pid)
    found: list[int] = []
    todo = [pid for pid in roots if pid in alive]
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.append(pid)
            todo += children.get(pid, [])
    return found


def cpu_time(pids: Iterable[int]) -> CpuTime:
    exact = ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            ticks += sum(int(field) for field in stat[stat.rindex(b")") + 2 :].split()[11:15]) * TICK_NS
            for thread in os.listdir(f"/proc/{pid}/task"):
                exact += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    return CpuTime(exact, ticks)


def machine_busy_ns() -> int:
    """CPU time that the whole machine has spent on anything, stolen time left out."""
    with open("/proc/stat") as file:
        fields = [int(field) for field in file.readline().split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:7])) * TICK_NS


def memory_mib(pids: Iterable[int]) -> dict[str, float]:
    rss = pss = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                rss += int(line.split()[1]) if line.startswith("Rss:") else 0
                pss += int(line.split()[1]) if line.startswith("Pss:") else 0
    return {"rss": rss / 1024, "pss": pss / 1024}


def pin(pids: Iterable[int], cpus: set[int] | None) -> None:
    for pid in pids if cpus else ():
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), cpus or set())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Processes:
    """The processes of one run; all end with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def start(
        self, name: str, command: Sequence[str], cpus: set[int] | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Output goes to `<name>.log` in the run's folder."""
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **(env or {})},
            )
        pin([process.pid], cpus)
        self._running.append(process)
        return process

    def end(self) -> None:
        for process in reversed(self._running):
            family = tree([process.pid])
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                for pid in {*family, *tree([process.pid])}:
                    with contextlib.suppress(OSError):
                        os.kill(pid, 9)
                process.wait(5)
        self._running.clear()


def machine() -> dict[str, str]:
    """Hardware and versions, as a reader of the figures needs them."""
    cpu = next(
        (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "machine": f"{os.cpu_count()} cores of {cpu}, {memory_gib:.0f} GiB",
        "system": f"{system}, kernel {platform.release().split('-')[0]}",
        "nginx": version_of("nginx", "-v"),
        "openssl": version_of("openssl", "version"),
    }


def version_of(*command: str) -> str:
    if not shutil.which(command[0]):
        return "not installed"
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return (result.stdout + result.stderr).strip().splitlines()[0].split(" (")[0].removeprefix("nginx version: ")
