"""Where batches and files are looked for, and how the relay calls itself in them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ccr_data.core.errors import CircuitsOpen, NotSupported
from ccr_data.core.framing import own_base_url
from ccr_data.core.homes import homes
from ccr_data.core.refusals import SPACING_S, Refusals
from ccr_data.core.snapshot import Key, KeyState, Provider, Traits
from ccr_data.core.sse import ends_in_error, is_without_content
from support import routing


def provider(name: str, *keys: Key, **more: object) -> Provider:
    return routing.provider(name, *keys, **{"traits": Traits(batches_and_files=True), **more})


def asked(method: str, path: str, *providers: Provider, has_own_token: bool = False) -> list[str]:
    found = homes(routing.snapshot(*providers), method.encode(), path.encode(), has_own_token=has_own_token)
    return [f"{one.provider.name}/{one.label}" for one in found]


A = Key("a", "s", "org-1")
A2 = Key("a2", "s", "org-1")
B = Key("b", "s", "org-2")
C = Key("c", "s", "")


@pytest.mark.parametrize("path", ["/v1/messages/batches", "/v1/files"])
def test_what_creates_goes_to_one_account_whose_circuit_is_closed(path: str) -> None:
    assert asked("POST", path, provider("p", A, A2, B), provider("q", C)) == ["p/a"]
    assert asked("POST", path, provider("p", replace(A, is_open=True), B), provider("q", C)) == ["p/b"]
    assert asked("POST", path, provider("p", A, B, is_open=True), provider("q", C)) == ["q/c"]
    both = provider("p", A, is_open=True), provider("q", C, is_open=True)
    assert asked("POST", path, *both) == ["p/a"], "none is removed for being the last"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/messages/batches/b1"),
        ("GET", "/v1/messages/batches/b1/results"),
        ("POST", "/v1/messages/batches/b1/cancel"),
        ("DELETE", "/v1/files/f1"),
        ("GET", "/v1/files/f1/content"),
    ],
)
def test_what_names_one_is_asked_of_every_account_once(method: str, path: str) -> None:
    assert asked(method, path, provider("p", A, A2, B), provider("q", C)) == ["p/a", "p/b", "q/c"]
    assert asked(method, path, provider("p", A, B, is_open=True), provider("q", C)) == ["q/c", "p/a", "p/b"]


def test_a_listing_is_of_the_first_account_always() -> None:
    """Its pages must not come from here and there."""
    assert asked("GET", "/v1/messages/batches", provider("p", A, is_open=True), provider("q", C)) == ["p/a"]


def test_who_has_none_is_not_asked() -> None:
    disabled = replace(A, state=KeyState.DISABLED)
    none = provider("n", C, traits=Traits(batches_and_files=False))
    with pytest.raises(NotSupported):
        asked("GET", "/v1/files/f", none, provider("p", disabled), provider("o", C, is_enabled=False))
    taking = provider("t", A, accepts_subscription=True)
    assert asked("GET", "/v1/files/f", provider("p", A), taking, has_own_token=True) == ["t/"]


@pytest.mark.parametrize("path", ["/v1/messages/batches", "/v1/files"])
def test_an_account_that_is_being_left_gets_no_new_ones(path: str) -> None:
    """They would be lost with it; what is there is still found, and with a key that stays, if the account has one."""
    old = replace(A, state=KeyState.DEPRECATED)
    drained = provider("p", A, B, is_draining=True)
    assert asked("POST", path, drained, provider("q", C)) == ["q/c"]
    assert asked("POST", path, drained, provider("q", replace(C, is_open=True))) == ["q/c"]
    assert asked("POST", path, provider("p", old, B)) == ["p/b"]
    assert asked("POST", path, provider("p", old, A2, B)) == ["p/a2"]
    assert asked("GET", f"{path}/one", drained, provider("q", C)) == ["p/a", "p/b", "q/c"]
    assert asked("GET", f"{path}/one", provider("p", old, B, A2)) == ["p/a2", "p/b"]
    assert asked("GET", f"{path}/one", provider("p", old, B)) == ["p/a", "p/b"]
    for left in (drained, provider("p", old)):
        with pytest.raises(CircuitsOpen):
            asked("POST", path, left)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], b"http://relay:1"),
        ([b"X-Forwarded-Proto: https"], b"https://relay:1"),
        ([b"accept: */*", b"x-forwarded-proto:HTTPS, http"], b"https://relay:1"),
        ([b"x-forwarded-proto: http"], b"http://relay:1"),
        ([b"x-forwarded-proto: javascript"], b"http://relay:1"),
        ([b"x-forwarded-protocol: https"], b"http://relay:1"),
    ],
)
def test_the_relays_own_url_has_the_clients_scheme(lines: list[bytes], expected: bytes) -> None:
    assert own_base_url(lines, {b"host": b"relay:1"}) == expected


ERROR = b'event: error\ndata: {"type":"error","error":{"message":"an event: ping"}}\n\n'
START = b"event: message_start\ndata: {}\n\n"
TEXT = b"event: content_block_start\ndata: {}\n\n"


@pytest.mark.parametrize(
    ("data", "is_error", "is_empty"),
    [
        (ERROR, True, True),
        (START + ERROR, True, True),
        (START + TEXT + ERROR, True, False),
        (ERROR.replace(b"\n", b"\r\n").replace(b": error", b":error"), True, True),
        (START, False, True),
        (START + b'event: x\ndata: {"a":"event: error"}\n\n', False, True),
        (b"event: errors\ndata: {}\n\n", False, True),
        (b"", False, True),
    ],
)
def test_an_error_at_the_end_of_a_stream_is_recognised(data: bytes, is_error: bool, is_empty: bool) -> None:
    assert ends_in_error(data, len(data)) is is_error
    assert is_without_content(data, len(data), len(data)) is is_empty
    assert not is_without_content(data, len(data), len(data) + 1), "there was more before"


def test_refusals_are_told_at_once_and_then_now_and_then() -> None:
    refusals = Refusals()
    assert [refusals.note("Unauthorized", 0.01 * n) for n in range(50)] == [1] + [0] * 49
    assert refusals.note("NoSuchEndpoint", 0.5) == 1, "another kind"
    assert refusals.note("Unauthorized", SPACING_S) == 50
