"""The fleet remembers what each node serves, and forgets nodes that are gone."""

from __future__ import annotations

from ccr_control.core import fleet as fleet_module
from ccr_control.core.fleet import (
    FORGET_AFTER_S,
    MAX_NODES,
    MAX_PROVIDERS,
    Fleet,
    Introduction,
    Open,
    Rejection,
    Status,
)


def who(node_id: str = "node", served_version: int = 0, instance_id: str = "one") -> Introduction:
    return Introduction(node_id, instance_id, "1.0", 1, served_version)


def test_a_node_that_was_not_seen_for_a_day_is_dropped() -> None:
    fleet = Fleet()
    fleet.left(fleet.joined(who("gone"), 0), "gone", 10)
    fleet.joined(who("here"), 0)
    assert [node.node_id for node in fleet.nodes(10 + FORGET_AFTER_S)] == ["gone", "here"]
    assert [node.node_id for node in fleet.nodes(11 + FORGET_AFTER_S)] == ["here"], "a connected node stays"


def test_the_end_of_an_old_stream_says_nothing_about_a_new_one() -> None:
    """A node reconnects before its old connection is found dead."""
    fleet = Fleet()
    old = fleet.joined(who(), 0)
    new = fleet.joined(who(), 1)
    fleet.accepted(old, "node", 5, 2)
    fleet.left(old, "node", 3)
    (node,) = fleet.nodes(4)
    assert (node.is_connected, node.stream, node.served_version) == (True, new, 0)


def test_an_accepted_version_clears_the_rejection_and_keeps_its_time() -> None:
    fleet = Fleet()
    stream = fleet.joined(who(), 0)
    fleet.rejected(stream, "node", Rejection(1, "r" * 5000), 1)
    (node,) = fleet.nodes(1)
    assert node.rejection == Rejection(1, "r" * 1000)
    fleet.accepted(stream, "node", 2, 3)
    fleet.accepted(stream, "node", 2, 9)
    (node,) = fleet.nodes(9)
    assert (node.rejection, node.served_version, node.served_since_s, node.last_seen_s) == (None, 2, 3, 9)


def test_only_a_version_that_the_node_got_from_this_life_is_trusted() -> None:
    """The same number may have had another content before the database was lost."""
    fleet = Fleet()
    assert not fleet.trusts(who(served_version=4))
    stream = fleet.joined(who(served_version=4), 0)
    assert not fleet.trusts(who(served_version=4))
    fleet.accepted(stream, "node", 5, 1)
    assert fleet.trusts(who(served_version=5, instance_id="two")), "its copy on disk is ours, too"
    assert not fleet.trusts(who("other", served_version=5))


def test_a_new_instance_does_not_inherit_how_the_old_one_was() -> None:
    fleet = Fleet()
    fleet.joined(who(), 0)
    fleet.reported("node", Status(1, 2, 3, 4, 5), 1)
    fleet.joined(who(), 2)
    assert fleet.nodes(2)[0].status is not None
    fleet.joined(who(instance_id="two"), 3)
    assert fleet.nodes(3)[0].status is None


def test_the_number_of_nodes_is_bounded() -> None:
    """A node that takes a new name at each start must not make the control plane grow."""
    fleet = Fleet()
    for i in range(MAX_NODES + 100):
        fleet.reported(f"node-{i}", Status(0, 0, 0, 0, 0), i)
    nodes = fleet.nodes(MAX_NODES)
    assert len(nodes) == MAX_NODES == fleet_module.MAX_NODES
    assert "node-0" not in {node.node_id for node in nodes}


def test_open_requests_are_those_of_connected_nodes_by_provider() -> None:
    """A node that is away says nothing of now."""
    fleet = Fleet()
    streams = {name: fleet.joined(Introduction(name, "i", "v", 1, 0), 1) for name in ("one", "two", "gone")}
    fleet.reported("one", Status(3, 4, 0, 0, 0, (("anthropic", 2), ("zai", 1))), 1)
    fleet.reported("two", Status(1, 1, 0, 0, 0, (("zai", 5),)), 1)
    fleet.reported("gone", Status(7, 7, 0, 0, 0, (("local", 7),)), 1)
    fleet.left(streams["gone"], "gone", 2)
    assert fleet.open_requests() == Open(4, {"anthropic": 2, "zai": 6})


def test_nodes_that_name_too_many_providers_do_not_fill_the_memory() -> None:
    fleet = Fleet()
    fleet.joined(Introduction("one", "i", "v", 1, 0), 1)
    fleet.reported("one", Status(0, 0, 0, 0, 0, tuple((f"p{n}", 1) for n in range(MAX_PROVIDERS + 5))), 1)
    assert len(fleet.open_requests().by_provider) == MAX_PROVIDERS
