"""Export of a bridge into the forms that other tools read; one folder or file, written aside and renamed whole."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.bridges.opening import as_bridge
from isthmus.core.replace import new_folder, replaced_file
from isthmus.core.result import Result
from isthmus.errors import ConfigError
from isthmus.spaces.references import open_reference

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge

FORMATS = ("sentence-transformers", "onnx", "safetensors", "parquet")


@dataclass(frozen=True)
class ExportReport(Result):
    """What `export_bridge` wrote.

    Attributes:
        path: The folder or file.
        format: Its format.
        files: Names of its files, or its routes for sentence-transformers.
        rows: Rows of a parquet, else None.
        seconds: Time that it took.
    """

    path: str
    format: str
    files: list[str]
    rows: int | None
    seconds: float


def export_bridge(
    bridge: Bridge | str | Path,
    out: str | Path,
    *,
    format: str,
    galleries: Sequence[str] = (),
    space: str | None = None,
    encoders: Mapping[str, str] | None = None,
) -> ExportReport:
    """Write a bridge in a form that another tool reads.

    Args:
        bridge: The bridge, or its folder.
        out: A new folder (a file for parquet).
        format: "sentence-transformers": one model of stock modules; "onnx": a model a route; "safetensors": the folded
            weights a route; "parquet": projected rows with a projection to two dimensions.
        galleries: Parquet: `S.space/M`, what is written.
        space: sentence-transformers: the space whose encoder reads a modality that several have.
        encoders: sentence-transformers: by space, the encoder where the bridge may not name it, such as a folder of
            this machine.

    Raises:
        ConfigError: An unknown format, something lies at `out`, or options do not fit.
        BridgeError: A route cannot be told in the format; the message says which step.
        DependencyError: A package is not installed.
    """
    begin, target, opened = time.monotonic(), Path(out), as_bridge(bridge)
    if format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}. Expected one of {', '.join(FORMATS)}.")
    if bool(galleries) != (format == "parquet"):
        raise ConfigError("--gallery S.space/M is of --format parquet, which needs it. Give both or none.")
    read = [bridge if isinstance(bridge, str | Path) else None, *(one.rpartition("/")[0] for one in galleries)]
    rows = None
    if format == "parquet":
        from isthmus.export.tables import write_parquet

        with replaced_file(target, ours=lambda _: False, inputs=read, option="--out") as aside:
            rows = write_parquet(opened, [open_reference(one, option="--gallery") for one in galleries], aside)
        names = [target.name]
    else:
        with new_folder(target, "folder of an export", inputs=read, option="--out") as folder:
            names = _write(opened, folder, format, space, encoders)
    return ExportReport(str(target), format, names, rows, round(time.monotonic() - begin, 3))


def _write(
    bridge: Bridge, folder: Path, format: str, space: str | None, encoders: Mapping[str, str] | None
) -> list[str]:
    if format == "onnx":
        from isthmus.export.onnx import write_onnx

        return [path.name for path in write_onnx(bridge, folder)]
    if format == "safetensors":
        from isthmus.export.arrays import write_safetensors

        return [path.name for path in write_safetensors(bridge, folder)]
    from isthmus.export.sentence_transformers import write_sentence_transformers

    return write_sentence_transformers(bridge, folder, space=space, encoders=encoders)
