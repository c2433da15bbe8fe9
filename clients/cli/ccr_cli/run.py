"""`ccr run …`: starts a client set up for this relay, for that process only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Annotated

import typer

from ccr_cli import places
from ccr_cli.claude import environment
from ccr_cli.failure import EXIT_DENIED, EXIT_NOT_FOUND, EXIT_UNREACHABLE, EXIT_USAGE, Failure
from ccr_cli.options import Control, StateDir, Url

app = typer.Typer(no_args_is_help=True, help="Start a client set up for this relay.")

KEY_VARIABLE = "CCR_CLIENT_KEY"
ANY_TOKEN = "relay"  # noqa: S105 - what a relay without keys is given: anything does


@app.command(context_settings={"ignore_unknown_options": True})
def claude(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[-- ARGS…]", help="For claude.")] = None,
    url: Url = None,
    key_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help=f"Holds the relay key (else ${KEY_VARIABLE}, if set).")
    ] = None,
    subscription: Annotated[
        bool, typer.Option("--subscription", help="Keep Claude Code's own credentials, such as a claude.ai login.")
    ] = False,
    control: Control = None,
    state_dir: StateDir = None,
) -> None:
    """Start Claude Code (`claude` on the PATH, or $CCR_CLAUDE) behind the relay.

    Only the started process is set up: nothing is written anywhere.

    Examples: `ccr run claude`, `ccr run claude -- -p "hello" --model opus`
    """
    program = _program(os.environ)
    relay = relay_address(url, control, state_dir)
    token = None if subscription else relay_key(key_env, os.environ)
    check_relay(relay, token, key_env)
    os.execve(program, [program, *(arguments or [])], environment(os.environ, relay, token))  # noqa: S606


def _program(env: Mapping[str, str]) -> str:
    named = env.get("CCR_CLAUDE") or "claude"
    if found := shutil.which(named):
        return found
    raise Failure(
        f"{named} is not there: install Claude Code (npm install -g @anthropic-ai/claude-code) "
        "or set $CCR_CLAUDE to its path",
        EXIT_NOT_FOUND,
    )


def relay_address(url: str | None, control: str | None, state_dir: str | None) -> str:
    """The relay's base URL: as told, as the state directory or the control plane knows, or the usual one."""
    state = places.state_dir(state_dir, os.environ)
    if known := places.relay_url(url, state, os.environ):
        return known
    from ccr_rpc.v1 import config_pb2

    from ccr_cli.control import opened

    try:
        with opened(control, state_dir) as plane:
            text = plane.config.GetConfig(config_pb2.GetConfigRequest()).redacted_yaml
    except Failure:
        if control:
            raise
        return places.DEFAULT_URL
    import yaml

    return places.url_of_listen(yaml.safe_load(text)["server"]["listen"])


def relay_key(key_env: str | None, env: Mapping[str, str]) -> str:
    """The relay key. Raises Failure if the named variable holds none."""
    key = env.get(key_env or KEY_VARIABLE)
    if key_env and not key:
        raise Failure(f"${key_env} is not set: it should hold the relay key", EXIT_USAGE)
    return key or ANY_TOKEN


def check_relay(relay: str, token: str | None, key_env: str | None) -> None:
    """Raises Failure if the relay is not there, not well, or does not take the key."""
    from ccr_cli.relay import status_of

    if (status := status_of(relay, "/health")) != 200:
        raise Failure(f"what answers at {relay} is not a relay that is well (HTTP {status})", EXIT_UNREACHABLE)
    if token is None or status_of(relay, "/v1/models?limit=1", token) not in (401, 403):
        return
    if token == ANY_TOKEN:
        what = (
            f"the relay at {relay} wants a key: set ${KEY_VARIABLE} (or name a variable with --key-env), "
            "or use --subscription with a claude.ai login"
        )
    else:
        what = f"the relay at {relay} does not know the key in ${key_env or KEY_VARIABLE}"
    raise Failure(what, EXIT_DENIED)
