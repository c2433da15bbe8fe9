"""ConfigService: shows, checks and reloads the configuration."""

# ruff: noqa: ARG002, N802 - names and arguments of handlers are the contract's

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import grpc.aio
from ccr_rpc.v1 import config_pb2, config_pb2_grpc

from ccr_control.core.compile import redacted_yaml
from ccr_control.core.errors import ConfigInvalid, Problem, SnapshotInvalid
from ccr_control.services.wire import problem_message, timestamp
from ccr_control.shell.config_file import ConfigFile, ConfigFormat, Revision, revise
from ccr_control.shell.publisher import Publisher

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic for type checkers only

_TEXT = "<text>"


class ConfigServicer(config_pb2_grpc.ConfigServiceServicer):
    """The configuration file, for people and scripts."""

    def __init__(
        self, config_file: ConfigFile, publisher: Publisher, env: Mapping[str, str], now: Callable[[], float]
    ) -> None:
        self._config_file, self._publisher, self._env, self._now = config_file, publisher, env, now
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
        )
        if refusal is not None:
            response.refusal.refused_at.CopyFrom(timestamp(refusal.refused_at_s))
            response.refusal.problems.extend(map(problem_message, refusal.problems))
        return response

    async def _redacted_yaml(self, revision: Revision) -> str:
        """How a configuration is shown: made when it is asked for (it takes a millisecond a provider), then kept."""
        shown_hash, shown = self._shown
        if shown_hash != revision.config_hash:
            shown = await asyncio.to_thread(redacted_yaml, revision.config)
            self._shown = (revision.config_hash, shown)
        return shown

    async def ValidateConfig(
        self, request: config_pb2.ValidateConfigRequest, context: Context
    ) -> config_pb2.ValidateConfigResponse:
        """What is wrong with a text; it is not applied."""
        fmt: ConfigFormat = "toml" if request.format == config_pb2.CONFIG_FORMAT_TOML else "yaml"
        problems: tuple[Problem, ...] = ()
        warnings: tuple[Problem, ...] = ()
        try:
            revision = await asyncio.to_thread(
                revise, request.text, file=_TEXT, fmt=fmt, env=self._env, now_s=self._now()
            )
            warnings = revision.warnings
        except ConfigInvalid as error:
            problems = error.problems
        except SnapshotInvalid as error:
            problems = tuple(Problem(_TEXT, 0, 0, "", text) for text in error.problems)
        return config_pb2.ValidateConfigResponse(
            problems=map(problem_message, problems), warnings=map(problem_message, warnings)
        )

    async def ReloadConfig(
        self, request: config_pb2.ReloadConfigRequest, context: Context
    ) -> config_pb2.ReloadConfigResponse:
        """Read the file again now."""
        reloaded = await self._config_file.reload(self._publisher, is_forced=True)
        return config_pb2.ReloadConfigResponse(
            changed=reloaded.changed,
            snapshot_version=self._publisher.version,
            problems=map(problem_message, reloaded.problems),
        )
