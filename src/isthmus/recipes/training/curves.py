"""Training curves while a run trains: callbacks that write each epoch's row as a JSON line, or for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core.replace import replaced_file
from isthmus.errors import DependencyError

Callback = Callable[[Mapping[str, Any]], None]
"""Takes a row of the history: `epoch`, `step`, `loss`, its parts, `learning_rate`, `held_out`, of several `member`."""


class CurveFile:
    """A callback that keeps a file of JSON lines, one an epoch, as `history.jsonl` of the finished bridge.

    The file is whole after every epoch. A run that resumes goes on below the rows that it had; a new one begins anew.

    Args:
        path: The file.
        inputs: Files and folders that the run reads, which are never written over.
    """

    def __init__(self, path: str | Path, *, inputs: Sequence[str | Path | None] = ()) -> None:
        self.path, self._inputs = Path(path), list(inputs)
        with self._replaced() as aside:  # what cannot be written is a fault before the run, not after its first epoch
            aside.write_text("".join(map(_line, self._rows)), encoding="utf-8")

    def _replaced(self) -> Any:
        self._rows = list(read_curves(self.path)) if self.path.is_file() and is_curves(self.path) else []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return replaced_file(self.path, overwrite=True, ours=is_curves, inputs=self._inputs, option="--curves")

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Write a row, after those that came before it in the run."""
        with self._replaced() as aside:
            rows = [each for each in self._rows if _place(each) < _place(row)]
            aside.write_text("".join(map(_line, [*rows, row])), encoding="utf-8")


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(dict(row)) + "\n"


def _place(row: Mapping[str, Any]) -> tuple[int, int]:
    """Where a row stands in a run: members are trained one after the other."""
    return int(row.get("member", 0)), int(row["epoch"])


def read_curves(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a file of JSON lines.

    Raises:
        ValueError: A line is none.
    """
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def is_curves(path: Path) -> bool:
    """Whether a file holds training curves alone; an empty one does."""
    try:
        return all(isinstance(row, dict) and {"epoch", "loss"} <= set(row) for row in read_curves(path))
    except ValueError:
        return False


class TensorBoard:
    """A callback that writes each epoch's figures where TensorBoard reads them, every member in a folder of its own.

    Args:
        folder: The log folder; runs beside each other in one folder are compared.

    Raises:
        DependencyError: The package tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise DependencyError(
                "--tensorboard needs the package tensorboard, not installed here. Run: pip install tensorboard"
            ) from error
        self.folder, self._open = Path(folder), SummaryWriter
        self._writers: dict[str, Any] = {}

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Write the figures of a row."""
        name = f"member-{row['member']}" if "member" in row else ""
        step = int(row["step"])
        if name not in self._writers:
            # What an interrupted run wrote beyond its checkpoint is not shown twice.
            self._writers[name] = self._open(str(self.folder / name), purge_step=step)
        for figure, value in _figures(row):
            self._writers[name].add_scalar(figure, value, step)
        self._writers[name].flush()


def _figures(row: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of a row by name, those of a part of it below the part's name."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _figures(value, f"{before}{name}/")
        elif isinstance(value, (int, float)) and name not in ("member", "epoch", "step"):
            yield before + name.replace(" ", "_"), float(value)


def both(callbacks: Sequence[Callback]) -> Callback | None:
    """One callback that calls several; None of none."""
    if not callbacks:
        return None

    def call(row: Mapping[str, Any]) -> None:
        for each in callbacks:
            each(row)

    return call


def of_member(callback: Callback | None, member: int) -> Callback | None:
    """A callback whose rows say which of several members they are of, as the history of the bridge does."""
    return None if callback is None else lambda row: callback({"member": member, **row})
