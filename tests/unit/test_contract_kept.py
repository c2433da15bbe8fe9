"""The check of the contract against releases finds what would break one, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet

sys.path.append(str(Path(__file__).parents[2] / "tools"))

from releases.breaking import breaks, contract
from releases.check import present, released

Change = Callable[[FileDescriptorSet], None]


def message(files: FileDescriptorSet, name: str) -> DescriptorProto:
    return contract(files).messages[f"ccr.rpc.v1.{name}"]


def named(files: FileDescriptorSet, name: str, field: str) -> FieldDescriptorProto:
    return next(one for one in message(files, name).field if one.name == field)


def enum(files: FileDescriptorSet, name: str) -> EnumDescriptorProto:
    return contract(files).enums[f"ccr.rpc.v1.{name}"]


def changed(change: Change) -> list[str]:
    """What breaks when the present contract is changed so."""
    after = present()
    change(after)
    return breaks(present(), after)


def without(name: str, field: str, *, number: bool, word: bool) -> Change:
    def change(files: FileDescriptorSet) -> None:
        found = named(files, name, field)
        if number:
            message(files, name).reserved_range.add(start=found.number, end=found.number + 1)
        if word:
            message(files, name).reserved_name.append(field)
        message(files, name).field.remove(found)

    return change


def set_field(message_name: str, field: str, /, **values: object) -> Change:
    def change(files: FileDescriptorSet) -> None:
        for key, value in values.items():
            setattr(named(files, message_name, field), key, value)

    return change


def method(name: str, **values: object) -> Change:
    def change(files: FileDescriptorSet) -> None:
        for key, value in values.items():
            setattr(contract(files).methods[f"ccr.rpc.v1.{name}"], key, value)

    return change


def moved(files: FileDescriptorSet) -> None:
    """A field that another one takes the place of."""
    named(files, "Key", "secret").number = 99


def without_value(files: FileDescriptorSet) -> None:
    del enum(files, "Strategy").value[-1]


def renumbered_value(files: FileDescriptorSet) -> None:
    values = enum(files, "AuthMode").value
    values[1].number, values[2].number = values[2].number, values[1].number


def out_of_oneof(files: FileDescriptorSet) -> None:
    named(files, "WatchSnapshotsResponse", "drain").ClearField("oneof_index")


def without_message(files: FileDescriptorSet) -> None:
    for file in files.file:
        for one in file.message_type:
            if one.name == "Heartbeat":
                file.message_type.remove(one)
                return


def without_method(files: FileDescriptorSet) -> None:
    for file in files.file:
        for service in file.service:
            if service.name == "SnapshotService":
                service.method[0].name = "Watch"


BREAKS: dict[str, tuple[Change, str]] = {
    "removed": (without("Snapshot", "prices", number=False, word=False), "number is not reserved"),
    "removed, number kept": (without("Snapshot", "prices", number=True, word=False), "name is not reserved"),
    "removed, name kept": (without("Snapshot", "prices", number=False, word=True), "number is not reserved"),
    "renamed": (set_field("Snapshot", "prices", name="tariffs"), "name was prices, is tariffs"),
    "retyped": (set_field("Key", "weight", type=FieldDescriptorProto.TYPE_INT64), "type was int32, is int64"),
    "of another message": (set_field("Snapshot", "auth", type_name=".ccr.rpc.v1.RelayPolicy"), "type was"),
    "repeated": (set_field("Key", "label", label=FieldDescriptorProto.LABEL_REPEATED), "was single, is repeated"),
    "no longer optional": (set_field("Provider", "price_factor", proto3_optional=False), "cardinality was optional"),
    "out of its oneof": (out_of_oneof, "oneof was message, is none"),
    "moved": (moved, "number is not reserved"),
    "value removed": (without_value, "number is not reserved"),
    "values swapped": (renumbered_value, "its name was AUTH_MODE_KEYS, is AUTH_MODE_NONE"),
    "message removed": (without_message, "message ccr.rpc.v1.Heartbeat is gone"),
    "method renamed": (without_method, "method ccr.rpc.v1.SnapshotService/WatchSnapshots is gone"),
    "streams no more": (method("SnapshotService/WatchSnapshots", server_streaming=False), "streaming by the server"),
    "asks otherwise": (method("SnapshotService/WatchSnapshots", input_type=".ccr.rpc.v1.Key"), "its request was"),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_each_kind_of_break_is_found(kind: str) -> None:
    change, says = BREAKS[kind]
    assert says in " | ".join(changed(change))


def added(files: FileDescriptorSet) -> None:
    one = message(files, "Snapshot").field.add(name="something_new", number=1000)
    one.type, one.label = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.LABEL_REPEATED
    enum(files, "Strategy").value.add(name="STRATEGY_NEW", number=1000)
    files.file[0].message_type.add(name="New")
    files.file[0].service[0].method.add(name="New", input_type=".ccr.rpc.v1.New", output_type=".ccr.rpc.v1.New")


@pytest.mark.parametrize(
    "change",
    [added, without("Snapshot", "prices", number=True, word=True), lambda files: None],
    ids=["added", "reserved", "nothing"],
)
def test_what_is_new_or_reserved_breaks_nothing(change: Change) -> None:
    assert changed(change) == []


def test_what_was_reserved_is_not_taken_again() -> None:
    """A process that was not told for two releases would read the new meaning into the old number."""
    before, after = present(), present()
    without("Snapshot", "prices", number=True, word=True)(before)
    without("Snapshot", "prices", number=False, word=False)(after)
    assert {said.split(": ", 1)[1] for said in breaks(before, after)} == {
        "numbers 8 to 8 are not reserved any more",
    }
    found = breaks(before, present())
    assert "ccr.rpc.v1.Snapshot: prices takes number 8, which was reserved" in found
    assert "ccr.rpc.v1.Snapshot: the name prices was reserved" in found


def test_the_present_contract_breaks_no_release() -> None:
    assert released()
    assert not any(breaks(before, present()) for before in released().values())
