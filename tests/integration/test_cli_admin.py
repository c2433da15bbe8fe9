"""Every command of the admin API, over a whole relay before the demo provider."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.ccr import ccr
from support.demo import demo
from support.relay import KEY, client, config, provider, relaying
from support.serving import Relay, until

ADDED, ROTATED = "sk-added-at-run-time-0123456789", "sk-rotated-at-run-time-0123456789"
HEAD = (f"x-api-key: {KEY}", "anthropic-version: 2023-06-01", "content-type: application/json")


@dataclass
class Whole:
    """A relay, and the commands for it."""

    relay: Relay

    def run(self, *arguments: str, exit_code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        done = ccr(*arguments, "--state-dir", str(self.relay.state), **env)
        assert done.returncode == exit_code, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        assert not {ADDED, ROTATED, KEY} & set(done.stdout.replace('"', " ").split())
        return done

    def json(self, *arguments: str, **env: str) -> Any:
        return json.loads(self.run(*arguments, "--json", **env).stdout)

    def fed(self, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """With something on standard input."""
        return subprocess.run(
            [sys.executable, "-m", "ccr_cli.main", *arguments, "--state-dir", str(self.relay.state)],
            input=text,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def serve(self, session: str, count: int = 1) -> None:
        """Have requests of a session served, and told of."""
        body = b'{"model":"claude-sonnet-5-5","max_tokens":9,"messages":[{"role":"user","content":"hi there"}]}'
        with client(self.relay) as talk:
            for _ in range(count):
                answer = talk.ask("POST", "/v1/messages", body, *HEAD, f"x-claude-code-session-id: {session}")
                assert answer.status == 200, answer.body
        until(lambda: len(self.json("records", "--session", session)) == count, "the records are told of")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    directory = tmp_path_factory.mktemp("admin")
    with demo() as upstream:
        text = config(
            provider("demo", upstream.url, models=["claude-sonnet-5-5"]),
            provider("spare", upstream.url, priority=1, models=["claude-sonnet-5-5"]),
        )
        with relaying(directory, text) as relay:
            yield Whole(relay)


def new() -> str:
    return f"session-{uuid.uuid4()}"


def test_records_tail_sessions_and_stats_tell_of_requests(whole: Whole) -> None:
    session = new()
    whole.serve(session, 3)
    listed = whole.json("records", "--session", session, "--limit", "2")
    assert [one["record"]["outcome"] for one in listed] == ["served", "served"]
    assert listed[0]["record"]["tokens"]["output"] > 0
    assert listed[0]["cost_usd"] > 0
    assert listed[0]["record"]["started_at"] >= listed[1]["record"]["started_at"]
    assert whole.json("records", "--session", session, "--outcome", "failed") == []
    assert whole.json("records", "--session", session, "--since", "1h", "--client", "tester", "--model", "claude-*")

    tailed = whole.run("tail", "--session", session, "--count", "3").stdout.splitlines()
    assert len(tailed) == 3
    assert all("claude-sonnet-5-5 → demo/demo-key" in line and "[tester]" in line for line in tailed)
    lines = whole.run("tail", "--session", session, "--count", "2", "--json").stdout.splitlines()
    assert [json.loads(line)["record"]["session"] for line in lines] == [session] * 2
    request_id = listed[0]["record"]["request_id"]
    assert request_id in whole.run("explain", request_id).stdout

    sessions = {one["session"]: one for one in whole.json("sessions", "--client", "tester")}
    assert sessions[session]["requests"] == 3
    assert session in whole.run("sessions").stdout
    stats = whole.json("stats", "--by", "model", "--window", "1h")
    assert sum(one["figures"]["requests"] for one in stats["lines"]) == stats["total"]["requests"] >= 3
    assert "total" in whole.run("stats").stdout
    assert isinstance(whole.json("unknowns"), list)
    assert "Not known" in whole.run("unknowns").stdout


def test_tail_shows_what_comes_while_it_runs(whole: Whole) -> None:
    session = new()
    command = [sys.executable, "-m", "ccr_cli.main", "tail", "--session", session, "--count", "1", "--json"]
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "CCR_STATE_DIR": str(whole.relay.state)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as tail:
        whole.serve(session)
        out, _ = tail.communicate(timeout=30)
    assert json.loads(out)["record"]["session"] == session


def test_costs_add_up_in_every_form(whole: Whole) -> None:
    whole.serve(new(), 2)
    report = whole.json("cost", "--by", "client,model", "--since", "24h")
    assert sum(one["cost_micro_usd"] for one in report["lines"]) == report["total"]["cost_micro_usd"] > 0
    rows = list(csv.DictReader(io.StringIO(whole.run("cost", "--by", "client,model", "--csv").stdout)))
    assert [(row["client"], row["model"]) for row in rows] == [("tester", "claude-sonnet-5-5")]
    assert int(rows[0]["requests"]) >= 2
    table = whole.run("cost", "--by", "client", "--where", "model=claude-sonnet-5-5").stdout.splitlines()
    assert table[-1].startswith("total")
    assert whole.run("cost", "--by", "").stdout.splitlines()[-1].startswith("total")
    assert whole.json("cost", "--by", "day", "--until", "2001-01-01", "--since", "2000-01-01")["lines"] == []
    assert any(one["pattern"] == "claude-sonnet-5-5" for one in whole.json("prices", "--model", "sonnet"))
    assert "USD per million" in whole.run("prices").stdout
    assert whole.json("budgets") == []
    assert whole.run("budgets").stdout == "Budgets of clients: none\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cost", "--by", "colour"), "must be one of client, provider"),
        (("cost", "--by", "client,provider,model,day"), "at most 3"),
        (("cost", "--since", "yesterday"), "24h or 7d"),
        (("cost", "--where", "client"), "WORD=VALUE"),
        (("cost", "--json", "--csv"), "not both"),
        (("records", "--outcome", "fine"), "must be one of served"),
        (("providers", "disable", "nobody"), "nobody"),
        (("providers", "weight", "demo", "0"), "greater than or equal"),
        (("keys", "disable", "demo"), "PROVIDER/LABEL"),
        (("keys", "disable", "demo/nobody"), "nobody"),
        (("keys", "rotate", "demo/demo-key", "--secret-env", ADDED), "takes the name of a variable"),
        (("keys", "rotate", "demo/demo-key", "--secret-env", "UNSET"), "$UNSET holds no secret"),
        (("strategy", "best"), "must be one of simple-shuffle"),
        (("strategy", "failover", "--route", "nobody"), "nobody"),
        (("nodes", "drain", "nobody"), "nobody"),
        (("events", "--kind", "odd"), "must be one of audit"),
        (("config", "rollback", "9999"), "9999"),
        (("config", "apply", "/nonexistent.yaml"), "No such file"),
        (("config", "overlay", "--resource", "x"), "--clear"),
        (("tokens", "create", "x", "--role", "king"), "must be one of viewer, operator, admin"),
        (("tokens", "create", "x", "--expires", "soon"), "a span such as"),
        (("tokens", "revoke", "nobody"), "nobody"),
        (("call", "Nobody/Knows"), "no such method"),
        (("call", "FleetService/ListNodes", "[1]"), "must be an object"),
        (("call", "FleetService/ListNodes", '{"x": 1}'), "ListNodesRequest"),
        (("call", "UsageService/ReportUsage"), "takes a stream"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_words_are_told_with_what_to_do(whole: Whole, arguments: tuple[str, ...], words: str) -> None:
    """Exit code 2, no traceback, and nothing that was meant as a secret."""
    done = whole.run(*arguments, exit_code=2)
    assert words in done.stderr, done.stderr
    assert ADDED not in done.stderr


def test_providers_change_and_say_so(whole: Whole) -> None:
    answer = whole.json("providers", "disable", "spare")
    assert answer["provider"]["state"] == "disabled"
    assert answer["snapshot_version"] > 0
    assert "draining" in whole.run("providers", "drain", "spare").stdout
    assert "weight 7" in whole.run("providers", "weight", "spare", "7").stdout
    assert whole.json("providers", "priority", "spare", "3")["provider"]["changed"] == ["priority", "state", "weight"]
    assert "changed at run time" in whole.run("providers", "weight", "spare", "8").stdout
    assert "enabled" in whole.run("providers", "enable", "spare").stdout
    overlay = whole.json("config", "overlay")
    assert {(one["resource"], one["field"]) for one in overlay["entries"]} == {
        ("providers/spare", "weight"),
        ("providers/spare", "priority"),
    }
    assert "providers/spare" in whole.run("config", "overlay").stdout
    assert "weight: 8" in whole.run("config", "overlay", "--export").stdout.replace('"weight": 8', "weight: 8")
    assert whole.json("config", "overlay", "--clear", "--resource", "providers/spare")["cleared"] == 2
    assert whole.json("config", "overlay")["entries"] == []
    audit = whole.json("events", "--kind", "audit", "--resource", "providers/spare")
    assert {one["actor"] for one in audit} == {"socket"}
    assert any(one["before"] != one["after"] for one in audit)
    assert "provider." in whole.run("events", "--kind", "audit").stdout


def test_keys_come_and_go_without_their_secrets_being_shown(whole: Whole) -> None:
    added = whole.json("keys", "add", "spare/extra", "--secret-env", "NEW", "--rpm", "60", NEW=ADDED)
    assert added["key"]["origin"] == "added"
    assert "secret" in whole.run("keys", "rotate", "spare/extra", "--secret-env", "${NEW}", NEW=ROTATED).stdout
    piped = whole.fed(f"{ADDED}\n", "keys", "rotate", "spare/extra", "--json")
    assert json.loads(piped.stdout)["key"]["fingerprint"] == added["key"]["fingerprint"]
    assert whole.fed("", "keys", "rotate", "spare/extra").returncode == 2
    for command, state in (("deprecate", "deprecated"), ("disable", "disabled"), ("enable", "active")):
        assert whole.json("keys", command, "spare/extra")["key"]["state"] == state
    assert "weight 5" in whole.run("keys", "weight", "spare/extra", "5").stdout
    assert "priority 2" in whole.run("keys", "priority", "spare/extra", "2").stdout
    assert {one["label"] for one in whole.json("keys", "list", "spare")} == {"spare-key", "extra"}
    assert "spare/extra" in whole.run("keys", "list").stdout
    assert isinstance(whole.json("scopes", "spare"), list)
    assert "Accounts" in whole.run("scopes").stdout
    whole.run("keys", "remove", "spare/extra")
    assert {one["label"] for one in whole.json("keys", "list", "spare")} == {"spare-key"}
    assert ADDED not in whole.relay.output + json.dumps(whole.json("events", "--limit", "500"))


def test_strategies_are_shown_and_changed(whole: Whole) -> None:
    assert whole.json("strategy") == [{"route": "", "strategy": "failover", "from": "configuration"}]
    assert "least-loaded" in whole.run("strategy", "least-loaded").stdout
    assert whole.json("strategy") == [{"route": "", "strategy": "least-loaded", "from": "run time, by socket"}]
    whole.run("config", "overlay", "--clear", "--resource", "routing")
    assert "failover" in whole.run("strategy").stdout


def test_a_configuration_is_compared_applied_and_rolled_back(whole: Whole, tmp_path: Path) -> None:
    file = whole.relay.state.parent / "ccr.yaml"
    before = file.read_text()
    changed = tmp_path / "new.yaml"
    changed.write_text(before.replace('"priority": 1', '"priority": 4'))
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(before.replace('"type": "anthropic"', '"type": "antropic"'))
    first = whole.json("config", "revisions")[0]

    assert "providers[1].priority" in whole.json("config", "diff", str(changed))["paths"]
    assert "+" in whole.run("config", "diff", str(changed)).stdout
    assert whole.run("config", "diff").stdout == "no difference\n"
    assert "antropic" in whole.run("config", "diff", str(wrong), exit_code=1).stderr
    assert "would be applied" in whole.run("config", "apply", str(changed), "--dry-run").stdout
    assert file.read_text() == before
    refused = whole.run("config", "apply", str(wrong), exit_code=1)
    assert "refused; nothing has changed" in refused.stdout
    assert "antropic" in refused.stderr
    assert "nothing has changed" in whole.run("config", "apply", str(changed), "--base", "999", exit_code=1).stderr

    applied = whole.json("config", "apply", str(changed), "--base", str(first["number"]))
    assert applied["revision"]["applied_by"] == "socket"
    assert file.read_text() == changed.read_text()
    numbers = [one["number"] for one in whole.json("config", "revisions", "--limit", "2")]
    assert numbers == [applied["revision"]["number"], first["number"]]
    assert whole.run("config", "diff", "--from", str(numbers[1]), "--to", str(numbers[0])).stdout
    assert "would be applied" in whole.run("config", "rollback", str(numbers[1]), "--dry-run").stdout
    back = whole.json("config", "rollback", str(numbers[1]))
    assert back["revision"]["config_hash"] == first["config_hash"]
    assert back["revision"]["rolled_back_to"] == numbers[1]
    assert str(numbers[1]) in whole.run("config", "revisions").stdout


def test_tokens_open_the_other_door_as_far_as_their_role_goes(whole: Whole) -> None:
    made = whole.json("tokens", "create", "grafana", "--expires", "30d")
    shown = whole.run("tokens", "create", "deploy", "--role", "admin")
    assert len(shown.stdout.split()) == 1
    assert "only time" in shown.stderr
    assert [one["name"] for one in whole.json("tokens", "list")] == ["deploy", "grafana"]
    assert made["token"] not in whole.run("tokens", "list").stdout
    assert whole.json("tokens", "whoami")["name"] == "socket"
    viewer = {
        "CCR_CONTROL": str(whole.relay.events("control_ready")[-1]["listen"]),
        "CCR_CONTROL_TOKEN": made["token"],
    }
    assert json.loads(ccr("tokens", "whoami", "--json", **viewer).stdout)["role"] == "viewer"
    refused = ccr("providers", "disable", "demo", **viewer)
    assert refused.returncode == 4
    assert "role" in refused.stderr
    whole.run("tokens", "revoke", "grafana")
    gone = ccr("tokens", "whoami", **viewer)
    assert gone.returncode == 4
    assert made["token"] not in gone.stderr
    assert "tokens create" in gone.stderr
    assert "deploy: ended" in whole.run("tokens", "revoke", "deploy").stdout


def test_events_go_on_as_they_happen(whole: Whole) -> None:
    command = [sys.executable, "-m", "ccr_cli.main", "events", "--follow", "--limit", "1", "--count", "3", "--json"]
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "CCR_STATE_DIR": str(whole.relay.state)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as follow:
        assert follow.stdout is not None
        past = json.loads(follow.stdout.readline())
        whole.run("providers", "weight", "spare", "2")
        whole.run("providers", "weight", "spare", "3")
        fresh = [json.loads(follow.stdout.readline()) for _ in range(2)]
        follow.wait(30)
    whole.run("config", "overlay", "--clear")
    assert past["id"] < fresh[0]["id"] < fresh[1]["id"]
    assert [one["resource"] for one in fresh] == ["providers/spare"] * 2


def test_any_method_can_be_called(whole: Whole) -> None:
    methods = whole.run("call").stdout.splitlines()
    assert "ProviderService/ListProviders(ListProvidersRequest) → ListProvidersResponse" in methods
    assert "RecordService/TailRecords(TailRecordsRequest) → stream TailRecordsResponse" in methods
    answer = json.loads(whole.run("call", "ProviderService/ListProviders").stdout)
    assert [one["name"] for one in answer["providers"]] == ["demo", "spare"]
    by_model = json.loads(whole.run("call", "StatsService/GetBreakdown", '{"by": "DIMENSION_MODEL"}').stdout)
    assert "total" in by_model
    streamed = whole.run("call", "StatsService/WatchStats", '{"interval": "0.1s"}', "--count", "2").stdout.splitlines()
    assert len([json.loads(line)["stats"] for line in streamed]) == 2
    piped = whole.fed('{"provider": "demo"}', "call", "KeyService/ListKeys", "-")
    assert json.loads(piped.stdout)["keys"][0]["label"] == "demo-key"


def test_workers_are_listed_and_replaced(whole: Whole) -> None:
    (before,) = (one for one in whole.json("nodes", "list")["nodes"] if one["is_connected"])
    assert before["node_id"] in whole.run("nodes", "list").stdout
    assert "told to finish" in whole.run("nodes", "drain", before["node_id"]).stdout

    def replaced() -> bool:
        nodes = whole.json("nodes", "list")["nodes"]
        return any(one["is_connected"] and one["pid"] != before["pid"] for one in nodes)

    until(replaced, "another worker is there")
    whole.serve(new())


def test_other_programs_configurations_are_imported(tmp_path: Path) -> None:
    """Offline; secrets become variables, and what is lost is told."""
    source = tmp_path / "litellm.yaml"
    source.write_text(
        "model_list:\n  - model_name: claude-sonnet\n    litellm_params: {model: anthropic/claude-sonnet-4-5, "
        "api_key: sk-ant-written-out-0123456789}\nlitellm_settings: {drop_params: true}\n"
    )
    out = tmp_path / "ccr.yaml"
    done = ccr("config", "import", str(source), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "not carried over: " in done.stderr
    assert "sk-ant-written-out" not in out.read_text() + done.stderr + done.stdout
    assert ccr("config", "import", str(source), "--out", str(out)).returncode == 2
    assert ccr("config", "import", str(source), "--from", "litellm", "--out", str(out), "--force").returncode == 0
    variables = {
        line.split()[2].rstrip(":"): "x" * 20 for line in out.read_text().splitlines() if line.startswith("# Set")
    }
    assert ccr("config", "validate", str(out), **variables).returncode == 0
    (tmp_path / "odd.yaml").write_text("a: 1\n")
    odd = ccr("config", "import", str(tmp_path / "odd.yaml"))
    assert odd.returncode == 1
    assert "LiteLLM" in odd.stderr


def test_the_shell_is_helped_to_complete() -> None:
    done = ccr(
        "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )  # else it is ours that counts
    assert "ccr" in done.stdout + done.stderr
