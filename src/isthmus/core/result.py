"""What a verb found, as an object: typed attributes for a program, the same as JSON for everything else."""

from __future__ import annotations

from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


SPREAD: Final = {"spread": True}
"""Metadata of a field of a result whose mapping stands in the JSON key by key."""
OPTIONAL: Final = {"optional": True}
"""Metadata of a field of a result that is not in the JSON where it is None."""


class Result(dict[str, Any]):
    """Base of frozen dataclasses that say what a verb found.

    A result is the dict that `--json` prints as well: `result["seconds"]` and `result.seconds` are the same.
    Fields with the metadata `SPREAD` give their own keys, those with `OPTIONAL` are left out where they are None.
    """

    def __post_init__(self) -> None:
        self.update(self.to_dict())

    def _repr_html_(self) -> str:
        """In a notebook: the tables that the command prints."""
        return f"<pre>{escape(str(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """The result as plain dicts, lists, numbers and texts: what the command prints with `--json`."""
        out: dict[str, Any] = {}
        for each in fields(cast("DataclassInstance", self)):
            value = getattr(self, each.name)
            plain_value = value.to_dict() if isinstance(value, Result) else value
            if each.metadata.get("spread"):
                out |= plain_value
            elif plain_value is not None or not each.metadata.get("optional"):
                out[each.name] = plain_value
        return out
