"""How is a provider asked whether it is alive, and what does its answer mean?

Pure. Every probe is free: it asks for no model's work (docs/how-to/failover.md). What a provider says of limits in a
probe is not believed: only time or a served request ends a rate limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ccr_control.core.clouds import path_of
from ccr_control.core.health import ProbeResult
from ccr_control.core.provider_schema import KeyConfig, ProviderConfig

_PATHS_BY_PRESET = {"vllm": "/health", "llama-cpp": "/health"}
_PATHS_BY_TYPE = {
    "anthropic": "/v1/models?limit=1",
    "claude-aws": "/v1/models?limit=1",
    "claude-gcp": "/v1/models?limit=1",
    "ollama": "/api/version",
    # Nothing there is both free and without a model: whether it can be reached. What is wrong with credentials shows when they are
    # found and renewed.
    "bedrock": "/",
    "azure": "/",
    "vertex": "/",
}
_WITHOUT_KEY = ("bedrock", "azure", "vertex")
_OTHERWISE = "/v1/models"

_NOT_THERE = (501, 505)  # it speaks HTTP, but not for this question


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """A GET request."""

    url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    ca_pem: str = field(repr=False)  # trusted instead of the system's certificates; empty: the system's
    has_key: bool


def probe_plan(provider: ProviderConfig, key: KeyConfig | None = None) -> ProbePlan:
    """What to ask a provider of a completed configuration, with this key, else with its first."""
    path = _PATHS_BY_PRESET.get(provider.preset or "") or _PATHS_BY_TYPE.get(provider.type, _OTHERWISE)
    headers = {"accept": "application/json", "user-agent": "cc-relay-probe", "anthropic-version": "2023-06-01"}
    key = key or next(iter(provider.keys), None)
    secret = key.secret() if key is not None and provider.type not in _WITHOUT_KEY else ""
    if secret and provider.auth_style in ("x-api-key", "both"):
        headers["x-api-key"] = secret
    if secret and provider.auth_style in ("bearer", "both"):
        headers["authorization"] = f"Bearer {secret}"
    headers |= {name: value.reveal() for name, value in provider.headers.items()}
    return ProbePlan(
        url=f"{provider.base_url or ''}{path_of(provider) if provider.type == 'claude-gcp' else ''}{path}",
        headers=tuple(headers.items()),
        ca_pem=provider.ca_file.text if provider.ca_file else "",
        has_key=bool(secret),
    )


def judge(plan: ProbePlan, status: int, *, at_s: float, latency_ms: float) -> ProbeResult:
    """What an answer says. Anything but a server error is the answer of a living provider."""
    is_alive = status < 500 or status in _NOT_THERE
    problem = ""
    if not is_alive:
        problem = f"it answers {status}"
    elif status in (401, 403) and plan.has_key:
        problem = "it refuses the key"
    elif status == 429:
        problem = "it limits the rate"
    return ProbeResult(at_s, is_alive, latency_ms, status, problem)
