"""Rules between fields: which names must exist or be unique, which addresses are safe, where a credential is needed.

Pure. A pass of its own, so that each mistake is shown at its own place. It also runs over a configuration in which
single values were wrong: what rests on a value that has been reported already is not reported again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ccr_control.core import cloud_rules
from ccr_control.core.addresses import is_private, origin
from ccr_control.core.completion import completed
from ccr_control.core.document import Document, Path, ancestry
from ccr_control.core.errors import Problem
from ccr_control.core.finding import PROVIDERS, ROUTES, Finding, Rule
from ccr_control.core.presets import preset_of
from ccr_control.core.provider_schema import ProviderConfig
from ccr_control.core.schema import AuthConfig, Config
from ccr_control.core.wording import did_you_mean

DEFAULT_ROUTE = "default"  # the last route of every snapshot
UNSEEN_HEADERS = {"accept-encoding", "cookie", "origin"}  # what nodes drop or keep to themselves
SUBSCRIPTION = "subscription"  # what records call a client's own token


def crosscheck(config: Config, document: Document, broken: frozenset[Path]) -> list[Problem]:
    """The problems between fields; `broken` are the paths whose own problems are known."""
    full = completed(config)
    findings = (finding for rule in _RULES for finding in rule(full, document))
    return [
        document.problem(finding.path, finding.message, at_key=finding.at_key)
        for finding in findings
        if all(_is_intact(path, broken) for path in (finding.path, *finding.rests_on))
    ]


def _is_intact(path: Path, broken: frozenset[Path]) -> bool:
    return broken.isdisjoint(ancestry(path))


def accepts_subscription(provider: ProviderConfig, auth: AuthConfig | None) -> bool:
    """Whether a client's own subscription token may go to a completed provider."""
    return (
        auth is not None
        and auth.allow_subscription
        and provider.type == "anthropic"
        and origin(provider.base_url or "") in auth.subscription_origins
    )


def _twice(document: Document, entries: Iterable[tuple[Path, str]], what: str) -> Iterator[Finding]:
    """A finding for each entry whose text an earlier one has."""
    first: dict[str, Path] = {}
    for path, text in entries:
        earlier = first.setdefault(text, path)
        if earlier != path:
            line = document.places[earlier].line if earlier in document.places else 0
            where = f" (first on line {line})" if line else ""
            yield Finding(path, f"this {what} is used twice{where}", (earlier,))


def _auth(config: Config, document: Document) -> Iterator[Finding]:
    listen, auth = config.server.listen, config.server.auth
    at: Path = ("server", "auth")
    assert auth is not None, "completed"
    if not listen.is_loopback and (auth.mode == "none" or not auth.keys):
        message = (
            "binding beyond loopback without client keys would let anybody use your providers: "
            'add `auth: {keys: [{name: laptop, key: "${CCR_CLIENT_KEY}"}]}`, or listen on 127.0.0.1'
        )
        yield Finding(("server", "listen"), message, (at, (*at, "mode"), (*at, "keys")))
    elif auth.mode == "keys" and not auth.keys and not auth.allow_subscription:
        message = "nobody could use the relay: add `keys`, set `allow_subscription: true`, or say `mode: none`"
        yield Finding(at, message, ((*at, "keys"), (*at, "mode"), (*at, "allow_subscription")))
    if auth.mode == "none" and auth.keys:
        yield Finding((*at, "mode"), "contradicts `keys`: remove one of them", ((*at, "keys"),))
    keys = (*at, "keys")
    names = [((*keys, i, "name"), client.name) for i, client in enumerate(auth.keys)]
    secrets = [((*keys, i, "key"), client.key.reveal()) for i, client in enumerate(auth.keys)]
    yield from _twice(document, names, "name of a client")
    yield from _twice(document, secrets, "key of a client")


def _listening(config: Config, document: Document) -> Iterator[Finding]:
    places: list[tuple[Path, str]] = [
        (("server", "listen"), str(config.server.listen)),
        (("control", "listen"), str(config.control.listen)),
        (("control", "web_listen"), str(config.control.web_listen)),
    ]
    if not config.control.listen.is_loopback and config.control.tls is None:
        message = (
            "beyond loopback tokens and answers would pass in the clear: add `tls: {cert_file: …, key_file: …}` "
            "(`ccr tls init` makes them), or listen on 127.0.0.1"
        )
        yield Finding(("control", "listen"), message, (("control", "tls"),))
    if not config.control.web_listen.is_loopback and config.control.tls is None:
        message = (
            "beyond loopback tokens would pass in the clear: add `tls: {cert_file: …, key_file: …}` (`ccr tls init` makes "
            "them), or listen on 127.0.0.1 and reach it by a tunnel (ssh -L)"
        )
        yield Finding(("control", "web_listen"), message, (("control", "tls"),))
    used: dict[str, Path] = {}
    for path, address in places:
        earlier = used.setdefault(address, path)
        if earlier != path and not address.endswith(":0"):
            at = path if path in document.places else earlier
            other = earlier if at == path else path
            yield Finding(at, f"the same address as {'.'.join(map(str, other))}: change one", (other,))


def _provider_names(config: Config, document: Document) -> Iterator[Finding]:
    entries = [((*PROVIDERS, i, "name"), provider.name) for i, provider in enumerate(config.providers)]
    yield from _twice(document, entries, "name of a provider")
    if not any(provider.enabled for provider in config.providers):
        rests_on = tuple((*PROVIDERS, i, "enabled") for i in range(len(config.providers)))
        yield Finding(PROVIDERS, "no provider is enabled: at least one must be", rests_on)


def _base_urls(config: Config, _: Document) -> Iterator[Finding]:
    for i, provider in enumerate(config.providers):
        at = (*PROVIDERS, i)
        rests_on: tuple[Path, ...] = ((*at, "type"), (*at, "preset"), (*at, "allow_private"))
        if provider.preset and provider.type != "anthropic-compatible":
            message = f"belongs to type anthropic-compatible, not to {provider.type}: remove one of them"
            yield Finding((*at, "preset"), message, ((*at, "type"),))
        url = provider.base_url
        if url is None:
            if provider.type == "anthropic-compatible":  # of clouds, what is missing is said elsewhere
                message = "is required for anthropic-compatible without a preset"
                yield Finding((*at, "base_url"), message, rests_on)
        elif not (provider.allow_private or preset_of(provider).is_local):
            if is_private(url):
                message = "is a private address: set `allow_private: true` if that is meant"
                yield Finding((*at, "base_url"), message, rests_on)
            elif url.startswith("http://"):
                message = "must be https; plain http needs `allow_private: true`"
                yield Finding((*at, "base_url"), message, rests_on)


def _credentials(config: Config, document: Document) -> Iterator[Finding]:
    for i, provider in enumerate(config.providers):
        at = (*PROVIDERS, i)
        kind: tuple[Path, ...] = ((*at, "type"), (*at, "preset"), (*at, "base_url"), ("server", "auth"))
        if provider.keys and provider.auth_style == "none":
            yield Finding((*at, "auth_style"), "none would never send the `keys`: remove one of them", ((*at, "keys"),))
        if provider.keys and provider.enabled and all(key.state == "disabled" for key in provider.keys):
            if not accepts_subscription(provider, config.server.auth):
                message = "every key is disabled: enable one, or say `enabled: false` for the provider"
                yield Finding((*at, "keys"), message, ((*at, "enabled"),))
        elif provider.enabled and not provider.keys and provider.auth_style != "none":
            if accepts_subscription(provider, config.server.auth):
                continue
            ways = 'add `keys: [{label: main, key: "${NAME}"}]`'
            if provider.type == "anthropic":
                ways += ", or set `server.auth.allow_subscription: true` to use the clients' own subscriptions"
            elif provider.type == "anthropic-compatible":
                ways += ", or set `auth_style: none` if it needs no credential"
            yield Finding(
                (*at, "keys"), f"the provider has no credential: {ways}", (*kind, (*at, "auth_style"), (*at, "enabled"))
            )
        labels = [((*at, "keys", j, "label"), key.label or "") for j, key in enumerate(provider.keys)]
        yield from _twice(document, labels, "label of a key")
        for path, label in labels:
            if label == SUBSCRIPTION:
                yield Finding(path, "is reserved for the clients' own tokens: choose another")


def _repeated_entries(config: Config, document: Document) -> Iterator[Finding]:
    for i, provider in enumerate(config.providers):
        at = (*PROVIDERS, i)
        written = document.written((*at, "models"))
        if isinstance(written, list):
            models = [((*at, "models", j), model.id) for j, model in enumerate((provider.models or ())[: len(written)])]
            yield from _twice(document, models, "model")
        headers = document.written((*at, "headers"))
        if isinstance(headers, dict):
            names = [((*at, "headers", name), name.lower()) for name in headers]
            yield from _twice(document, names, "header")


def _routes(config: Config, document: Document) -> Iterator[Finding]:
    names = [((*ROUTES, i, "name"), route.name or "") for i, route in enumerate(config.routing.routes)]
    yield from _twice(document, names, "name of a route")
    for path, name in names:
        if name == DEFAULT_ROUTE:
            yield Finding(path, f"{DEFAULT_ROUTE!r} is the name of the last, built-in route: choose another")


def _matches(config: Config, _: Document) -> Iterator[Finding]:
    for i, route in enumerate(config.routing.routes):
        at, match = (*ROUTES, i, "match"), route.match
        low, high = match.min_input_tokens, match.max_input_tokens
        if low is not None and high is not None and low > high:
            message = "is below `min_input_tokens`: nothing could match"
            yield Finding((*at, "max_input_tokens"), message, ((*at, "min_input_tokens"),))
        if match.agent is not None and match.request_class is not None:
            other = "subagent" if match.agent == "main" else "main"
            if set(match.request_class) <= {other}:
                message = f"contradicts `agent: {match.agent}`: nothing could match"
                yield Finding((*at, "request_class"), message, ((*at, "agent"),))
        for name in match.headers:
            if name in UNSEEN_HEADERS:
                yield Finding((*at, "headers", name), "is never passed on, and so not seen here: remove it")


def _candidates(config: Config, document: Document) -> Iterator[Finding]:
    known = {provider.name for provider in config.providers}
    written = document.written(PROVIDERS)
    entries = written if isinstance(written, list) else []
    said = [entry.get("name") for entry in entries if isinstance(entry, dict)]
    shown = [name for name in said if isinstance(name, str)]  # as written: a name may come from a variable
    for i, route in enumerate(config.routing.routes):
        for j, candidate in enumerate(route.to):
            path = (*ROUTES, i, "to", j, "provider")
            if candidate.provider in known or document.written(path) in shown:
                continue
            name = document.written(path)
            hint = did_you_mean(str(name), shown) or f"; known: {', '.join(shown)}"
            yield Finding(path, f"there is no provider {document.quoted(path)}{hint}", (PROVIDERS,))


__all__ = ["DEFAULT_ROUTE", "PROVIDERS", "ROUTES", "SUBSCRIPTION", "accepts_subscription", "crosscheck"]

_RULES: tuple[Rule, ...] = (
    _auth,
    _listening,
    _provider_names,
    _base_urls,
    _credentials,
    _repeated_entries,
    _routes,
    _matches,
    _candidates,
    cloud_rules.fields,
    cloud_rules.credentials,
    cloud_rules.models,
)
