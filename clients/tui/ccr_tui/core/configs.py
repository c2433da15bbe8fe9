"""The configuration: its revisions, what changed between them, and what was changed at run time.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ccr_rpc.v1 import config_pb2

from ccr_tui.core import figures, words
from ccr_tui.core.table import Cell, Column, Line, Listing, dim, plain
from ccr_tui.core.world import World

COLUMNS = (
    Column("revision", 8, 0, is_number=True),
    Column("in force", 8, 0),
    Column("since", 11, 0),
    Column("by", 12, 0, grows=2),
    Column("lines", 6, 1, is_number=True),
    Column("repeats", 7, 2, is_number=True),
    Column("hash", 12, 3),
)


def listing(revisions: Sequence[config_pb2.Revision], in_force: int, now_s: float) -> Listing:
    """Revisions, newest first."""
    return Listing(
        COLUMNS,
        [str(one.number) for one in revisions],
        lambda row: _cells(revisions[row], in_force, now_s),
        "no revision is kept",
    )


def _cells(one: config_pb2.Revision, in_force: int, now_s: float) -> Sequence[Cell]:
    return (
        (str(one.number), "strong"),
        ("● yes", "good") if one.number == in_force else plain(""),
        plain(words.clock(one.applied_at, now_s)),
        plain(one.applied_by or figures.NOTHING),
        plain(str(one.lines)),
        plain(str(one.rolled_back_to or figures.NOTHING)),
        dim(one.config_hash[:12]),
    )


def state(world: World, now_s: float) -> list[Line]:
    """How the configuration is, above the table."""
    one = world.config
    if one is None:
        return [(dim("configuration: "), dim(figures.NOTHING))]
    since = f", loaded {words.ago(one.loaded_at, now_s)} ago" if one.HasField("loaded_at") else ""
    said: list[Line] = [
        (
            dim("file    "),
            plain(one.source),
            dim(f"  revision {one.revision}, snapshot {one.snapshot_version}, {one.config_hash[:12]}{since}"),
        )
    ]
    if one.overlay_entries:
        said.append(
            (dim("changed "), (f"{one.overlay_entries} settings at run time, on top of it (o shows them)", "info"))
        )
    if one.HasField("refusal"):
        said.append(
            (("refused ", "bad"), plain(f"the file as it is now, {words.ago(one.refusal.refused_at, now_s)} ago:"))
        )
        said += [(plain(f"        {problem_text(problem)}"),) for problem in one.refusal.problems[:3]]
    if one.restart_needed:
        said.append((("restart ", "warn"), plain(f"for {', '.join(one.restart_needed)}")))
    return said + [(("warning ", "warn"), plain(problem_text(problem))) for problem in one.warnings[:3]]


def problem_text(problem: config_pb2.ConfigProblem) -> str:
    """Where and what."""
    place = f"{problem.file}:{problem.line}:{problem.column}: " if problem.line else ""
    return f"{place}{problem.path}: {problem.message}" if problem.path else f"{place}{problem.message}"


def diff_lines(answer: config_pb2.DiffConfigResponse | config_pb2.ApplyConfigResponse) -> list[Line]:
    """A diff with its problems first."""
    said: list[Line] = [((problem_text(problem), "bad"),) for problem in answer.problems]
    if not answer.diff and not said:
        return [(dim("nothing differs"),)]
    for line in answer.diff.splitlines():
        if line.startswith("+") and not line.startswith("+++"):
            said.append(((line, "good"),))
        elif line.startswith("-") and not line.startswith("---"):
            said.append(((line, "bad"),))
        else:
            said.append(((line, "info" if line.startswith("@@") else "plain"),))
    return said


def overlay_lines(answer: config_pb2.GetOverlayResponse, now_s: float) -> list[Line]:
    """What was changed at run time."""
    if not answer.entries:
        return [(dim("nothing was changed at run time"),)]
    said: list[Line] = []
    for one in answer.entries:
        was = f" (configured: {one.configured})" if one.configured else ""
        said.append((plain(f"{one.resource} "), (f"{one.field} = {one.value}", "strong"), dim(was)))
        said.append((dim(f"    {one.changed_by}, {words.ago(one.changed_at, now_s)} ago"),))
    return said
