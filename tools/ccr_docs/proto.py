"""docs/reference/proto.md, from the comments of the contract."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2 as pb

from ccr_docs.markdown import made_from, table
from ccr_docs.markdown import page as joined

INTRO = """\
The gRPC services of the control plane, package `ccr.rpc.v1`. Reflection and health checking are on. The private socket in
the state directory needs no credential; loopback TCP needs the token in `control.token`, as `authorization: Bearer …`."""

_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE = 4, 5, 6
_FIELD, _VALUE, _METHOD, _MESSAGE_ENUM = 2, 2, 2, 4
_SCALARS = {
    pb.FieldDescriptorProto.Type.Value(f"TYPE_{name.upper()}"): name
    for name in ("double", "float", "int64", "uint64", "int32", "bool", "string", "bytes", "uint32")
}

Comments = dict[tuple[int, ...], str]


def page(root: Path) -> str:
    """The whole page."""
    blocks = []
    for file in _files(root):
        comments = {tuple(at.path): at.leading_comments for at in file.source_code_info.location}
        blocks.append(f"## {file.name}")
        blocks.append(_about_file(file))
        blocks += _services(file, comments)
        blocks += _messages(file, comments)
        blocks += _enums(file, comments)
    return joined("# The contract between the planes", made_from("proto/ccr_rpc/v1/*.proto"), INTRO, *blocks)


def _files(root: Path) -> Iterator[pb.FileDescriptorProto]:
    source, google = root / "proto", Path(grpc_tools.__file__).parent / "_proto"
    names = sorted(str(path.relative_to(source)) for path in source.glob("ccr_rpc/**/*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(source), "-I", str(google)]
        command += ["--include_source_info", f"--descriptor_set_out={out}", *names]
        subprocess.run(command, check=True, cwd=root)  # noqa: S603 - our own
        found = pb.FileDescriptorSet.FromString(out.read_bytes())
    yield from (file for file in found.file if file.name in names)


def _about_file(file: pb.FileDescriptorProto) -> str:
    syntax = next((at for at in file.source_code_info.location if list(at.path) == [12]), None)
    return _text(syntax.leading_comments) if syntax else ""


def _text(comment: str) -> str:
    return "\n".join(line.removeprefix(" ").rstrip() for line in comment.rstrip().split("\n"))


def _services(file: pb.FileDescriptorProto, comments: Comments) -> Iterator[str]:
    for s, service in enumerate(file.service):
        yield f"### service {service.name}"
        yield _text(comments.get((_FILE_SERVICE, s), ""))
        rows = []
        for m, method in enumerate(service.method):
            asked = ("stream " if method.client_streaming else "") + _link(method.input_type)
            answered = ("stream " if method.server_streaming else "") + _link(method.output_type)
            about = comments.get((_FILE_SERVICE, s, _METHOD, m), "")
            rows.append((f"`{method.name}`", asked, answered, about))
        yield table(("method", "request", "answer", "meaning"), rows)


def _messages(file: pb.FileDescriptorProto, comments: Comments) -> Iterator[str]:
    for m, message in enumerate(file.message_type):
        yield f"### {message.name}"
        yield _text(comments.get((_FILE_MESSAGE, m), ""))
        rows = [
            (
                str(field.number),
                f"`{field.name}`",
                _type(message, field),
                comments.get((_FILE_MESSAGE, m, _FIELD, f), ""),
            )
            for f, field in enumerate(message.field)
        ]
        if rows:
            yield table(("no.", "field", "type", "meaning"), rows)
        for e, enum in enumerate(message.enum_type):
            yield from _enum(enum, (_FILE_MESSAGE, m, _MESSAGE_ENUM, e), comments)


def _enums(file: pb.FileDescriptorProto, comments: Comments) -> Iterator[str]:
    for e, enum in enumerate(file.enum_type):
        yield from _enum(enum, (_FILE_ENUM, e), comments)


def _enum(enum: pb.EnumDescriptorProto, path: tuple[int, ...], comments: Comments) -> Iterator[str]:
    yield f"### {enum.name}"
    yield _text(comments.get(path, ""))
    rows = [
        (str(value.number), f"`{value.name}`", comments.get((*path, _VALUE, v), ""))
        for v, value in enumerate(enum.value)
    ]
    yield table(("no.", "value", "meaning"), rows)


def _type(message: pb.DescriptorProto, field: pb.FieldDescriptorProto) -> str:
    entry = next((nested for nested in message.nested_type if field.type_name.endswith(f".{nested.name}")), None)
    if entry is not None and entry.options.map_entry:
        return f"map of {_type(entry, entry.field[0])} to {_type(entry, entry.field[1])}"
    name = _SCALARS.get(field.type) or _link(field.type_name)
    return f"list of {name}" if field.label == pb.FieldDescriptorProto.LABEL_REPEATED else name


def _link(type_name: str) -> str:
    name = type_name.rpartition(".")[2]
    return f"[{name}](#{name.lower()})" if type_name.startswith(".ccr.") else name
