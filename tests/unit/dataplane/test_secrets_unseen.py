"""No object that a traceback, a log or a debugger may show prints a secret."""

from __future__ import annotations

import traceback
from dataclasses import fields, is_dataclass

import msgspec
from ccr_data.core.admit import Admitted
from ccr_data.core.http1 import LineMemory, parse_answer_head, parse_request_head
from ccr_data.core.peek import peek
from ccr_data.core.snapshot import AwsCredentials
from ccr_data.providers.adapter import ClientRequest
from ccr_data.providers.anthropic_shaped import prepare
from ccr_data.shell.wire import to_snapshot
from support.node_values import snapshot_message

CANARY = "canary-never-shown"
BODY = b'{"model":"claude-x","messages":[{"role":"user","content":"canary-never-shown"}],"stream":true}'
HEAD = (
    b"POST /v1/messages HTTP/1.1\r\nhost: r\r\nx-api-key: canary-never-shown\r\nauthorization: Bearer canary-never-shown\r\n"
    b"x-a: canary-never-shown"
)


def everything(value: object, depth: int = 0) -> list[object]:
    """The value and all that it holds."""
    found = [value]
    if depth > 8:
        return found
    inner: list[object] = []
    if is_dataclass(value):
        inner = [getattr(value, one.name) for one in fields(value)]
    elif isinstance(value, msgspec.Struct):
        inner = [getattr(value, name) for name in value.__struct_fields__]
    elif isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = list(value)
    for one in inner:
        found += everything(one, depth + 1)
    return found


def test_nothing_in_a_snapshot_prints_a_secret() -> None:
    message = snapshot_message(1, secret=CANARY, providers=2)
    message.providers[1].headers.add(name="x-secret", value=CANARY)
    message.auth.clients.add(name="c", key_sha256=CANARY.ljust(32).encode()[:32])
    snapshot = to_snapshot(message)
    objects = [one for one in everything(snapshot) if is_dataclass(one) or isinstance(one, msgspec.Struct)]
    assert len(objects) > 8
    for one in objects:
        assert CANARY not in repr(one), type(one)
        assert CANARY not in str(one), type(one)
    assert CANARY not in repr(AwsCredentials("id", CANARY, CANARY))


def test_nothing_on_the_way_of_a_request_prints_a_secret() -> None:
    message = snapshot_message(1, secret=CANARY)
    snapshot = to_snapshot(message)
    target = snapshot.routes_of("claude-x")[0].only_target
    assert target is not None
    head = parse_request_head(HEAD, LineMemory(of_request=True))
    request = ClientRequest(head, BODY, peek(BODY), CANARY.encode())
    answer = parse_answer_head(
        b"HTTP/1.1 200 OK\r\nset-cookie: canary-never-shown\r\nretry-after: 1", LineMemory(of_request=False)
    )
    upstream = prepare(request, target)
    assert CANARY.encode() in upstream.head
    for one in (head, request, answer, upstream, target, Admitted("c", CANARY.encode())):
        assert CANARY not in repr(one), type(one)
        told = traceback.format_exception(ValueError(one))
        assert CANARY not in "".join(told), type(one)
