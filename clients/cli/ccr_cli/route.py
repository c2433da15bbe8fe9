"""`ccr route`: where a request would go that nobody sent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from ccr_words.decisions import SCORES, place, score_text
from ccr_words.explaining import summary

from ccr_cli.failure import EXIT_NOT_WELL, EXIT_UNREACHABLE, EXIT_USAGE, Failure
from ccr_cli.options import Control, Json, StateDir
from ccr_cli.screen import print_json, print_table

STDIN = "<stdin>"

if TYPE_CHECKING:
    from ccr_rpc.v1 import routes_pb2, snapshot_pb2


def route(
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="The model that the client asks for.")],
    client: Annotated[
        str, typer.Option("--client", metavar="NAME", help='Who asks; "subscription" for a claude.ai login.')
    ] = "",
    session: Annotated[str, typer.Option("--session", metavar="ID", help="The session, as Claude Code names it.")] = "",
    subagent: Annotated[bool, typer.Option("--subagent", help="A subagent asks.")] = False,
    thinking: Annotated[bool, typer.Option("--thinking", help="It asks for thinking.")] = False,
    tokens: Annotated[int, typer.Option("--tokens", metavar="N", min=0, help="Estimated input tokens.")] = 0,
    images: Annotated[bool, typer.Option("--images", help="It holds images.")] = False,
    documents: Annotated[bool, typer.Option("--documents", help="It holds documents.")] = False,
    tools: Annotated[bool, typer.Option("--tools", help="It offers tools.")] = False,
    header: Annotated[
        list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="A header of it; may be repeated.")
    ] = None,
    count_tokens: Annotated[bool, typer.Option("--count-tokens", help="It only counts tokens.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="It wants a stream.")] = False,
    config: Annotated[
        str | None,
        typer.Option("--config", metavar="FILE", help="Decide by this configuration instead; - for standard input."),
    ] = None,
    node: Annotated[str, typer.Option("--node", metavar="NAME", help="Ask this worker, not any.")] = "",
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of what is drawn at random.")] = 0,
    control: Control = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show where a request would go, as a running worker decides it; nothing is sent and nothing changes.

    Exit codes: 0 it would be tried, 1 its client would get an error, or the configuration has problems.

    Examples: `ccr route --model claude-opus-5-5`, `ccr route --model claude-haiku-4-5 --thinking --config new.yaml`
    """
    from ccr_rpc.v1 import routes_pb2, snapshot_pb2

    from ccr_cli.control import opened

    asked = snapshot_pb2.HypotheticalRequest(
        model=model,
        count_tokens=count_tokens,
        streams=stream,
        client=client,
        subagent=subagent,
        thinking=thinking,
        input_tokens=tokens,
        images=images,
        documents=documents,
        tools=tools,
        headers=[_header(text) for text in header or ()],
        session=session,
        seed=seed,
    )
    request = routes_pb2.ExplainRouteRequest(request=asked, node_id=node)
    if config is not None:
        request.config = _read(config) or b"\n"  # nothing would mean the one in force
        request.config_name = STDIN if config == "-" else config
    try:
        with opened(control, state_dir) as plane:
            found = plane.routes.ExplainRoute(request)
    except Failure as failure:
        if failure.exit_code != EXIT_UNREACHABLE or not request.config or node:
            raise
        print(f"ccr: {failure}; decided as by a worker that has served nothing yet", file=sys.stderr)
        found = routes_pb2.ExplainRouteResponse(answer=_decided_here(request))
    if as_json:
        from google.protobuf.json_format import MessageToDict

        print_json(MessageToDict(found, preserving_proto_field_name=True))
    else:
        _show(model, found, request.config_name)
    if found.answer.status:
        raise typer.Exit(EXIT_NOT_WELL)


def _decided_here(request: routes_pb2.ExplainRouteRequest) -> snapshot_pb2.RouteAnswer:
    """What a new worker would answer: processes of both planes' packages work it out. Raises typer.Exit if the file is bad."""
    from ccr_rpc.v1 import snapshot_pb2

    file = "-" if request.config_name == STDIN else request.config_name
    compiled = _run("ccr_control.offline", "snapshot", file, text=request.config)
    question = snapshot_pb2.RouteQuestion(request=request.request)
    question.candidate.ParseFromString(compiled)
    return snapshot_pb2.RouteAnswer.FromString(_run("ccr_data.offline", text=question.SerializeToString()))


def _run(module: str, *arguments: str, text: bytes) -> bytes:
    """What a process of ours makes of `text`."""
    sys.stdout.flush()
    command = [sys.executable, "-P", "-m", module, *arguments]
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own
    if done.returncode:
        raise typer.Exit(done.returncode)
    return done.stdout


def _header(text: str) -> snapshot_pb2.Header:
    from ccr_rpc.v1 import snapshot_pb2

    name, found, value = text.partition("=")
    if not found or not name:
        raise Failure(f"--header {text}: must be NAME=VALUE", EXIT_USAGE)
    return snapshot_pb2.Header(name=name.lower(), value=value)


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}", EXIT_USAGE) from error


def _show(model: str, found: routes_pb2.ExplainRouteResponse, config_name: str) -> None:
    print("\n".join(summary(model, found, config_name)))
    decision = found.answer.decision
    if decision.candidates:
        rows = [
            (str(number), place(one.provider, one.key_label), one.model, score_text(decision.strategy, one))
            for number, one in enumerate(decision.candidates, 1)
        ]
        columns = ("", "target", "model", SCORES.get(decision.strategy, ""))
        wide = 4 if decision.strategy in SCORES else 3
        print()
        print_table("Candidates", columns[:wide], [row[:wide] for row in rows], frozenset({0, 3}))
    if decision.passed_over:
        print()
        print_table("Passed over", ("target", "why"), [(one.what, one.why) for one in decision.passed_over])
