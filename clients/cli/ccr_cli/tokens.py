"""`ccr tokens …`: who may use the admin API from elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ccr_cli.options import Control, Json, StateDir
from ccr_cli.screen import print_json, print_table
from ccr_cli.words import span_of

if TYPE_CHECKING:
    from ccr_rpc.v1 import access_pb2

app = typer.Typer(no_args_is_help=True, help="Make, list and end tokens for the admin API.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Unique; shown wherever its holder changes something.")],
    role: Annotated[str, typer.Option("--role", metavar="WORD", help="viewer, operator or admin.")] = "viewer",
    expires: Annotated[
        str, typer.Option("--expires", metavar="SPAN", help="It ends after 24h, 30d, …; absent: never.")
    ] = "",
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Make a token and print it: the only time that it is shown.

    Example: `ccr tokens create grafana --role viewer --expires 90d`
    """
    from ccr_rpc.v1 import access_pb2

    from ccr_cli.choosing import chosen
    from ccr_cli.control import opened
    from ccr_cli.plain import plain, words

    request = access_pb2.CreateTokenRequest(name=name, role=chosen(role, words(access_pb2.Role.DESCRIPTOR), "--role"))
    if expires:
        request.expires_at.FromDatetime(datetime.now(UTC) + span_of(expires, "--expires"))
    with opened(control, state_dir) as plane:
        answer = plane.access.CreateToken(request)
    if as_json:
        print_json(plain(answer))
        return
    print(answer.token)
    typer.echo(
        f"This is the only time that it is shown. Use it with: export CCR_CONTROL_TOKEN=… (role {role})", err=True
    )


@app.command("list")
def list_tokens(control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """List the tokens, without themselves.

    Example: `ccr tokens list`
    """
    from ccr_rpc.v1 import access_pb2

    from ccr_cli.control import opened
    from ccr_cli.plain import plain

    with opened(control, state_dir) as plane:
        found = plane.access.ListTokens(access_pb2.ListTokensRequest()).tokens
    if as_json:
        print_json([plain(one) for one in found])
    else:
        print_table("Tokens", ("name", "role", "made", "ends", "last used"), [token_row(one) for one in found])


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `ccr tokens list` shows it.")],
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """End a token at once, with every stream that its holder has open.

    Example: `ccr tokens revoke grafana`
    """
    from ccr_rpc.v1 import access_pb2

    from ccr_cli.control import opened

    with opened(control, state_dir) as plane:
        plane.access.RevokeToken(access_pb2.RevokeTokenRequest(name=name))
    if as_json:
        print_json({"name": name, "revoked": True})
    else:
        print(f"{name}: ended")


@app.command()
def whoami(control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Say as whom the control plane knows you, and what you may do.

    Example: `ccr tokens whoami`
    """
    from ccr_rpc.v1 import access_pb2

    from ccr_cli.control import opened
    from ccr_cli.plain import enum_word, plain

    with opened(control, state_dir) as plane:
        answer = plane.access.WhoAmI(access_pb2.WhoAmIRequest())
    if as_json:
        print_json(plain(answer))
    else:
        print(f"{answer.name}: {enum_word(answer, 'role')}; the control plane is version {answer.software_version}")


def token_row(one: access_pb2.TokenInfo) -> tuple[str, ...]:
    """A token for a table."""
    from ccr_cli.plain import enum_word, iso

    return (
        one.name,
        enum_word(one, "role"),
        iso(one.created_at),
        iso(one.expires_at) if one.HasField("expires_at") else "never",
        iso(one.last_used_at) if one.HasField("last_used_at") else "never",
    )
