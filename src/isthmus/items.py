"""What is to be encoded: items, each an id with a file, a stretch of a tar, or a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Rejected(Exception):
    """One item that cannot be embedded; it goes to `rejected.parquet` with its reason and the run goes on.

    Args:
        reason: What is wrong with the item, in a few words without its name or path.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Item:
    """One thing to encode. It is small and picklable: the bytes stay on disk until a worker decodes them.

    Attributes:
        id: Unique name within its modality.
        path: File that holds it; for a member of a tar the tar; None for a text.
        text: The text itself; None for everything else.
        member: (name, offset, size in bytes) within the tar at `path`; None for a plain file.
        columns: Further metadata columns of the item, as its captions table gave them.
    """

    id: str
    path: str | None = None
    text: str | None = None
    member: tuple[str, int, int] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Where the item came from, for the metadata and for messages: a path, `tar!member`, or the text."""
        if self.path is None:
            return self.text or ""
        return self.path if self.member is None else f"{self.path}!{self.member[0]}"

    @property
    def suffix(self) -> str:
        """Suffix of the file or tar member in lower case, such as `.png`; empty for a text."""
        name = self.member[0] if self.member is not None else self.path or ""
        return Path(name).suffix.lower()

    def content(self) -> bytes | str:
        """What a decoder reads: the path of a plain file, the bytes of a tar member.

        Raises:
            Rejected: As `read_bytes`.
        """
        return self.path if self.path is not None and self.member is None else self.read_bytes()

    def read_bytes(self) -> bytes:
        """The item's bytes.

        Raises:
            Rejected: The file is missing, unreadable, or shorter than the tar's index said.
        """
        if self.path is None:
            return (self.text or "").encode()
        try:
            with open(self.path, "rb") as stream:
                if self.member is None:
                    return stream.read()
                _, offset, size = self.member
                stream.seek(offset)
                data = stream.read(size)
        except OSError as error:
            raise Rejected(f"cannot be read: {error.strerror or error}") from error
        if len(data) != size:
            raise Rejected(f"the tar ends {size - len(data)} bytes too early")
        return data
