"""The demo provider as a program: `python -m ccr_demo --listen 127.0.0.1:8788`.

A complete scripted Anthropic-API server for trying out and testing a relay without any account. What it answers
is decided by a script (`ccr_demo.script`), by directives in the user's text (`ccr_demo.directives`), or kindly. With `--cloud` it
asks for them and gives them as a cloud does (`ccr_demo.clouds`); AWS's secrets are told it by POST /__demo/settings.

Its own endpoints, for tests in other processes:

    POST   /__demo/script      set the script (JSON or YAML); GET tells how many steps are left
    POST   /__demo/settings    change single settings (`ccr_demo.settings`)
    POST   /__demo/step?id=…   let one event of a lock-step stream go; answers when it is sent
    GET    /__demo/requests    the last requests: heads in order and original case, bodies in base64; DELETE forgets
    GET    /__demo/stats       counters of requests, connections, open and aborted streams
    POST   /__demo/reset       forget everything
"""

import argparse
import asyncio
import logging
import signal
import socket
import ssl
import sys
from pathlib import Path

from ccr_demo.clouds import FACES
from ccr_demo.errors import ScriptInvalid
from ccr_demo.script import read_script_text
from ccr_demo.server import DemoServer

READABLE_PACE_MS = 20.0


def main(arguments: list[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT. Exit code 2: it could not start."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING if options.quiet else logging.INFO, format="ccr-demo: %(message)s")
    try:
        demo = _server(options)
        asyncio.run(_serve(demo, options.quiet))
    except (OSError, ScriptInvalid) as error:
        print(f"ccr-demo: cannot start: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ccr-demo", description="A scripted Anthropic-API server.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--listen", metavar="HOST:PORT", help="address to listen on; port 0 takes a free one")
    where.add_argument("--listen-fd", metavar="N", type=int, help="a listening or bound socket from the parent")
    parser.add_argument("--script", metavar="FILE", type=Path, help="steps to play, JSON or YAML")
    parser.add_argument("--cloud", choices=sorted(FACES), default="", help="play this cloud instead of the Claude API")
    parser.add_argument("--tls-cert", metavar="FILE", type=Path)
    parser.add_argument("--tls-key", metavar="FILE", type=Path)
    parser.add_argument("--pace", metavar="MS", type=float, default=READABLE_PACE_MS, help="time between events")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return parser


def _server(options: argparse.Namespace) -> DemoServer:
    script = read_script_text(options.script.read_text()) if options.script else []
    context = None
    if options.tls_cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.tls_cert, options.tls_key)
    listen = socket.socket(fileno=options.listen_fd) if options.listen_fd is not None else None
    host, port = _address(options.listen) if options.listen else ("", 0)
    return DemoServer(
        script, ssl_context=context, listen=listen, host=host, port=port, pace_ms=options.pace, cloud=options.cloud
    )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit():
        raise OSError(f"--listen {text}: expected HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


async def _serve(demo: DemoServer, is_quiet: bool) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with demo:
        if not is_quiet:
            print(f"ccr-demo: listening on {demo.url}", flush=True)
        await stopped.wait()


if __name__ == "__main__":
    sys.exit(main())
