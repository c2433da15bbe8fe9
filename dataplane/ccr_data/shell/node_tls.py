"""The certificates of a node that has its control plane on another machine.

The files are read anew for each connection, so that renewed ones need no restart.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from cryptography import x509

_NODE_ID = re.compile(r"spiffe://cc-relay/node/([A-Za-z0-9][A-Za-z0-9._-]{0,63})")


class TlsUnusable(Exception):
    """The files cannot be used, or do not lead to the control plane; the message says which and why."""


@dataclass(frozen=True, slots=True)
class NodeTls:
    """Whom the control plane is trusted by, and what shows it who this node is."""

    ca_file: Path
    cert_file: Path
    key_file: Path

    def machine(self) -> str:
        """The machine's name in the fleet, as its certificate says, also one that has ended. Raises TlsUnusable."""
        from cryptography import x509  # noqa: PLC0415 - for nodes with a certificate only

        try:
            names = self._certificate().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        except x509.ExtensionNotFound:
            uris = []
        except ValueError as error:
            raise TlsUnusable(f"{self.cert_file} is no certificate: {error}") from None
        found = _NODE_ID.fullmatch(uris[0]) if len(uris) == 1 else None
        if found is None:
            raise TlsUnusable(
                f"{self.cert_file} is for {', '.join(uris) or 'nobody'}, not for a node: "
                "make one with `ccr tls init --node NAME`"
            )
        return found[1]

    def context(self) -> ssl.SSLContext:
        """For a look whether the control plane is there and takes us. Raises TlsUnusable."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["h2"])
        authorities = _read(self.ca_file)
        try:
            context.load_verify_locations(cadata=authorities.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise TlsUnusable(f"{self.ca_file} holds no certificate: {error}") from None
        _read(self.cert_file)
        _read(self.key_file)
        try:
            context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise TlsUnusable(f"{self.cert_file} and {self.key_file} are no certificate and its key: {error}") from None
        return context

    def credentials(self) -> grpc.ChannelCredentials:
        """For gRPC. Raises TlsUnusable."""
        return grpc.ssl_channel_credentials(_read(self.ca_file), _read(self.key_file), _read(self.cert_file))

    def refusal(self, error: ssl.SSLError | None, now: datetime) -> str:
        """What a failed handshake means, in words; None: the control plane just hung up, as gRPC's servers do."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted by {self.ca_file}: {error.verify_message}"
        if error is not None and "ALERT" not in (error.reason or ""):
            return f"TLS failed: {error.reason or error}"
        return f"it refuses {self.cert_file}: {self._doubt(now)}"

    def _doubt(self, now: datetime) -> str:
        try:
            certificate = self._certificate()
        except TlsUnusable as error:
            return str(error)
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now >= ends:
            return f"it has expired ({ends.isoformat()})"
        if now < begins:
            return f"it is not valid yet ({begins.isoformat()}): is the clock right?"
        return "it has to be by an authority in the file that control.tls.client_ca_file names there"

    def _certificate(self) -> x509.Certificate:
        from cryptography import x509  # noqa: PLC0415 - for nodes with a certificate only

        try:
            return x509.load_pem_x509_certificate(_read(self.cert_file))
        except ValueError as error:
            raise TlsUnusable(f"{self.cert_file} is no certificate: {error}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsUnusable(f"{path} cannot be read: {error.strerror}") from None


def _no_password() -> str:
    raise ValueError("the key has a password: give one without")
