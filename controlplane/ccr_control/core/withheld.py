"""A snapshot without what only serving needs. Pure."""

from __future__ import annotations

from ccr_rpc.v1 import snapshot_pb2

_NOWHERE = "https://withheld.invalid"


def without_secrets(snapshot: snapshot_pb2.Snapshot) -> snapshot_pb2.Snapshot:
    """A copy to decide by: keys without their secrets; addresses, certificates and headers, which may hold some, are gone."""
    copied = snapshot_pb2.Snapshot()
    copied.CopyFrom(snapshot)
    for provider in copied.providers:
        provider.base_url = _NOWHERE
        provider.ClearField("ca_pem")
        provider.ClearField("headers")
        for key in provider.keys:
            key.ClearField("secret")
            key.ClearField("aws")
    return copied
