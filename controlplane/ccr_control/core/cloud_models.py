"""What each cloud calls the Claude models, and which inference profiles lead to them from where.

Pure. Sources: docs/providers/bedrock.md and docs/providers/vertex.md; the ids and profiles are those that LiteLLM's price list
(package 1.109.1) knows, as of November 2026.
"""

from __future__ import annotations

import re

_DATED = {
    "claude-haiku-4-5": "20251001",
    "claude-opus-4-5": "20251101",
    "claude-sonnet-4-5": "20250929",
}
_PLAIN = (
    "claude-haiku-5-5",
    "claude-sonnet-5-5",
    "claude-opus-5-5",
    "claude-fable-5-1",
    "claude-sonnet-5",
    "claude-fable-5",
    "claude-opus-5",
    "claude-opus-4-8",
    "claude-opus-4-7",
    "claude-opus-4-6",
    "claude-sonnet-4-6",
)
CLAUDE = (*_PLAIN, *(form for name, date in _DATED.items() for form in (name, f"{name}-{date}")))
"""The names at the Claude API of what the clouds offer. claude-mythos models are by invitation: `model_mapping` names them."""

_SUFFIXES = {"claude-opus-4-6": "-v1"} | {name: f"-{date}-v1:0" for name, date in _DATED.items()}

# Profiles that a model is not offered by.
_WITHOUT = {
    "us-gov": {
        "claude-fable-5", "claude-haiku-4-5", "claude-opus-4-5", "claude-opus-4-6", "claude-opus-4-7", "claude-sonnet-4-6",
    },
    "jp": {"claude-fable-5", "claude-fable-5-1", "claude-opus-4-5", "claude-opus-4-6", "claude-sonnet-4-6"},
    "au": {"claude-fable-5-1", "claude-opus-4-5"},
    "apac": {"claude-fable-5-1", "claude-opus-4-5", "claude-opus-4-6", "claude-sonnet-4-5"},
}  # fmt: skip

PROFILES = ("global", "us-gov", "us", "eu", "jp", "au", "apac")

# Generations before these (claude-3-…) can be asked for without a profile.
_WITH_FAMILY = re.compile(r"anthropic\.claude-(?:fable|mythos|haiku|sonnet|opus)-[0-9]")
_RUNTIME_ID = re.compile(r"(?:(global|us-gov|us|eu|jp|au|apac)\.)?(anthropic\.[a-z0-9.:-]+)")
_ARN = re.compile(r"arn:aws[a-z-]*:bedrock:([a-z0-9-]+):[0-9]*:([a-z-]+)/\S+")

AWS_REGIONS = frozenset(
    (
        "af-south-1", "ap-east-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1",
        "ap-south-2", "ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5",
        "ap-southeast-6", "ap-southeast-7", "ca-central-1", "ca-west-1", "eu-central-1", "eu-central-2", "eu-north-1",
        "eu-south-1", "eu-south-2", "eu-west-1", "eu-west-2", "eu-west-3", "il-central-1", "me-central-1", "me-south-1",
        "mx-central-1", "sa-east-1", "us-east-1", "us-east-2", "us-gov-east-1", "us-gov-west-1", "us-west-1", "us-west-2",
    )
)  # fmt: skip
"""Regions known in November 2026. Another one is worth a warning, not a refusal."""


def usual_profile(region: str) -> str:
    """The prefix of the inference profiles that stay near a region; `global` where there are none."""
    if region.startswith("us-gov-"):
        return "us-gov"
    if region in ("ap-northeast-1", "ap-northeast-3"):
        return "jp"
    if region in ("ap-southeast-2", "ap-southeast-4"):
        return "au"
    return {"us": "us", "ca": "us", "eu": "eu", "ap": "apac"}.get(region.partition("-")[0], "global")


def profile_fits(profile: str, region: str) -> bool:
    """Whether an inference profile can be called from a region."""
    if profile in ("global", "none"):
        return profile == "none" or not region.startswith("us-gov-")
    if profile == "apac":
        return region.startswith("ap-")
    return usual_profile(region) == profile


def profile_factor(profile: str) -> float:
    """What calls through an inference profile cost, in parts of the price at the Claude API."""
    return {"global": 1.0, "none": 1.0, "us-gov": 1.2}.get(profile, 1.1)


def runtime_id(name: str, profile: str) -> str | None:
    """The id at bedrock-runtime of a model's Claude API name; None: it is none of those, or not offered by the profile."""
    base = _without_date(name)
    if base is None or base in _WITHOUT.get(profile, ()):
        return None
    there = f"anthropic.{base}{_SUFFIXES.get(base, '')}"
    return there if profile == "none" else f"{profile}.{there}"


def mantle_id(name: str) -> str | None:
    """The id at bedrock-mantle: without a profile, a date or a version."""
    base = _without_date(name)
    return f"anthropic.{base}" if base is not None else None


def vertex_id(name: str) -> str | None:
    """The id at Vertex AI: with an `@` before the date."""
    base = _without_date(name)
    if base is None:
        return None
    return f"{base}@{_DATED[base]}" if base in _DATED else base


def _without_date(name: str) -> str | None:
    if name not in CLAUDE:
        return None
    return next((base for base, date in _DATED.items() if name == f"{base}-{date}"), name)


def runtime_problem(model: str, *, region: str, profile: str) -> str:
    """Why bedrock-runtime would refuse a model id, and what to write; empty: nothing speaks against it."""
    if model.startswith("arn:"):
        return _arn_problem(model, region)
    found = _RUNTIME_ID.fullmatch(model)
    if found is None:
        near = runtime_id(_plain_name(model), profile)
        if near:
            return f"is no model id of Bedrock: write {near}"
        return "is no name that Bedrock has an id for: write the id" if model.startswith("claude") else ""
    prefix, base = found[1], found[2]
    known = runtime_id(_plain_name(base), profile if prefix is None else prefix)
    if prefix is None and profile != "none" and _WITH_FAMILY.match(base):
        wanted = known or f"{profile}.{base}"
        return f"can be called through an inference profile only: write {wanted}"
    if prefix is not None and not profile_fits(prefix, region):
        near = usual_profile(region)
        return f"is a profile that cannot be called from {region}: write {near}.{base}"
    if known is not None and known != model:
        return f"is no model id of Bedrock: write {known}"
    return ""


def _arn_problem(arn: str, region: str) -> str:
    found = _ARN.fullmatch(arn)
    if found is None:
        return "is no ARN of Bedrock: write arn:aws:bedrock:REGION:ACCOUNT:application-inference-profile/ID"
    if found[2] == "foundation-model":
        return "names a foundation model: write the ARN of an inference profile"
    if found[1] != region:
        return f"is of region {found[1]}, and the provider's is {region}"
    return ""


def mantle_problem(model: str) -> str:
    """Why bedrock-mantle would refuse a model id, and what to write; empty: nothing speaks against it."""
    if model.startswith("arn:"):
        return "is an ARN, which bedrock-mantle does not take: write a model id such as anthropic.claude-opus-5-5"
    if model.startswith("claude"):
        return f"is no name that bedrock-mantle has an id for: write anthropic.{model}"
    known = mantle_id(_plain_name(model))
    return f"is no model id of bedrock-mantle: write {known}" if known is not None and known != model else ""


def vertex_problem(model: str) -> str:
    """Why Vertex AI would refuse a model id, and what to write; empty: nothing speaks against it."""
    known = vertex_id(_plain_name(model))
    if known is None or model in (known, f"{known}@default", known.partition("@")[0]):
        return ""
    return f"is no model id of Vertex AI: write {known}"


def _plain_name(model: str) -> str:
    """What the Claude API calls a model that goes by a cloud's id."""
    name = re.sub(r"^(?:[a-z-]+\.)?anthropic\.", "", model)
    return re.sub(r"-v[0-9]+(?::[0-9]+)?$", "", name).replace("@default", "").replace("@", "-")
