"""A node on another machine: what lets it in, what does not, and that it goes on serving when its certificate ends.

The other machine is a state directory of its own on loopback, which has nothing of the control plane's but three files.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from ccr_control import tls
from ccr_control.shell.authority import Authority, Made
from ccr_rpc.v1 import (
    access_pb2,
    access_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    records_pb2,
    records_pb2_grpc,
    snapshot_pb2,
    snapshot_pb2_grpc,
    usage_pb2,
    usage_pb2_grpc,
)
from support.client import RawClient
from support.relay import AUTH, BODY, config, provider, relaying
from support.serving import Relay, environment, until
from support.upstream import RawUpstream

WITHIN_S = 10.0
ENDS_IN_S = 8  # time enough for a node to start on a busy machine


@dataclass
class Fleet:
    """A relay on one machine, whose port takes certificates of an authority."""

    relay: Relay
    tls: Path

    @property
    def port(self) -> str:
        """Where its control plane is to be reached from elsewhere."""
        listen = str(self.relay.events("control_ready")[-1]["listen"])
        return f"localhost:{listen.rpartition(':')[2]}"

    @contextlib.contextmanager
    def owner(self) -> Iterator[grpc.Channel]:
        with grpc.insecure_channel(f"unix:{self.relay.state}/control.sock") as channel:
            yield channel

    def nodes(self) -> dict[str, fleet_pb2.Node]:
        """All that the control plane knows, by name."""
        with self.owner() as channel:
            answer = fleet_pb2_grpc.FleetServiceStub(channel).ListNodes(fleet_pb2.ListNodesRequest(), timeout=WITHIN_S)
        return {node.node_id: node for node in answer.nodes}

    def records_of(self, node_id: str) -> int:
        """How many requests of a node it has heard of."""
        with self.owner() as channel:
            stub = records_pb2_grpc.RecordServiceStub(channel)
            answer = stub.ListRecords(records_pb2.ListRecordsRequest(), timeout=WITHIN_S)
        return sum(record.node_id == node_id for record in answer.records)

    def authority(self) -> Authority:
        return Authority.at(self.tls, datetime.now(UTC))

    def put(self, name: str, made: Made) -> None:
        """Place a certificate as a renewal does, the key first."""
        for ending, content in (("-key.pem", made.key), (".pem", made.certificate)):
            half = self.tls / "half"
            half.write_bytes(content)
            half.replace(self.tls / f"{name}{ending}")

    def put_ending(self, name: str, ends_in_s: float) -> None:
        """A certificate for nodes of `edge`, which ends then."""
        self.put(name, self.authority().for_node("edge", datetime.now(UTC) + timedelta(seconds=ends_in_s, days=-1), 1))

    def credentials(self, name: str = "") -> grpc.ChannelCredentials:
        """What a caller shows."""
        own = [(self.tls / f"{name}{ending}").read_bytes() for ending in ("-key.pem", ".pem")] if name else [None, None]
        return grpc.ssl_channel_credentials((self.tls / "ca.pem").read_bytes(), *own)


@dataclass
class Elsewhere:
    """A ccr-data with a state directory of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    def events(self, name: str) -> list[dict[str, object]]:
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [event for event in map(json.loads, lines) if event.get("event") == name]

    def ask(self) -> int:
        """Send a request to it; the status."""
        with RawClient(f"http://{self.events('node_ready')[0]['listen']}") as client:
            return client.ask("POST", "/v1/messages", BODY, AUTH).status

    def wait_for(self, name: str, count: int = 1) -> dict[str, object]:
        """The newest of so many events of that name."""

        def is_there() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log.read_text()}"
            return len(self.events(name)) >= count

        until(is_there, f"{count} times {name}")
        return self.events(name)[-1]


def command(fleet: Fleet, directory: Path, name: str) -> list[str]:
    files = {"--control-ca": "ca.pem", "--node-cert": f"{name}.pem", "--node-key": f"{name}-key.pem"}
    given = [word for option, file in files.items() for word in (option, str(fleet.tls / file))]
    rest = ["--listen", "127.0.0.1:0", "--state-dir", str(directory / "elsewhere"), "--log-format", "json"]
    return [sys.executable, "-P", "-m", "ccr_data.app", "--control", fleet.port, *given, *rest]


@contextlib.contextmanager
def elsewhere(fleet: Fleet, directory: Path, name: str = "edge", log: str = "elsewhere.log") -> Iterator[Elsewhere]:
    """A node with that certificate, while the block runs."""
    log_path = directory / log
    with log_path.open("wb") as stderr:
        process = subprocess.Popen(command(fleet, directory, name), env=environment(), stdout=stderr, stderr=stderr)
    try:
        yield Elsewhere(process, log_path)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN_S) == 0
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def relay_with_tls(directory: Path) -> Iterator[Fleet]:
    folder = directory / "tls"
    made = ["init", "--dir", str(folder), "--node", "edge", "--node", "other", "--client", "laptop"]
    assert tls.main(made) == 0
    files = {
        "cert_file": f"{folder}/server.pem",
        "key_file": f"{folder}/server-key.pem",
        "client_ca_file": f"{folder}/ca.pem",
    }
    with RawUpstream() as upstream:
        settings = json.loads(config(provider("only", upstream.url)))
        settings["control"]["tls"] = files
        with relaying(directory, json.dumps(settings)) as relay:
            yield Fleet(relay, folder)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with relay_with_tls(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


def test_a_node_elsewhere_serves_and_reports(fleet: Fleet, tmp_path: Path) -> None:
    """The same snapshot as the worker beside the control plane, and its usage arrives."""
    with elsewhere(fleet, tmp_path) as node:
        node.wait_for("node_ready")
        until(lambda: "edge/worker-0" in fleet.nodes(), "the node is known")
        until(lambda: len({one.served_version for one in fleet.nodes().values()}) == 1, "both serve one version")
        assert len(fleet.nodes()) == 2
        assert node.ask() == 200
        until(lambda: fleet.records_of("edge/worker-0") == 1, "its usage is known")
        node.wait_for("control_connected", 2)
        assert node.events("control_away") == []


def watch_ends_with(fleet: Fleet, name: str, node_id: str, token: str = "") -> tuple[grpc.StatusCode, str, str]:
    """How the control plane ends a watch stream: status, words, and its reason for programs."""
    with grpc.secure_channel(fleet.port, fleet.credentials(name)) as channel:
        hello = snapshot_pb2.WatchSnapshotsRequest(hello=snapshot_pb2.NodeHello(node_id=node_id, instance_id="i"))
        metadata = (("authorization", f"Bearer {token}"),) if token else None
        call = snapshot_pb2_grpc.SnapshotServiceStub(channel).WatchSnapshots(
            iter([hello]), metadata=metadata, timeout=WITHIN_S
        )
        with pytest.raises(grpc.RpcError):
            next(call)
        return call.code(), call.details() or "", str(dict(call.trailing_metadata() or ()).get("ccr-reason", ""))


def test_a_certificate_of_a_client_is_not_enough(fleet: Fleet) -> None:
    """Not even with the token of an admin: snapshots hold every secret there is."""
    token = (fleet.relay.state / "control.token").read_text().strip()
    for given in ("", token):
        status, words, reason = watch_ends_with(fleet, "laptop", "laptop/worker-0", given)
        assert (status, reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_A_NODE")
        assert "spiffe://cc-relay/laptop" in words
        assert "--node" in words


@pytest.mark.parametrize("name", ["edge/worker-0", "edge", "otherwise/worker-0", "", "Other/worker-0"])
def test_a_machine_has_no_nodes_but_its_own(fleet: Fleet, name: str) -> None:
    """Else one machine could end another's stream, and take its place."""
    status, words, reason = watch_ends_with(fleet, "other", name)
    if not name:
        assert status is grpc.StatusCode.INVALID_ARGUMENT
        return
    assert (status, reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_THIS_NODE")
    assert "'other'" in words
    with grpc.secure_channel(fleet.port, fleet.credentials("other")) as channel:
        hello = usage_pb2.ReportUsageRequest(hello=usage_pb2.ReporterHello(node_id=name, instance_id="i"))
        call = usage_pb2_grpc.UsageServiceStub(channel).ReportUsage(iter([hello]), timeout=WITHIN_S)
        with pytest.raises(grpc.RpcError):
            next(call)
        assert call.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_node_is_no_admin(fleet: Fleet) -> None:
    """Its certificate lets it into the two services of nodes, and nowhere else."""
    with grpc.secure_channel(fleet.port, fleet.credentials("edge")) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            access_pb2_grpc.AccessServiceStub(channel).WhoAmI(access_pb2.WhoAmIRequest(), timeout=WITHIN_S)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("which", ["none", "expired", "stranger"])
def test_without_a_certificate_by_the_authority_nobody_gets_as_far_as_speaking(
    fleet: Fleet, tmp_path: Path, which: str
) -> None:
    fleet.put_ending("expired", -10)
    stranger = Authority.at(tmp_path, datetime.now(UTC))
    fleet.put("stranger", stranger.for_node("edge", datetime.now(UTC), 1))
    status, _, reason = watch_ends_with(fleet, "" if which == "none" else which, "edge/worker-0")
    assert (status, reason) == (grpc.StatusCode.UNAVAILABLE, "")


@pytest.mark.parametrize(("which", "why"), [("expired", "it has expired"), ("stranger", "client_ca_file")])
def test_the_node_says_why_it_is_not_let_in(fleet: Fleet, tmp_path: Path, which: str, why: str) -> None:
    """It starts all the same: it may have a snapshot of before."""
    fleet.put_ending("expired", -10)
    fleet.put("stranger", Authority.at(tmp_path, datetime.now(UTC)).for_node("edge", datetime.now(UTC), 1))
    with elsewhere(fleet, tmp_path, which) as node:
        reason = str(node.wait_for("control_away")["reason"])
        assert why in reason
        assert f"{which}.pem" in reason
        node.wait_for("node_ready")


def test_the_node_does_not_trust_any_control_plane(fleet: Fleet, tmp_path: Path) -> None:
    Authority.at(tmp_path, datetime.now(UTC))
    words = [
        str(tmp_path / "ca.pem") if word.endswith("/ca.pem") else word for word in command(fleet, tmp_path, "edge")
    ]
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(words, env=environment(), stdout=stderr, stderr=stderr)
    try:
        reason = str(Elsewhere(process, log).wait_for("control_away")["reason"])
    finally:
        process.kill()
        process.wait()
    assert f"not trusted by {tmp_path}/ca.pem" in reason


@pytest.mark.parametrize(
    ("name", "left_out", "said"),
    [
        ("laptop", "", "ccr tls init --node"),
        ("missing", "", "cannot be read"),
        ("edge", "--node-key", "belong together"),
    ],
)
def test_wrong_options_are_one_clear_line(fleet: Fleet, tmp_path: Path, name: str, left_out: str, said: str) -> None:
    words = command(fleet, tmp_path, name)
    if left_out:
        at = words.index(left_out)
        del words[at : at + 2]
    ended = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert said in ended.stderr.splitlines()[-1]


def test_a_node_outlives_its_certificate_and_takes_the_next(tmp_path: Path) -> None:
    """Also over a restart. Renewing is putting two files in place. What was served meanwhile is counted then."""
    with relay_with_tls(tmp_path) as fleet:
        fleet.put_ending("edge", ENDS_IN_S)
        with elsewhere(fleet, tmp_path) as node:
            node.wait_for("control_connected", 2)
            node.wait_for("node_ready")
            node.wait_for("control_away", 2)  # both streams end with the certificate
            assert "certificate has ended" in str(node.events("control_away")[-1]["reason"])
            until(lambda: not fleet.nodes()["edge/worker-0"].connected, "it is known to be away")
            assert node.ask() == 200
        with elsewhere(fleet, tmp_path, log="again.log") as node:
            assert "it has expired" in str(node.wait_for("control_away", 2)["reason"])
            node.wait_for("node_ready")
            assert node.ask() == 200
            assert fleet.records_of("edge/worker-0") == 0
            fleet.put("edge", fleet.authority().for_node("edge", datetime.now(UTC), 1))
            node.wait_for("control_connected", 2)
            until(lambda: fleet.records_of("edge/worker-0") == 2, "what was served meanwhile is counted")
            assert fleet.nodes()["edge/worker-0"].connected
