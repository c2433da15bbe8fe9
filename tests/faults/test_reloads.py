"""The configuration changes under load: every request is served by one version of it, whole, and none fails."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import grpc
import pytest
from ccr_rpc.v1 import config_pb2, config_pb2_grpc
from support.load import ASKED_MODEL, Arrival, Call, Load, SteadyUpstream, at_work, steady_load
from support.relay import config, provider, relaying
from support.serving import Relay, until
from support.totals import status

RELOADS = 200


def version(upstream: SteadyUpstream, mark: str) -> str:
    """One configuration; everything that a request shows of it carries the same mark."""
    one = provider(
        f"name-{mark}",
        f"{upstream.url}/path-{mark}",
        headers={"x-mark": mark},
        model_mapping={ASKED_MODEL: f"model-{mark}"},
    )
    return config(one, server={"drain_timeout": "10s"})


def is_torn_upstream(arrival: Arrival) -> bool:
    return not (arrival.model == f"model-{arrival.mark}" and arrival.path.startswith(f"/path-{arrival.mark}/"))


def is_torn(call: Call) -> bool:
    return not (call.model == f"model-{call.mark}" and call.headers["x-cc-relay-provider"] == f"name-{call.mark}")


def assert_whole(load: Load, upstream: SteadyUpstream, marks: set[str]) -> None:
    """Nothing failed, and nothing mixed two configurations."""
    load.check()
    assert [arrival for arrival in upstream.arrivals if is_torn_upstream(arrival)] == []
    assert [str(call) for call in load.calls if is_torn(call)] == []
    assert {call.mark for call in load.calls} == marks
    assert sorted(upstream.numbers) == sorted(call.number for call in load.calls), "each went upstream once"


def assert_never_goes_back(relay: Relay) -> None:
    """Each process of the data plane serves newer and newer snapshots."""
    served: dict[str, list[tuple[int, int]]] = {}  # per process: number of the request, version
    for event in relay.events("request_done"):
        request_id = str(event["request_id"])
        served.setdefault(request_id[:-8], []).append((int(request_id[-8:], 16), int(str(event["snapshot_version"]))))
    assert served
    for history in served.values():
        versions = [version for _, version in sorted(history)]
        assert versions == sorted(versions)


def replace_atomically(path: Path, text: str) -> None:
    new = path.with_name("ccr.yaml.new")
    new.write_text(text)
    new.replace(path)


def write_in_place(path: Path, text: str) -> None:
    path.write_text(text)


def write_slowly(path: Path, text: str) -> None:
    """As an editor that writes what it has, and then the rest: half a file is seen by others."""
    with path.open("w") as file:
        half = len(text) // 2
        file.write(text[:half])
        file.flush()
        file.write(text[half:])


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def shown(values: list[float]) -> str:
    p50, p99, most = (round(value * 1e3) for value in (percentile(values, 0.5), percentile(values, 0.99), max(values)))
    return f"p50 {p50} ms, p99 {p99} ms, max {most} ms"


@pytest.mark.timeout(90)
def test_200_reloads_under_load_with_open_streams(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """0 failed, 0 torn; streams that are open across many reloads are complete; a change takes effect at once."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    roll = random.Random(seed)
    path = tmp_path / "ccr.yaml"
    with relaying(tmp_path, version(upstream, "a"), "--workers", "2") as relay:
        first_s, last_old_s, save_s = [], [], []
        address = (relay.state / "control.address").read_text().strip()
        with (
            grpc.insecure_channel(address) as channel,
            steady_load(relay.url, upstream, whole=3, streams=2, events=10, gap_ms=5) as load,
        ):
            load.add_clients(2, events=100, gap_ms=30)  # each sees dozens of reloads
            load.add_clients(1, pause_s=0.001, keep_alive=False)  # reaches both workers
            until(lambda: status(relay)["exit_code"] == 0, "all is well")
            for number in range(RELOADS):
                mark = "ba"[number % 2]
                seen = len(upstream.arrivals)
                save = roll.choice([replace_atomically, write_in_place, write_slowly])
                began_s = time.monotonic()
                save(path, version(upstream, mark))
                saved_s = time.monotonic()
                save_s.append(saved_s - began_s)
                if number % 10 == 9:
                    stub = config_pb2_grpc.ConfigServiceStub(channel)
                    assert not stub.ReloadConfig(config_pb2.ReloadConfigRequest(), timeout=5).problems
                until(lambda: any(one.mark == mark for one in upstream.arrivals[seen:]), "the change is seen", 5)  # noqa: B023
                first_s.append(next(one.at_s for one in upstream.arrivals[seen:] if one.mark == mark) - saved_s)
                until(lambda: all(one.mark == mark for one in upstream.arrivals[-30:]), "by every worker", 5)  # noqa: B023
                last_old_s.append(max(one.at_s for one in upstream.arrivals if one.mark != mark) - saved_s)
            until(at_work(load, 50), "the load goes on")
        assert_whole(load, upstream, {"a", "b"})
        assert_never_goes_back(relay)
        longest = max(call.ended_s - call.began_s for call in load.calls)
        refused = len(relay.events("config_refused"))
        print(f"{len(load.calls)} requests, the longest open for {longest:.1f} s; {refused} half-written files refused")
        print(f"the save itself: {shown(save_s)}")
        print(f"from the save to the first request that sees it: {shown(first_s)}")
        print(f"from the save to the last request that does not: {shown(last_old_s)}")
        assert percentile(last_old_s, 0.99) < 1.0
        assert status(relay)["exit_code"] == 0


def without_variable(text: str) -> str:
    return text.replace('"sk-up-name-a"', '"${NO_SUCH_VARIABLE}"')


BAD_EDITS = {
    "a syntax error": (lambda text: text[:-2], "ccr.yaml"),
    "an unknown key": (lambda text: text.replace('"model_mapping"', '"model_maping"'), "model_maping"),
    "a missing variable": (without_variable, "NO_SUCH_VARIABLE"),
    "nothing at all": (lambda text: "", "ccr.yaml"),
    "not text": (None, "UTF-8"),
    "no file": (None, "there is no such file"),
}


def test_bad_edits_have_no_effect_but_one_clear_error(tmp_path: Path, upstream: SteadyUpstream) -> None:
    """Each is in the log once and in `ccr status`; the next good edit applies."""
    path, text = tmp_path / "ccr.yaml", version(upstream, "a")
    with relaying(tmp_path, text) as relay:
        with steady_load(relay.url, upstream, whole=2, streams=2) as load:
            until(lambda: status(relay)["exit_code"] == 0, "all is well")
            for number, (name, (edit, said)) in enumerate(BAD_EDITS.items(), start=1):
                if name == "no file":
                    path.unlink()
                elif edit is None:
                    path.write_bytes(b"\xff\xfe\x00")
                else:
                    replace_atomically(path, edit(text))
                until(lambda: len(relay.events("config_refused")) == number, f"{name} is refused")  # noqa: B023
                refused = relay.events("config_refused")[-1]
                assert said in json.dumps(refused, ensure_ascii=False), f"{name}: {refused}"
                until(at_work(load, 20), "the load goes on")
                now = status(relay)
                assert now["exit_code"] == 1
                assert now["healthy"] is False
                assert said in json.dumps(now["config"]["refusal_problems"], ensure_ascii=False), f"{name}: {now}"
            assert {call.mark for call in load.calls} == {"a"}
            replace_atomically(path, version(upstream, "b"))
            until(lambda: any(call.mark == "b" for call in load.calls), "a good edit applies")
            until(lambda: status(relay)["exit_code"] == 0, "all is well again")
        assert_whole(load, upstream, {"a", "b"})
        assert len(relay.events("config_refused")) == len(BAD_EDITS)
        assert "sk-up-name" not in relay.output


def test_a_good_edit_while_the_control_plane_is_dead_applies_when_it_is_back(
    tmp_path: Path, upstream: SteadyUpstream
) -> None:
    """And a bad one has no effect, also if the control plane has to start again while it is there: the one before stays in force."""
    path = tmp_path / "ccr.yaml"
    with relaying(tmp_path, version(upstream, "a")) as relay:
        with steady_load(relay.url, upstream, whole=2, streams=2) as load:
            until(lambda: status(relay)["exit_code"] == 0, "all is well")
            path.write_text("version: 1\nprovidres: []\n")
            until(lambda: len(relay.events("config_refused")) == 1, "it is refused")
            os.kill(relay.pids("ccr-control")[-1], signal.SIGKILL)
            until(lambda: len(relay.events("control_ready")) == 2, "it starts again")
            until(lambda: status(relay)["exit_code"] == 1 and status(relay)["config"]["refusal_problems"], "it says so")
            assert "providres" in str(status(relay)["config"]["refusal_problems"])
            assert [event["how"] for event in relay.events("child_ended")] == ["killed by SIGKILL"]
            until(at_work(load, 50), "the load goes on")
            replace_atomically(path, version(upstream, "b"))
            until(lambda: any(call.mark == "b" for call in load.calls), "the good edit applies")
        assert_whole(load, upstream, {"a", "b"})
