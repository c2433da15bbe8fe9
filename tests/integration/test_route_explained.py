"""`ccr route` and RouteService.ExplainRoute: what is said of a request that nobody sent holds for the one that then is."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from ccr_cli import places
from ccr_cli.control import dialled
from ccr_data.shell.asking import answering
from ccr_data.shell.node_dir import NodeDir
from ccr_data.shell.relay import Relay as DataRelay
from ccr_data.shell.store import SnapshotStore
from ccr_data.shell.watch import follow_snapshots
from ccr_rpc.v1 import routes_pb2, routes_pb2_grpc, snapshot_pb2, usage_pb2
from support.ccr import ccr, ccr_beside
from support.control import CONFIG, Control, running_control
from support.fake_control import controlling
from support.fake_node import FakeNode, FakeReporter, batch, record
from support.node_values import NODE, snapshot_message
from support.relay import AUTH, BODY, client, config, provider, relaying
from support.serving import Relay
from support.upstream import RawUpstream, Request, Wire, error_answer

ROUTES = [
    {"name": "sub", "match": {"agent": "subagent"}, "to": [{"provider": "b"}, {"provider": "c"}]},
    {"name": "long", "match": {"min_input_tokens": 3000}, "to": [{"provider": "c"}, {"provider": "a"}]},
    {"name": "seeing", "match": {"images": True}, "to": [{"provider": "d"}, {"provider": "b"}]},
    {"name": "blue", "match": {"headers": {"x-team": "blue*"}}, "to": [{"provider": "b"}, {"provider": "a"}]},
    {
        "name": "side",
        "match": {"request_class": "background", "thinking": False},
        "to": [{"provider": "a"}, {"provider": "d"}],
    },
]


def providers(url: str) -> list[dict[str, object]]:
    """Each with a price of its own, a pattern of its own exactness, and keys of its own."""

    def keys(*labels: str, **more: object) -> list[dict[str, object]]:
        return [
            {"label": label, "key": f"sk-up-{label}", "priority": number, **more} for number, label in enumerate(labels)
        ]

    def price(usd: float) -> dict[str, object]:
        return {"prices": {"*": {"input": usd, "output": usd}}}

    return [
        provider("a", url, keys=keys("a1", "a2", scope="a", rpm_limit=9), serves=["claude-*"], **price(2)),
        provider("b", url, keys=keys("b1"), serves=["claude-te*", "claude-other"], **price(1)),
        provider("c", url, keys=keys("c1", "c2"), serves=["*"], traits={"count_tokens": False}, **price(4)),
        provider("d", url, keys=keys("d1", rpm_limit=15), serves=["claude-test"], **price(3)),
    ]


def a_request(dice: random.Random) -> tuple[snapshot_pb2.HypotheticalRequest, bytes, list[str]]:
    """A hypothetical request, and a real one like it: body and header lines."""

    def maybe(share: float = 0.3) -> bool:
        return dice.random() < share

    of = snapshot_pb2.HypotheticalRequest(
        model=dice.choice(["claude-test", "claude-test", "claude-other"]),
        count_tokens=maybe(0.15),
        streams=maybe(),
        client="tester",
        subagent=maybe(0.2),
        thinking=maybe(),
        input_tokens=dice.choice([0, 0, 2000, 5000]),
        images=maybe(0.2),
        tools=maybe(0.5),
        session=dice.choice(["", "s-1", "s-2", "s-3"]),
    )
    lines = [AUTH]
    if maybe():
        of.headers.add(name="x-team", value="blue whale")
        lines.append("X-Team: blue whale")
    if of.session:
        lines.append(f"x-claude-code-session-id: {of.session}")
    if of.subagent:
        of.headers.add(name="x-claude-code-agent-id", value="a-1")
        lines.append("x-claude-code-agent-id: a-1")
    content: list[dict[str, object]] = [{"type": "text", "text": "word " * int(of.input_tokens * 0.7)}]
    if of.images:
        content.insert(0, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}})
    body: dict[str, object] = {
        "model": of.model,
        "max_tokens": 9,
        "messages": [{"role": "user", "content": content}],
        **({"tools": [{"name": "t", "input_schema": {"type": "object"}}]} if of.tools else {}),
        **({"thinking": {"type": "enabled", "budget_tokens": 1024}} if of.thinking else {}),
        **({"stream": True} if of.streams and not of.count_tokens else {}),
    }
    return of, json.dumps(body).encode(), lines


@pytest.mark.parametrize("strategy", ["failover", "cost-based", "model-based"])
def test_a_request_goes_where_it_was_said_to_go(tmp_path: Path, strategy: str) -> None:
    """Over routes, pins, cooldowns and accounts that run out of room; and asking has changed nothing."""
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    with RawUpstream() as upstream:
        text = config(
            *providers(upstream.url),
            routing={"strategy": strategy, "routes": ROUTES, "cooldown": "1h"},
            health={"circuit": {"failures": 1000}},
        )
        with relaying(tmp_path, text) as relay, client(relay) as connection:
            b_fails_once(relay, upstream)
            met: set[object] = set()
            with dialled(places.control_door(None, relay.state, {})) as plane:
                for number in range(90):
                    of, body, lines = a_request(dice)
                    said = plane.routes.ExplainRoute(routes_pb2.ExplainRouteRequest(request=of)).answer
                    path = "/v1/messages/count_tokens" if of.count_tokens else "/v1/messages"
                    answer = connection.ask("POST", path, body, *lines)
                    where = f"seed {seed}, request {number}: {of}\n{said}\n{answer}"
                    assert (answer.status if answer.status != 200 else 0) == said.status, where
                    met |= {one.why for one in said.decision.passed_over} | {said.decision.pin, said.status}
                    if not said.status:
                        first = said.decision.candidates[0]
                        assert answer.header("x-cc-relay-provider") == first.provider, where
                        assert answer.header("x-cc-relay-attempts") == "1", where
                        assert upstream.requests[-1].header("x-api-key") == f"sk-up-{first.key_label}", where

    assert {"cooling down", "no room", usage_pb2.PIN_USE_KEPT} <= met, f"seed {seed}"


def b_fails_once(relay: Relay, upstream: RawUpstream) -> None:
    """It cools down from then on, and would be well again."""
    usual = upstream.answer

    def b_is_overloaded(request: Request, wire: Wire) -> None:
        if request.header("x-api-key") == "sk-up-b1":
            wire.send(error_answer("529 Overloaded", "overloaded_error"))
        else:
            usual(request, wire)

    upstream.answer = b_is_overloaded
    with client(relay) as connection:
        body = BODY.replace(b"claude-test", b"claude-other")
        answer = connection.ask("POST", "/v1/messages", body, AUTH, "x-claude-code-agent-id: a-0")
    assert answer.header("x-cc-relay-attempts") == "2"
    upstream.answer = usual


def test_the_command_shows_a_table_and_decides_by_a_file_that_is_not_in_force(tmp_path: Path) -> None:
    with RawUpstream() as upstream:
        free = {"prices": {"*": {"input": 0, "output": 0}}}
        dear = {"prices": {"*": {"input": 5, "output": 5}}}
        text = config(provider("dear", upstream.url, **dear), provider("free", upstream.url, **free))
        (tmp_path / "new.yaml").write_text(text.replace('"failover"', '"cost-based"'))
        (tmp_path / "bad.yaml").write_text(text.replace('"failover"', '"fail-over"'))
        with relaying(tmp_path, text) as relay:

            def route(*arguments: str) -> tuple[int, str, str]:
                done = ccr("route", "--model", "claude-test", *arguments, "--state-dir", str(relay.state), cwd=tmp_path)
                return done.returncode, done.stdout, done.stderr

            code, said, _ = route("--client", "tester", "--tools", "--header", "x-a=b", "--tokens", "100")
            assert code == 0
            assert said.startswith("claude-test would go to dear/dear-key as claude-test\nroute default of snapshot 1")
            assert "strategy failover; its session had no pin" in said

            code, said, _ = route("--config", "new.yaml")
            assert code == 0
            assert "route default of new.yaml" in said
            lines = said.splitlines()
            table = lines[lines.index("Candidates") + 1 :]
            assert [line.split() for line in table[:3]] == [
                ["target", "model", "USD", "per", "million", "tokens"],
                ["1", "free/free-key", "claude-test", "0"],
                ["2", "dear/dear-key", "claude-test", "5"],
            ]

            code, _, complaint = route("--config", "bad.yaml")
            assert code == 1
            offline = ccr("config", "validate", "bad.yaml", cwd=tmp_path)
            assert offline.stderr.splitlines()[0] in complaint.splitlines()

            code, said, _ = route("--client", "stranger")
            assert code == 1
            assert "would be refused: 401" in said
            assert json.loads(route("--client", "stranger", "--json")[1])["answer"]["status"] == 401
            for arguments, exit_code, hint in (
                (("--header", "nonsense"), 2, "NAME=VALUE"),
                (("--config", "nowhere.yaml"), 2, "nowhere.yaml"),
                (("--node", "nobody"), 3, "no node called nobody"),
            ):
                code, _, complaint = route(*arguments)
                assert (code, hint in complaint) == (exit_code, True), complaint
        assert not upstream.requests  # nothing was sent anywhere


def test_what_is_drawn_at_random_can_be_replayed(tmp_path: Path) -> None:
    """By its seed; turns are not taken by asking."""
    with RawUpstream() as upstream:
        providers = [provider(name, upstream.url) for name in "abcd"]
        routes = [
            {
                "match": {"model": f"claude-{strategy}"},
                "strategy": strategy,
                "to": [{"provider": name} for name in "abcd"],
            }
            for strategy in ("simple-shuffle", "round-robin", "weighted-round-robin", "latency-based", "least-loaded")
        ]
        text = config(*providers, routing={"affinity": "none", "routes": routes})
        with relaying(tmp_path, text) as relay, dialled(places.control_door(None, relay.state, {})) as plane:

            def order(strategy: str, seed: int) -> str:
                of = snapshot_pb2.HypotheticalRequest(model=f"claude-{strategy}", seed=seed)
                said = plane.routes.ExplainRoute(routes_pb2.ExplainRouteRequest(request=of)).answer.decision
                assert said.strategy == strategy
                return "".join(one.provider for one in said.candidates)

            for strategy in ("simple-shuffle", "latency-based", "least-loaded"):
                orders = [order(strategy, seed) for seed in range(12)]
                assert [order(strategy, seed) for seed in range(12)] == orders
                assert len(set(orders)) > 1
            for strategy in ("round-robin", "weighted-round-robin"):
                assert {order(strategy, seed) for seed in range(5)} == {"abcd"}


def test_real_requests_keep_the_scores_they_were_ordered_by(tmp_path: Path) -> None:
    with RawUpstream() as upstream:
        routing = {
            "affinity": "none",
            "routes": [
                {
                    "match": {"model": f"claude-{strategy}"},
                    "strategy": strategy,
                    "to": [{"provider": "a"}, {"provider": "b"}],
                }
                for strategy in ("cost-based", "latency-based", "least-loaded", "failover")
            ],
        }
        one = provider("a", upstream.url, prices={"*": {"input": 2, "output": 2}})
        with relaying(tmp_path, config(one, provider("b", upstream.url), routing=routing)) as relay:
            where = ("--state-dir", str(relay.state))
            told = {}
            for strategy in ("cost-based", "latency-based", "least-loaded", "failover"):
                with client(relay) as connection:
                    body = BODY.replace(b"claude-test", f"claude-{strategy}".encode())
                    request_id = str(connection.ask("POST", "/v1/messages", body, AUTH).header("x-cc-relay-request-id"))
                done = ccr("explain", request_id, *where)
                while done.returncode == 2:  # until its record has arrived
                    done = ccr("explain", request_id, *where)
                told[strategy] = {line.split(" ")[2]: line for line in done.stdout.splitlines() if "candidate" in line}

    assert told["cost-based"]["a/a-key"].endswith("(2 USD per million tokens)")
    assert told["cost-based"]["b/b-key"].endswith("as claude-cost-based")  # nobody knows its price
    assert all("(not tried yet)" in line for line in told["latency-based"].values())
    assert all("(0 open for its weight)" in line for line in told["least-loaded"].values())
    assert all("(" not in line for line in told["failover"].values())


def test_a_file_is_decided_by_while_nothing_runs(tmp_path: Path) -> None:
    """As by a worker that has just started; the same file says what is wrong with it."""
    dear, cheap = ({"prices": {"*": {"input": usd, "output": usd}}} for usd in (2, 1))
    url = "http://127.0.0.1:1"
    text = config(provider("a", url, **dear), provider("b", url, **cheap), routing={"strategy": "cost-based"})
    (tmp_path / "new.yaml").write_text(text.replace("sk-up-a", "${KEY_OF_A}"))
    (tmp_path / "ca.toml").write_text("nonsense")
    asked = ("route", "--model", "claude-test", "--state-dir", str(tmp_path / "none"))

    done = ccr(*asked, "--config", "new.yaml", "--client", "tester", cwd=tmp_path, KEY_OF_A="sk-hidden")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "claude-test would go to b/b-key as claude-test\nroute default of new.yaml\nstrategy cost-based; "
    )
    assert "no control plane runs here" in done.stderr
    assert "worker that has served nothing yet" in done.stderr

    unset = ccr(*asked, "--config", "new.yaml", cwd=tmp_path)
    assert (unset.returncode, "KEY_OF_A" in unset.stderr) == (1, True)
    toml = ccr(*asked, "--config", "ca.toml", cwd=tmp_path)
    assert (toml.returncode, "ca.toml:1" in toml.stderr) == (1, True)
    assert ccr(*asked, cwd=tmp_path).returncode == 3  # without a file there is nothing to decide by
    assert ccr(*asked, "--config", "new.yaml", "--node", "a", cwd=tmp_path).returncode == 3


# --- the control plane ------------------------------------------------------------------------------------------------


SECRETS = """\
version: 1
control: {listen: "127.0.0.1:0"}
providers:
  - name: anthropic
    type: anthropic
    base_url: https://hidden.example.com
    headers: {x-secret: hidden-header}
    keys: [{label: team-a, key: sk-ant-hidden}, {label: team-b, key: "${TEAM_B}", state: deprecated}]
"""


@asynccontextmanager
async def asked(control: Control, **request: Any) -> AsyncIterator[routes_pb2.ExplainRouteResponse]:
    """The answer to a question about a model."""
    of = snapshot_pb2.HypotheticalRequest(model="m", seed=4)
    async with control.channel() as channel:
        stub = routes_pb2_grpc.RouteServiceStub(channel)
        yield await stub.ExplainRoute(routes_pb2.ExplainRouteRequest(request=of, **request))


def known(_: FakeNode, question: snapshot_pb2.RouteQuestion) -> snapshot_pb2.RouteAnswer:
    return snapshot_pb2.RouteAnswer(id=question.id, route="all")


def leaving(node: FakeNode, _: snapshot_pb2.RouteQuestion) -> None:
    node.call.cancel()


async def test_a_node_that_is_gone_or_silent_is_followed_by_the_next(tmp_path: Path) -> None:
    """And one that still runs an older release never answers."""
    async with running_control(tmp_path) as control, control.channel() as channel:
        gone = FakeNode(channel, "test/a", answers=leaving)
        silent = FakeNode(channel, "test/b")
        good = FakeNode(channel, "test/c", answers=known)
        async with gone.watching(), silent.watching(), good.watching():
            for node in (gone, silent, good):
                await node.got()
            async with asked(control) as response:
                assert response.node_id == "test/c"
                assert response.answer.route == "all"
            assert [len(node.questions) for node in (gone, silent, good)] == [1, 1, 1]
            assert good.questions[0].request.seed == 4
            assert not good.questions[0].HasField("candidate")


class NoReports:
    """Nothing is served in the test that uses it."""

    def note(self, record: object) -> None: ...
    def note_sighting(self, sighting: object) -> None: ...
    def note_failure(self, *about: object) -> None: ...
    def note_budgets_changed(self) -> None: ...


async def test_a_node_answers_between_snapshots_and_before_the_first(tmp_path: Path) -> None:
    store = SnapshotStore(NodeDir(tmp_path / "state", "worker-0"))
    answer = answering(DataRelay(store, NoReports()), b"")
    of = snapshot_pb2.HypotheticalRequest(model="m")
    candidate = snapshot_message(0, secret="")

    async with controlling(tmp_path / "control.sock") as control:
        following = asyncio.create_task(follow_snapshots(lambda: control.address, NODE, store, answer=answer))
        stream = await control.watch()

        async def said(**more: Any) -> snapshot_pb2.RouteAnswer:
            question = snapshot_pb2.RouteQuestion(id=7, request=of, **more)
            await stream.send_bytes(snapshot_pb2.WatchSnapshotsResponse(question=question).SerializeToString())
            answer = (await stream.answer()).answer
            assert answer.id == 7
            return answer

        assert (await said()).status == 503
        assert (await said(candidate=candidate)).decision.candidates[0].provider == "p0"
        await stream.send(snapshot_message(5))
        assert (await stream.answer()).accepted.version == 5
        assert (await said()).snapshot_version == 5
        assert (await said(candidate=candidate)).snapshot_version == 0
        candidate.routes[0].candidates[0].provider = "nobody"
        refused = await said(candidate=candidate)
        assert (refused.status, "no provider nobody" in refused.problem) == (503, True)
        assert store.version == 5
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following


async def test_without_a_node_that_answers_it_says_so(tmp_path: Path) -> None:
    async with running_control(tmp_path) as control, control.channel() as channel:
        for node_id in ("", "test/a"):
            with pytest.raises(grpc.aio.AioRpcError, match="connected") as refused:
                async with asked(control, node_id=node_id):
                    pass
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        done = await ccr_beside("route", "--model", "m", "--state-dir", str(control.state_dir))
        assert done.returncode == 3
        assert "no node is connected" in done.stderr

        async with FakeNode(channel, "test/a", answers=leaving).watching() as node:
            await node.got()
            with pytest.raises(grpc.aio.AioRpcError, match="test/a: no answer"):
                async with asked(control, node_id="test/a"):
                    pass


async def test_a_candidate_has_its_keys_and_none_of_its_secrets(tmp_path: Path) -> None:
    async with (
        running_control(tmp_path, env={"TEAM_B": "sk-ant-hidden-too"}) as control,
        control.channel() as channel,
        FakeNode(channel, answers=known).watching() as node,
    ):
        in_force = await node.got()
        async with asked(control, config=SECRETS.encode(), config_name="new.yaml") as response:
            assert response.answer.route == "all"
        candidate = node.questions[0].candidate
        assert [key.label for key in candidate.providers[0].keys] == ["team-a", "team-b"]
        assert b"hidden" not in candidate.SerializeToString()
        assert candidate.providers[0].circuit == snapshot_pb2.CIRCUIT_STATE_CLOSED
        assert node.versions == [in_force.version]  # nothing was published

        for bad, hint in (
            (SECRETS.replace("team-a", "team-b"), "new.yaml:8"),
            ("\xff", "new.yaml"),
            ("a: 1", "version"),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=hint) as refused:
                async with asked(control, config=bad.encode("latin-1"), config_name="new.yaml"):
                    pass
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "hidden" not in str(refused.value.details())
        many = "version: 1\n" + "".join(f"unknown-{n}: 1\n" for n in range(500))
        with pytest.raises(grpc.aio.AioRpcError, match=r"and \d+ more"):
            async with asked(control, config=many.encode()):
                pass


async def test_a_candidate_knows_what_changes_without_a_configuration(tmp_path: Path) -> None:
    """Open circuits and spent budgets are as they are, whatever file is asked about."""
    budget = CONFIG + "server: {auth: {keys: [{name: laptop, key: key-of-the-laptop, budget: {day: 1 USD}}]}}\n"
    dear = record(started_at_s=int(time.time()) - 1)
    dear.tokens.output = 10**6
    failing = usage_pb2.FailureSighting(provider="anthropic", reason="connect", count=50)
    async with (
        running_control(tmp_path, budget) as control,
        control.channel() as channel,
        FakeNode(channel, answers=known).watching() as node,
        FakeReporter(channel).reporting() as reporter,
    ):
        await reporter.report(batch(1, dear))
        failing.first_at.GetCurrentTime()  # after the start: what happened before it is old
        failing.last_at.GetCurrentTime()
        await reporter.report(usage_pb2.UsageBatch(journal="journal-1", number=2, failures=[failing]))
        is_open = snapshot_pb2.CIRCUIT_STATE_OPEN
        await node.got(lambda of: of.auth.clients[0].HasField("spent_until") and of.providers[0].circuit == is_open)
        async with asked(control, config=budget.encode()):
            candidate = node.questions[-1].candidate
            assert candidate.auth.clients[0].HasField("spent_until")
            assert candidate.providers[0].circuit == is_open


async def test_requests_that_make_no_sense_are_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    header = snapshot_pb2.Header
    async with running_control(tmp_path) as control, control.channel() as channel:
        stub = routes_pb2_grpc.RouteServiceStub(channel)
        for what, of in (
            ("model", snapshot_pb2.HypotheticalRequest()),
            ("input_tokens", snapshot_pb2.HypotheticalRequest(model="m", input_tokens=-1)),
            ("headers", snapshot_pb2.HypotheticalRequest(model="m", headers=[header(name="a", value="b\r\nc: d")])),
            ("headers", snapshot_pb2.HypotheticalRequest(model="m", headers=[header(name="a")] * 101)),
            ("session", snapshot_pb2.HypotheticalRequest(model="m", session="s" * 5000)),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=f"request.{what}: must|is required") as refused:
                await stub.ExplainRoute(routes_pb2.ExplainRouteRequest(request=of))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_answer_that_nobody_waits_for_disturbs_nobody(tmp_path: Path) -> None:
    """It comes too late, or was never asked for."""
    async with (
        running_control(tmp_path) as control,
        control.channel() as channel,
        FakeNode(channel, answers=known).watching() as node,
    ):
        await node.got()
        for _ in range(2):
            async with asked(control) as response:
                assert response.answer.route == "all"
            for number in (99, *(question.id for question in node.questions)):
                answer = snapshot_pb2.RouteAnswer(id=number, route="of yesterday")
                await node.call.write(snapshot_pb2.WatchSnapshotsRequest(answer=answer))
        async with asked(control) as response:
            assert response.answer.route == "all"
        assert not node.ended.done()
