"""The configuration of a control plane that starts again, while workers go on: the file, or what was in force last."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from ccr_control.core.errors import ConfigInvalid, SnapshotInvalid
from ccr_control.shell.config_file import ConfigFile
from ccr_control.shell.paths import CannotStart, StateDir
from ccr_control.shell.revisions import PURPOSE
from ccr_control.shell.sealing import Unreadable, sealer
from ccr_control.store.database import Database, Foreign


def resumed(path: Path, state: StateDir, env: Mapping[str, str]) -> ConfigFile:
    """The file if it can be used, else the newest revision in its place, until the file is mended.

    An edit with a mistake has no effect, so it must not keep the control plane away either: circuits would stay open, budgets spent,
    and clouds' credentials end. Raises ConfigInvalid or SnapshotInvalid, with what is wrong with the file, if there is no revision.
    The state directory has to be locked.
    """
    try:
        return ConfigFile(path, env, time.time)
    except (ConfigInvalid, SnapshotInvalid) as error:
        text = _newest(state)
        if text is None:
            raise
        try:
            return ConfigFile(path, env, time.time, in_place=text)
        except (ConfigInvalid, SnapshotInvalid):  # a file that it names is gone, too
            raise error from None


def _newest(state: StateDir) -> str | None:
    """The text of the newest revision; None if there is none that can be read."""
    try:
        with closing(Database.open(state.database, time.time())) as database:
            newest = database.changes.revision(0)
        return None if newest is None else sealer(state.sealing_key).unseal(newest.sealed, PURPOSE)
    except (sqlite3.Error, Foreign, Unreadable, CannotStart):
        return None
