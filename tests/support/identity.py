"""The services by which clouds hand out credentials, on loopback: AWS STS, IMDS and containers, Google's token, STS, IAM and metadata
endpoints, Microsoft Entra ID and managed identity. What the real libraries ask is remembered; what they get is scripted.

A server in a thread, because the libraries block. Everything it hands out is numbered: `aws-key-1`, `google-token-2`, `entra-token-3`.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

STS_ANSWER = """\
<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><Credentials>
<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>
<Expiration>{expiration}</Expiration></Credentials></{action}Result></{action}Response>"""
STS_REFUSAL = """\
<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>AccessDenied</Code>
<Message>User: arn:aws:iam::123456789012:user/relay is not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>"""


@dataclass
class Identity:
    """The running fake. Change its fields while it runs."""

    origin: str = ""
    lifetime_s: float = 3600.0
    is_refusing: bool = False
    is_hanging: bool = False
    let_go: threading.Event = field(default_factory=threading.Event)
    asked: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    number: int = 0
    under_way: int = 0
    most_under_way: int = 0

    def next_number(self) -> int:
        """Of what is handed out next."""
        with self.lock:
            self.number += 1
            return self.number

    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [one["path"] for one in self.asked]

    def newest(self, path: str) -> dict[str, Any]:
        """The newest request for a path: method, headers (lower case), form or JSON."""
        return next(one for one in reversed(self.asked) if one["path"] == path)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    identity: Identity
    certificate: ssl.SSLContext | None = None

    def log_message(self, *_: object) -> None:
        """Nothing: tests read `asked`."""

    def do_GET(self) -> None:
        self._answer(b"")

    def do_PUT(self) -> None:
        self._answer(self._body())

    def do_POST(self) -> None:
        self._answer(self._body())

    def do_CONNECT(self) -> None:
        """A proxy that stands for every host: the tunnel ends here."""
        assert self.certificate is not None
        self.send_response(200)
        self.end_headers()
        self.connection = self.certificate.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb", -1)
        self.wfile = self.connection.makefile("wb", 0)  # type: ignore[assignment]  # as socketserver's own
        self.close_connection = False

    def finish(self) -> None:
        """Also close what a tunnel was wrapped into."""
        super().finish()
        self.connection.close()

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _answer(self, body: bytes) -> None:
        me, url = self.identity, urlsplit(self.path)
        is_json = "json" in (self.headers.get("content-type") or "")
        said = json.loads(body) if is_json and body else {k: v[0] for k, v in parse_qs(body.decode()).items()}
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        with me.lock:
            me.asked.append(
                {"method": self.command, "path": url.path, "headers": headers, "said": said, "query": query}
            )
            me.under_way += 1
            me.most_under_way = max(me.most_under_way, me.under_way)
        try:
            if me.is_hanging:
                me.let_go.wait(30)
            self._write(*self._outcome(url.path, said, query))
        finally:
            with me.lock:
                me.under_way -= 1

    def _write(self, status: int, answer: bytes | dict[str, Any]) -> None:
        payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json" if isinstance(answer, dict) else "text/plain")
        self.send_header("metadata-flavor", "Google")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def _outcome(self, path: str, said: Mapping[str, str], query: Mapping[str, str]) -> tuple[int, Any]:
        me = self.identity
        if path == "/" and "Action" in said:
            return self._sts(said)
        if path == "/latest/api/token":
            return 200, b"imds-session"
        if path.endswith("/v2.0/.well-known/openid-configuration"):
            tenant = path.split("/")[1]
            base = f"{me.origin}/{tenant}"
            return 200, {
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "issuer": f"{base}/v2.0",
            }
        if me.is_refusing:
            return 403, {"error": "forbidden", "error_description": "not you", "error_codes": [7000215]}
        if path == "/latest/meta-data/iam/security-credentials/":
            return 200, b"instance-role"
        if path in ("/latest/meta-data/iam/security-credentials/instance-role", "/container"):
            return 200, self._aws_json()
        if path == "/oidc-token":
            return 200, {"access_token": "subject-token-of-the-machine"}
        if path in ("/token", "/v1/token", "/google-sts") or path.startswith("/computeMetadata/v1/instance/service-"):
            return 200, self._google_json(path)
        if path == "/" or path.startswith("/computeMetadata"):
            return 200, b"ok"
        if path.endswith(":generateAccessToken"):
            token = f"impersonated-token-{me.next_number()}"
            return 200, {"accessToken": token, "expireTime": _iso(time.time() + me.lifetime_s)}
        if path == "/msi/token":
            token = f"managed-token-{me.next_number()}"
            end_s = int(time.time() + me.lifetime_s)
            return 200, {
                "access_token": token,
                "expires_on": str(end_s),
                "resource": query.get("resource"),
                "token_type": "B",
            }
        if path.endswith("/oauth2/v2.0/token"):
            token = f"entra-token-{me.next_number()}"
            return 200, {"access_token": token, "expires_in": int(me.lifetime_s), "token_type": "Bearer"}
        return 404, {"error": f"nothing at {path}"}

    def _sts(self, said: Mapping[str, str]) -> tuple[int, bytes]:
        if self.identity.is_refusing:
            return 403, STS_REFUSAL.encode()
        number = self.identity.next_number()
        answer = STS_ANSWER.format(
            action=said["Action"],
            key=f"ASIA-KEY-{number}",
            secret=f"sts-secret-{number}",
            token=f"sts-token-{number}",
            expiration=_iso(time.time() + self.identity.lifetime_s),
        )
        return 200, answer.encode()

    def _aws_json(self) -> dict[str, Any]:
        number = self.identity.next_number()
        return {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": f"ASIA-KEY-{number}",
            "SecretAccessKey": f"machine-secret-{number}",
            "Token": f"machine-token-{number}",
            "LastUpdated": _iso(time.time()),
            "Expiration": _iso(time.time() + self.identity.lifetime_s),
        }

    def _google_json(self, path: str) -> dict[str, Any]:
        if path.endswith("/service-accounts/default/"):
            return {"email": "relay@project.iam.gserviceaccount.com", "scopes": [], "aliases": ["default"]}
        number = self.identity.next_number()
        return {
            "access_token": f"google-token-{number}",
            "expires_in": int(self.identity.lifetime_s),
            "token_type": "Bearer",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        }


def _iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@contextmanager
def running_identity(certificate: ssl.SSLContext | None = None, *, is_tls: bool = False) -> Iterator[Identity]:
    """The fake while the block runs. `certificate`: it is a proxy for https, too, or with `is_tls` speaks only that."""
    identity = Identity()
    handler = type("Handler", (_Handler,), {"identity": identity, "certificate": certificate})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if is_tls:
        assert certificate is not None
        server.socket = certificate.wrap_socket(server.socket, server_side=True)
    identity.origin = f"{'https' if is_tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield identity
    finally:
        identity.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()


def service_account(directory: Path, token_uri: str) -> Path:
    """The key file of a Google service account whose tokens come from the fake."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = directory / "service-account.json"
    file.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "my-project",
                "private_key_id": "1",
                "private_key": pem.decode(),
                "client_email": "relay@my-project.iam.gserviceaccount.com",
                "client_id": "1",
                "token_uri": token_uri,
            }
        )
    )
    return file


def claims(assertion: str) -> dict[str, Any]:
    """What a JWT says; its signature is not looked at."""
    return jwt.decode(assertion, options={"verify_signature": False})
