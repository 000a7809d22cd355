"""What a command may write over, and what it may remove: decided here for every verb.

A product (a space, a bridge, an index) is replaced only with `overwrite`, only by one of its kind, and only if it is
whole and its folder holds nothing else. It is never an input of the command, nor a folder that holds one or the current
folder, nor part of one. A link is followed and what it leads to is replaced in place. The new one is written aside and
put there in one step; the old one goes last, and only the files that make it up.

A folder of work (checkpoints, an ablation, a demo) is taken over only if it is empty or holds nothing that isthmus did
not write, and only what isthmus wrote is removed from it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from isthmus.core.files import atomic_file, atomic_folder
from isthmus.core.locks import hold
from isthmus.core.places import OURS, followed, home_path, keep_clear, names_inside, some_names
from isthmus.errors import ConfigError, IsthmusError

_EXISTS = "exists already. Give another path, or overwrite it with --overwrite (overwrite=True)."


@dataclass(frozen=True)
class Product:
    """A kind of folder that isthmus writes whole.

    Attributes:
        kind: Its name for a person, such as "space".
        manifest: The file that makes a folder one.
        files: Relative paths (with slashes) of all files that make up the one in a folder.
        fault: The class of the faults.
    """

    kind: str
    manifest: str
    files: Callable[[Path], Collection[str]]
    fault: type[IsthmusError] = ConfigError


def check_place(
    path: str | Path,
    product: Product,
    *,
    overwrite: bool = False,
    inputs: Iterable[str | Path | None] = (),
    option: str = "",
) -> Path:
    """Decide whether a product may be written at a path, before the work is done; returns the path to write to.

    Args:
        path: Where the user wants it. A link is followed.
        product: What is to be written.
        overwrite: Whether the user asked to replace what lies there.
        inputs: Files and folders that the command reads.
        option: What the user calls the path, such as "--out".

    Raises:
        IsthmusError: It may not be written there (the class is `product.fault`); the message says why.
    """
    label = f"{option} {path}" if option else f"{path}:"
    given = home_path(path)
    place = followed(given, label, product.fault)
    keep_clear(place, inputs, label, product.fault)
    if not os.path.lexists(place):
        return place
    if not overwrite:
        raise product.fault(f"{label} {_EXISTS}")
    _check_whole(place, product, label)
    return place


@contextmanager
def replaced_folder(
    path: str | Path,
    product: Product,
    *,
    overwrite: bool = False,
    inputs: Iterable[str | Path | None] = (),
    option: str = "",
) -> Iterator[Path]:
    """Yield an empty folder that becomes the product at a path in one step when the block ends well.

    The arguments and faults are those of `check_place`, which is asked once more before the step.
    """
    inputs = list(inputs)
    place = check_place(path, product, overwrite=overwrite, inputs=inputs, option=option)
    with (
        hold(place, fault=product.fault),
        atomic_folder(
            place,
            overwrite=overwrite,
            before=lambda: check_place(path, product, overwrite=overwrite, inputs=inputs, option=option),
            remove=lambda old: remove_files(old, product.files(old)),
        ) as aside,
    ):
        yield aside


@contextmanager
def replaced_file(
    path: str | Path,
    *,
    overwrite: bool = False,
    ours: Callable[[Path], bool],
    inputs: Iterable[str | Path | None] = (),
    option: str = "",
    fault: type[IsthmusError] = ConfigError,
) -> Iterator[Path]:
    """Yield a path that becomes a file in one step when the block ends well; the file's version of `replaced_folder`.

    Args:
        path: Where the user wants it.
        overwrite: Whether the user asked to replace what lies there.
        ours: Whether a file that lies there is one that isthmus wrote.
        inputs: Files and folders that the command reads.
        option: What the user calls the path.
        fault: The class of the faults.
    """
    product = Product("file", "", lambda _: (), fault)
    label = f"{option} {path}" if option else f"{path}:"
    place = followed(home_path(path), label, product.fault)
    keep_clear(place, inputs, label, product.fault)
    if os.path.lexists(place):
        if not overwrite:
            raise fault(f"{label} {_EXISTS}")
        if not place.is_file() or not ours(place):
            raise fault(f"{label} is no file that isthmus wrote, so it is not overwritten. Give another path.")
    with hold(place, fault=fault), atomic_file(place) as aside:
        yield aside


@contextmanager
def new_folder(
    path: str | Path,
    kind: str,
    *,
    inputs: Iterable[str | Path | None] = (),
    option: str = "",
    fault: type[IsthmusError] = ConfigError,
) -> Iterator[Path]:
    """Yield a folder that becomes one at a path in one step; what lies there may be an empty folder and nothing else.

    Args:
        path: Where the user wants it.
        kind: What it is for a person, such as "folder of an export".
        inputs: Files and folders that the command reads.
        option: What the user calls the path.
        fault: The class of the faults.

    Raises:
        IsthmusError: Something lies there, or it is or holds what the command reads.
    """
    product, inputs = Product(kind, "", lambda _: (), fault), list(inputs)
    label = f"{option} {path}" if option else f"{path}:"

    def check() -> Path:
        place = followed(home_path(path), label, product.fault)
        keep_clear(place, inputs, label, product.fault)
        if os.path.lexists(place) and (not place.is_dir() or any(place.iterdir())):
            raise fault(f"{label} exists already, and a {kind} is not written over. Give another path.")
        return place

    place = check()
    with (
        hold(place, fault=fault),
        atomic_folder(
            place, overwrite=os.path.lexists(place), before=check, remove=lambda old: remove_files(old, ())
        ) as aside,
    ):
        yield aside


def claim_folder(
    path: str | Path,
    written: re.Pattern[str],
    kind: str,
    *,
    inputs: Iterable[str | Path | None] = (),
    option: str = "",
    fault: type[IsthmusError] = ConfigError,
    make: bool = True,
) -> Path:
    """Make a folder of work, or take one up that holds nothing but earlier work; returns it.

    Args:
        path: The folder.
        written: What the relative paths of the work's files match in full.
        kind: Its name for a person, such as "folder of checkpoints".
        inputs: Files and folders that the command reads.
        option: What the user calls the path.
        fault: The class of the faults.
        make: Make the folder if there is none.

    Raises:
        IsthmusError: The folder holds something else, or is a file, an input, or a folder that holds one.
    """
    label = f"{option} {path}" if option else f"{path}:"
    product = Product(kind, "", lambda _: (), fault)
    place = followed(home_path(path), label, product.fault)
    keep_clear(place, inputs, label, product.fault, current=False)
    if os.path.lexists(place) and not place.is_dir():
        raise fault(f"{label} is a file. Expected a {kind}; give another path.")
    # Empty folders are what a killed run leaves; nothing in them can be lost.
    if strange := [name for name in names_inside(place) if not name.endswith("/") and not written.fullmatch(name)]:
        raise fault(f"{label} is no {kind} alone: it holds {some_names(strange)}. Give a folder of its own.")
    if make:
        place.mkdir(parents=True, exist_ok=True)
    return place


def remove_written(folder: Path, written: re.Pattern[str]) -> None:
    """Remove from a folder the files that isthmus wrote there, and the folders that are empty then, itself too."""
    if not folder.is_symlink():
        remove_files(folder, [name for name in names_inside(folder) if written.fullmatch(name)])


def remove_files(folder: Path, names: Collection[str]) -> None:
    """Remove files by their relative paths, leftovers of killed processes, and the folders that are empty then."""
    for name in [*names, *(name for name in names_inside(folder, hidden=True) if OURS.fullmatch(name))]:
        with suppress(OSError):
            (folder / name).unlink()
    for parent, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(parent)


def _check_whole(place: Path, product: Product, label: str) -> None:
    """Refuse to replace what is not a whole product of the kind with nothing else in its folder."""
    if not (place.is_dir() and (place / product.manifest).is_file()):
        raise product.fault(
            f"{label} is no {product.kind}, so it is not overwritten. Give another path, or remove it yourself."
        )
    try:
        files = set(product.files(place))
    except (IsthmusError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise product.fault(
            f"{label} is no whole {product.kind} ({str(error)[:120]}), so it is not overwritten. Give another path, or "
            "remove it yourself."
        ) from error
    inside = names_inside(place)
    if missing := sorted(files - set(inside)):
        raise product.fault(
            f"{label} is no whole {product.kind}: {missing[0]} is missing. Give another path, or remove it yourself."
        )
    folders = {parent.as_posix() for name in files for parent in Path(name).parents}
    if strange := [name for name in inside if name not in files and name.rstrip("/") not in folders]:
        raise product.fault(
            f"{label} holds what isthmus did not write there, so it is not overwritten: {some_names(strange)}. "
            "Move that away, or give another path."
        )
