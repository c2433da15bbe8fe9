"""What all tests share."""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before the import of gRPC, whose C core writes to stderr by itself

import pytest
from support.tls import Certificates, make_certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for providers on loopback."""
    return make_certificates(tmp_path_factory.mktemp("tls"))
