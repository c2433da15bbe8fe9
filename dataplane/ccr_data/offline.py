"""`python -m ccr_data.offline`: where a request would go while no node runs.

Reads a serialised RouteQuestion with a candidate snapshot from stdin, and writes the RouteAnswer of a node that has served nothing yet
to stdout. Exit codes: 0 answered, 2 that was no question.
"""

from __future__ import annotations

import sys

from ccr_rpc.v1 import snapshot_pb2
from google.protobuf.message import DecodeError

from ccr_data.shell.asking import answer_afresh, understood

OK, USAGE = 0, 2


def main() -> int:
    """Answer one question."""
    try:
        message = snapshot_pb2.RouteQuestion.FromString(sys.stdin.buffer.read())
    except DecodeError:
        print("standard input: not a serialised RouteQuestion", file=sys.stderr)
        return USAGE
    sys.stdout.buffer.write(answer_afresh(understood(message)).SerializeToString())
    return OK


if __name__ == "__main__":
    sys.exit(main())
