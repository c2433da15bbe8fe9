"""What reaches a cloud through the relay is what the official SDK's own client for that cloud would have sent.

The reference is recorded here and now: the SDK's cloud client talks to a recorder. Then a plain client of the Claude API says the
same to the relay, whose provider is the recorder. Method, path and query, the body as JSON and the named headers must be equal;
signatures must verify when botocore computes them anew over what arrived. Where the relay differs, a rule of `RULES` says so.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import boto3
import pytest
from botocore.config import Config
from ccr_demo.clouds import frames
from ccr_demo.clouds.aws import signature_problem
from ccr_demo.request import Request as Received
from corpus.cloud_inputs import MODELS, OPUS, CloudInput, asking, cloud_inputs, said
from support.clouds import (
    ACCESS_KEY,
    BEDROCK,
    CLOUDS,
    MANTLE,
    REGION,
    SECRET_KEY,
    SESSION_TOKEN,
    VERTEX,
    Cloud,
    plain_client,
    provider_of,
    sdk_client,
    send,
)
from support.relay import KEY, config, relaying
from support.serving import Relay
from support.upstream import EVENTS, MESSAGE, RawUpstream, Request, Wire, json_answer

Json = dict[str, Any]

every_cloud = pytest.mark.parametrize("cloud", CLOUDS, ids=lambda cloud: cloud.name)

COMPARED_HEADERS = (
    "content-type",
    "accept",
    "anthropic-version",
    "anthropic-beta",
    "anthropic-workspace-id",
    "anthropic-user-profile-id",
    "x-api-key",
    "api-key",
    "authorization",  # signatures: what they are for; they are verified apart
    "x-amz-security-token",
)
# Everything else that may arrive, and why it need not be as the SDK has it.
FREE_HEADERS = {
    "host": "the same recorder",
    "connection": "of this hop",
    "content-length": "follows the body; the recorder could not have read it otherwise",
    "accept-encoding": "what the client at hand can read",
    "user-agent": "the client's own: it names the SDK's class",
    "x-amz-date": "the time; part of the verified signature",
    "x-stainless-*": "the SDK's telemetry; no provider acts on it (docs/providers/anthropic.md)",
    "x-cloud": "this test's, for the route",
}


@dataclass(frozen=True)
class Rule:
    """Where the relay differs from the SDK on purpose."""

    name: str
    source: str
    clouds: tuple[str, ...]  # faces
    change: Callable[[Json, dict[str, str], str], None]  # of the reference's body and headers, for a model's name there


def _version_of_old_models(body: Json, headers: dict[str, str], model: str) -> None:
    if re.search(r"claude-[a-z]+-4-[56]", model):
        body["anthropic_version"] = "bedrock-2023-05-31"


def _renamed(body: Json, headers: dict[str, str], model: str) -> None:
    _betas(
        body, headers, lambda beta: "tool-search-tool-2025-10-19" if beta == "advanced-tool-use-2025-11-20" else beta
    )


def _without_turns_of_their_own(body: Json, headers: dict[str, str], model: str) -> None:
    _betas(body, headers, lambda beta: "" if beta == "per-turn-control-2026-07-01" else beta)
    for message in body.get("messages", []):
        message.pop("output_config", None)


def _without_edits(body: Json, headers: dict[str, str], model: str) -> None:
    _betas(body, headers, lambda beta: "" if beta == "context-management-2025-06-27" else beta)
    body.pop("context_management", None)


def _without_strictness(body: Json, headers: dict[str, str], model: str) -> None:
    for tool in body.get("tools", []):
        tool.pop("strict", None)


def _without_eagerness(body: Json, headers: dict[str, str], model: str) -> None:
    for tool in body.get("tools", []):
        tool.pop("eager_input_streaming", None)


def _betas(body: Json, headers: dict[str, str], change: Callable[[str], str]) -> None:
    told = [change(beta) for beta in headers.pop("anthropic-beta", "").split(",")]
    if kept := [beta for beta in told if beta]:
        headers["anthropic-beta"] = ",".join(kept)
    if "anthropic_beta" in body:
        del body["anthropic_beta"]
        if kept:
            body["anthropic_beta"] = kept


def _signed_for_the_runtime(body: Json, headers: dict[str, str], model: str) -> None:
    if signed := headers.get("authorization"):
        headers["authorization"] = signed.replace("/bedrock-mantle/", "/bedrock/")


def _without_date_where_it_counts(body: Json, headers: dict[str, str], model: str) -> None:
    if "model" in body:
        body["model"] = model.partition("@")[0]


RULES = (
    Rule(
        "the native endpoint is not mantle",
        "the SDK has no client for it; the service of bedrock-runtime signs as bedrock",
        ("native",),
        _signed_for_the_runtime,
    ),
    Rule(
        "models before 4.7 take the old version only",
        "docs/providers/bedrock.md: 2026-10-21 is served for Claude 4.7 and later",
        ("bedrock",),
        _version_of_old_models,
    ),
    Rule(
        "counting for a model without its date",
        "docs/providers/vertex.md: with it, counting is refused",
        ("vertex",),
        _without_date_where_it_counts,
    ),
    Rule(
        "tool search has another name",
        "as Claude Code itself renames it for these clouds",
        ("bedrock", "mantle", "native", "vertex"),
        _renamed,
    ),
    Rule(
        "turns with an output_config of their own",
        "as Claude Code itself leaves them out for clouds",
        ("bedrock", "mantle", "native", "vertex", "foundry"),
        _without_turns_of_their_own,
    ),
    Rule(
        "context management",
        "as Claude Code itself leaves it out there; Bedrock takes no edits but compaction",
        ("bedrock", "vertex"),
        _without_edits,
    ),
    Rule(
        "strict tools",
        "structured outputs are not there",
        ("bedrock", "vertex"),
        _without_strictness,
    ),
    Rule(
        "tools streamed as they come",
        "the beta they belong to is not taken there",
        ("vertex", "foundry"),
        _without_eagerness,
    ),
)


def answer(request: Request, wire: Wire) -> None:
    """What each of the clouds would say, as far as clients need it."""
    if request.path.endswith("/invoke-with-response-stream"):
        wire.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        wire.chunk(b"".join(frames.chunk(frames.data_of(event)) for event in EVENTS if b"ping" not in event))
        wire.end_stream()
    elif request.path.endswith("/count-tokens"):
        wire.send(json_answer(b'{"inputTokens":7}'))
    elif "count" in request.path:
        wire.send(json_answer(b'{"input_tokens":7}'))
    elif json.loads(request.body).get("stream") is True:
        wire.begin_stream()
        wire.chunk(b"".join(EVENTS))
        wire.end_stream()
    else:
        wire.send(json_answer(MESSAGE))


@pytest.fixture(scope="module")
def recorder() -> Iterator[RawUpstream]:
    with RawUpstream(answer) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def relay(recorder: RawUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """One relay for all clouds: a header says which."""
    providers = [provider_of(cloud, recorder.url) for cloud in CLOUDS]
    routes = [{"match": {"headers": {"x-cloud": cloud.slug}}, "to": [{"provider": cloud.slug}]} for cloud in CLOUDS]
    with relaying(tmp_path_factory.mktemp("relay"), config(*providers, routing={"routes": routes})) as relay:
        yield relay


def client_of(relay: Relay, cloud: Cloud, **headers: str) -> Any:
    """A client of the Claude API, at the relay."""
    return plain_client(relay.url, KEY, x_cloud=cloud.slug, **headers)


def arrived(recorder: RawUpstream) -> Request:
    """The one request that came."""
    requests, recorder.requests[:] = list(recorder.requests), []
    assert len(requests) == 1
    return requests[0]


def headers_of(request: Request) -> dict[str, str]:
    """The headers to compare; of a signature, whose it is and for what."""
    told = {name: value for name, value in request.headers if name in COMPARED_HEADERS}
    if signed := re.match(r"AWS4-HMAC-SHA256 Credential=([^,]+),", told.get("authorization", "")):
        told["authorization"] = signed[1]
    return told


def odd_headers(request: Request) -> list[str]:
    """Headers that nobody has thought of."""
    free = re.compile("|".join(name.replace("*", ".*") for name in (*COMPARED_HEADERS, *FREE_HEADERS)))
    return [name for name, _ in request.headers if not free.fullmatch(name)]


def received(request: Request, url: str) -> Received:
    """As the verifier reads it."""
    headers = tuple((name.encode(), value.encode("latin-1")) for name, value in request.headers)
    method, target, _ = request.line.split(" ")
    return Received(method, target, headers, request.body, url)


def differences(cloud: Cloud, model: str, reference: Request, candidate: Request, url: str) -> Iterator[str]:
    """What is not as it should be."""
    body, headers = json.loads(reference.body), headers_of(reference)
    for rule in RULES:
        if cloud.face in rule.clouds:
            rule.change(body, headers, model)
    if candidate.line != reference.line:
        yield f"{candidate.line!r}, not {reference.line!r}"
    if json.loads(candidate.body) != body:
        yield f"body {short(candidate.body)}, not {short(json.dumps(body).encode())}"
    if headers_of(candidate) != headers:
        yield f"headers {headers_of(candidate)}, not {headers}"
    if odd := odd_headers(candidate):
        yield f"also has {odd}"
    if cloud.service:
        for who, request in (("reference", reference), ("relay", candidate)):
            if problem := signature_problem(received(request, url), ACCESS_KEY, SECRET_KEY, None):
                yield f"signature of the {who}: {problem}"


def short(text: bytes) -> str:
    return text.decode()[:600]


def names_of(cloud: Cloud) -> list[tuple[CloudInput, str]]:
    """Every input, by the cloud's name of its model; and every odd name, whole and streamed. Some of them, where they have been."""
    inputs = cloud_inputs()[:: 5 if cloud.is_variant else 1]
    usual = [(each, cloud.names.get(each.body["model"], each.body["model"])) for each in inputs]
    plain = CloudInput("a model by its name there", asking())
    odd = [(each, name) for name in cloud.odd_names for each in (plain, plain.streamed())]
    return [(each, name) for each, name in usual + odd if cloud.has_counts or not each.counts]


@every_cloud
def test_what_arrives_is_what_the_official_client_sends(cloud: Cloud, relay: Relay, recorder: RawUpstream) -> None:
    """All inputs, for each cloud and each kind of credential."""
    recorder.requests.clear()
    reference_client, client = sdk_client(cloud, recorder.url), client_of(relay, cloud)
    pairs = names_of(cloud)
    wrong: list[str] = []
    for asked, name in pairs:
        send(reference_client, asked, name)
        reference = arrived(recorder)
        # The relay knows the cloud's names of the usual models; others are asked for as they are.
        send(client, asked, asked.body["model"] if name in cloud.names.values() else name)
        candidate = arrived(recorder)
        wrong += [f"{asked.name}: {each}" for each in differences(cloud, name, reference, candidate, recorder.url)]

    assert len(pairs) >= (18 if cloud.is_variant else 90)
    assert not wrong, "\n".join(wrong)


def test_every_rule_is_needed() -> None:
    """A difference that no input shows would hide mistakes."""
    for rule in RULES:
        changed = []
        for asked in cloud_inputs():
            body = json.loads(json.dumps({**asked.body, "anthropic_version": "2026-10-21"}))
            body["model"] = VERTEX.names[body["model"]]
            headers = {"anthropic-beta": ",".join(asked.betas)} if asked.betas else {}
            if asked.counts:
                headers["authorization"] = "AKIDEXAMPLE/20260101/us-east-1/bedrock-mantle/aws4_request"
            before = json.dumps([body, headers])
            rule.change(body, headers, VERTEX.names[asked.body["model"]])
            changed.append(json.dumps([body, headers]) != before)
        assert 0 < sum(changed) < 25, rule.name


def test_counting_on_bedrock_is_what_botocore_sends(relay: Relay, recorder: RawUpstream) -> None:
    """The SDK cannot count there; AWS's own client can. What is counted is what the SDK would have sent to be answered."""
    recorder.requests.clear()
    aws = boto3.client(
        "bedrock-runtime",
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        aws_session_token=SESSION_TOKEN,
        endpoint_url=recorder.url,
        config=Config(retries={"max_attempts": 1}),
    )
    sdk, client = sdk_client(BEDROCK, recorder.url), client_of(relay, BEDROCK)
    counted = [each for each in cloud_inputs() if each.counts]
    for asked in counted:
        name = BEDROCK.names[asked.body["model"]]
        betas = (*asked.betas, "token-counting-2024-11-01") if asked.betas else ()  # the SDK adds it where it counts
        send(sdk, CloudInput(asked.name, {**asked.body, "max_tokens": 1024}, betas), name)
        inner = arrived(recorder)
        body, headers = json.loads(inner.body), headers_of(inner)
        for rule in RULES:
            if "bedrock" in rule.clouds:
                rule.change(body, headers, name)
        base = name.partition(".")[2]  # a profile cannot count, its model can
        aws.count_tokens(modelId=base, input={"invokeModel": {"body": json.dumps(body).encode()}})
        reference = arrived(recorder)
        send(client, asked, asked.body["model"])
        candidate = arrived(recorder)

        assert unquote(candidate.path) == unquote(reference.path), asked.name  # botocore also encodes ":"
        assert ":" not in reference.path
        assert counted_body(candidate) == counted_body(reference) == body, asked.name
        assert headers_of(candidate)["authorization"] == headers_of(reference)["authorization"]
        assert headers_of(candidate)["x-amz-security-token"] == SESSION_TOKEN
        assert not signature_problem(received(candidate, recorder.url), ACCESS_KEY, SECRET_KEY, None)
        assert not odd_headers(candidate)
    aws.close()
    assert len(counted) >= 9


def counted_body(request: Request) -> Json:
    outer = json.loads(request.body)
    assert set(outer) == {"input"}
    assert set(outer["input"]) == {"invokeModel"}
    inner: Json = json.loads(base64.b64decode(outer["input"]["invokeModel"]["body"], validate=True))
    return inner


def test_the_count_comes_back_as_anthropics(relay: Relay) -> None:
    for cloud in CLOUDS:
        count = client_of(relay, cloud).messages.count_tokens(model=OPUS, messages=said())
        assert count.input_tokens == 7, cloud.name


def test_vertex_counts_for_a_model_without_its_date(relay: Relay, recorder: RawUpstream) -> None:
    """With it, counting is refused there."""
    recorder.requests.clear()
    client_of(relay, VERTEX).messages.count_tokens(model="claude-sonnet-4-5@20250929", messages=said())

    assert json.loads(arrived(recorder).body)["model"] == "claude-sonnet-4-5"


def test_a_user_profile_goes_where_mantle_reads_it(relay: Relay, recorder: RawUpstream) -> None:
    """In the body; elsewhere it stays a header."""
    recorder.requests.clear()
    asked = CloudInput("with a profile", asking(), headers={"anthropic-user-profile-id": "uprof_01AbC"})
    send(sdk_client(MANTLE, recorder.url), asked, MANTLE.names[OPUS])
    reference = arrived(recorder)
    send(client_of(relay, MANTLE), asked, OPUS)
    candidate = arrived(recorder)

    assert json.loads(reference.body)["user_profile_id"] == "uprof_01AbC"
    assert not list(differences(MANTLE, MANTLE.names[OPUS], reference, candidate, recorder.url))


@every_cloud
def test_a_cache_scope_goes_no_further_than_where_it_is_known(
    cloud: Cloud, relay: Relay, recorder: RawUpstream
) -> None:
    """Bedrock and Foundry refuse it; the SDK has no opinion."""
    recorder.requests.clear()
    marked = [
        {"type": "text", "text": "Remember.", "cache_control": {"type": "ephemeral", "scope": "global", "ttl": "1h"}}
    ]
    send(client_of(relay, cloud), CloudInput("scoped", asking(system=marked)), OPUS)

    sent = json.loads(arrived(recorder).body)["system"][0]["cache_control"]
    assert ("scope" not in sent) == (cloud.face in ("bedrock", "mantle", "native", "foundry"))
    assert sent["ttl"] == "1h"


@every_cloud
def test_no_credential_of_the_client_reaches_a_cloud(cloud: Cloud, relay: Relay, recorder: RawUpstream) -> None:
    """Neither the relay's key nor what a client makes up to be signed for."""
    recorder.requests.clear()
    made_up = {"x-amz-security-token": "forged", "x-amz-date": "20200101T000000Z", "X-Amz-Target": "forged"}
    send(client_of(relay, cloud), CloudInput("forged", asking(), headers=made_up), OPUS)

    request = arrived(recorder)
    assert KEY not in request.head.decode()
    assert "forged" not in request.head.decode()
    assert "20200101" not in request.head.decode()


@pytest.mark.parametrize("model", MODELS)
def test_older_clients_get_the_clouds_old_versions(model: str, relay: Relay, recorder: RawUpstream) -> None:
    """Claude Code speaks 2023-06-01, and asks with `?beta=true`; neither belongs into these requests."""
    for cloud, version in ((BEDROCK, "bedrock-2023-05-31"), (VERTEX, "vertex-2023-10-16")):
        recorder.requests.clear()
        client = client_of(relay, cloud, anthropic_version="2023-06-01")
        client.post("/v1/messages?beta=true", body={**asking(), "model": model}, cast_to=object)
        request = arrived(recorder)

        assert json.loads(request.body)["anthropic_version"] == version
        assert request.header("anthropic-version") is None
        assert "?" not in request.path
