"""Nodes: what each of them serves and how it is.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ccr_rpc.v1 import fleet_pb2

from ccr_tui.core import figures, words
from ccr_tui.core.table import Cell, Column, Line, Listing, dim, plain
from ccr_tui.core.world import World

COLUMNS = (
    Column("node", 14, 0, grows=3),
    Column("state", 11, 0),
    Column("serves", 7, 0, is_number=True),
    Column("behind", 6, 1, is_number=True),
    Column("open", 5, 1, is_number=True),
    Column("conns", 5, 3, is_number=True),
    Column("spooled", 9, 2, is_number=True),
    Column("memory", 9, 2, is_number=True),
    Column("refused", 8, 4, is_number=True),
    Column("pid", 8, 5, is_number=True),
    Column("software", 9, 2, grows=1),
    Column("heard", 6, 4, is_number=True),
)


def listing(world: World, now_s: float, match: str = "") -> Listing:
    """All nodes by name."""
    shown = [node for node in world.nodes or () if not match or match in node.node_id]
    usual = usual_software(world)
    return Listing(
        COLUMNS,
        [node.node_id for node in shown],
        lambda row: _cells(shown[row], world.newest_version, usual, now_s),
        "no node fits" if match else "no worker has come yet",
    )


def usual_software(world: World) -> str:
    """What most connected nodes run; what differs from it is a skew."""
    running = Counter(node.software_version for node in world.nodes or () if node.connected)
    return max(running.items(), key=lambda item: (item[1], item[0]))[0] if running else ""


def state(node: fleet_pb2.Node, newest_version: int) -> Cell:
    """In a word."""
    if not node.connected:
        return ("○ gone", "dim")
    if node.rejected_version:
        return ("✗ rejecting", "bad")
    return ("◐ behind", "warn") if node.served_version != newest_version else ("● serving", "good")


def _cells(node: fleet_pb2.Node, newest: int, usual: str, now_s: float) -> Sequence[Cell]:
    lag = newest - node.served_version if node.connected else 0
    is_usual = node.software_version == usual or not node.connected
    return (
        (node.node_id, "strong"),
        state(node, newest),
        plain(str(node.served_version or figures.NOTHING)),
        (str(lag), "warn" if lag else "dim"),
        plain(str(node.status.open_requests)),
        plain(str(node.status.open_connections)),
        (figures.size(node.status.spooled_bytes), "warn" if node.status.spooled_bytes else "dim"),
        plain(figures.size(node.status.resident_bytes)),
        plain(figures.count(node.status.unauthorized_total)),
        dim(str(node.pid or figures.NOTHING)),
        (node.software_version or figures.NOTHING, "dim" if is_usual else "warn"),
        dim(words.ago(node.last_seen_at, now_s) if node.HasField("last_seen_at") else figures.NOTHING),
    )


def detail(node: fleet_pb2.Node, newest_version: int, now_s: float) -> list[Line]:
    """Everything about a node."""
    said: list[Line] = [
        (dim("state     "), state(node, newest_version)),
        (
            dim("snapshot  "),
            plain(
                f"serves {node.served_version or figures.NOTHING}, offered {node.offered_version or figures.NOTHING}"
                f", newest is {newest_version}"
            ),
        ),
        (
            dim("software  "),
            plain(f"{node.software_version or figures.NOTHING}, process {node.pid}, start {node.instance_id}"),
        ),
    ]
    if node.rejected_version:
        said.append((dim("rejected  "), (f"{node.rejected_version}: {node.rejection_reason}", "bad")))
    if node.HasField("connected_at"):
        said.append((dim("connected "), plain(f"{words.ago(node.connected_at, now_s)} ago")))
    if node.HasField("status"):
        told = node.status
        said += [
            (dim("open      "), plain(f"{told.open_requests} requests, {told.open_connections} connections")),
            (dim("memory    "), plain(figures.size(told.resident_bytes))),
            (dim("spooled   "), plain(f"{figures.size(told.spooled_bytes)} of usage wait for the control plane")),
            (
                dim("refused   "),
                plain(f"{figures.count(told.unauthorized_total)} requests for a wrong or missing credential"),
            ),
        ]
    return said
