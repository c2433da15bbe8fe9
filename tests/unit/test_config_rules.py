"""Each rule of the configuration, with a text that breaks it and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ccr_control.core.config import Loaded, load
from ccr_control.core.errors import ConfigInvalid

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def files(name: str) -> str:
    match name:
        case "good.pem":
            return PEM
        case "key.pem":
            return PEM + "-----BEGIN PRIVATE KEY-----\n"
        case "binary.pem":
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "secret bytes")
        case "empty.pem":
            return ""
    raise PermissionError(13, "Permission denied")


def loaded(change: dict[str, Any] | None = None, **env: str) -> Loaded:
    """A good configuration with sections replaced."""
    whole: dict[str, Any] = {
        "version": 1,
        "server": {"auth": {"mode": "none"}},
        "providers": [{"name": "a", "type": "anthropic", "keys": [{"key": "k"}]}],
    }
    text = yaml.safe_dump(whole | (change or {}))
    return load(text, file="ccr.yaml", fmt="yaml", env=env, read_file=files)


def problems(change: dict[str, Any], **env: str) -> dict[str, str]:
    """What is wrong with it, by path."""
    with pytest.raises(ConfigInvalid) as raised:
        loaded(change, **env)
    return {problem.path: problem.message for problem in raised.value.problems}


def provider(**fields: Any) -> dict[str, Any]:
    return {"providers": [{"name": "p", "type": "anthropic", "keys": [{"key": "k"}]} | fields]}


def compatible(**fields: Any) -> dict[str, Any]:
    return provider(type="anthropic-compatible", base_url="https://llm.example.com", **fields)


def match(**conditions: Any) -> dict[str, Any]:
    return {"routing": {"routes": [{"match": conditions, "to": [{"provider": "a"}]}]}}


def server(**fields: Any) -> dict[str, Any]:
    return {"server": {"auth": {"mode": "none"}} | fields}


def test_the_configuration_the_others_are_made_from_is_good() -> None:
    """Otherwise the tests below would fail for the wrong reason."""
    assert loaded().warnings == ()


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"version": 2}, "version", "must be 1"),
        ({"version": "1"}, "version", "must be 1"),
        ({"version": True}, "version", "must be 1"),
        ({"provider": []}, "provider", "did you mean 'providers'?"),
        ({"providers": []}, "providers", "must not be empty"),
        ({"providers": None}, "providers", "at least one provider"),
        ({"providers": {"a": {}}}, "providers", "must be a list"),
        ({"providers": ["anthropic"]}, "providers[0]", "must be a mapping"),
        # server
        (server(listen="8787"), "server.listen", "host:port"),
        (server(listen=8787), "server.listen", "host:port"),
        (server(listen=":8787"), "server.listen", "the host is missing"),
        (server(listen="::1:8787"), "server.listen", "IPv6 goes in brackets"),
        (server(listen="localhost:70000"), "server.listen", "65535"),
        (server(listen="0.0.0.0:1"), "server.listen", "without client keys"),
        (server(listen="relay.example.com:1"), "server.listen", "without client keys"),
        (server(listen="[::]:1"), "server.listen", "without client keys"),
        ({"server": {"listen": "0.0.0.0:1"}}, "server.listen", "without client keys"),
        (
            {"server": {"listen": "0.0.0.0:1", "auth": {"allow_subscription": True}}},
            "server.listen",
            "without client keys",
        ),
        ({"server": {"auth": {}}}, "server.auth", "nobody could use the relay"),
        (
            {"server": {"auth": {"mode": "none", "keys": [{"name": "a", "key": "k"}]}}},
            "server.auth.mode",
            "contradicts",
        ),
        (
            {"server": {"auth": {"keys": [{"name": "a", "key": "k"}, {"name": "a", "key": "l"}]}}},
            "server.auth.keys[1].name",
            "used twice",
        ),
        (
            {"server": {"auth": {"keys": [{"name": "a", "key": "k"}, {"name": "b", "key": "k"}]}}},
            "server.auth.keys[1].key",
            "used twice",
        ),
        (
            server(auth={"allow_subscription": True, "subscription_origins": ["https://x.y/path"]}),
            "server.auth.subscription_origins[0]",
            "https origin",
        ),
        (
            server(auth={"allow_subscription": True, "subscription_origins": ["http://x.y"]}),
            "server.auth.subscription_origins[0]",
            "https origin",
        ),
        (server(workers=0), "server.workers", "at least 1"),
        (server(workers=1.5), "server.workers", "whole number"),
        (server(workers=True), "server.workers", "whole number"),
        (server(max_body=1000), "server.max_body", "no unit"),
        (server(max_body="1000"), "server.max_body", "no unit"),
        (server(max_body="32 megs"), "server.max_body", "not a size"),
        (server(max_body="0.3B"), "server.max_body", "whole number of bytes"),
        (server(max_body="1B"), "server.max_body", "at least 1024"),
        (server(drain_timeout=30), "server.drain_timeout", "no unit"),
        (server(drain_timeout="30"), "server.drain_timeout", "no unit"),
        (server(drain_timeout="400d"), "server.drain_timeout", "365d"),
        (server(drain_timeout="999999999999d"), "server.drain_timeout", "longer"),
        (server(read_timeout=0), "server.read_timeout", "longer than 0"),
        (server(read_timeout="0s"), "server.read_timeout", "longer than 0"),
        (server(log_format="xml"), "server.log_format", "json, text, auto"),
        (server(answer_headers="yes"), "server.answer_headers", "true or false"),
        (server(answer_headers=1), "server.answer_headers", "true or false"),
        # control
        ({"control": {"listen": "0.0.0.0:9090"}}, "control.listen", "pass in the clear"),
        ({"control": {"web_listen": "10.0.0.1:9090"}}, "control.web_listen", "pass in the clear"),
        ({"control": {"listen": "127.0.0.1:8787"}}, "control.listen", "the same address as server.listen"),
        ({"control": {"listen": "127.0.0.1:9091"}}, "control.listen", "the same address as control.web_listen"),
        # routing
        ({"routing": {"strategy": "leastloaded"}}, "routing.strategy", "did you mean 'least-loaded'?"),
        ({"routing": {"strategy": "faillover"}}, "routing.strategy", "did you mean 'failover'?"),
        (
            match(min_input_tokens=9, max_input_tokens=8),
            "routing.routes[0].match.max_input_tokens",
            "nothing could match",
        ),
        (match(agent="main", request_class="subagent"), "routing.routes[0].match.request_class", "contradicts"),
        (match(headers={"Cookie": "*"}), "routing.routes[0].match.headers.cookie", "not seen"),
        (match(headers={"x-api-key": "*"}), "routing.routes[0].match.headers.x-api-key", "credentials"),
        (match(images="some"), "routing.routes[0].match.images", "true or false"),
        ({"routing": {"max_attempts": 101}}, "routing.max_attempts", "at most 100"),
        ({"routing": {"affinity": "client"}}, "routing.affinity", "session, none"),
        ({"routing": {"routes": [{"match": {"model": "m"}}]}}, "routing.routes[0].to", "is required"),
        ({"routing": {"routes": [{"to": []}]}}, "routing.routes[0].to", "must not be empty"),
        (
            {"routing": {"routes": [{"match": {"model": []}, "to": [{"provider": "a"}]}]}},
            "routing.routes[0].match.model",
            "must not be empty",
        ),
        ({"routing": {"routes": [{"to": [{"provider": "b"}]}]}}, "routing.routes[0].to[0].provider", "known: a"),
        ({"routing": {"routes": [{"to": [{"provider": "A"}]}]}}, "routing.routes[0].to[0].provider", "no provider 'A'"),
        (
            {"routing": {"routes": [{"name": "default", "to": [{"provider": "a"}]}]}},
            "routing.routes[0].name",
            "built-in",
        ),
        (
            {"routing": {"routes": [{"to": [{"provider": "a"}]}, {"name": "route-1", "to": [{"provider": "a"}]}]}},
            "routing.routes[1].name",
            "used twice",
        ),
        # providers
        (provider(name="A"), "providers[0].name", "lower-case"),
        (provider(keys=[{"key": "k", "state": "disabled"}]), "providers[0].keys", "every key is disabled"),
        (provider(key_selection="random"), "providers[0].key_selection", "least-loaded"),
        (provider(prices={"*": {"input": -1, "output": 1}}), "providers[0].prices['*'].input", "at least 0"),
        (provider(price_factor="dear"), "providers[0].price_factor", "must be a number"),
        (provider(type="antropic"), "providers[0].type", "did you mean 'anthropic'?"),
        (provider(preset="vllm"), "providers[0].preset", "belongs to type anthropic-compatible"),
        (provider(type="anthropic-compatible", preset="vlm"), "providers[0].preset", "did you mean 'vllm'?"),
        (provider(type="anthropic-compatible"), "providers[0].base_url", "is required"),
        (provider(enabled=False), "providers", "no provider is enabled"),
        (provider(base_url="http://api.anthropic.com"), "providers[0].base_url", "must be https"),
        (provider(base_url="ftp://api.anthropic.com"), "providers[0].base_url", "https://"),
        (provider(base_url="api.anthropic.com"), "providers[0].base_url", "https://"),
        (provider(base_url="https://u:p@x.y"), "providers[0].base_url", "user name or password"),
        (provider(base_url="https://x.y/?a=b"), "providers[0].base_url", "query"),
        (provider(base_url="https://x.y/#a"), "providers[0].base_url", "fragment"),
        (provider(base_url="https://x.y/v1/"), "providers[0].base_url", "ends in /v1,"),
        (provider(base_url="https://x.y/v1/messages"), "providers[0].base_url", "ends in /v1/messages"),
        (provider(base_url="https://x.y/a/../b"), "providers[0].base_url", "plain"),
        (provider(base_url="https://x.y/a b"), "providers[0].base_url", "blank"),
        (provider(base_url="https://x.y\n"), "providers[0].base_url", "blank"),
        (provider(base_url="https://x.y:0"), "providers[0].base_url", "port"),
        (provider(base_url="https://x.y:port"), "providers[0].base_url", "port"),
        (provider(base_url="https://[::1"), "providers[0].base_url", "not a URL"),
        (provider(base_url="https://exämple.com"), "providers[0].base_url", "non-ASCII"),
        (provider(base_url="https://127.1"), "providers[0].base_url", "complete IP address"),
        (provider(base_url="https://2130706433"), "providers[0].base_url", "complete IP address"),
        (provider(base_url="https://0x7f.0.0.1"), "providers[0].base_url", "complete IP address"),
        (provider(base_url="https://10.0.0.1"), "providers[0].base_url", "private address"),
        (provider(base_url="https://127.0.0.1"), "providers[0].base_url", "private address"),
        (provider(base_url="https://localhost"), "providers[0].base_url", "private address"),
        (provider(base_url="https://[::1]"), "providers[0].base_url", "private address"),
        (provider(base_url="https://[fe80::1]"), "providers[0].base_url", "private address"),
        (provider(base_url="https://[::ffff:10.0.0.1]"), "providers[0].base_url", "private address"),
        (provider(base_url="https://169.254.1.1"), "providers[0].base_url", "private address"),
        (provider(base_url="https://0.0.0.0"), "providers[0].base_url", "private address"),
        (provider(base_url="http://169.254.169.254", allow_private=True), "providers[0].base_url", "metadata"),
        (provider(base_url="http://[::ffff:169.254.169.254]", allow_private=True), "providers[0].base_url", "metadata"),
        (provider(base_url="http://metadata.google.internal.", type="ollama"), "providers[0].base_url", "metadata"),
        # credentials
        (provider(keys=[]), "providers[0].keys", "allow_subscription"),
        (provider(type="zai", keys=[]), "providers[0].keys", "no credential"),
        (compatible(keys=[]), "providers[0].keys", "auth_style: none"),
        (compatible(auth_style="none"), "providers[0].auth_style", "never send"),
        (provider(keys=[{"label": "l"}]), "providers[0].keys[0].key", "is required"),
        (provider(keys=[{"key": ""}]), "providers[0].keys[0].key", "is empty"),
        (provider(keys=[{"key": "k\n"}]), "providers[0].keys[0].key", "a line break"),
        (provider(keys=[{"key": "k k"}]), "providers[0].keys[0].key", "a blank"),
        (provider(keys=[{"key": "k\x7f"}]), "providers[0].keys[0].key", "control character"),
        (provider(keys=[{"key": "clé"}]), "providers[0].keys[0].key", "ASCII"),
        (provider(keys=[{"key": "***"}]), "providers[0].keys[0].key", "hidden secret"),
        (provider(keys=[{"key": 5}]), "providers[0].keys[0].key", "must be text"),
        (
            provider(keys=[{"key": "k", "label": "a"}, {"key": "l", "label": "a"}]),
            "providers[0].keys[1].label",
            "twice",
        ),
        (provider(keys=[{"key": "k", "label": "key-2"}, {"key": "l"}]), "providers[0].keys[1].label", "twice"),
        (provider(keys=[{"key": "k", "label": "subscription"}]), "providers[0].keys[0].label", "reserved"),
        (provider(keys=[{"key": "k", "weight": 0}]), "providers[0].keys[0].weight", "at least 1"),
        (provider(keys=[{"key": "k", "priority": -1}]), "providers[0].keys[0].priority", "at least 0"),
        (provider(keys=[{"key": "k", "rpm_limit": 0}]), "providers[0].keys[0].rpm_limit", "at least 1"),
        (provider(api_key="k"), "providers[0].api_key", "keys:"),
        (provider(url="k"), "providers[0].url", "base_url"),
        (server(zzz=1), "server.zzz", "known here: listen, workers"),
        # models
        (provider(models=["a", {"id": "a"}]), "providers[0].models[1]", "used twice"),
        (provider(models=[{"id": "a", "created_at": "yesterday"}]), "providers[0].models[0].created_at", "RFC 3339"),
        (
            provider(models=[{"id": "a", "created_at": "2026-02-30"}]),
            "providers[0].models[0].created_at",
            "no such day",
        ),
        (provider(models=[{"id": "a", "display_name": "a\nb"}]), "providers[0].models[0].display_name", "printable"),
        (provider(models=[{"id": "a b"}]), "providers[0].models[0].id", "without blanks"),
        (provider(model_mapping={"a b": "x"}), "providers[0].model_mapping['a b']", "without blanks"),
        (provider(model_mapping={"a": 5}), "providers[0].model_mapping.a", "must be text"),
        (provider(model_mapping=["a"]), "providers[0].model_mapping", "mapping"),
        (provider(serves=["!"]), "providers[0].serves[0]", "excludes nothing"),
        # headers
        (provider(headers={"Host": "x"}), "providers[0].headers.Host", "set by the relay"),
        (provider(headers={"Content-Length": "x"}), "providers[0].headers.Content-Length", "set by the relay"),
        (provider(headers={"Transfer-Encoding": "x"}), "providers[0].headers.Transfer-Encoding", "set by the relay"),
        (provider(headers={"connection": "x"}), "providers[0].headers.connection", "set by the relay"),
        (provider(headers={"X-Api-Key": "x"}), "providers[0].headers.X-Api-Key", "credentials go into `keys`"),
        (provider(headers={"authorization": "x"}), "providers[0].headers.authorization", "credentials go into `keys`"),
        (provider(headers={"a b": "x"}), "providers[0].headers['a b']", "not a header name"),
        (provider(headers={"x-a": "1", "X-A": "2"}), "providers[0].headers.x-a", "used twice"),
        (provider(headers={"x-a": "1\r\nb: c"}), "providers[0].headers.x-a", "line break"),
        (provider(headers={"x-a": "1\0"}), "providers[0].headers.x-a", "control character"),
        (provider(headers={"x-a": 1}), "providers[0].headers.x-a", "must be text"),
        (provider(headers={"x-a": " 1"}), "providers[0].headers.x-a", "blanks at its ends"),
        # the rest
        (provider(betas="all"), "providers[0].betas", "forward, drop"),
        (provider(betas=[1]), "providers[0].betas", "forward, drop"),
        (provider(timeouts={"connect": 0}), "providers[0].timeouts.connect", "longer than 0"),
        (provider(traits={"system_turns": "drop"}), "providers[0].traits.system_turns", "pass, fold, reject"),
        (provider(traits={"documents": "no"}), "providers[0].traits.documents", "true or false"),
        (provider(auth_style="basic"), "providers[0].auth_style", "x-api-key"),
        (provider(base_url=5), "providers[0].base_url", "must be text"),
        (provider(ca_file=""), "providers[0].ca_file", "path of a PEM file"),
        (provider(ca_file="nowhere.pem"), "providers[0].ca_file", "Permission denied"),
        (provider(ca_file="key.pem"), "providers[0].ca_file", "private key"),
        (provider(ca_file="empty.pem"), "providers[0].ca_file", "no PEM certificate"),
        (provider(ca_file="binary.pem"), "providers[0].ca_file", "not a text file"),
        ({"health": {"circuit": {"failures": 0}}}, "health.circuit.failures", "at least 1"),
        ({"health": {"probe": {"interval": 5}}}, "health.probe.interval", "no unit"),
    ],
)
def test_a_broken_rule_is_told_at_its_place(change: dict[str, Any], path: str, words: str) -> None:
    """One mistake, one problem: where it is, and what to do."""
    found = problems(change)
    assert list(found) == [path]
    assert words in found[path]


@pytest.mark.parametrize(
    "change",
    [
        server(listen="localhost:8787"),
        server(listen="127.8.9.10:0"),
        server(listen="[::1]:8787"),
        server(drain_timeout=0),
        server(drain_timeout="1h30m"),
        server(max_body="1.5MiB"),
        {"server": {"listen": "0.0.0.0:1", "auth": {"keys": [{"name": "a", "key": "k"}]}}},
        {"server": {"auth": {"allow_subscription": True}}} | provider(keys=[]),
        {"routing": None, "health": None, "control": None},
        {"x-anything": {"goes": "here"}},
        provider(base_url="https://gateway.example.com/anthropic/"),
        provider(base_url="http://10.0.0.1:8080", allow_private=True),
        provider(type="ollama", keys=None),
        provider(type="ollama", base_url="http://192.168.0.7:11434", keys=[]),
        provider(type="ollama", base_url="https://ollama.com"),
        provider(type="anthropic-compatible", preset="vllm", keys=[]),
        provider(type="anthropic-compatible", preset="llama-cpp", keys=[], base_url="http://gpu:8080"),
        compatible(auth_style="none", keys=[]),
        compatible(headers={"x-team": "research"}, betas=["a-2026-01-01"], ca_file="good.pem"),
        provider(models=["m", {"id": "n", "created_at": "2026-01-02T03:04:05+01:00"}]),
    ],
)
def test_what_is_allowed_is_taken(change: dict[str, Any]) -> None:
    """The rules above must not catch what people need."""
    loaded(change)


def test_a_missing_version_says_what_to_write() -> None:
    """It is the first mistake of everybody who writes a configuration by hand."""
    with pytest.raises(ConfigInvalid) as raised:
        load("providers: [{name: a, type: ollama}]\n", file="f", fmt="yaml", env={})
    assert [str(problem) for problem in raised.value.problems] == [
        "f:1:1: version: is required: begin the file with `version: 1`"
    ]


def test_a_missing_variable_is_named_with_its_place_and_fix() -> None:
    """Two references, two problems, and none about the key that therefore is not one."""
    found = problems(provider(keys=[{"key": "${ONE}"}, {"key": "a${TWO}b"}]))
    assert found == {
        "providers[0].keys[0].key": "the environment variable ONE is not set: set it, or write ${ONE:-default}",
        "providers[0].keys[1].key": "the environment variable TWO is not set: set it, or write ${TWO:-default}",
    }


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("${", "not closed"),
        ("${}", "is written ${NAME}"),
        ("${1A}", "is written ${NAME}"),
        ("${A-b}", "is written ${NAME}"),
        ("${A:-${B}}", "cannot hold another variable"),
        ("${BYTES}", "not UTF-8"),
    ],
)
def test_a_malformed_reference_is_a_problem(written: str, words: str) -> None:
    """A typo must not become a key that is sent to a provider."""
    found = problems(provider(keys=[{"key": written}]), BYTES="a\udcff")
    assert words in found["providers[0].keys[0].key"]


def test_variables_are_filled_in_after_decoding() -> None:
    """A value cannot become structure, and may stand where a number is asked for."""
    config = loaded(
        server(workers="${N}", answer_headers="${OFF}", drain_timeout="${NONE:-5s}", log_format="${EMPTY:-text}"),
        N="3",
        OFF="false",
        EMPTY="",
    ).config
    assert (config.server.workers, config.server.answer_headers) == (3, False)
    assert (config.server.drain_timeout.total_seconds(), config.server.log_format) == (5, "text")
    hostile = loaded(provider(model_mapping={"a": "${X}"}), X="m,b:c").config
    assert hostile.providers[0].model_mapping == {"a": "m,b:c"}
    assert loaded(provider(keys=[{"key": "$${X}"}])).config.providers[0].keys[0].key.reveal() == "${X}"


def test_a_provider_with_a_mistake_is_still_known_to_routes() -> None:
    """One mistake must not look like two."""
    change = provider(type="bedrok") | {"routing": {"routes": [{"to": [{"provider": "p"}]}]}}
    assert list(problems(change)) == ["providers[0].type"]


def test_a_section_of_the_wrong_kind_hides_nothing_else() -> None:
    """Found by the property tests: rules between fields must not stumble over it."""
    change = {"providers": 1, "routing": {"routes": [{"to": [{"provider": "b"}]}]}, "server": []}
    assert set(problems(change)) == {"providers", "server"}


def test_a_credential_in_the_wrong_place_is_not_repeated() -> None:
    """People paste keys into labels."""
    token = "sk-ant-api03-abcdefghijklmnop1234"
    found = problems(provider(keys=[{"key": "k", "label": token + "!"}], type=token, **{token: 1}))
    assert len(found) == 3
    assert token not in str(found)


def test_rules_between_fields_are_told_together_with_wrong_fields() -> None:
    """All mistakes at once: nobody should have to start a program ten times."""
    change = server(listen="0.0.0.0:1", workers="many") | {"routing": {"routes": [{"to": [{"provider": "b"}]}]}}
    assert set(problems(change)) == {"server.listen", "server.workers", "routing.routes[0].to[0].provider"}


def test_files_cannot_be_read_where_nobody_gave_a_way_to() -> None:
    """A text sent for validation must not make the server read files of its own choice."""
    text = yaml.safe_dump({"version": 1} | provider(ca_file="/etc/shadow"))
    with pytest.raises(ConfigInvalid, match="files cannot be read here"):
        load(text, file="f", fmt="yaml", env={})


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"server": {}}, "server", "every program on this machine"),
        (
            provider(
                keys=[
                    {"key": "k", "scope": "s", "rpm_limit": 5, "itpm_limit": 9},
                    {"key": "l", "scope": "s", "rpm_limit": 6, "itpm_limit": 9},
                ]
            ),
            "providers[0].keys[1].rpm_limit",
            "the larger counts, not the sum",
        ),
        (provider(keys=[{"key": "k"}, {"key": "k"}]), "providers[0].keys[1].key", "same secret"),
        (provider(serves=[]), "providers[0]", "nothing will ever be sent"),
        (provider(base_url="http://gw.example.com", allow_private=True), "providers[0].base_url", "plain http"),
        (
            {
                "routing": {
                    "routes": [{"to": [{"provider": "a"}]}, {"match": {"model": "m"}, "to": [{"provider": "a"}]}]
                }
            },
            "routing.routes[1]",
            "never used",
        ),
        (
            {"providers": [{"name": "a", "type": "ollama"}, {"name": "b", "type": "ollama"}]},
            "providers[0]",
            "list them in `models`",
        ),
    ],
)
def test_what_is_probably_not_meant_is_a_warning(change: dict[str, Any], path: str, words: str) -> None:
    """It still is a configuration."""
    warning = loaded(change).warnings[0]
    assert (warning.path, words in warning.message) == (path, True)


def test_a_route_for_more_than_the_earlier_one_is_no_mistake() -> None:
    """The common order: exceptions first, the rest behind them."""
    routes = [
        {"match": {"model": model}, "to": [{"provider": "a"}]}
        for model in ("claude-opus-5", "claude-*", ["x", "claude-1"])
    ]
    assert loaded({"routing": {"routes": routes}}).warnings == ()
