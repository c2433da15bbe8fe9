"""An authority of one's own: makes certificates for servers and clients of the admin API."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ccr_control.core.access import NODE_ID, SPIFFE_ID
from ccr_control.core.errors import ControlError

AUTHORITY_DAYS = 3650
SLACK = timedelta(minutes=5)  # clocks differ


@dataclass(frozen=True, slots=True)
class Made:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that signs others."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def at(cls, folder: Path, now: datetime) -> Authority:
        """The authority of a folder, made if there is none. Raises ControlError or OSError."""
        cert_path, key_path = folder / "ca.pem", folder / "ca-key.pem"
        if cert_path.exists() != key_path.exists():
            raise ControlError(
                f"of {cert_path} and {key_path} only one is there: bring back the other, or move it away"
            )
        if cert_path.exists():
            return cls._read(cert_path, key_path)
        made = cls._new(now)
        descriptor = os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(_pem(made.key))
        cert_path.write_bytes(made.certificate.public_bytes(serialization.Encoding.PEM))
        return made

    @classmethod
    def _read(cls, cert_path: Path, key_path: Path) -> Authority:
        try:
            certificate = x509.load_pem_x509_certificate(cert_path.read_bytes())
            key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise ControlError(f"{cert_path} and {key_path} are no certificate and its key: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ControlError(f"{key_path} is not the key of {cert_path}")
        return cls(certificate, key)

    @classmethod
    def _new(cls, now: datetime) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cc-relay authority")])
        certificate = (
            _begun(name, name, key.public_key(), now, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    def for_server(self, hosts: Sequence[str], now: datetime, days: int) -> Made:
        """A certificate for a server that is reached by these names and addresses."""
        names: list[x509.GeneralName] = [_host(host) for host in hosts]
        return self._made(hosts[0], names, ExtendedKeyUsageOID.SERVER_AUTH, now, days)

    def for_client(self, name: str, now: datetime, days: int) -> Made:
        """A certificate for a client, which names it as `spiffe://cc-relay/NAME`."""
        return self._for_caller(name, f"{SPIFFE_ID}{name}", now, days)

    def for_node(self, machine: str, now: datetime, days: int) -> Made:
        """A certificate for the nodes of a machine, which names it as `spiffe://cc-relay/node/NAME`."""
        return self._for_caller(machine, f"{NODE_ID}{machine}", now, days)

    def _for_caller(self, name: str, uri: str, now: datetime, days: int) -> Made:
        identity: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
        return self._made(name, identity, ExtendedKeyUsageOID.CLIENT_AUTH, now, days)

    def _made(
        self, common: str, names: list[x509.GeneralName], usage: x509.ObjectIdentifier, now: datetime, days: int
    ) -> Made:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])
        certificate = (
            _begun(name, self.certificate.subject, key.public_key(), now, days)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return Made(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise ControlError(f"--host {host!r}: {error}") from error


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
