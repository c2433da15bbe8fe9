"""The nodes, and which snapshot each of them serves.

Pure. Events in, nodes out; the time of an event is seconds since 1970, given by the caller. Each watch stream has a
number of its own, so that the end of an old stream says nothing about a node that came back on a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

FORGET_AFTER_S = 86_400.0
"""A node that is not connected and was not heard of for a day is dropped."""

MAX_NODES = 4096
"""Nodes remembered; beyond it the disconnected one that was heard of least recently is dropped."""

MAX_PROVIDERS = 1000
"""Of the providers that a node names those beyond it are left out."""

MAX_REASON_CHARS = 1000
"""A rejection's reason is cut here."""


@dataclass(frozen=True, slots=True)
class Status:
    """How a node says it is; the fields are those of the contract's `NodeStatus`."""

    open_requests: int
    open_connections: int
    unauthorized_total: int
    spooled_bytes: int
    resident_bytes: int
    open: tuple[tuple[str, int], ...] = ()  # requests under way, by provider


@dataclass(frozen=True, slots=True)
class Open:
    """Requests that are being served now."""

    requests: int = 0
    by_provider: Mapping[str, int] = field(default_factory=dict)  # under way there; those with none are left out


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who opened a watch stream, and what it serves from before (0: nothing)."""

    node_id: str
    instance_id: str
    software_version: str
    pid: int
    served_version: int


@dataclass(frozen=True, slots=True)
class Rejection:
    """A version that a node would not serve, if it has accepted none since."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class Node:
    """One ccr-data worker."""

    node_id: str
    last_seen_s: float
    instance_id: str = ""
    software_version: str = ""
    pid: int = 0
    stream: int | None = None  # the number of its open watch stream
    connected_s: float | None = None
    served_version: int = 0
    served_since_s: float | None = None
    offered_version: int = 0  # on this stream
    accepted_version: int = 0  # the newest that it accepted from this control plane, on any stream
    rejection: Rejection | None = None
    status: Status | None = None

    @property
    def is_connected(self) -> bool:
        """Whether its watch stream is open."""
        return self.stream is not None


class Fleet:
    """All nodes of the last day, by name."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._streams = 0

    def nodes(self, at_s: float) -> list[Node]:
        """All nodes that are connected or were heard of within the last day, by name."""
        for node in [*self._nodes.values()]:
            if not node.is_connected and node.last_seen_s < at_s - FORGET_AFTER_S:
                del self._nodes[node.node_id]
        return sorted(self._nodes.values(), key=lambda node: node.node_id)

    def open_requests(self) -> Open:
        """What the connected nodes are serving, as they said last."""
        requests, by_provider = 0, dict[str, int]()
        for node in self._nodes.values():
            if node.is_connected and node.status is not None:
                requests += node.status.open_requests
                for provider, count in node.status.open:
                    if provider in by_provider or len(by_provider) < MAX_PROVIDERS:
                        by_provider[provider] = by_provider.get(provider, 0) + count
        return Open(requests, by_provider)

    def trusts(self, who: Introduction) -> bool:
        """Whether the version it serves is one that it got from this control plane in this life."""
        node = self._nodes.get(who.node_id)
        return node is not None and node.accepted_version == who.served_version != 0

    def joined(self, who: Introduction, at_s: float) -> int:
        """A node opened a watch stream. Returns the stream's number; the node's earlier stream counts no more."""
        self._streams += 1
        before = self._known(who.node_id, at_s)
        self._nodes[who.node_id] = replace(
            before,
            instance_id=who.instance_id,
            software_version=who.software_version,
            pid=who.pid,
            stream=self._streams,
            connected_s=at_s,
            last_seen_s=at_s,
            served_version=who.served_version,
            served_since_s=before.served_since_s if before.served_version == who.served_version else at_s,
            offered_version=0,
            status=before.status if before.instance_id == who.instance_id else None,
        )
        return self._streams

    def offered(self, stream: int, node_id: str, version: int) -> None:
        """The node was sent a version."""
        if node := self._on(stream, node_id):
            self._nodes[node_id] = replace(node, offered_version=version)

    def accepted(self, stream: int, node_id: str, version: int, at_s: float) -> None:
        """The node serves a version from now on."""
        if node := self._on(stream, node_id):
            since_s = node.served_since_s if node.served_version == version else at_s
            self._nodes[node_id] = replace(
                node,
                served_version=version,
                served_since_s=since_s,
                accepted_version=version,
                rejection=None,
                last_seen_s=at_s,
            )

    def rejected(self, stream: int, node_id: str, rejection: Rejection, at_s: float) -> None:
        """The node keeps what it served before."""
        if node := self._on(stream, node_id):
            short = replace(rejection, reason=rejection.reason[:MAX_REASON_CHARS])
            self._nodes[node_id] = replace(node, rejection=short, last_seen_s=at_s)

    def left(self, stream: int, node_id: str, at_s: float) -> None:
        """The watch stream ended."""
        if node := self._on(stream, node_id):
            self._nodes[node_id] = replace(node, stream=None, offered_version=0, last_seen_s=at_s)

    def reported(self, node_id: str, status: Status, at_s: float) -> None:
        """The node said how it is."""
        self._nodes[node_id] = replace(self._known(node_id, at_s), status=status, last_seen_s=at_s)

    def _on(self, stream: int, node_id: str) -> Node | None:
        node = self._nodes.get(node_id)
        return node if node is not None and node.stream == stream else None

    def _known(self, node_id: str, at_s: float) -> Node:
        found = self._nodes.get(node_id)
        if found is not None:
            return found
        if len(self._nodes) >= MAX_NODES:
            away = [node for node in self._nodes.values() if not node.is_connected]
            if away:
                del self._nodes[min(away, key=lambda node: node.last_seen_s).node_id]
        return Node(node_id=node_id, last_seen_s=at_s)
