"""`/v1/files`: upload, list, read and delete, in memory.

Holds state, does no input or output. Shape of the 2026-10-21 API: pages by `next_page`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ccr_demo.catalogue import read_limit
from ccr_demo.errors import ApiError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One uploaded file."""

    metadata: Json
    content: bytes


class Files:
    """The files of the demo's only workspace, newest first in lists."""

    def __init__(self) -> None:
        self._files: dict[str, StoredFile] = {}

    def upload(self, content_type: str, body: bytes, file_id: str, created_at: str) -> Json:
        """Keeps the part called `file` of a multipart body. Raises ApiError (400) without one."""
        for head, content in read_multipart(content_type, body):
            if re.search(r'\bname="file"', head):
                name = re.search(r'filename="([^"]*)"', head)
                kind = re.search(r"(?im)^content-type:\s*(\S+)", head)
                metadata: Json = {
                    "type": "file",
                    "id": file_id,
                    "size_bytes": len(content),
                    "created_at": created_at,
                    "filename": (name[1].rsplit("/", 1)[-1] if name else "") or "unnamed",
                    "mime_type": kind[1] if kind else "application/octet-stream",
                    "downloadable": True,
                    "expires_at": None,
                }
                self._files[file_id] = StoredFile(metadata, content)
                return metadata
        raise ApiError(400, "file: Field required")

    def get(self, file_id: str) -> StoredFile:
        """Raises ApiError (404)."""
        if file_id not in self._files:
            raise ApiError(404, f"File {file_id} was not found.")
        return self._files[file_id]

    def delete(self, file_id: str) -> Json:
        """Raises ApiError (404)."""
        self.get(file_id)
        del self._files[file_id]
        return {"id": file_id, "type": "file_deleted"}

    def page(self, query: Mapping[str, str]) -> Json:
        """One page, newest first; `page` is the cursor of the answer before."""
        newest_first = [file.metadata for file in reversed(self._files.values())]
        cursor = query.get("page", "page_0")
        if not re.fullmatch(r"page_\d{1,9}", cursor):
            raise ApiError(400, "page: Invalid cursor")
        start, limit = int(cursor.removeprefix("page_")), read_limit(query)
        stop = start + limit
        has_more = stop < len(newest_first)
        data = newest_first[start:stop]
        return {
            "data": data,
            "next_page": f"page_{stop}" if has_more else None,
            # The beta shape of the same page.
            "has_more": has_more,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
        }


def read_multipart(content_type: str, body: bytes) -> list[tuple[str, bytes]]:
    """The parts of a form as (head, content). Raises ApiError (400)."""
    match = re.search(r'multipart/form-data;.*boundary="?([^";]+)', content_type, re.IGNORECASE)
    if match is None:
        raise ApiError(400, "Content-Type: must be multipart/form-data with a boundary")
    parts = []
    for part in (b"\r\n" + body).split(b"\r\n--" + match[1].encode())[1:]:
        if part.startswith(b"--"):
            break
        head, separator, content = part.partition(b"\r\n\r\n")
        if not separator:
            raise ApiError(400, "The multipart body could not be read")
        parts.append((head.decode("utf-8", "replace"), content))
    return parts
