"""Certificates of the control plane's port: read and checked at the start, so that a mistake in them is one clear line."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from ccr_control.core.schema import ControlTlsConfig
from ccr_control.shell.paths import CannotStart


def server_credentials(tls: ControlTlsConfig | None, beside: Path) -> grpc.ServerCredentials | None:
    """What the port is secured with; None: nothing. Names of files are relative to the configuration's, `beside`.

    Raises CannotStart.
    """
    if tls is None:
        return None
    cert, key = _place(tls.cert_file, beside), _place(tls.key_file, beside)
    _check(cert, key)
    clients = _place(tls.client_ca_file, beside) if tls.client_ca_file is not None else None
    if clients is not None:
        _check_authorities(clients)
    return grpc.ssl_server_credentials(
        [(_read(key, "key_file"), _read(cert, "cert_file"))],
        root_certificates=_read(clients, "client_ca_file") if clients is not None else None,
        require_client_auth=clients is not None,
    )


def _place(name: str, beside: Path) -> Path:
    return beside.parent / Path(name).expanduser()


def _check(cert: Path, key: Path) -> None:
    _read(cert, "cert_file")
    _read(key, "key_file")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise CannotStart(f"control.tls: {cert} and {key} are no certificate and its key: {error}") from error


def _no_password() -> str:
    raise ValueError("the key has a password: give one without")


def _check_authorities(path: Path) -> None:
    text = _read(path, "client_ca_file")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=text.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError, ValueError) as error:
        raise CannotStart(f"control.tls.client_ca_file: {path} holds no certificate: {error}") from error


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CannotStart(f"control.tls.{setting}: {path} cannot be read: {error.strerror}") from error
