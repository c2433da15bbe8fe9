"""ConfigService: shows, checks, compares, applies and reloads the configuration, and what was changed on top of it."""

# ruff: noqa: ARG002, N802 - names and arguments of handlers are the contract's

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import grpc.aio
from ccr_rpc.v1 import config_pb2, config_pb2_grpc

from ccr_control.core.access import may
from ccr_control.core.compile import redacted_yaml
from ccr_control.core.decode import decode
from ccr_control.core.errors import ConfigInvalid, Malformed, NoSuchThing, Problem, SnapshotInvalid
from ccr_control.core.importing import NotRecognised, Source, imported
from ccr_control.core.merging import merged
from ccr_control.core.overlay import Overlay, configured, is_about, shown
from ccr_control.services.events import page_begin, page_size
from ccr_control.services.wire import problem_message, timestamp
from ccr_control.shell.access import caller, require
from ccr_control.shell.changes import Altered, Changes
from ccr_control.shell.config_file import ConfigFile, ConfigFormat, Revision, revise
from ccr_control.shell.events import EventLog
from ccr_control.shell.publisher import Publisher
from ccr_control.shell.revisions import TEXT, Applied, Revisions, problems_of
from ccr_control.store.change_tables import KeptRevision

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic for type checkers only

REVISIONS_UNLESS_SAID = 50
MOST_REVISIONS = 1000

_SOURCES: dict[int, Source | None] = {
    config_pb2.IMPORT_SOURCE_UNSPECIFIED: None,
    config_pb2.IMPORT_SOURCE_CC_RELAY_GO: "cc-relay-go",
    config_pb2.IMPORT_SOURCE_CLAUDE_CODE_ROUTER: "claude-code-router",
    config_pb2.IMPORT_SOURCE_LITELLM: "litellm",
}
_SOURCE_NUMBERS: dict[Source, config_pb2.ImportSource.ValueType] = {
    "cc-relay-go": config_pb2.IMPORT_SOURCE_CC_RELAY_GO,
    "claude-code-router": config_pb2.IMPORT_SOURCE_CLAUDE_CODE_ROUTER,
    "litellm": config_pb2.IMPORT_SOURCE_LITELLM,
}


class ConfigServicer(config_pb2_grpc.ConfigServiceServicer):
    """The configuration, for people and scripts."""

    def __init__(
        self,
        config_file: ConfigFile,
        publisher: Publisher,
        changes: Changes,
        revisions: Revisions,
        events: EventLog,
        env: Mapping[str, str],
        now: Callable[[], float],
    ) -> None:
        self._config_file, self._publisher, self._env, self._now = config_file, publisher, env, now
        self._changes, self._revisions, self._events = changes, revisions, events
        self._shown = ("", "")  # the hash of a configuration, and how it is shown

    async def GetConfig(self, request: config_pb2.GetConfigRequest, context: Context) -> config_pb2.GetConfigResponse:
        """The effective configuration and how the last load went."""
        revision, refusal = self._config_file.revision, self._config_file.refusal
        response = config_pb2.GetConfigResponse(
            source=str(self._config_file.path),
            redacted_yaml=await self._redacted_yaml(revision),
            config_hash=revision.config_hash,
            snapshot_version=self._publisher.version,
            loaded_at=timestamp(revision.loaded_at_s),
            restart_needed=self._config_file.restart_needed,
            warnings=map(problem_message, revision.warnings),
            revision=self._revisions.number,
            overlay_entries=len(self._config_file.overlay.entries),
        )
        if refusal is not None:
            response.refusal.refused_at.CopyFrom(timestamp(refusal.refused_at_s))
            response.refusal.problems.extend(map(problem_message, refusal.problems))
        return response

    async def _redacted_yaml(self, revision: Revision) -> str:
        """How a configuration is shown: made when it is asked for (it takes a millisecond a provider), then kept."""
        shown_hash, text = self._shown
        if shown_hash != revision.config_hash:
            text = await asyncio.to_thread(redacted_yaml, revision.config)
            self._shown = (revision.config_hash, text)
        return text

    async def ValidateConfig(
        self, request: config_pb2.ValidateConfigRequest, context: Context
    ) -> config_pb2.ValidateConfigResponse:
        """What is wrong with a text; it is not applied."""
        problems: tuple[Problem, ...] = ()
        warnings: tuple[Problem, ...] = ()
        fmt = _format(request.format)
        try:
            revision = await asyncio.to_thread(
                revise,
                request.text,
                file=TEXT,
                fmt=fmt,
                env=self._env,
                now_s=self._now(),
                folder=self._config_file.path.parent,
            )
            warnings = revision.warnings
        except (ConfigInvalid, SnapshotInvalid) as error:
            problems = problems_of(error)
        return config_pb2.ValidateConfigResponse(
            problems=map(problem_message, problems), warnings=map(problem_message, warnings)
        )

    async def ReloadConfig(
        self, request: config_pb2.ReloadConfigRequest, context: Context
    ) -> config_pb2.ReloadConfigResponse:
        """Read the file again now."""
        who, before = caller().name, self._config_file.revision.config_hash
        reloaded = await self._changes.do(lambda: self._config_file.reload(self._publisher, is_forced=True))
        self._events.note(
            "audit",
            "config.reload",
            "config",
            actor=who,
            before={"config_hash": before},
            after={"config_hash": self._config_file.revision.config_hash},
            message=f"{len(reloaded.problems)} problems: nothing changed" if reloaded.problems else "",
        )
        return config_pb2.ReloadConfigResponse(
            changed=reloaded.changed,
            snapshot_version=self._publisher.version,
            problems=map(problem_message, reloaded.problems),
        )

    async def ListRevisions(
        self, request: config_pb2.ListRevisionsRequest, context: Context
    ) -> config_pb2.ListRevisionsResponse:
        """A page of revisions, newest first."""
        size = page_size(request.page_size, REVISIONS_UNLESS_SAID, MOST_REVISIONS)
        found = await self._revisions.listed(page_begin(request.page_token), size)
        is_more = len(found) == size and found[-1].number > 1
        return config_pb2.ListRevisionsResponse(
            revisions=map(_revision, found), next_page_token=str(found[-1].number) if is_more else ""
        )

    async def DiffConfig(
        self, request: config_pb2.DiffConfigRequest, context: Context
    ) -> config_pb2.DiffConfigResponse:
        """What would change. Two revisions are no secret; a text may name any variable and file, and so may the file."""
        if not request.to_revision:
            require("admin", "comparing with a text or the file")
        compared = await self._revisions.compare(
            request.from_revision,
            request.to_revision,
            request.text,
            _format(request.format),
            for_admin=may(caller().role, "admin"),
        )
        return config_pb2.DiffConfigResponse(
            diff=compared.difference.diff,
            paths=compared.difference.paths,
            problems=map(problem_message, compared.problems),
        )

    async def ApplyConfig(
        self, request: config_pb2.ApplyConfigRequest, context: Context
    ) -> config_pb2.ApplyConfigResponse:
        """Put a text in force."""
        if request.base_revision < 0:
            raise Malformed("OUT_OF_RANGE", f"base_revision: must be 0 or more, not {request.base_revision}")
        applied = await self._revisions.apply(
            request.text,
            _format(request.format),
            caller().name,
            base=request.base_revision,
            dry_run=request.dry_run,
        )
        return await self._applied(applied)

    async def RollbackConfig(
        self, request: config_pb2.RollbackConfigRequest, context: Context
    ) -> config_pb2.ApplyConfigResponse:
        """Put an earlier revision in force again."""
        if request.revision < 1:
            raise Malformed("OUT_OF_RANGE", f"revision: must be 1 or more, not {request.revision}")
        text, fmt = await self._revisions.text_of(request.revision)
        applied = await self._revisions.apply(
            text,
            fmt,
            caller().name,
            rolled_back_to=request.revision,
            dry_run=request.dry_run,
            name=f"<revision {request.revision}>",
        )
        return await self._applied(applied)

    async def _applied(self, applied: Applied) -> config_pb2.ApplyConfigResponse:
        return config_pb2.ApplyConfigResponse(
            problems=map(problem_message, applied.problems),
            warnings=map(problem_message, applied.warnings),
            diff=applied.diff,
            revision=_revision(applied.revision) if applied.revision is not None else None,
            snapshot_version=await self._publisher.settled(),
            restart_needed=applied.restart_needed,
        )

    async def GetOverlay(
        self, request: config_pb2.GetOverlayRequest, context: Context
    ) -> config_pb2.GetOverlayResponse:
        """What was changed at run time."""
        file = self._config_file
        config, overlay = file.revision.config, file.overlay
        response = config_pb2.GetOverlayResponse(merged_text=await asyncio.to_thread(_merged, file, overlay))
        for (resource, name), entry in overlay.entries.items():
            response.entries.add(
                resource=resource,
                field=name,
                configured=configured(config, resource, name),
                value=shown(entry.value),
                changed_by=entry.changed_by,
                changed_at=timestamp(entry.changed_at_s),
            )
        return response

    async def ClearOverlay(
        self, request: config_pb2.ClearOverlayRequest, context: Context
    ) -> config_pb2.ClearOverlayResponse:
        """Take back what was changed at run time."""
        who, cleared = caller().name, 0

        def alter(overlay: Overlay) -> Altered | None:
            nonlocal cleared
            gone = {place: entry for place, entry in overlay.entries.items() if is_about(place[0], request.resource)}
            cleared = len(gone)
            if not gone:
                if request.resource:
                    raise NoSuchThing("NOT_CHANGED", f"nothing was changed at run time of {request.resource[:100]!r}")
                return None
            before = {f"{resource} {name}": shown(entry.value) for (resource, name), entry in gone.items()}
            event = self._events.made(
                "audit", "overlay.clear", request.resource or "config", actor=who, before=before, after={}
            )
            return Altered(overlay.without(request.resource), [event])

        version = await self._changes.change(alter)
        return config_pb2.ClearOverlayResponse(cleared=cleared, snapshot_version=version)

    async def ImportConfig(
        self, request: config_pb2.ImportConfigRequest, context: Context
    ) -> config_pb2.ImportConfigResponse:
        """Make a configuration of another program's."""
        if request.source not in _SOURCES:
            raise Malformed("NO_SUCH_SOURCE", f"source: there is none of number {request.source}")
        try:
            found = await asyncio.to_thread(imported, request.text, _SOURCES[request.source])
        except (NotRecognised, ConfigInvalid) as error:
            raise Malformed("NOT_RECOGNISED", str(error)) from None
        return config_pb2.ImportConfigResponse(
            text=found.text,
            source=_SOURCE_NUMBERS[found.source],
            not_carried_over=map(problem_message, found.not_carried_over),
        )


def _merged(file: ConfigFile, overlay: Overlay) -> str:
    return merged(decode(file.text, file=str(file.path), fmt=file.format), file.revision.config, overlay)


def _format(number: int) -> ConfigFormat:
    return "toml" if number == config_pb2.CONFIG_FORMAT_TOML else "yaml"


def _revision(kept: KeptRevision) -> config_pb2.Revision:
    return config_pb2.Revision(
        number=kept.number,
        applied_at=timestamp(kept.applied_at_s),
        config_hash=kept.config_hash,
        applied_by=kept.applied_by,
        lines=kept.lines,
        rolled_back_to=kept.rolled_back_to,
    )
