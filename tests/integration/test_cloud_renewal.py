"""A token that was revoked before its end: the node tells, the control plane renews, the request goes out again, and nobody notices."""

from __future__ import annotations

from pathlib import Path

from support.identity import running_identity, service_account
from support.relay import AUTH, BODY, STREAM_BODY, client, config, records, relaying
from support.serving import until
from support.upstream import EVENTS, MESSAGE, RawUpstream, Request, Wire, error_answer, json_answer, stream_answer

REVOKED = "google-token-1"


def answer(request: Request, wire: Wire) -> None:
    if REVOKED in (request.header("authorization") or ""):
        wire.send(error_answer("401 Unauthorized", "authentication_error"))
    elif b'"stream":true' in request.body:
        stream_answer(request, wire)
    else:
        wire.send(json_answer(MESSAGE))


def test_a_revoked_token_is_renewed_once_for_all_who_wait(tmp_path: Path) -> None:
    """Real processes, Google's own library, a fake of its token endpoint."""
    with running_identity() as identity, RawUpstream(answer) as upstream:
        account = service_account(tmp_path, f"{identity.origin}/token")
        google = {
            "name": "vertex",
            "type": "vertex",
            "base_url": upstream.url,
            "allow_private": True,
            "project": "my-project",
            "location": "us-east5",
            "google": {"credentials_file": str(account)},
            "serves": ["*"],
        }
        with relaying(tmp_path, config(google)) as relay, client(relay) as one, client(relay) as other:
            for connection, body in ((one, BODY), (other, STREAM_BODY)):
                connection.request("POST", "/v1/messages", body, AUTH)
            answers = [connection.answer() for connection in (one, other)]
            until(lambda: len(records(relay)) == 2, "the records")
            logged = relay.output

    assert [each.status for each in answers] == [200, 200]
    assert [each.body for each in answers] == [MESSAGE, b"".join(EVENTS)]
    assert identity.paths().count("/token") == 2
    sent = [request.header("authorization") for request in upstream.requests]
    assert set(sent) <= {"Bearer google-token-1", "Bearer google-token-2"}
    assert 1 <= sent.count("Bearer google-token-1") <= 2
    assert "google-token" not in logged
