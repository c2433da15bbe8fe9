"""Certificates of the control plane's port: read and checked at the start, so that a mistake in them is one clear line.

Files that were renewed are used from the next connection on. As long as they are no certificate and its key (one of them is
written before the other), those from before are.
"""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import grpc

from ccr_control.core.schema import ControlTlsConfig
from ccr_control.shell.log import Log
from ccr_control.shell.paths import CannotStart

log = Log("certificates")


def server_credentials(tls: ControlTlsConfig | None, beside: Path) -> grpc.ServerCredentials | None:
    """What the port is secured with; None: nothing. Names of files are relative to the configuration's, `beside`.

    Raises CannotStart.
    """
    if tls is None:
        return None
    cert, key = _place(tls.cert_file, beside), _place(tls.key_file, beside)
    clients = _place(tls.client_ca_file, beside) if tls.client_ca_file is not None else None
    files = _Files(cert, key, clients)
    return grpc.dynamic_ssl_server_credentials(
        files.read(),
        files.renewed,  # type: ignore[arg-type]  # its types have forgotten the None that the function's words speak of
        require_client_authentication=clients is not None,
    )


class _Files:
    """The files, and whether they changed. `renewed` is called by gRPC's threads, at each handshake."""

    def __init__(self, cert: Path, key: Path, clients: Path | None) -> None:
        self._cert, self._key, self._clients = cert, key, clients
        self._seen: list[tuple[int, int, int]] = []

    def read(self) -> grpc.ServerCertificateConfiguration:
        """What they say. Raises CannotStart."""
        self._seen = self._look()
        _check(self._cert, self._key)
        if self._clients is not None:
            _check_authorities(self._clients)
        return grpc.ssl_server_certificate_configuration(
            [(_read(self._key, "key_file"), _read(self._cert, "cert_file"))],
            root_certificates=_read(self._clients, "client_ca_file") if self._clients is not None else None,
        )

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """What they say if they changed; None: what was used before is still to be used."""
        if self._look() == self._seen:
            return None
        try:
            found = self.read()
        except CannotStart as error:
            log.warning("certificates_refused", problem=str(error), effect="those from before are used")
            return None
        log.info("certificates_renewed", path=str(self._cert))
        return found

    def _look(self) -> list[tuple[int, int, int]]:
        seen = []
        for path in filter(None, (self._cert, self._key, self._clients)):
            with contextlib.suppress(OSError):
                status = path.stat()
                seen.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return seen


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
