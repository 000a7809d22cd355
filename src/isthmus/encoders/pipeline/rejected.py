"""`rejected.parquet`: which items are not in the space, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from isthmus.core.files import atomic_file
from isthmus.core.table_files import read_records
from isthmus.encoders.pipeline.journal import Rejection

NAME = "rejected.parquet"


def read_rejected(path: Path) -> list[Rejection]:
    """The rejections in a file; none where there is no file.

    Raises:
        FormatError: The file is damaged.
    """
    if not path.is_file():
        return []
    return [Rejection(**row) for row in read_records(path, Rejection._fields)]


def write_rejected(path: Path, rejected: Sequence[Rejection]) -> None:
    """Write rejections in one step; no rejections, no file."""
    if not rejected:
        path.unlink(missing_ok=True)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {key: [utf8(getattr(one, key)) for one in rejected] for key in Rejection._fields}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as aside:
        pq.write_table(pa.table({key: pa.array(values, pa.string()) for key, values in columns.items()}), aside)


def utf8(text: str) -> str:
    """Names of files need not be valid Unicode; a table's texts must."""
    return text.encode("utf-8", "backslashreplace").decode()


def reasons(rejected: Iterable[Rejection], most: int = 3) -> str:
    """The most frequent reasons in words: `7 x silent, 2 x zero length`."""
    counts = Counter(one.reason for one in rejected)
    named = [f"{count:,} x {reason}" for reason, count in counts.most_common(most)]
    rest = sum(counts.values()) - sum(count for _, count in counts.most_common(most))
    return ", ".join(named) + (f", and {rest:,} others" if rest else "")
