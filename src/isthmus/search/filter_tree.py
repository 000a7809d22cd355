"""A parsed filter on metadata: conditions on columns, joined by and / or (parsed by `isthmus.search.filter_parser`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = "str | int | float | bool"

COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")


@dataclass(frozen=True)
class Comparison:
    """A column against one value; `operator` is one of `COMPARISONS`."""

    column: str
    operator: str
    value: Value


@dataclass(frozen=True)
class Membership:
    """A column among values, or among none of them."""

    column: str
    values: tuple[Value, ...]
    negated: bool = False


@dataclass(frozen=True)
class Missing:
    """A column without a value, or with one."""

    column: str
    negated: bool = False


@dataclass(frozen=True)
class Combination:
    """Several conditions, of which all (`and`) or one (`or`) must hold."""

    operator: str
    parts: tuple[Filter, ...]


Filter: TypeAlias = "Comparison | Membership | Missing | Combination"
"""A parsed filter. Negations are pushed down to the conditions while it is parsed, so that there is no node of them."""


def columns(tree: Filter) -> list[str]:
    """The columns that a filter looks at, each once, in the order of first use."""
    if isinstance(tree, Combination):
        return list(dict.fromkeys(name for part in tree.parts for name in columns(part)))
    return [tree.column]


def values_of(tree: Filter) -> Sequence[Value]:
    """Every value that a filter holds, in order."""
    if isinstance(tree, Combination):
        return [value for part in tree.parts for value in values_of(part)]
    if isinstance(tree, Missing):
        return []
    return tree.values if isinstance(tree, Membership) else (tree.value,)
