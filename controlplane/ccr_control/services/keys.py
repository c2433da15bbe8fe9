"""KeyService: the credentials of providers, changed while traffic flows, and what their accounts may still do."""

# ruff: noqa: ARG002, N802 - names and arguments of handlers are the contract's

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeAlias

import grpc.aio
from ccr_rpc.v1 import keys_pb2, keys_pb2_grpc, snapshot_pb2
from pydantic import ValidationError

from ccr_control.core.burndown import BurnDown
from ccr_control.core.compile import KEY_STATES
from ccr_control.core.errors import Malformed, NoSuchThing, NotPossible, OutOfDate, TakenAlready
from ccr_control.core.health import ProviderHealth, state_name
from ccr_control.core.overlay import (
    ADDED,
    Origin,
    Overlay,
    Value,
    applied,
    etag,
    key_origin,
    key_resource,
    key_view,
    shown_fingerprint,
)
from ccr_control.core.provider_schema import KeyConfig, KeyState, ProviderConfig
from ccr_control.core.secret import Secret
from ccr_control.core.sightings import Sighting
from ccr_control.services.events import page_begin, page_size
from ccr_control.services.leasing import history_message
from ccr_control.services.providers import checked_share, no_such_provider, share_wanted
from ccr_control.services.wire import timestamp
from ccr_control.shell.access import caller
from ccr_control.shell.changes import Altered, Changes
from ccr_control.shell.config_file import ConfigFile
from ccr_control.shell.credentials import Held
from ccr_control.shell.events import Asking, EventLog
from ccr_control.shell.health import CIRCUIT_STATES, HealthKeeper
from ccr_control.store.actor import StoreUnavailable

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic for type checkers only
CredentialsOf = Callable[[str], Iterable[Held]]
SightingOf = Callable[[str, str], Sighting | None]
BudgetsOf = Callable[[str], Iterable[keys_pb2.ScopeBudget]]

MAX_SECRET_CHARS = 16_384
HISTORIES_UNLESS_SAID = 100
MOST_HISTORIES = 200  # so that the answer stays well below gRPC's 4 MB
COUNT_EVERY_S = 10.0  # counting looks at the whole ledger
TOO_MANY = 429

_STATE_NAMES: dict[int, KeyState] = {
    snapshot_pb2.KEY_STATE_ACTIVE: "active",
    snapshot_pb2.KEY_STATE_DEPRECATED: "deprecated",
    snapshot_pb2.KEY_STATE_DISABLED: "disabled",
}
_ORIGINS: dict[Origin, keys_pb2.KeyStatus.Origin.ValueType] = {
    "config": keys_pb2.KeyStatus.ORIGIN_CONFIG,
    "changed": keys_pb2.KeyStatus.ORIGIN_CONFIG_CHANGED,
    "added": keys_pb2.KeyStatus.ORIGIN_ADDED,
}
_TAKES_NO_SECRET = {
    "none": "takes no key",
    "sigv4": "is signed for with AWS credentials, which the configuration says or the control plane finds",
}


@dataclass(frozen=True, slots=True)
class Counted:
    """How many requests each key had, by provider and label."""

    requests: Mapping[tuple[str, str], int] = field(default_factory=dict)
    at_s: float = -1e18


class KeyServicer(keys_pb2_grpc.KeyServiceServicer):
    """Shows and changes keys."""

    def __init__(
        self,
        keeper: HealthKeeper,
        file: ConfigFile,
        changes: Changes,
        events: EventLog,
        credentials: CredentialsOf = lambda _: (),
        sighting_of: SightingOf = lambda *_: None,
        budgets: BudgetsOf = lambda _: (),
        store: Asking | None = None,
        burndown: BurnDown | None = None,
    ) -> None:
        """`credentials` gives those of a provider that have to be found, `sighting_of` the newest rate-limit headers of a key.

        `budgets` gives what is known of the accounts of a provider, or (empty) of all; `store` how many requests each key had;
        `burndown` how budgets were used.
        """
        self._store, self._counted, self._burndown = store, Counted(), burndown or BurnDown()
        self._keeper, self._file, self._changes, self._events = keeper, file, changes, events
        self._credentials, self._sighting_of, self._budgets = credentials, sighting_of, budgets

    async def ListKeys(self, request: keys_pb2.ListKeysRequest, context: Context) -> keys_pb2.ListKeysResponse:
        """All keys, or those of a provider."""
        found = [(config, health) for config, health in self._keeper.providers()]
        if request.provider:
            found = [(config, health) for config, health in found if config.name == request.provider]
            if not found:
                raise no_such_provider(request.provider)
        requests = await self._requests()
        return keys_pb2.ListKeysResponse(
            keys=[self._status(config, health, key, requests) for config, health in found for key in config.keys]
        )

    async def AddKey(self, request: keys_pb2.AddKeyRequest, context: Context) -> keys_pb2.KeyResponse:
        """One more key."""
        secret = checked_secret(request.secret)
        weight = request.weight or 1
        checked_share(weight, request.priority)
        values: dict[str, Value | None] = {ADDED: "yes", "secret": secret, "weight": str(weight)}
        values |= {"priority": str(request.priority), "state": "active", "scope": request.scope or None}
        limits = request.limits
        for name, amount in (
            ("rpm_limit", limits.requests),
            ("tpm_limit", limits.tokens),
            ("itpm_limit", limits.input_tokens),
            ("otpm_limit", limits.output_tokens),
        ):
            if amount < 0:
                raise Malformed("OUT_OF_RANGE", f"limits: must not be negative, not {amount}")
            values[name] = str(amount) if amount else None
        _checked_label(request.label, request.scope)
        who, at_s, resource = caller().name, self._changes.now(), key_resource(request.provider, request.label)

        def alter(overlay: Overlay) -> Altered | None:
            provider = self._provider(request.provider, overlay)
            _takes_secret(provider)
            there = next((key for key in provider.keys if key.label == request.label), None)
            if there is not None:
                if there.key == secret and overlay.said(resource, ADDED):
                    return None  # the call was repeated
                raise TakenAlready(
                    "LABEL_TAKEN", f"{request.provider} has a key {request.label!r}: rotate it, or choose another label"
                )
            altered = overlay.with_changed(resource, values, who, at_s)
            after = key_view(self._key(request.provider, request.label, altered))
            return self._altered(altered, who, "key.add", resource, {}, after)

        return await self._changed(request.provider, request.label, alter)

    async def RotateKey(self, request: keys_pb2.RotateKeyRequest, context: Context) -> keys_pb2.KeyResponse:
        """Another secret for a key."""
        secret = checked_secret(request.secret)
        who, at_s, resource = caller().name, self._changes.now(), key_resource(request.provider, request.label)

        def alter(overlay: Overlay) -> Altered | None:
            provider = self._provider(request.provider, overlay)
            before = self._upon(request.provider, request.label, request.etag, overlay)
            _takes_secret(provider)
            if self._key(request.provider, request.label, overlay).cloud is not None:
                raise NotPossible("FOUND_AT_RUN_TIME", f"the credential of {request.label} is found, not written down")
            configured = self._configured(request.provider, request.label)
            said = configured.key if configured is not None else None
            altered = _awake(overlay, resource, configured).with_changed(
                resource, {"secret": None if secret == said else secret}, who, at_s
            )
            after = key_view(self._key(request.provider, request.label, altered))
            return self._altered(altered, who, "key.rotate", resource, before, after)

        return await self._changed(request.provider, request.label, alter)

    async def UpdateKey(self, request: keys_pb2.UpdateKeyRequest, context: Context) -> keys_pb2.KeyResponse:
        """State, weight or priority of a key."""
        weight = request.weight if request.HasField("weight") else None
        priority = request.priority if request.HasField("priority") else None
        checked_share(weight, priority)
        state = _STATE_NAMES.get(request.state)
        if request.state and state is None:
            raise Malformed("STATE_MISSING", "state: say ACTIVE, DEPRECATED or DISABLED")
        who, at_s, resource = caller().name, self._changes.now(), key_resource(request.provider, request.label)

        def alter(overlay: Overlay) -> Altered | None:
            before = self._upon(request.provider, request.label, request.etag, overlay)
            said = self._configured(request.provider, request.label)
            is_added = overlay.said(resource, ADDED) is not None and said is None
            wanted: dict[str, Value | None]
            if is_added or said is None:
                wanted = {"weight": str(weight)} if weight is not None else {}
                wanted |= {"priority": str(priority)} if priority is not None else {}
            else:
                wanted = share_wanted(weight, priority, said.weight, said.priority)
            if state is not None:
                wanted["state"] = None if said is not None and state == said.state else state
            altered = _awake(overlay, resource, said).with_changed(resource, wanted, who, at_s)
            after = key_view(self._key(request.provider, request.label, altered))
            return self._altered(altered, who, "key.update", resource, before, after)

        return await self._changed(request.provider, request.label, alter)

    async def RemoveKey(self, request: keys_pb2.RemoveKeyRequest, context: Context) -> keys_pb2.RemoveKeyResponse:
        """Take an added key away, or what was changed of a configured one."""
        who, resource = caller().name, key_resource(request.provider, request.label)

        def alter(overlay: Overlay) -> Altered | None:
            before = self._upon(request.provider, request.label, request.etag, overlay)
            if not overlay.of(resource):
                raise NoSuchThing(
                    "NOT_CHANGED",
                    f"{request.label} of {request.provider} is as the configuration has it: remove it there, or disable it",
                )
            altered = overlay.without(resource)
            configured = self._configured(request.provider, request.label)
            return self._altered(
                altered, who, "key.remove", resource, before, key_view(configured) if configured is not None else {}
            )

        return keys_pb2.RemoveKeyResponse(snapshot_version=await self._changes.change(alter))

    async def ListScopes(self, request: keys_pb2.ListScopesRequest, context: Context) -> keys_pb2.ListScopesResponse:
        """What the accounts may do, and have done."""
        names = [config.name for config, _ in self._keeper.providers()]
        if request.provider and request.provider not in names:
            raise no_such_provider(request.provider)
        budgets = list(self._budgets(request.provider))
        known = {(one.provider, one.scope) for one in budgets}
        for config, health in self._keeper.providers():
            if request.provider in ("", config.name):
                unknown = [scope for scope in health.scopes if (config.name, scope) not in known]
                budgets += [keys_pb2.ScopeBudget(provider=config.name, scope=scope) for scope in unknown]
        for one in budgets:
            if (until_s := self._resting_until_s(one.provider, one.scope)) is not None:
                one.resting_until.CopyFrom(timestamp(until_s))
        budgets.sort(key=lambda one: names.index(one.provider) if one.provider in names else len(names))
        return keys_pb2.ListScopesResponse(budgets=budgets)

    async def GetBudgetHistory(
        self, request: keys_pb2.GetBudgetHistoryRequest, context: Context
    ) -> keys_pb2.GetBudgetHistoryResponse:
        """How the budgets were used over the last hour."""
        size = page_size(request.page_size, HISTORIES_UNLESS_SAID, MOST_HISTORIES)
        begin = page_begin(request.page_token)
        names = self._burndown.budgets(request.provider, request.scope)
        page = names[begin : begin + size]
        return keys_pb2.GetBudgetHistoryResponse(
            history=history_message(self._burndown, page, 0, self._burndown.number),
            next_page_token=str(begin + size) if len(names) > begin + size else "",
        )

    def _resting_until_s(self, provider: str, scope: str) -> float | None:
        """Until when a provider told an account to rest, by the newest answers to its keys."""
        found: list[float] = []
        for config, health in self._keeper.providers():
            labels = health.scopes[scope].setup.labels if config.name == provider and scope in health.scopes else ()
            for label in labels:
                seen = self._sighting_of(provider, label)
                wait = seen.headers.get("retry-after", "") if seen is not None and seen.status == TOO_MANY else ""
                if seen is not None and wait.isascii() and wait.isdigit():
                    found.append(seen.seen_at_s + int(wait))
        until_s = max(found, default=0.0)
        return until_s if until_s > self._changes.now() else None

    async def _requests(self) -> Mapping[tuple[str, str], int]:
        """How many requests finished with each key; of a few seconds ago. Nothing while the store cannot be read."""
        now_s = self._changes.now()
        if self._store is not None and not 0 <= now_s - self._counted.at_s < COUNT_EVERY_S:
            with contextlib.suppress(StoreUnavailable):
                requests = await self._store.ask(lambda tables: tables.changes.requests_by_key())
                self._counted = Counted(requests, self._changes.now())
        return self._counted.requests

    async def _changed(
        self, provider: str, label: str, alter: Callable[[Overlay], Altered | None]
    ) -> keys_pb2.KeyResponse:
        version = await self._changes.change(alter)
        for config, health in self._keeper.providers():
            for key in config.keys if config.name == provider else ():
                if key.label == label:
                    return keys_pb2.KeyResponse(key=self._status(config, health, key, {}), snapshot_version=version)
        raise no_such_key(provider, label)  # another change came right after it

    def _altered(
        self,
        overlay: Overlay,
        who: str,
        action: str,
        resource: str,
        before: dict[str, object],
        after: dict[str, object],
    ) -> Altered | None:
        if before == after and overlay == self._changes.overlay:
            return None
        made = self._events.made("audit", action, resource, actor=who, before=before, after=after)
        return Altered(overlay, [made])

    def _provider(self, name: str, overlay: Overlay) -> ProviderConfig:
        """A provider with the changes of an overlay. Raises NoSuchThing."""
        for provider in applied(self._file.revision.config, overlay).providers:
            if provider.name == name:
                return provider
        raise no_such_provider(name)

    def _key(self, provider: str, label: str, overlay: Overlay) -> KeyConfig:
        """A key with the changes of an overlay. Raises NoSuchThing."""
        for key in self._provider(provider, overlay).keys:
            if key.label == label:
                return key
        raise no_such_key(provider, label)

    def _configured(self, provider: str, label: str) -> KeyConfig | None:
        """A key as the configuration has it."""
        for one in self._file.revision.config.providers:
            if one.name == provider:
                return next((key for key in one.keys if key.label == label), None)
        return None

    def _upon(self, provider: str, label: str, upon: str, overlay: Overlay) -> dict[str, object]:
        """What of a key can be changed, if that is what a change was made upon. Raises NoSuchThing or OutOfDate."""
        view = key_view(self._key(provider, label, overlay))
        if upon and upon != etag(key_resource(provider, label), view):
            raise OutOfDate(
                "ETAG_OUT_OF_DATE", f"key {label} of {provider} was changed meanwhile: look again, then decide"
            )
        return view

    def _status(
        self, config: ProviderConfig, health: ProviderHealth, key: KeyConfig, requests: Mapping[tuple[str, str], int]
    ) -> keys_pb2.KeyStatus:
        label = key.label or ""
        configured = next((one for one in self._file.revision.config.providers if one.name == config.name), config)
        scope_name = health.scope_of(label) or key.scope or label
        scope = health.scopes.get(scope_name)
        message = keys_pb2.KeyStatus(
            provider=config.name,
            label=label,
            scope=scope_name,
            fingerprint=shown_fingerprint(key),
            state=KEY_STATES[key.state],
            weight=key.weight,
            priority=key.priority,
            circuit=CIRCUIT_STATES[state_name(scope.circuit)] if scope is not None else CIRCUIT_STATES["closed"],
            origin=_ORIGINS[key_origin(configured, label, self._changes.overlay)],
            etag=etag(key_resource(config.name, label), key_view(key)),
            requests=requests.get((config.name, label), 0),
        )
        if scope is not None and label in scope.refused:
            message.problem = "the provider refuses it (401 or 403): rotate it"
        for held in self._credentials(config.name):
            if held.label == label:
                message.problem = message.problem or held.standing.problem
                if held.standing.is_found and held.standing.expires_s != inf:
                    message.expires_at.CopyFrom(timestamp(held.standing.expires_s))
        return message


def _awake(overlay: Overlay, resource: str, configured: KeyConfig | None) -> Overlay:
    """The overlay without an added key that rests because the configuration has its label: a change is about the key in force."""
    is_resting = configured is not None and overlay.said(resource, ADDED) is not None
    return overlay.without(resource) if is_resting else overlay


def no_such_key(provider: str, label: str) -> NoSuchThing:
    """The refusal of a call about a key that is not there."""
    return NoSuchThing("NO_SUCH_KEY", f"{provider} has no key {label[:100]!r}")


def checked_secret(text: str) -> Secret:
    """A credential as it came. Raises Malformed, without a word of it."""
    if len(text) > MAX_SECRET_CHARS:
        raise Malformed("SECRET_MALFORMED", f"secret: longer than {MAX_SECRET_CHARS} characters")
    try:
        found = KeyConfig.model_validate({"key": text}).key
    except ValidationError as error:
        raise Malformed("SECRET_MALFORMED", f"secret: {_words(error)}") from None
    if found is None:
        raise Malformed("SECRET_MALFORMED", "secret: is empty")
    return found


def _checked_label(label: str, scope: str) -> None:
    try:
        KeyConfig.model_validate({"label": label, "scope": scope or None})
    except ValidationError as error:
        raise Malformed("LABEL_MALFORMED", f"{error.errors()[0]['loc'][0]}: {_words(error)}") from None
    if not label:
        raise Malformed("LABEL_MALFORMED", "label: is required")


def _words(error: ValidationError) -> str:
    return error.errors(include_input=False, include_url=False)[0]["msg"].removeprefix("Value error, ")


def _takes_secret(provider: ProviderConfig) -> None:
    """Raises NotPossible if a provider has no use for a secret."""
    why = _TAKES_NO_SECRET.get(provider.auth_style or "none")
    if why is not None:
        raise NotPossible("TAKES_NO_SECRET", f"{provider.name} {why}")
