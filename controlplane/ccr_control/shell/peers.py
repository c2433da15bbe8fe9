"""What a peer's certificate says, once gRPC has verified it: it asks for one where `control.tls.client_ca_file` is set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The part of a certificate that matters here."""

    uris: tuple[str, ...]  # whom it names
    ends_at_s: float  # seconds since 1970


def certificate_of(properties: Mapping[str, Iterable[bytes]]) -> PeerCertificate | None:
    """The certificate in a call's `auth_context()`; None if the peer showed none, or it cannot be read."""
    found = next(iter(properties.get("x509_pem_cert", ())), None)
    if found is None:
        return None
    from cryptography import x509  # noqa: PLC0415 - for who has nodes elsewhere

    try:
        certificate = x509.load_pem_x509_certificate(found)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
    except x509.ExtensionNotFound:
        uris = ()
    except ValueError:
        return None
    return PeerCertificate(uris, certificate.not_valid_after_utc.timestamp())
