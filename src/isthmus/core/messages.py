"""One wording of what many faults say: the nearest name, what is known, and errors of other libraries in a line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

RENAME = "Rename one: isthmus rename S.space --name NAME (import and encode take --name for a new space)."
"""What to do about two spaces of one name."""
_LISTED = 200
"""Characters of a list of names in a message, so that the message stays below 400."""


def one_line(error: BaseException | str, limit: int = 160) -> str:
    """The first line of an error of another library, without its stop, or its class: to stand inside a message."""
    lines = str(error).strip().splitlines()
    text = lines[0].strip().rstrip(".") if lines else type(error).__name__
    return shorten(text, limit)


def shorten(text: str, limit: int) -> str:
    """A text, its end cut off where it is longer than `limit` characters."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def listing(names: Iterable[str]) -> str:
    """Names in a row, the last ones counted where there are too many for a message."""
    every = [str(name) for name in names]
    shown = list(every)
    while len(", ".join(shown)) > _LISTED and len(shown) > 1:
        shown.pop()
    rest = len(every) - len(shown)
    return (", ".join(shown) or "none") + (f" and {rest} more" if rest else "")


def did_you_mean(got: str, known: Iterable[str], prefix: str = "") -> str:
    """` Did you mean NAME?` with the nearest name that is known, or nothing where none is near."""
    near = difflib.get_close_matches(got, [str(name) for name in known], n=1)
    return f" Did you mean {prefix}{near[0]}?" if near else ""


def unknown_name(what: str, got: str, known: Sequence[str]) -> str:
    """The message about a name that is none of those known: `what` ends before the name."""
    return f"{what} {shorten(repr(got), 80)}.{did_you_mean(got, known)} Expected one of {listing(known)}."


def unknown_key(where: str, key: str, known: Iterable[str], prefix: str = "") -> str:
    """The message about a key that is none of those known.

    Args:
        where: What has the key, such as `--config c.toml`.
        key: The key, without the tables it stands in.
        known: Keys of the same table.
        prefix: The tables it stands in, each with its dot.
    """
    names = list(known)
    hint, valid = did_you_mean(key, names, prefix), listing(prefix + name for name in names)
    return f"{where} has the unknown key {shorten(repr(prefix + key), 80)}.{hint} Valid keys: {valid}."


def validation_fault(
    error: ValidationError, model: type[BaseModel], where: str, values: Mapping[str, Any] | None = None
) -> str:
    """Message of pydantic's first fault, in one line.

    Args:
        error: Its error.
        model: The model whose values were refused; tables in it are found by their fields.
        where: What holds the values, such as `--config c.toml` or `config`.
        values: What was refused, where a value may be of several types: each of them has an error then, and the one
            that got furthest into the value says most.
    """
    faults = error.errors()
    places = [fault["loc"] if values is None else _place(values, fault["loc"]) for fault in faults]
    # A misspelt key is also a missing one: the first says more.
    at = max(range(len(faults)), key=lambda n: (faults[n]["type"] == "extra_forbidden", len(places[n]), -n))
    if values is None:
        at = next((n for n, fault in enumerate(faults) if fault["type"] == "extra_forbidden"), 0)
    first, place = faults[at], ".".join(str(part) for part in places[at])
    *outer, key = [*places[at]] or [""]
    if first["type"] in ("extra_forbidden", "missing"):
        known = [name for name in _model_of(model, outer).model_fields if name != "path"]
        if first["type"] == "missing":
            return f"{where} lacks the key {place!r}. Keys there: {listing(known)}."
        hint, name = did_you_mean(str(key), known), shorten(repr(place), 80)
        return f"{where} has the unknown key {name}.{hint} Valid keys: {listing(known)}."
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if not place:  # of several values together: the message names them
        return f"{message}." if where == "config" else f"{where}: {message}."
    return f"{where} key {place!r} got {shorten(repr(first.get('input')), 80)}: {message}."


def _place(values: Any, path: Iterable[int | str]) -> list[int | str]:
    """The keys of a fault that stand in the values, without pydantic's names for the types it tried."""
    keys: list[int | str] = []
    at = values
    for part in path:
        inside = isinstance(at, Mapping) and part in at
        inside = inside or (isinstance(at, list | tuple) and isinstance(part, int) and part < len(at))
        if inside or not keys:
            keys.append(part)
            at = at[part] if inside else None
    return keys


def _model_of(model: type[BaseModel], place: Iterable[Any]) -> type[BaseModel]:
    """The model of the table at a place: `rows.0` is that of the items of the field `rows`."""
    for part in place:
        field = model.model_fields.get(str(part))
        nested = _nested(field.annotation) if field else None
        model = nested or model
    return model


def _nested(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model that a field's type holds, or None."""
    if hasattr(annotation, "model_fields"):
        model: type[BaseModel] = annotation
        return model
    return next((nested for part in get_args(annotation) if (nested := _nested(part))), None)


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names on one line that stays short: the first few, then a count."""
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(name if len(name) <= 40 else name[:37] + "..." for name in names[:most]) + rest
