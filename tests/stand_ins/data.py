"""Stands in for ccr-data: the same command line, ready file and signals, with answers that tests can hold and break.

`GET /ready` 200 · `GET /pid` the process id · `GET /env/NAME` a variable · `GET /crash` ends the process with code 3 ·
`GET /stream/FOLDER` sends its head and "begun", then waits until the file FOLDER/go exists and sends "done".
"""

# ruff: noqa: ASYNC110, ASYNC230, ASYNC240 (it waits for other processes, and nothing here is in a hurry)

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path
from urllib.parse import unquote


class Worker:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.open_requests = 0
        self.stop = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_requests += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = unquote(head.split(b" ")[1].decode())
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
            if path == "/crash":
                os._exit(3)
            elif path == "/pid":
                writer.write(str(os.getpid()).encode())
            elif path.startswith("/env/"):
                writer.write(os.environ.get(path.removeprefix("/env/"), "").encode())
            elif path.startswith("/stream/"):
                writer.write(b"begun\n")
                await writer.drain()
                while not Path(path.removeprefix("/stream"), "go").exists():
                    await asyncio.sleep(0.02)
                writer.write(b"done\n")
            await writer.drain()
            writer.close()
        finally:
            self.open_requests -= 1

    async def run(self) -> int:
        folder = Path(self.options.state_dir, "nodes", self.options.node_name)
        folder.mkdir(parents=True, exist_ok=True)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: os._exit(1) if self.stop.is_set() else self.stop.set())
        listening = socket.socket(fileno=self.options.listen_fd)
        server = await asyncio.start_server(self.answer, sock=listening)
        (folder / "ready").write_text(str(os.getpid()))
        await self.stop.wait()
        server.close()
        until_s = time.monotonic() + float(self.options.drain_timeout.removesuffix("s"))
        while self.open_requests and time.monotonic() < until_s:
            await asyncio.sleep(0.02)
        if (folder / "ready").read_text() == str(os.getpid()):
            (folder / "ready").unlink()
        with Path(self.options.state_dir, "ends").open("a") as file:
            file.write(f"{self.options.node_name}\n")
        return 0


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("--state-dir", "--node-name", "--control", "--log-format", "--drain-timeout"):
        parser.add_argument(name)
    parser.add_argument("--listen-fd", type=int)
    options = parser.parse_args()
    if exit_code := os.environ.get("STAND_IN_DATA_EXIT"):
        print("stand-in data: cannot start", file=sys.stderr)
        return int(exit_code)
    return asyncio.run(Worker(options).run())


if __name__ == "__main__":
    sys.exit(main())
