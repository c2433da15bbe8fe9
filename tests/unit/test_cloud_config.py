"""What clouds call things, and what a configuration becomes for them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ccr_control.core import cloud_models
from ccr_control.core.clouds import base_url_of
from ccr_control.core.completion import filled
from ccr_control.core.config import load
from ccr_control.core.pricing import PRICES, table
from ccr_control.core.probing import probe_plan
from ccr_control.core.provider_schema import ProviderConfig


def provider(**fields: object) -> ProviderConfig:
    return filled(ProviderConfig.model_validate({"name": "p", "type": "bedrock"} | fields))


@pytest.mark.parametrize(
    ("region", "profile"),
    [
        ("us-east-1", "us"),
        ("us-gov-west-1", "us-gov"),
        ("eu-central-1", "eu"),
        ("ap-northeast-1", "jp"),
        ("ap-southeast-2", "au"),
        ("ap-south-1", "apac"),
        ("sa-east-1", "global"),
    ],
)
def test_the_usual_profile_of_a_region_can_be_called_from_there(region: str, profile: str) -> None:
    """What is chosen without being asked for must work, and stay near."""
    assert cloud_models.usual_profile(region) == profile
    assert cloud_models.profile_fits(profile, region)


@pytest.mark.parametrize("region", sorted(cloud_models.AWS_REGIONS))
def test_every_region_has_a_profile(region: str) -> None:
    assert cloud_models.profile_fits(cloud_models.usual_profile(region), region)


@pytest.mark.parametrize("profile", [*cloud_models.PROFILES, "none"])
def test_the_ids_that_are_chosen_are_ids_that_are_accepted(profile: str) -> None:
    """Otherwise the relay would refuse its own defaults, or accept none."""
    region = {"us-gov": "us-gov-west-1", "us": "us-east-1", "eu": "eu-west-1", "jp": "ap-northeast-1"}.get(
        profile, "ap-southeast-2"
    )
    ids = [there for name in cloud_models.CLAUDE if (there := cloud_models.runtime_id(name, profile))]

    assert len(ids) >= 9
    assert [one for one in ids if cloud_models.runtime_problem(one, region=region, profile=profile)] == []


def test_names_become_the_ids_of_each_cloud() -> None:
    """The ids as the clouds' model pages write them."""
    assert cloud_models.runtime_id("claude-opus-5-5", "us") == "us.anthropic.claude-opus-5-5"
    assert cloud_models.runtime_id("claude-haiku-4-5", "eu") == "eu.anthropic.claude-haiku-4-5-20251001-v1:0"
    assert cloud_models.runtime_id("claude-opus-4-6", "global") == "global.anthropic.claude-opus-4-6-v1"
    assert cloud_models.runtime_id("claude-opus-4-5", "jp") is None
    assert cloud_models.runtime_id("glm-5", "us") is None
    assert cloud_models.mantle_id("claude-haiku-4-5-20251001") == "anthropic.claude-haiku-4-5"
    assert cloud_models.vertex_id("claude-sonnet-4-5") == "claude-sonnet-4-5@20250929"
    assert cloud_models.vertex_id("claude-opus-5-5") == "claude-opus-5-5"


def test_a_bare_id_is_refused_only_where_a_profile_is_needed() -> None:
    problem = cloud_models.runtime_problem("anthropic.claude-opus-6", region="us-east-1", profile="us")

    assert problem.endswith("write us.anthropic.claude-opus-6")
    assert not cloud_models.runtime_problem("anthropic.claude-opus-6", region="us-east-1", profile="none")
    assert not cloud_models.runtime_problem("anthropic.claude-3-haiku-20240307-v1:0", region="us-east-1", profile="us")


def test_global_profiles_are_not_for_the_government() -> None:
    assert not cloud_models.profile_fits("global", "us-gov-west-1")
    assert cloud_models.profile_fits("global", "eu-west-1")


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"region": "us-east-1"}, "https://bedrock-runtime.us-east-1.amazonaws.com"),
        ({"region": "us-east-1", "endpoint": "native"}, "https://bedrock-runtime.us-east-1.amazonaws.com/anthropic"),
        ({"region": "us-east-1", "endpoint": "mantle"}, "https://bedrock-mantle.us-east-1.api.aws/anthropic"),
        ({"type": "vertex", "project": "my-project"}, "https://aiplatform.googleapis.com"),
        ({"type": "vertex", "location": "us"}, "https://aiplatform.us.rep.googleapis.com"),
        ({"type": "vertex", "location": "us-east5"}, "https://us-east5-aiplatform.googleapis.com"),
        ({"type": "azure", "resource": "r"}, "https://r.services.ai.azure.com/anthropic"),
        ({"type": "claude-aws", "region": "us-west-2"}, "https://aws-external-anthropic.us-west-2.api.aws"),
    ],
)
def test_clouds_are_where_their_place_says(fields: dict[str, str], url: str) -> None:
    assert base_url_of(ProviderConfig.model_validate({"name": "p", "type": "bedrock"} | fields)) == url


def test_a_rule_of_ones_own_stands_above_what_is_known() -> None:
    """The rule with the most literal characters wins at the nodes: a built-in exact one would beat a pattern."""
    found = provider(region="us-east-1", model_mapping={"claude-opus-*": "us.anthropic.claude-opus-4-8"})

    assert not [name for name in found.model_mapping if name.startswith("claude-opus-") and "*" not in name]
    assert found.model_mapping["claude-haiku-5-5"] == "us.anthropic.claude-haiku-5-5"


def test_only_what_is_served_has_a_rule() -> None:
    """A rule makes a model served, so that there must be none for the others."""
    found = provider(region="us-east-1", serves=["claude-haiku-*"])

    assert found.model_mapping
    assert {name.partition("-5")[0] for name in found.model_mapping} <= {"claude-haiku", "claude-haiku-4"}


@pytest.mark.parametrize(
    ("fields", "factor"),
    [
        ({"region": "us-east-1"}, 1.1),
        ({"region": "us-east-1", "inference_profile": "global"}, 1.0),
        ({"region": "us-gov-west-1"}, 1.2),
        ({"region": "us-east-1", "price_factor": 0}, 0),
        ({"type": "vertex", "project": "my-project"}, 1.0),
        ({"type": "vertex", "project": "my-project", "location": "europe-west1"}, 1.1),
        ({"type": "azure", "resource": "r"}, 1.0),
    ],
)
def test_what_a_place_costs(fields: dict[str, object], factor: float) -> None:
    """USD against the Claude API's own prices."""
    assert provider(**fields).price_factor == factor


def test_every_id_has_one_price() -> None:
    """cost-based routing puts what has no price last."""
    from ccr_control.core.patterns import fits

    for name in PRICES.keys() & set(cloud_models.CLAUDE):
        ids = [cloud_models.runtime_id(name, profile) for profile in (*cloud_models.PROFILES, "none")]
        for model in filter(None, [*ids, cloud_models.mantle_id(name), cloud_models.vertex_id(name)]):
            fitting = [(len(p.replace("*", "")), price) for p, price in table() if fits(p, model)]
            longest = max(length for length, _ in fitting)
            assert {price for length, price in fitting if length == longest} == {PRICES[name]}, model


def test_filling_twice_changes_nothing() -> None:
    for fields in (
        {"region": "us-east-1"},
        {"region": "eu-west-1", "endpoint": "mantle", "keys": [{"key": "k"}]},
        {"type": "vertex", "project": "my-project"},
        {"type": "azure", "resource": "r", "entra": {"credential": "cli"}},
        {"type": "claude-gcp", "project": "my-project", "workspace": "w"},
    ):
        once = provider(**fields)
        assert filled(once) == once


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("region: us-esat-1", "us-esat-1 is no AWS region"),
        ("region: us-east-1, aws: {access_key_id: a, secret_access_key: b, session_token: c}", "nothing renews it"),
    ],
)
def test_what_a_cloud_probably_does_not_mean_is_said(fields: str, words: str) -> None:
    """Allowed all the same: a region may be new, and a token may last for the afternoon."""
    text = f"version: 1\nserver: {{auth: {{mode: none}}}}\nproviders:\n  - {{name: b, type: bedrock, {fields}}}\n"

    (warning,) = load(text, file="ccr.yaml", fmt="yaml", env={}).warnings

    assert words in warning.message


def test_a_start_without_clouds_imports_none_of_their_libraries() -> None:
    """They take a tenth of a second and 20 MB."""
    code = "import sys, ccr_control.server; print([n for n in ('botocore', 'google.auth', 'azure', 'requests') if n in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_probes_of_clouds_ask_no_model_and_send_a_key_only_where_that_is_free() -> None:
    """A probe must cost nothing; a 401 for want of a key is the answer of a living cloud."""
    bedrock = probe_plan(provider(region="us-east-1", keys=[{"key": "k"}]))
    assert (bedrock.url, bedrock.has_key) == ("https://bedrock-runtime.us-east-1.amazonaws.com/", False)

    fields = {"type": "claude-gcp", "project": "my-project", "workspace": "w"}
    managed = probe_plan(provider(**fields, keys=[{"key": "k"}]))
    path = "/v1/projects/my-project/locations/global/workspaces/w/invoke/v1/models?limit=1"
    assert managed.url == f"https://claude.googleapis.com{path}"
    assert ("authorization", "Bearer k") in managed.headers
    assert not probe_plan(provider(**fields)).has_key
