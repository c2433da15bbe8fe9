"""`ccr web`: opens the web page, knowing who you are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ccr_cli import places
from ccr_cli.failure import EXIT_UNREACHABLE, Failure
from ccr_cli.options import StateDir
from ccr_cli.places import START_HINT


def web(
    state_dir: StateDir = None,
    show: Annotated[bool, typer.Option("--print", help="Only print the address, with the token in it.")] = False,
) -> None:
    """Open the web page in a browser, or print its address where there is none.

    The token of this machine's control plane ($CCR_CONTROL_TOKEN takes its place) goes behind the address's `#`, which a browser
    sends to nobody; the page takes it out of the address at once.

    Example: `ccr web --print`
    """
    state = places.state_dir(state_dir, os.environ)
    url, token = _page(state), os.environ.get("CCR_CONTROL_TOKEN") or places.read_line(state / "control.token")
    if not token:
        raise Failure(f"there is no token: {state / 'control.token'} is not ours to read", EXIT_UNREACHABLE)
    address = f"{url}/#token={token}"
    if show or not _has_screen() or not _opened(address):
        print(address)
    else:
        print(f"opened {url} (`ccr web --print` shows the address with the token)")


def _page(state: Path) -> str:
    """The page's URL, once the control plane has said that it is there. Raises Failure."""
    from ccr_rpc.v1 import access_pb2

    from ccr_cli.control import dialled

    door = places.control_door(None, state, {})
    with dialled(door) as control:  # or a stranger who has the port now could be sent the token
        control.access.WhoAmI(access_pb2.WhoAmIRequest())
    url = places.read_line(state / "web.address")
    if not url:
        raise Failure(
            "the control plane serves no web page: its log says why (`web_unavailable`: the port of control.web_listen is "
            f"taken, most likely); {START_HINT} again when it is free",
            EXIT_UNREACHABLE,
        )
    return url


def _has_screen() -> bool:
    """Whether a browser here would be seen by whoever asks: not over ssh, not in a container."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) or os.uname().sysname == "Darwin"


def _opened(address: str) -> bool:
    import webbrowser

    try:
        return webbrowser.open(address)
    except webbrowser.Error:
        return False
