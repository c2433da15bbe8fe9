"""`ccr explain`: why a request went where it went."""

from __future__ import annotations

from typing import Annotated

import typer
from ccr_words.explaining import lines

from ccr_cli.options import Control, Json, StateDir
from ccr_cli.screen import print_json

RequestId = Annotated[
    str, typer.Argument(metavar="REQUEST-ID", help="As in the answer's x-cc-relay-request-id, or the log's request_id.")
]


def explain(request_id: RequestId, control: Control = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Show why a request went where it went: its route, the candidates in order, what was passed over, each attempt.

    Exit codes: 0 it is known, 2 it is not among the newest requests.

    Example: `ccr explain req_ccr_1e0cce7a1b00000001`
    """
    from ccr_rpc.v1 import routes_pb2

    from ccr_cli.control import opened

    with opened(control, state_dir) as plane:
        found = plane.routes.ExplainRequest(routes_pb2.ExplainRequestRequest(request_id=request_id))
    if as_json:
        from google.protobuf.json_format import MessageToDict

        print_json(MessageToDict(found, preserving_proto_field_name=True))
    else:
        print("\n".join(lines(found.record, found.node_id)))
