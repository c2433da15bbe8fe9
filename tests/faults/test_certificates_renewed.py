"""The certificate of the control plane's port ends, and is renewed in the middle of work: nothing is started anew."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from ccr_control import tls
from ccr_control.shell.authority import Authority
from integration.test_control_tls import made, secured, trusting, who
from support.control import Control, running_control, until


def write_expired(folder: Path) -> None:
    """A certificate by the same authority that ended yesterday."""
    long_ago = datetime.now(UTC) - timedelta(days=3)
    server = Authority.at(folder, datetime.now(UTC)).for_server(["localhost"], long_ago, 1)
    (folder / "server.pem").write_bytes(server.certificate)
    (folder / "server-key.pem").write_bytes(server.key)


async def is_reached(control: Control, folder: Path) -> bool:
    try:
        await who(control, trusting(folder))
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_a_certificate_that_has_ended_is_replaced_while_it_runs(tmp_path: Path) -> None:
    """Half of a renewal, and what is no certificate, change nothing; who is connected stays connected."""
    folder = made(tmp_path)
    write_expired(folder)
    async with running_control(tmp_path, secured(folder)) as control:
        assert not await is_reached(control, folder), "clients do not take an old certificate"
        renewed = tmp_path / "renewed"
        shutil.copytree(folder, renewed)
        assert tls.main(["init", "--dir", str(renewed), "--host", "localhost", "--force"]) == 0
        shutil.copy(renewed / "server-key.pem", folder)
        assert not await is_reached(control, folder), "the key does not fit the certificate yet"
        assert len(control.events("certificates_refused")) == 1
        assert not await is_reached(control, folder)
        assert len(control.events("certificates_refused")) == 1, "it is told once"
        shutil.copy(renewed / "server.pem", folder)
        await until(lambda: is_reached(control, folder), "the new one is used")
        assert control.events("certificates_renewed")
        (folder / "server.pem").write_text("no certificate")
        (folder / "server-key.pem").unlink()
        assert await is_reached(control, folder), "the last good ones go on"
        assert control.process is not None
        assert control.process.poll() is None
        assert "PRIVATE KEY" not in control.log_text()


@pytest.mark.parametrize("wants_clients", [False, True])
async def test_a_renewed_authority_of_clients_counts_from_the_next_connection(
    tmp_path: Path, *, wants_clients: bool
) -> None:
    """Whose certificates are by another authority is let in once that one is configured, and not before."""
    folder = made(tmp_path, "--client", "laptop")
    other = made(tmp_path / "other", "--client", "laptop")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    shutil.copy(folder / "ca.pem", mixed / "ca.pem")
    for name in ("laptop.pem", "laptop-key.pem"):
        shutil.copy(other / name, mixed / name)
    async with running_control(tmp_path, secured(folder, wants_clients=wants_clients)) as control:

        async def is_let_in() -> bool:
            try:
                await who(control, trusting(mixed, "laptop"))
            except grpc.aio.AioRpcError:
                return False
            return True

        assert await is_let_in() is not wants_clients
        if wants_clients:
            both = (folder / "ca.pem").read_bytes() + (other / "ca.pem").read_bytes()
            (folder / "ca.pem").write_bytes(both)
            (mixed / "ca.pem").write_bytes(both)
            await until(is_let_in, "the second authority is known")
