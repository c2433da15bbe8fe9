"""The configuration in force: the file it comes from, and what was changed at run time on top of it.

A file that cannot be used changes nothing: the refusal is kept, shown by ConfigService and logged once for each
distinct mistake, until the file is good again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ccr_rpc.v1 import snapshot_pb2

from ccr_control.core.compile import check, compile_snapshot, config_hash
from ccr_control.core.config import Config, load
from ccr_control.core.errors import ConfigInvalid, Problem, SnapshotInvalid
from ccr_control.core.overlay import Overlay, applied
from ccr_control.core.quantities import format_duration
from ccr_control.shell.log import Log
from ccr_control.shell.paths import reading_in
from ccr_control.shell.publisher import Publisher

MAX_CONFIG_BYTES = 16 << 20

STARTED_WITH = "CCR_STARTED_WITH"
"""Holds what `bound_by_supervisor` gave at the start of `ccr serve`, for a control plane that may start much later."""

ConfigFormat = Literal["yaml", "toml"]

log = Log("config")


@dataclass(frozen=True, slots=True)
class Revision:
    """A configuration that can be served, and what was made of it."""

    config: Config
    config_hash: str
    snapshot: snapshot_pb2.Snapshot  # its version is the publisher's business
    warnings: tuple[Problem, ...]
    loaded_at_s: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """A change of the file that was not applied."""

    problems: tuple[Problem, ...]
    refused_at_s: float


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did."""

    changed: bool
    problems: tuple[Problem, ...] = ()


def revise(text: str, *, file: str, fmt: ConfigFormat, env: Mapping[str, str], now_s: float, folder: Path) -> Revision:
    """Everything that follows from a configuration text. Pure but for the files that it names, relative to a folder.

    Raises ConfigInvalid, or SnapshotInvalid if a valid configuration compiled to something no node would serve.
    """
    loaded = load(text, file=file, fmt=fmt, env=env, read_file=reading_in(folder))
    snapshot = compile_snapshot(loaded.config, version=1, created_at=datetime.fromtimestamp(now_s, UTC))
    if problems := check(snapshot):
        raise SnapshotInvalid(problems)
    return Revision(
        config=loaded.config,
        config_hash=config_hash(loaded.config),
        snapshot=snapshot,
        warnings=tuple(loaded.warnings),
        loaded_at_s=now_s,
    )


def with_overlay(revision: Revision, overlay: Overlay) -> Revision:
    """What a revision and the changes at run time make together. Raises SnapshotInvalid, which would be a mistake of ours."""
    config = applied(revision.config, overlay)
    if config is revision.config:
        return revision
    created_at = datetime.fromtimestamp(revision.loaded_at_s, UTC)
    snapshot = compile_snapshot(config, version=1, created_at=created_at)
    if problems := check(snapshot):
        raise SnapshotInvalid(problems)
    return replace(revision, config=config, config_hash=snapshot.config_hash, snapshot=snapshot)


class ConfigFile:
    """The file, its revision in force, what was changed on top of it, and the last refusal."""

    def __init__(
        self, path: Path, env: Mapping[str, str], now: Callable[[], float], in_place: str | None = None
    ) -> None:
        """`in_place` is in force until the file is looked at and can be used.

        Raises ConfigInvalid or SnapshotInvalid if the file, or what is in its place, cannot be used.
        """
        self.path = path
        self._env, self._now = env, now
        content = _read(path) if in_place is None else in_place.encode()
        # what was looked at last; None: it could not be read, or was not looked at yet
        self._content: bytes | None = content if in_place is None else None
        self.changing = asyncio.Lock()  # held by whoever changes what is in force
        self.refusal: Refusal | None = None
        self.revision = self.in_force = self._first = self._revise(content)
        self.overlay = Overlay()
        self.applied: Callable[[Revision, str], None] = lambda *_: None  # told what the file has brought in force
        self.refused: Callable[[tuple[Problem, ...]], None] = lambda _: None  # told what is wrong with a new one
        self._text = content  # of the revision in force

    @property
    def text(self) -> str:
        """The text that is in force."""
        return self._text.decode()

    @property
    def format(self) -> ConfigFormat:
        """How the file is written, by its name."""
        return "toml" if self.path.suffix == ".toml" else "yaml"

    def read_now(self) -> Revision:
        """What the file would bring in force now. Raises ConfigInvalid or SnapshotInvalid."""
        return self._revise(_read(self.path))

    def put_on(self, overlay: Overlay, in_force: Revision | None = None) -> None:
        """Put changes at run time in force; `in_force` is what they and the file's revision make together."""
        self.overlay = overlay
        self.in_force = with_overlay(self.revision, overlay) if in_force is None else in_force

    @property
    def restart_needed(self) -> list[str]:
        """Settings that were changed since the start and take effect with the next one only."""
        return self.restart_needed_with(self.revision)

    def restart_needed_with(self, revision: Revision) -> list[str]:
        """The same if a revision were in force."""
        started_with = _bound(self._first.config) | _started_with(self._env)
        return [name for name, value in _bound(revision.config).items() if value != started_with[name]]

    def take(self, text: str, revision: Revision, in_force: Revision) -> bool:
        """Put a revision in force that has been written to the file. Returns whether anything about it is different."""
        return self._apply(text.encode(), revision, in_force)

    async def reload(self, publisher: Publisher, *, is_forced: bool = False) -> Reloaded:
        """Read the file again; if its effective configuration changed, publish it and wait until that is done.

        An unchanged text is not looked at again unless `is_forced`: files that it names may have changed. Whatever is
        wrong is an answer: an edit never ends the process.
        """
        async with self.changing:
            content = None
            try:
                content = await asyncio.to_thread(_read, self.path)
                if content == self._content and not is_forced:
                    return Reloaded(changed=False)
                revision = await asyncio.to_thread(self._revise, content)
                in_force = await asyncio.to_thread(with_overlay, revision, self.overlay)
            except ConfigInvalid as error:
                return self._refuse(content, error.problems)
            except SnapshotInvalid as error:
                return self._refuse(content, tuple(self._problem(text) for text in error.problems))
            except Exception as error:
                log.exception("config_load_failed")
                name = type(error).__name__
                return self._refuse(content, (self._problem(f"a mistake in ccr-control ({name}); its log says more"),))
            if not self._apply(content, revision, in_force):
                return Reloaded(changed=False)
            self.applied(self.revision, self.text)
            publisher.offer(self.in_force.snapshot)
            await publisher.settled()
            return Reloaded(changed=True)

    def _apply(self, content: bytes, revision: Revision, in_force: Revision) -> bool:
        """Put a good revision in force. Returns whether anything about it is different."""
        if self.refusal is not None:
            log.info("config_good_again", file=str(self.path))
        self._content, self._text, self.refusal = content, content, None
        if revision.config_hash == self.revision.config_hash:
            self.revision = replace(self.revision, warnings=revision.warnings)
            return False
        before, keys_before = self.revision, self.restart_needed
        self.revision, self.in_force = revision, in_force
        log.info("config_applied", file=str(self.path), config_hash=revision.config_hash[:12])
        self.log_warnings(said_before=before.warnings)
        if (keys := self.restart_needed) and keys != keys_before:
            log.warning("restart_needed", changed=keys)
        return True

    def log_warnings(self, said_before: Collection[Problem] = ()) -> None:
        """Log what is allowed but probably not meant."""
        for warning in self.revision.warnings:
            if warning not in said_before:
                log.warning("config_warning", problem=str(warning))

    def _refuse(self, content: bytes | None, problems: tuple[Problem, ...]) -> Reloaded:
        """Keep the old revision. The content is remembered so that it is not tried again at every event."""
        self._content = content
        if self.refusal is None or self.refusal.problems != problems:
            log.error("config_refused", problems=[str(problem) for problem in problems], effect="the old one stays")
            self.refusal = Refusal(problems, self._now())
            self.refused(problems)
        return Reloaded(changed=False, problems=problems)

    def _problem(self, message: str) -> Problem:
        return Problem(str(self.path), 0, 0, "", message)

    def _revise(self, content: bytes) -> Revision:
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise ConfigInvalid([self._problem(f"not UTF-8 text (byte {error.start}); save it as UTF-8")]) from error
        return revise(
            text, file=str(self.path), fmt=self.format, env=self._env, now_s=self._now(), folder=self.path.parent
        )


def _read(path: Path) -> bytes:
    """The file's bytes. Raises ConfigInvalid with what the operator can do about it."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigInvalid([Problem(str(path), 0, 0, "", "there is no such file")]) from error
    except OSError as error:
        raise ConfigInvalid([Problem(str(path), 0, 0, "", f"cannot be read: {error.strerror}")]) from error
    if len(content) > MAX_CONFIG_BYTES:
        raise ConfigInvalid([Problem(str(path), 0, 0, "", f"longer than {MAX_CONFIG_BYTES >> 20} MiB")])
    return content


def bound_by_supervisor(config: Config) -> dict[str, str]:
    """The settings that `ccr serve` binds, and hands to every worker that it starts, by path."""
    server = config.server
    return {
        "server.listen": str(server.listen),
        "server.workers": str(server.workers),
        "server.log_format": server.log_format,
        "server.drain_timeout": format_duration(server.drain_timeout),
    }


def _bound(config: Config) -> dict[str, object]:
    """All settings that are bound when processes start, by path."""
    control = config.control
    return {
        **bound_by_supervisor(config),
        "control.listen": control.listen,
        "control.tls": control.tls,
        "control.web_listen": control.web_listen,
        "control.metrics_listen": control.metrics_listen,
    }


def _started_with(env: Mapping[str, str]) -> dict[str, object]:
    """What the supervisor says that it has bound; nothing if there is none, or one that does not say it."""
    try:
        said = json.loads(env.get(STARTED_WITH, "{}"))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
