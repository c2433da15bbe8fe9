"""The web page's certificate is renewed by two files, one after the other."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from ccr_control.core.schema import ControlTlsConfig
from ccr_control.shell.web_tls import web_tls
from support.tls import make_certificates


def shown_by(server: ssl.SSLContext) -> bytes | None:
    """The certificate that whoever connects gets."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname="localhost")
    peer = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (client, peer):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client.getpeercert(binary_form=True)


@pytest.mark.parametrize("first", ["ca.pem", "key.pem"])
def test_half_a_renewal_changes_nothing(tmp_path: Path, first: str) -> None:
    """Nor does what is no certificate; the other half completes it, from the next connection on."""
    (tmp_path / "renewed").mkdir()
    files, renewed = make_certificates(tmp_path), make_certificates(tmp_path / "renewed")
    tls = web_tls(
        ControlTlsConfig(cert_file=str(files.ca_file), key_file=str(files.key_file)), tmp_path / "cc-relay.yaml"
    )
    assert tls is not None
    before, after = shown_by(tls.context), ssl.PEM_cert_to_DER_cert(renewed.ca_file.read_text())
    assert before
    second = "key.pem" if first == "ca.pem" else "ca.pem"
    (tmp_path / "renewed" / first).replace(tmp_path / first)
    assert [shown_by(tls.context) for _ in range(3)] == [before] * 3
    (tmp_path / "renewed" / second).replace(tmp_path / second)
    shown_by(tls.context)  # the handshake that notices
    assert shown_by(tls.context) == after != before
    files.ca_file.write_text("no certificate")
    assert [shown_by(tls.context) for _ in range(2)] == [after] * 2
