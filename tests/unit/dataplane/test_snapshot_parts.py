"""What a snapshot has in common with the one before is not made again, and nothing else is kept of those before."""

from __future__ import annotations

import pytest
from ccr_data.core.errors import SnapshotInvalid
from ccr_data.core.snapshot import MAX_MADE, MAX_WARMED
from ccr_data.shell.store import offered, offered_message
from ccr_data.shell.wire import Parts
from ccr_rpc.v1 import snapshot_pb2
from support.node_values import snapshot_message


def message(version: int, *, rotated: int = 0, keys: int = 3) -> snapshot_pb2.Snapshot:
    """Two providers; the last key of the second has been rotated so often."""
    made: snapshot_pb2.Snapshot = snapshot_message(version)
    other = made.providers.add()
    other.CopyFrom(made.providers[0])
    other.name = "other"
    for provider in made.providers:
        template = snapshot_pb2.Key()
        template.CopyFrom(provider.keys[0])
        del provider.keys[:]
        for number in range(keys):
            key = provider.keys.add()
            key.CopyFrom(template)
            key.label, key.secret = f"k{number}", f"secret-{number}"
    other.keys[-1].secret += f"-{rotated}"
    return made


def test_a_rotated_key_leaves_all_others_as_they_are() -> None:
    """Ten changes a second of a thousand keys must not cost a thousand keys ten times."""
    parts = Parts()
    first = offered_message(message(1), parts).snapshot
    second = offered_message(message(2, rotated=1), parts).snapshot

    assert second.providers["p0"] is first.providers["p0"]
    before, after = first.providers["other"].keys, second.providers["other"].keys
    assert [one is other for one, other in zip(before, after, strict=True)] == [True, True, False]
    assert after[-1].secret == "secret-2-1"


def test_it_says_the_same_as_a_snapshot_made_from_nothing() -> None:
    parts = Parts()
    for version in range(1, 5):
        said = message(version, rotated=version % 2, keys=version)
        offer = offered_message(said, parts)

        alone = offered(said.SerializeToString())
        assert offer.snapshot.providers == alone.snapshot.providers
        assert offer.snapshot.accounts == alone.snapshot.accounts
        assert (offer.wire, offer.digest) == (alone.wire, alone.digest)


def test_what_is_gone_is_forgotten_also_if_snapshots_are_rejected() -> None:
    """A node runs for months, and keys are rotated every hour."""
    parts = Parts()
    for version in range(1, 50):
        said = message(version, rotated=version)
        if version % 2:
            said.routes[-1].candidates[0].provider = "nobody"
            with pytest.raises(SnapshotInvalid):
                offered_message(said, parts)
        else:
            offered_message(said, parts)

    assert len(parts.providers) == 2
    assert len(parts.keys) <= 12


def test_what_is_asked_for_is_routed_before_the_snapshot_is_served() -> None:
    served, new = (offered(message(version).SerializeToString()).snapshot for version in (1, 2))
    for number in range(2 * MAX_WARMED):
        served.routes_of(f"model-{number}")
    new.warm(served)

    assert [*new._routed] == [f"model-{number}" for number in range(MAX_WARMED)]
    assert [each.route for each in new.routes_of("model-0")] == [new.routes[-1]]


def test_names_of_models_do_not_pile_up_with_a_provider() -> None:
    """Names come from clients, and providers outlive snapshots."""
    provider = offered(message(1).SerializeToString()).snapshot.providers["p0"]
    for number in range(3 * MAX_MADE):
        assert provider.made(f"model-{number}", None).targets[0].model == f"model-{number}"

    assert len(provider._made) <= MAX_MADE
