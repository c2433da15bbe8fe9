"""What a configuration may say but probably does not mean.

Pure. Warnings never stop a configuration from being applied; they are given only for one without problems.
"""

from __future__ import annotations

from collections.abc import Iterator

from ccr_control.core.addresses import is_private
from ccr_control.core.cloud_models import AWS_REGIONS
from ccr_control.core.completion import completed, takes_leftovers
from ccr_control.core.crosscheck import PROVIDERS, ROUTES, SUBSCRIPTION
from ccr_control.core.document import Document, Path, path_text
from ccr_control.core.errors import Problem
from ccr_control.core.patterns import covers, fits, is_exact
from ccr_control.core.schema import Config, MatchConfig, RouteConfig

_Earlier = tuple[str, MatchConfig, Path]


def advice(config: Config, document: Document) -> list[Problem]:
    """The warnings about a valid configuration."""
    full = completed(config)
    findings = [*_unprotected(config), *_ambiguous(config)]
    findings += [*_shared_secrets(full), *_differing_limits(full), *_unreachable(full), *_shadowed(full, document)]
    findings += [*_unknown_clients(full), *_draining(full), *_clouds(full)]
    return [document.problem(path, message) for path, message in findings]


def _unprotected(config: Config) -> Iterator[tuple[Path, str]]:
    if config.server.auth is None:
        yield (
            ("server",),
            "no `auth`: every program on this machine may use the relay; add `auth: {keys: …}`, "
            "or `auth: {mode: none}` if that is meant",
        )
    for i, provider in enumerate(config.providers):
        url = provider.base_url or ""
        if url.startswith("http://") and provider.keys and not is_private(url):
            yield (*PROVIDERS, i, "base_url"), "keys are sent over plain http: use https if it is not your own network"


def _differing_limits(config: Config) -> Iterator[tuple[Path, str]]:
    """Keys of one account that state different limits of it."""
    first: dict[tuple[str, str, str], tuple[Path, int]] = {}
    for i, provider in enumerate(config.providers):
        for j, key in enumerate(provider.keys):
            for limit in ("rpm_limit", "tpm_limit", "itpm_limit", "otpm_limit"):
                value = getattr(key, limit)
                if value is None or key.scope is None:
                    continue
                path = (*PROVIDERS, i, "keys", j, limit)
                earlier, known = first.setdefault((provider.name, key.scope, limit), (path, value))
                if known != value:
                    message = f"{path_text(earlier)} says {known} for the same scope: the larger counts, not the sum"
                    yield path, message


def _shared_secrets(config: Config) -> Iterator[tuple[Path, str]]:
    first: dict[str, Path] = {}
    for i, provider in enumerate(config.providers):
        for j, key in enumerate(provider.keys):
            path = (*PROVIDERS, i, "keys", j, "key")
            earlier = first.setdefault(key.digest(), path) if key.key is not None else path
            if earlier != path:
                yield path, f"the same secret as {path_text(earlier)}: two labels for it add no capacity"


def _ambiguous(config: Config) -> Iterator[tuple[Path, str]]:
    """Local runtimes that may have anything: with two of them, a request may go to the one that lacks the model."""
    taking = [i for i, provider in enumerate(config.providers) if provider.enabled and takes_leftovers(provider)]
    if len(taking) > 1:
        for i in taking:
            yield (*PROVIDERS, i), "more than one provider says nothing about its models: list them in `models`"


def _unreachable(config: Config) -> Iterator[tuple[Path, str]]:
    asked = {candidate.provider for route in config.routing.routes for candidate in route.to}
    for i, provider in enumerate(config.providers):
        is_asked = provider.name in asked
        serves = [pattern for pattern in provider.serves or () if not pattern.startswith("!")]
        if provider.enabled and not is_asked and not serves and not provider.model_mapping:
            yield (*PROVIDERS, i), "no route leads to it and it serves no model: nothing will ever be sent to it"
    for r, route in enumerate(config.routing.routes):
        enabled = {provider.name for provider in config.providers if provider.enabled}
        if not any(candidate.provider in enabled for candidate in route.to):
            yield (*ROUTES, r, "to"), "all of its providers are disabled: requests it matches will fail"


def _shadowed(config: Config, document: Document) -> Iterator[tuple[Path, str]]:
    exact: dict[str, list[_Earlier]] = {}
    wide: list[_Earlier] = []
    for r, route in enumerate(config.routing.routes):
        covering = [
            _first_cover(pattern, route.match, [*exact.get(pattern, ()), *wide]) for pattern in _patterns(route)
        ]
        if all(covering):
            lines = sorted({document.places[at].line for at in covering if at and at in document.places})
            where = f" on line {', '.join(map(str, lines))}" if lines else ""
            yield (*ROUTES, r), f"never used: what it matches goes by an earlier route{where}"
        for pattern in _patterns(route):
            earlier = exact.setdefault(pattern, []) if is_exact(pattern) else wide
            earlier.append((pattern, route.match, (*ROUTES, r)))


def _patterns(route: RouteConfig) -> tuple[str, ...]:
    return route.match.model or ("*",)


def _first_cover(pattern: str, match: MatchConfig, earlier: list[_Earlier]) -> Path | None:
    return next((path for wide, other, path in earlier if covers(wide, pattern) and _asks_less(other, match)), None)


def _asks_less(earlier: MatchConfig, later: MatchConfig) -> bool:
    """Whether whatever meets the later conditions surely meets the earlier ones; models apart."""
    asked = {name: getattr(earlier, name) for name in MatchConfig.model_fields if name != "model"}
    return all(value in (None, {}) or getattr(later, name) == value for name, value in asked.items())


def _unknown_clients(config: Config) -> Iterator[tuple[Path, str]]:
    auth = config.server.auth
    known = [client.name for client in auth.keys] if auth else []
    known += [SUBSCRIPTION] if auth and auth.allow_subscription else []
    for r, route in enumerate(config.routing.routes):
        if route.match.client and not any(fits(one, name) for one in route.match.client for name in known):
            yield (*ROUTES, r, "match", "client"), "no client has such a name: the route is never used"


def _draining(config: Config) -> Iterator[tuple[Path, str]]:
    for i, provider in enumerate(config.providers):
        if provider.enabled and provider.keys and not any(key.state == "active" for key in provider.keys):
            yield (
                (*PROVIDERS, i, "keys"),
                "no key is active: only sessions that live on a deprecated one still get there",
            )


def _clouds(config: Config) -> Iterator[tuple[Path, str]]:
    for i, provider in enumerate(config.providers):
        at = (*PROVIDERS, i)
        if provider.region is not None and provider.region not in AWS_REGIONS:
            yield (*at, "region"), f"{provider.region} is no AWS region that this release knows: is it written right?"
        if any(key.aws is not None and key.aws.session_token is not None for key in provider.keys):
            yield (
                at,
                "a key with a `session_token` ends within hours, and nothing renews it: "
                "leave it to be found, by a `profile` or a `role_arn`",
            )
