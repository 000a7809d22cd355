"""One item to encode: an id with a file, a stretch of a tar, or a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from isthmus.core.limits import special_file

_NO_COLUMNS: Mapping[str, Any] = MappingProxyType({})


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
        path: File that holds it: for a text the table or list it stands in, for a member of a tar the tar.
        text: The text itself; None for everything else.
        member: (name, offset, size in bytes) within the tar at `path`; None for a plain file.
        columns: Further metadata columns of the item, as its table gave them. Not sent to workers.
        box: The part of a picture that is meant: xmin, ymin, xmax, ymax as fractions of its upright width and height.
            `isthmus.items.decoding.image` cuts it out; the item's bytes stay those of the whole picture.
        data: The bytes themselves, of an item that is in no file.
        kind: The suffix that a file of `data` would have, such as ".png".
    """

    id: str
    path: str | None = None
    text: str | None = None
    member: tuple[str, int, int] | None = None
    columns: Mapping[str, Any] = field(default_factory=lambda: _NO_COLUMNS, compare=False)
    box: tuple[float, float, float, float] | None = None
    data: bytes | None = None
    kind: str = ""

    def __reduce__(self) -> tuple[type[Item], tuple[Any, ...]]:
        return Item, (self.id, self.path, self.text, self.member, {}, self.box, self.data, self.kind)

    @property
    def source(self) -> str:
        """Source of the item as the metadata says it: the text itself, or its place."""
        return self.text if self.text is not None else self.place

    @property
    def place(self) -> str:
        """Where the item stands: a path, or `tar!member`; empty for a text that is in no file.

        Of a part of a picture the box follows, as in `photo.jpg#box=0.25,0,0.5,1`.
        """
        path = self.path or ""
        place = path if self.member is None else f"{path}!{self.member[0]}"
        return place if self.box is None else f"{place}#box={','.join(f'{value:.6g}' for value in self.box)}"

    @property
    def suffix(self) -> str:
        """Suffix of the file or tar member in lower case, such as `.png`; empty for a text."""
        if self.text is not None:
            return ""
        if self.data is not None:
            return self.kind
        return Path(self.member[0] if self.member is not None else self.path or "").suffix.lower()

    def content(self) -> bytes | str:
        """Content that a decoder reads: the path of a plain file, the bytes of everything else.

        Raises:
            Rejected: As `read_bytes`.
        """
        plain = self.path is not None and self.text is None and self.member is None and self.data is None
        if plain and self.path:
            self._check_regular()
            return self.path
        return self.read_bytes()

    def _check_regular(self) -> None:
        """Refuse a pipe or device before it is opened: reading one may never end."""
        if what := special_file(self.path or ""):
            raise Rejected(f"is {what}, no file")

    def read_bytes(self) -> bytes:
        """The item's bytes.

        Raises:
            Rejected: The file is missing, unreadable, or shorter than the tar's index said.
        """
        if self.data is not None:
            return self.data
        if self.text is not None or self.path is None:
            return (self.text or "").encode("utf-8", "surrogateescape")
        self._check_regular()
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
