"""What a change of the contract would break for a process of an earlier release.

Pure: two FileDescriptorSets in, sentences out. Names, not files, are compared: a message may move to another file of its package.

- Fields, enum values, messages, services and methods keep their names, numbers and types.
- What is taken away leaves its number and its name `reserved`, and what is reserved stays so.
- A field stays single, optional or repeated, in its oneof; a method streams as it did.

New messages, fields, values and methods are no break: each end passes over what it does not know (docs/how-to/upgrade.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)


@dataclass(frozen=True, slots=True)
class Contract:
    """Everything with a name in a set of files, by its full name."""

    messages: dict[str, DescriptorProto] = field(default_factory=dict)
    enums: dict[str, EnumDescriptorProto] = field(default_factory=dict)
    methods: dict[str, MethodDescriptorProto] = field(default_factory=dict)


def breaks(before: FileDescriptorSet, after: FileDescriptorSet) -> list[str]:
    """A sentence for each thing that a process with the contract `before` would get wrong. Empty: none."""
    old, new = contract(before), contract(after)
    return [
        *_gone("message", old.messages, new.messages),
        *_gone("enum", old.enums, new.enums),
        *_gone("method", old.methods, new.methods),
        *(said for name in _both(old.messages, new.messages) for said in _message(name, old, new)),
        *(said for name in _both(old.enums, new.enums) for said in _enum(name, old.enums[name], new.enums[name])),
        *(said for name in _both(old.methods, new.methods) for said in _method(name, old, new)),
    ]


def contract(files: FileDescriptorSet) -> Contract:
    """What is in the files, nested types too."""
    found = Contract()
    for file in files.file:
        for message in file.message_type:
            _add_message(found, f"{file.package}.{message.name}", message)
        for enum in file.enum_type:
            found.enums[f"{file.package}.{enum.name}"] = enum
        for service in file.service:
            for method in service.method:
                found.methods[f"{file.package}.{service.name}/{method.name}"] = method
    return found


def _add_message(found: Contract, name: str, message: DescriptorProto) -> None:
    found.messages[name] = message
    for nested in message.nested_type:
        _add_message(found, f"{name}.{nested.name}", nested)
    for enum in message.enum_type:
        found.enums[f"{name}.{enum.name}"] = enum


def _gone(kind: str, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    return (f"{kind} {name} is gone" for name in old if name not in new)


def _both(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    return [name for name in old if name in new]


def _message(name: str, before: Contract, after: Contract) -> Iterator[str]:
    old, new = before.messages[name], after.messages[name]
    taken = {one.number: one for one in new.field}
    for was in old.field:
        where = f"{name}.{was.name} (field {was.number})"
        if (now := taken.get(was.number)) is not None:
            for what, then, today in zip(_FACETS, _facets(was, old), _facets(now, new), strict=True):
                if then != today:
                    yield f"{where}: its {what} was {then}, is {today}"
        else:
            yield from _unreserved(where, was.name, was.number, _numbers(new), new.reserved_name)
    yield from _reused(
        name, _numbers(old), old.reserved_name, {one.number: one.name for one in new.field}, _numbers(new)
    )


_FACETS = ("name", "type", "cardinality", "oneof")


def _facets(one: FieldDescriptorProto, message: DescriptorProto) -> tuple[str, str, str, str]:
    type_name = one.type_name or FieldDescriptorProto.Type.Name(one.type).removeprefix("TYPE_").lower()
    cardinality = "optional" if one.proto3_optional else "single"
    if one.label == FieldDescriptorProto.LABEL_REPEATED:
        cardinality = "repeated"
    in_oneof = one.HasField("oneof_index") and not one.proto3_optional
    return one.name, type_name, cardinality, message.oneof_decl[one.oneof_index].name if in_oneof else "none"


def _enum(name: str, old: EnumDescriptorProto, new: EnumDescriptorProto) -> Iterator[str]:
    taken = {one.number: one.name for one in new.value}
    for was in old.value:
        where = f"{name}.{was.name} (value {was.number})"
        if was.number in taken:
            if taken[was.number] != was.name:
                yield f"{where}: its name was {was.name}, is {taken[was.number]}"
        else:
            yield from _unreserved(where, was.name, was.number, _numbers(new), new.reserved_name)
    yield from _reused(name, _numbers(old), old.reserved_name, taken, _numbers(new))


def _method(name: str, before: Contract, after: Contract) -> Iterator[str]:
    old, new = before.methods[name], after.methods[name]
    for what, then, today in (
        ("request", old.input_type, new.input_type),
        ("response", old.output_type, new.output_type),
        ("streaming by the client", old.client_streaming, new.client_streaming),
        ("streaming by the server", old.server_streaming, new.server_streaming),
    ):
        if then != today:
            yield f"method {name}: its {what} was {then}, is {today}"


def _numbers(one: DescriptorProto | EnumDescriptorProto) -> list[range]:
    """The numbers it reserves. A message's ranges end before their end, an enum's with it."""
    beyond = 1 if isinstance(one, EnumDescriptorProto) else 0
    return [range(part.start, part.end + beyond) for part in one.reserved_range]


def _unreserved(where: str, name: str, number: int, ranges: Iterable[range], names: Iterable[str]) -> Iterator[str]:
    if not any(number in part for part in ranges):
        yield f"{where} is gone, and its number is not reserved"
    if name not in names:
        yield f"{where} is gone, and its name is not reserved"


def _reused(
    where: str, ranges: Iterable[range], names: Iterable[str], taken: Mapping[int, str], kept: list[range]
) -> Iterator[str]:
    """What was reserved and is not any more."""
    for part in ranges:
        yield from (
            f"{where}: {taken[number]} takes number {number}, which was reserved" for number in taken if number in part
        )
        if not any(part.start >= one.start and part.stop <= one.stop for one in kept):
            yield f"{where}: numbers {part.start} to {part.stop - 1} are not reserved any more"
    yield from (f"{where}: the name {name} was reserved" for name in names if name in taken.values())
