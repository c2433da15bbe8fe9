"""`ccr keys …` and `ccr scopes`: credentials of providers, and what their accounts may still do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from ccr_cli.failure import EXIT_USAGE, Failure
from ccr_cli.options import Control, Json, StateDir
from ccr_cli.overview import count_words, time_words
from ccr_cli.screen import print_json, print_table
from ccr_cli.secret import secret_from

if TYPE_CHECKING:
    from ccr_rpc.v1 import keys_pb2

app = typer.Typer(no_args_is_help=True, help="Show and change the keys of providers while requests go on.")

Key = Annotated[str, typer.Argument(metavar="PROVIDER/LABEL", help="A key, as `ccr keys list` calls it.")]
SecretEnv = Annotated[
    str | None,
    typer.Option("--secret-env", metavar="VARIABLE", help="Holds the secret; absent: it is read from standard input."),
]


@app.command("list")
def list_keys(
    provider: Annotated[str, typer.Argument(metavar="[PROVIDER]", help="Name of a provider; absent: all.")] = "",
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List keys by their labels and fingerprints; secrets are never shown.

    Example: `ccr keys list anthropic`
    """
    from ccr_rpc.v1 import keys_pb2

    from ccr_cli.control import opened
    from ccr_cli.plain import plain

    with opened(control, state_dir) as plane:
        found = plane.keys.ListKeys(keys_pb2.ListKeysRequest(provider=provider)).keys
    if as_json:
        print_json([plain(one) for one in found])
    else:
        print_table("Keys", KEY_COLUMNS, [key_row(one) for one in found], KEY_NUMBERS)


@app.command()
def add(
    key: Key,
    secret_env: SecretEnv = None,
    scope: Annotated[
        str, typer.Option("--scope", metavar="NAME", help="The account it belongs to; absent: its own.")
    ] = "",
    weight: Annotated[int, typer.Option("--weight", min=1, max=1_000_000, help="Share among equal priorities.")] = 1,
    priority: Annotated[int, typer.Option("--priority", min=0, max=1_000_000, help="Lower is tried first.")] = 0,
    rpm: Annotated[int, typer.Option("--rpm", min=0, help="Requests a minute of its account. 0: not limited.")] = 0,
    tpm: Annotated[int, typer.Option("--tpm", min=0, help="Tokens a minute of its account. 0: not limited.")] = 0,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Add a key to a provider. The secret comes from standard input or a variable, never from an argument.

    Examples: `ccr keys add zai/team-b < key.txt`, `ccr keys add zai/team-b --secret-env ZAI_KEY_B --scope org-b`
    """
    from ccr_rpc.v1 import keys_pb2

    from ccr_cli.control import opened

    provider, label = named(key)
    request = keys_pb2.AddKeyRequest(provider=provider, label=label, scope=scope, weight=weight, priority=priority)
    if rpm or tpm:
        request.limits.requests = rpm
        request.limits.tokens = tpm
    request.secret = secret_from(secret_env, os.environ)
    with opened(control, state_dir) as plane:
        _changed(plane.keys.AddKey(request), as_json)


@app.command()
def rotate(
    key: Key, secret_env: SecretEnv = None, control: Control = None, state_dir: StateDir = None, as_json: Json = False
) -> None:
    """Give a key another secret; conversations stay on it.

    Example: `ccr keys rotate zai/team-a --secret-env ZAI_KEY_NEW`
    """
    from ccr_rpc.v1 import keys_pb2

    from ccr_cli.control import opened

    provider, label = named(key)
    request = keys_pb2.RotateKeyRequest(provider=provider, label=label, secret=secret_from(secret_env, os.environ))
    with opened(control, state_dir) as plane:
        _changed(plane.keys.RotateKey(request), as_json)


@app.command()
def deprecate(key: Key, control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Retire a key: conversations that live there go on, new ones go elsewhere.

    Example: `ccr keys deprecate anthropic/team-a`
    """
    _set_state(key, "DEPRECATED", control, state_dir, as_json)


@app.command()
def enable(key: Key, control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Let every request use a key again.

    Example: `ccr keys enable anthropic/team-a`
    """
    _set_state(key, "ACTIVE", control, state_dir, as_json)


@app.command()
def disable(key: Key, control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Let no request use a key; what is open with it is finished.

    Example: `ccr keys disable anthropic/team-a`
    """
    _set_state(key, "DISABLED", control, state_dir, as_json)


@app.command()
def weight(
    key: Key,
    number: Annotated[int, typer.Argument(metavar="N", min=1, max=1_000_000, help="Share among equal priorities.")],
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Change a key's share among keys of equal priority.

    Example: `ccr keys weight anthropic/team-a 3`
    """
    from ccr_rpc.v1 import keys_pb2

    provider, label = named(key)
    _update(keys_pb2.UpdateKeyRequest(provider=provider, label=label, weight=number), control, state_dir, as_json)


@app.command()
def priority(
    key: Key,
    number: Annotated[int, typer.Argument(metavar="N", min=0, max=1_000_000, help="Lower is tried first.")],
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Change where a key comes among those of its provider: lower is tried first.

    Example: `ccr keys priority anthropic/team-b 1`
    """
    from ccr_rpc.v1 import keys_pb2

    provider, label = named(key)
    _update(keys_pb2.UpdateKeyRequest(provider=provider, label=label, priority=number), control, state_dir, as_json)


@app.command()
def remove(key: Key, control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Remove a key that was added at run time, or take back what was changed of one of the configuration.

    Example: `ccr keys remove zai/team-b`
    """
    from ccr_rpc.v1 import keys_pb2

    from ccr_cli.control import opened
    from ccr_cli.plain import plain

    provider, label = named(key)
    with opened(control, state_dir) as plane:
        answer = plane.keys.RemoveKey(keys_pb2.RemoveKeyRequest(provider=provider, label=label))
    if as_json:
        print_json(plain(answer))
    else:
        print(f"{key}: gone, or as the configuration has it; snapshot {answer.snapshot_version}")


def scopes(
    provider: Annotated[str, typer.Argument(metavar="[PROVIDER]", help="Name of a provider; absent: all.")] = "",
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List accounts with their limits of a minute, what is used, what workers have leased, and when it would be used up.

    Example: `ccr scopes anthropic`
    """
    from ccr_rpc.v1 import keys_pb2

    from ccr_cli.control import opened
    from ccr_cli.plain import plain

    with opened(control, state_dir) as plane:
        found = plane.keys.ListScopes(keys_pb2.ListScopesRequest(provider=provider)).budgets
    if as_json:
        print_json([plain(one) for one in found])
    else:
        print_table("Accounts (used / limit a minute)", SCOPE_COLUMNS, [scope_row(one) for one in found], SCOPE_NUMBERS)


def named(key: str) -> tuple[str, str]:
    """Provider and label of `provider/label`. Raises Failure."""
    provider, divider, label = key.partition("/")
    if not (provider and divider and label):
        raise Failure(f"{key}: must be PROVIDER/LABEL, as `ccr keys list` calls it", EXIT_USAGE)
    return provider, label


def _set_state(key: str, state: str, control: str | None, state_dir: str | None, as_json: bool) -> None:
    from ccr_rpc.v1 import keys_pb2, snapshot_pb2

    provider, label = named(key)
    value = snapshot_pb2.KeyState.Value(f"KEY_STATE_{state}")
    _update(keys_pb2.UpdateKeyRequest(provider=provider, label=label, state=value), control, state_dir, as_json)


def _update(request: keys_pb2.UpdateKeyRequest, control: str | None, state_dir: str | None, as_json: bool) -> None:
    from ccr_cli.control import opened

    with opened(control, state_dir) as plane:
        _changed(plane.keys.UpdateKey(request), as_json)


def _changed(answer: keys_pb2.KeyResponse, as_json: bool) -> None:
    from ccr_cli.plain import enum_word, plain

    if as_json:
        print_json(plain(answer))
        return
    one = answer.key
    print(
        f"{one.provider}/{one.label}: {enum_word(one, 'state') or 'active'}, weight {one.weight}, priority {one.priority}, "
        f"secret {one.fingerprint or 'found at run time'}; snapshot {answer.snapshot_version}"
    )


KEY_COLUMNS = (
    *("key", "state", "scope", "secret", "weight", "priority", "circuit"),
    *("from", "requests", "ends", "problem"),
)
KEY_NUMBERS = frozenset({4, 5, 8})
SCOPE_COLUMNS = ("account", "models", "requests", "input", "output", "in and out", "nodes", "used up in", "rests until")
SCOPE_NUMBERS = frozenset({2, 3, 4, 5, 6})


def key_row(one: keys_pb2.KeyStatus) -> tuple[str, ...]:
    """A key for a table."""
    from ccr_cli.plain import enum_word, iso

    return (
        f"{one.provider}/{one.label}",
        enum_word(one, "state") or "active",
        one.scope or "-",
        one.fingerprint or "-",
        str(one.weight),
        str(one.priority),
        enum_word(one, "circuit") or "closed",
        enum_word(one, "origin").replace("-", ", "),
        str(one.requests),
        iso(one.expires_at) if one.HasField("expires_at") else "-",
        one.problem or "-",
    )


def scope_row(one: keys_pb2.ScopeBudget) -> tuple[str, ...]:
    """An account for a table."""
    from ccr_cli.plain import iso

    amounts = [
        _of(getattr(one.used, name), getattr(one.limits, name))
        for name in ("requests", "input_tokens", "output_tokens", "tokens")
    ]
    return (
        f"{one.provider}/{one.scope}" if one.scope else one.provider,
        one.model_class or "all",
        *amounts,
        str(one.nodes),
        time_words(one.exhausted_in.ToTimedelta().total_seconds() * 1000) if one.HasField("exhausted_in") else "-",
        iso(one.resting_until) if one.HasField("resting_until") else "-",
    )


def _of(used: int, limit: int) -> str:
    return f"{count_words(used)} / {count_words(limit)}" if limit else count_words(used)
