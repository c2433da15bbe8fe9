"""The admin API beyond loopback: never in the clear, and by certificates of one's own."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
from ccr_control import tls
from ccr_rpc.v1 import access_pb2, access_pb2_grpc
from support.control import CONFIG, Control, running_control

REACH_WITHIN_S = 5.0


def made(directory: Path, *arguments: str) -> Path:
    """A folder of certificates."""
    folder = directory / "tls"
    assert tls.main(["init", "--dir", str(folder), *arguments]) == 0
    return folder


def secured(folder: Path, *, wants_clients: bool = False) -> str:
    clients = f", client_ca_file: {folder}/ca.pem" if wants_clients else ""
    files = f"{{cert_file: {folder}/server.pem, key_file: {folder}/server-key.pem{clients}}}"
    return CONFIG.replace('control: {listen: "127.0.0.1:0"}', f'control: {{listen: "0.0.0.0:0", tls: {files}}}')


async def who(control: Control, credentials: grpc.ChannelCredentials | None) -> access_pb2.WhoAmIResponse:
    """Who the bootstrap token is, seen from the port. Raises AioRpcError."""
    place = f"localhost:{control.tcp_address.rpartition(':')[2]}"
    channel = (
        grpc.aio.secure_channel(place, credentials) if credentials is not None else grpc.aio.insecure_channel(place)
    )
    async with channel:
        return await access_pb2_grpc.AccessServiceStub(channel).WhoAmI(
            access_pb2.WhoAmIRequest(),
            metadata=[("authorization", f"Bearer {control.token}")],
            timeout=REACH_WITHIN_S,
            wait_for_ready=False,
        )


def trusting(folder: Path, client: str = "") -> grpc.ChannelCredentials:
    if not client:
        return grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes())
    return grpc.ssl_channel_credentials(
        (folder / "ca.pem").read_bytes(),
        (folder / f"{client}-key.pem").read_bytes(),
        (folder / f"{client}.pem").read_bytes(),
    )


async def test_the_port_speaks_tls(tmp_path: Path) -> None:
    folder = made(tmp_path)
    async with running_control(tmp_path, secured(folder)) as control:
        assert (await who(control, trusting(folder))).role == access_pb2.ROLE_ADMIN
        other = made(tmp_path / "other")
        for stranger in (None, trusting(other)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await who(control, stranger)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_clients_may_have_to_show_a_certificate(tmp_path: Path) -> None:
    folder = made(tmp_path, "--client", "laptop")
    other = made(tmp_path / "other", "--client", "laptop")
    (folder / "other.pem").write_bytes((other / "laptop.pem").read_bytes())
    (folder / "other-key.pem").write_bytes((other / "laptop-key.pem").read_bytes())
    async with running_control(tmp_path, secured(folder, wants_clients=True)) as control:
        assert (await who(control, trusting(folder, "laptop"))).role == access_pb2.ROLE_ADMIN
        for without in (trusting(folder), trusting(folder, "other")):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await who(control, without)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def started(control: Control) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ccr_control.server", "--config", str(control.config_path)]
    command += ["--state-dir", str(control.state_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_beyond_loopback_it_does_not_start_without_certificates(tmp_path: Path) -> None:
    ended = started(Control(tmp_path, CONFIG.replace("127.0.0.1:0", "0.0.0.0:0")))
    assert ended.returncode == 78
    assert "ccr tls init" in ended.stderr


@pytest.mark.parametrize("broken", ["server.pem", "server-key.pem", "ca.pem"])
@pytest.mark.parametrize("how", ["missing", "nonsense"])
def test_certificates_that_cannot_be_used_are_one_clear_line(tmp_path: Path, broken: str, how: str) -> None:
    folder = made(tmp_path)
    if how == "missing":
        (folder / broken).unlink()
    else:
        (folder / broken).write_text("nonsense")
    ended = started(Control(tmp_path, secured(folder, wants_clients=True)))
    assert ended.returncode == 69
    last = ended.stderr.splitlines()[-1]
    assert "control.tls" in last
    assert broken in last


def test_an_authority_is_used_again_and_nothing_is_replaced(tmp_path: Path) -> None:
    folder = made(tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert tls.main(["init", "--dir", str(folder)]) == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert tls.main(["init", "--dir", str(folder), "--force", "--host", "relay.example"]) == 0
    assert (folder / "ca.pem").read_bytes() == before["ca.pem"]
    assert (folder / "server.pem").read_bytes() != before["server.pem"]
    assert (folder / "ca-key.pem").stat().st_mode & 0o077 == 0
    assert (folder / "server-key.pem").stat().st_mode & 0o077 == 0


def test_another_client_or_node_leaves_the_server_alone(tmp_path: Path) -> None:
    """Its names are not given again, and its certificate is in use."""
    folder = made(tmp_path, "--host", "relay.example", "--node", "edge")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    made(tmp_path, "--node", "far", "--client", "laptop")
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"far.pem", "far-key.pem", "laptop.pem", "laptop-key.pem"}
    made(tmp_path, "--node", "edge", "--force")
    renewed = {path.name for path in folder.iterdir() if path.read_bytes() != after[path.name]}
    assert renewed == {"edge.pem", "edge-key.pem"}


@pytest.mark.parametrize(
    "wrong",
    [
        ["--days", "0"],
        ["--client", "a/b"],
        ["--client", "ca"],
        ["--host", "ü"],
        ["--client", "node/edge"],  # would be a node's name
        ["--node", "server"],
        ["--node", "edge", "--client", "edge"],
    ],
)
def test_wrong_wishes_make_nothing(tmp_path: Path, wrong: list[str]) -> None:
    assert tls.main(["init", "--dir", str(tmp_path / "tls"), *wrong]) == 2
    assert not (tmp_path / "tls" / "server.pem").exists()


async def test_the_web_page_beyond_loopback_is_https_under_the_names_of_its_certificate(tmp_path: Path) -> None:
    """No proxy is needed, nothing passes in the clear, and a foreign name that was made to point here gets nothing."""
    folder = made(tmp_path, "--host", "relay.example.org", "--host", "localhost")
    config = secured(folder).replace("control: {", 'control: {web_listen: "0.0.0.0:0", ')
    async with running_control(tmp_path, config) as control, aiohttp.ClientSession() as session:
        ready = control.event("control_ready")
        assert ready is not None
        url = ready["web"]
        assert url.startswith("https://localhost:")
        trusted = ssl.create_default_context(cafile=str(folder / "ca.pem"))

        async def status(to: str, host: str = "localhost") -> int:
            async with session.get(to, headers={"Host": host}, ssl=trusted, allow_redirects=False) as response:
                return response.status

        assert await status(url) in (200, 503)  # 503: the page is not built here
        assert await status(url, "relay.example.org:9091") == await status(url)
        assert await status(url, "evil.example.org") == 421
        with pytest.raises(aiohttp.ClientError):
            await status(url.replace("https:", "http:"))
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            async with session.get(url):
                pass
