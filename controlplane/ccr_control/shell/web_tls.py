"""TLS of the web page beyond loopback, with the files of `control.tls`; renewed ones are used from the next connection on."""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass
from pathlib import Path

from ccr_control.core.schema import ControlTlsConfig
from ccr_control.shell.log import Log
from ccr_control.shell.paths import CannotStart

log = Log("web")


@dataclass(frozen=True, slots=True)
class WebTls:
    """What the page is secured with, and the names it answers to: those in its certificate, also such as `*.example.org`."""

    context: ssl.SSLContext
    names: tuple[str, ...]


def web_tls(tls: ControlTlsConfig | None, beside: Path) -> WebTls | None:
    """What the page beyond loopback is secured with; None: nothing. Names of files are relative to the configuration's, `beside`.

    Raises CannotStart.
    """
    if tls is None:
        return None
    cert, key = (beside.parent / Path(name).expanduser() for name in (tls.cert_file, tls.key_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, password=_no_password)
        if tls.client_ca_file is not None:
            context.load_verify_locations(beside.parent / Path(tls.client_ca_file).expanduser())
            context.verify_mode = ssl.CERT_REQUIRED
        names = _names(cert.read_bytes())
    except (OSError, ValueError) as error:  # also what TLS itself does not like
        raise CannotStart(f"control.tls: {cert} and {key} cannot be used for the web page: {error}") from error
    _follow(context, cert, key)
    return WebTls(context, names)


def _follow(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Look at each handshake whether the files were renewed."""
    seen = [_look(cert, key)]

    def renew(*_: object) -> None:
        now = _look(cert, key)
        if now == seen[0]:
            return
        seen[0] = now
        try:  # with a context that nobody uses: a certificate whose key does not fit would take the place of the one from before
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=_no_password)
            context.load_cert_chain(cert, key, password=_no_password)
        except (OSError, ValueError) as error:  # for example between the writing of one and of the other
            log.warning("web_certificate_refused", problem=str(error), effect="the one from before is used")

    context.sni_callback = renew


def _look(*paths: Path) -> list[tuple[int, int, int]]:
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.stat()
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return found


def _no_password() -> str:
    raise ValueError("the key has a password: give one without")


def _names(pem: bytes) -> tuple[str, ...]:
    """The names and addresses a certificate is for, as a `Host` header spells them. Raises ValueError."""
    from cryptography import x509  # noqa: PLC0415 - takes long, and most have no certificate

    try:
        extension = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    names = [one.lower() for one in extension.value.get_values_for_type(x509.DNSName)]
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return (*names, *(f"[{one}]" if one.version == 6 else str(one) for one in addresses))
