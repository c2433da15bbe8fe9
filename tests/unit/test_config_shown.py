"""What is shown of a configuration, and what must not be."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
import yaml
from ccr_control.core import editor_schema
from ccr_control.core.compile import config_hash, json_schema, redacted_yaml
from ccr_control.core.config import Config, load
from ccr_control.core.secret import Secret
from ccr_control.core.section import Section

TOKEN = "sk-ant-api03-0123456789"


def config(**fields: Any) -> Config:
    whole = {
        "version": 1,
        "server": {"auth": {"keys": [{"name": "laptop", "key": "relay-key"}]}},
        "providers": [{"name": "a", "type": "anthropic", "keys": [{"key": TOKEN}]} | fields],
    }
    pem = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
    return load(yaml.safe_dump(whole), file="f", fmt="yaml", env={}, read_file=pem.format).config


def test_a_secret_says_nothing_of_itself() -> None:
    """However it is printed; only `reveal` gives it away."""
    secret = Secret(TOKEN)
    assert f"{secret} {secret!r} {[secret]} {secret!s}" == "*** Secret('***') [Secret('***')] ***"
    assert secret == Secret(TOKEN)
    assert secret != Secret("other")
    assert len({secret, Secret(TOKEN)}) == 1
    assert copy.deepcopy(secret).reveal() == pickle.loads(pickle.dumps(secret)).reveal() == TOKEN


def test_a_configuration_is_shown_whole_but_for_its_secrets() -> None:
    """Defaults included: the question is what is in force."""
    shown = yaml.safe_load(redacted_yaml(config()))
    assert shown["server"]["auth"]["keys"] == [{"name": "laptop", "key": "***"}]
    assert shown["providers"][0]["keys"] == [
        {"label": "key-1", "key": "***", "weight": 1, "priority": 0, "state": "active"}
    ]
    assert shown["providers"][0]["base_url"] == "https://api.anthropic.com"
    assert shown["server"]["max_body"] == "32MiB"
    assert shown["routing"]["failover_timeout"] == "30s"
    assert shown["health"]["circuit"] == {
        "failures": 5,
        "failure_rate": "50%",
        "min_requests": 20,
        "window": "30s",
        "open_for": "30s",
        "max_open_for": "5m",
        "last_candidate": "keep",
    }


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("x-team", "research", "research"),
        ("x-title", "cc-relay 1", "cc-relay 1"),
        ("cf-access-client-secret", "abc", "***"),
        ("x-auth", "abc", "***"),
        ("cookie", "a=b", "***"),
        ("x-note", TOKEN, "***"),
        ("x-note", "Bearer abc", "***"),
        ("x-note", "0123456789abcdef0123456789abcdef", "***"),
    ],
)
def test_a_header_that_looks_like_a_secret_is_hidden(name: str, value: str, shown: str) -> None:
    """Gateways want credentials in headers of their own."""
    full = yaml.safe_load(redacted_yaml(config(headers={name: value})))
    assert full["providers"][0]["headers"] == {name: shown}


def test_a_secret_in_another_field_is_hidden_there_too() -> None:
    """Some gateways take the key in the path."""
    assert TOKEN not in redacted_yaml(config(base_url=f"https://gw.example.com/{TOKEN}/anthropic"))


@pytest.mark.parametrize(
    "change",
    [
        {"keys": [{"key": TOKEN + "x"}]},
        {"keys": [{"key": TOKEN, "label": "other"}]},
        {"headers": {"x-a": "1"}},
        {"ca_file": "one.pem"},
        {"timeouts": {"idle": "7m"}},
    ],
)
def test_the_hash_changes_with_everything_that_matters(change: dict[str, Any]) -> None:
    """A rotated key is a change, although nobody can see it."""
    assert config_hash(config(**change)) != config_hash(config())


def test_the_hash_does_not_change_with_the_way_of_writing() -> None:
    """A default written out is no change; neither is the path of the same certificate's file name in another order."""
    written_out = config(base_url="https://api.anthropic.com/", timeouts={"idle": "360s"}, serves=["claude*"])
    assert config_hash(written_out) == config_hash(config())


def test_the_hash_changes_with_the_certificate_behind_the_same_name() -> None:
    """A renewed certificate must reach the nodes."""
    text = yaml.safe_dump({"version": 1, "providers": [{"name": "a", "type": "ollama", "ca_file": "x"}]})
    pem = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
    one, other = (
        load(text, file="f", fmt="yaml", env={}, read_file=lambda _, body=body: pem.format(body)).config
        for body in "ab"
    )
    assert config_hash(one) != config_hash(other)


def test_the_schema_speaks_of_every_key() -> None:
    """Editors show these descriptions; an undocumented key is one that nobody finds."""
    schema = json_schema()
    json.dumps(schema)
    for name, shape in [("Config", schema), *schema["$defs"].items()]:
        assert shape["additionalProperties"] is False, name
        assert shape["description"], name
        for key, value in shape["properties"].items():
            assert value.get("description") or "$ref" in value, f"{name}.{key}"
    assert {section.__name__ for section in Section.__subclasses__()} - {"Config"} == set(schema["$defs"])


def test_the_schema_writes_defaults_and_ranges_as_people_do() -> None:
    """`PT30S` would be refused."""
    shapes = json_schema()["$defs"]
    assert shapes["ServerConfig"]["properties"]["max_body"]["default"] == "32MiB"
    assert shapes["TimeoutsConfig"]["properties"]["first_byte"]["default"] == "10m"
    number, variable = shapes["RoutingConfig"]["properties"]["max_attempts"]["anyOf"]
    assert (number["minimum"], number["maximum"]) == (1, 100)
    assert variable == {"type": "string", "pattern": r"\$\{"}
    assert json_schema()["patternProperties"] == {"^x-": {}}
    assert editor_schema.json_schema() == json_schema()  # making it twice does not widen it twice


def test_no_shown_configuration_holds_a_clouds_secret() -> None:
    """Secrets of clouds have fields of their own, and are often repeated elsewhere by mistake."""
    text = """
version: 1
server: {auth: {mode: none}}
providers:
  - name: b
    type: bedrock
    region: us-east-1
    keys:
      - {aws: {access_key_id: AKIDHUSH1234, secret_access_key: hush-one-secret, session_token: hush-two-secret}}
      - {aws: {access_key_id: AKIDHUSH5678, secret_access_key: hush-three, role_arn: "arn:aws:iam::123456789012:role/r",
         external_id: hush-three}}
  - {name: e, type: azure, resource: r,
     entra: {credential: client-secret, tenant_id: t, client_id: c, client_secret: hush-four}}
"""
    shown = redacted_yaml(load(text, file="ccr.yaml", fmt="yaml", env={}).config)

    assert "hush" not in shown.lower()
    assert "role/r" in shown


def test_another_clouds_secret_is_another_configuration() -> None:
    """Otherwise a rotated secret would not be taken up."""
    text = """
version: 1
server: {auth: {mode: none}}
providers:
  - {name: e, type: azure, resource: r, entra: {credential: client-secret, tenant_id: t, client_id: c, client_secret: secret-one}}
"""
    first, second = (
        load(one, file="c", fmt="yaml", env={}).config for one in (text, text.replace("secret-one", "secret-two"))
    )

    assert config_hash(first) != config_hash(second)
