"""Options of a verb as one frozen object, of which a call may change some by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from isthmus.core.messages import did_you_mean, listing, shorten
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")


def changed(options: Options, changes: Mapping[str, Any], verb: str) -> Options:
    """Give options with some of them changed.

    Args:
        options: A frozen dataclass that checks its values.
        changes: By name, the values that differ.
        verb: Whose options they are, for the message.

    Raises:
        ConfigError: A name is no option of the verb, or a value is out of range.
    """
    known = [field.name for field in fields(options) if field.init]
    if unknown := next((name for name in changes if name not in known), None):
        name = shorten(repr(unknown), 80)
        raise ConfigError(
            f"unknown setting {name} of {verb}.{did_you_mean(unknown, known)} Expected one of {listing(known)}."
        )
    return replace(options, **changes)
