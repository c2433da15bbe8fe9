"""`python -m ccr_control.tls`: an authority of one's own, and certificates by it.

    init [--dir DIR] [--host NAME]... [--client NAME]... [--node NAME]... [--days N]

Writes `ca.pem`, `ca-key.pem`, `server.pem`, `server-key.pem`, and for each client and node `NAME.pem`, `NAME-key.pem`. An authority
that is there already is used again, and so is a server's certificate if only others are asked for; nothing else is replaced without
--force. Exit codes: 0 done, 2 it cannot be done.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ccr_control.core.errors import ControlError
from ccr_control.shell.authority import Authority

OK, USAGE = 0, 2
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _init(options)
    except ControlError as error:
        print(f"ccr tls: {error}", file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"ccr tls: {error.filename or options.dir}: {error.strerror}", file=sys.stderr)
        return USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ccr tls", description="Certificates for the port of the control plane.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    init = commands.add_parser("init", help="make an authority and certificates by it")
    init.add_argument("--dir", metavar="DIR", default="tls", help="where to write them; default: %(default)s")
    init.add_argument(
        "--host", metavar="NAME", action="append", help="name or address of the server; default: localhost"
    )
    init.add_argument(
        "--client", metavar="NAME", action="append", default=[], help="a client to make a certificate for"
    )
    init.add_argument(
        "--node", metavar="NAME", action="append", default=[], help="a machine with ccr-data to make a certificate for"
    )
    init.add_argument(
        "--days", metavar="N", type=int, default=397, help="how long they are valid; default: %(default)s"
    )
    init.add_argument("--force", action="store_true", help="replace certificates that exist; never the authority")
    return parser


def _init(options: argparse.Namespace) -> int:
    if not 1 <= options.days <= 3650:
        raise ControlError("--days must be 1 to 3650")
    for kind, names in (("client", options.client), ("node", options.node)):
        for name in names:
            if not _NAME.fullmatch(name) or name in ("ca", "server", "ca-key", "server-key"):
                raise ControlError(f"--{kind} {name!r}: letters, digits and . _ -, and not ca or server")
    for name in {*options.client} & {*options.node}:
        raise ControlError(f"{name!r} is given as a client and as a node: their files would have one name")
    folder = Path(options.dir)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = datetime.now(UTC)
    authority = Authority.at(folder, now)
    wanted = {name: authority.for_client(name, now, options.days) for name in options.client}
    wanted |= {name: authority.for_node(name, now, options.days) for name in options.node}
    if options.host or not wanted or not (folder / "server.pem").exists():
        hosts = options.host or ["localhost", "127.0.0.1", "::1"]
        wanted = {"server": authority.for_server(hosts, now, options.days), **wanted}
    places = [folder / f"{name}{ending}" for name in wanted for ending in (".pem", "-key.pem")]
    there = [str(place) for place in places if place.exists()]
    if there and not options.force:
        raise ControlError(f"{', '.join(there)}: exists already; --force replaces it")
    for name, made in wanted.items():
        _write(folder / f"{name}.pem", made.certificate, 0o644)
        _write(folder / f"{name}-key.pem", made.key, 0o600)
    print(f"wrote {', '.join(str(place) for place in places)}")
    print(_advice(folder.absolute(), has_clients=bool(options.client or options.node)))
    for name in options.node:
        print(_node_advice(name))
    return OK


def _write(path: Path, content: bytes, mode: int) -> None:
    half = path.with_name(f".{path.name}.new")
    half.unlink(missing_ok=True)
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
    half.replace(path)


def _advice(folder: Path, *, has_clients: bool) -> str:
    clients = f", client_ca_file: {folder / 'ca.pem'}" if has_clients else ""
    files = f"cert_file: {folder / 'server.pem'}, key_file: {folder / 'server-key.pem'}{clients}"
    return f'In the configuration:\n  control: {{listen: "0.0.0.0:9090", tls: {{{files}}}}}\nClients trust {folder / "ca.pem"}.'


def _node_advice(name: str) -> str:
    files = f"--control-ca ca.pem --node-cert {name}.pem --node-key {name}-key.pem"
    return f"On {name}, with these three files: ccr-data --control HOST:9090 {files} --state-dir DIR --listen HOST:PORT"


if __name__ == "__main__":
    sys.exit(main())
