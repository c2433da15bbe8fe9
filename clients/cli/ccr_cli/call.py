"""`ccr call`: any method of the admin API, with protobuf's JSON in and out."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccr_cli.failure import EXIT_USAGE, Failure
from ccr_cli.options import Control, StateDir
from ccr_cli.screen import print_line

if TYPE_CHECKING:
    from google.protobuf.message import Message


def call(
    method: Annotated[
        str, typer.Argument(metavar="[SERVICE/METHOD]", help="Such as FleetService/ListNodes; absent: list them.")
    ] = "",
    request: Annotated[
        str, typer.Argument(metavar="[JSON]", help="The request, as JSON; - for standard input; absent: an empty one.")
    ] = "{}",
    count: Annotated[int, typer.Option("--count", metavar="N", min=0, help="End a stream after so many.")] = 0,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0, help="For one answer.")] = 10.0,
    control: Control = None,
    state_dir: StateDir = None,
) -> None:
    """Call a method of the admin API and print its answer as protobuf's JSON; of a stream, one document a line.

    Requests that hold secrets belong into standard input, not into arguments.

    Examples: `ccr call`, `ccr call ProviderService/ListProviders`, `ccr call StatsService/GetBreakdown '{"by": "DIMENSION_MODEL"}'`
    """
    from google.protobuf.json_format import MessageToJson

    from ccr_cli.control import opened

    known = dict(_methods())
    if not method:
        for name, found in known.items():
            print(
                f"{name}({found.input_type.name}) → {'stream ' if found.server_streaming else ''}{found.output_type.name}"
            )
        return
    described = known.get(method) or known.get(method.removeprefix("ccr.rpc.v1."))
    if described is None:
        raise Failure(f"{method}: there is no such method; `ccr call` lists them", EXIT_USAGE)
    if described.client_streaming:
        raise Failure(
            f"{method}: it takes a stream of requests; those of workers cannot be called from here", EXIT_USAGE
        )
    message = _message(described, sys.stdin.read() if request == "-" else request)
    answer_type: Any = _class(described.output_type)
    path = f"/{described.containing_service.full_name}/{described.name}"
    with contextlib.suppress(KeyboardInterrupt), opened(control, state_dir) as plane:
        serialisers = {"request_serializer": _serialised, "response_deserializer": answer_type.FromString}
        if described.server_streaming:
            answers = plane.calls.unary_stream(path, **serialisers)(message)
            for one in itertools.islice(answers, count) if count else answers:
                print_line(MessageToJson(one, indent=None, ensure_ascii=False))
        else:
            answer = plane.calls.unary_unary(path, **serialisers)(message, timeout=timeout)
            print(MessageToJson(answer, indent=2, ensure_ascii=False, always_print_fields_with_no_presence=True))


def _serialised(message: Message) -> bytes:
    return message.SerializeToString()


def _methods() -> Iterator[tuple[str, Any]]:
    """`Service/Method` and its description, for every method of the contract."""
    from importlib import import_module
    from pkgutil import iter_modules

    import ccr_rpc.v1

    for module in sorted(one.name for one in iter_modules(ccr_rpc.v1.__path__) if one.name.endswith("_pb2")):
        file = import_module(f"ccr_rpc.v1.{module}").DESCRIPTOR
        for service in file.services_by_name.values():
            for method in service.methods:
                yield f"{service.name}/{method.name}", method


def _class(described: Any) -> Any:
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(described)


def _message(described: Any, text: str) -> Message:
    """The request. Raises Failure; its words name the field, not the value."""
    from google.protobuf.json_format import ParseDict, ParseError

    from ccr_cli.reading_json import NotJson, read

    wanted: Message = _class(described.input_type)()
    try:
        return ParseDict(read(text), wanted)
    except NotJson as error:
        raise Failure(f"the request is no JSON: {error}", EXIT_USAGE) from None
    except ParseError as error:
        raise Failure(f"the request is no {described.input_type.name}: {error}", EXIT_USAGE) from None
