"""Filters on metadata, applied: checked against the columns, as a mask over a table, on one row, as SQL.

How a filter is written is in `isthmus.search.filter_parser`, what it becomes in `isthmus.search.filter_tree`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from isthmus.errors import ConfigError
from isthmus.search.filter_tree import Combination, Comparison, Filter, Membership, Missing, Value

if TYPE_CHECKING:
    import pyarrow as pa


# types: checked once against what the columns hold, so that no store compares a text with a number in its own way

NUMBER, TEXT, TRUTH, NOTHING = "number", "text", "truth value", "nothing"


def kind_of(value: Value) -> str:
    """Kind of a filter's literal: a number, a text or a truth value."""
    if isinstance(value, bool):
        return TRUTH
    return NUMBER if isinstance(value, (int, float)) else TEXT


def check_filter(tree: Filter, known: Mapping[str, str]) -> None:
    """Refuse a filter on columns that are not there, or that hold another kind of value.

    Args:
        tree: The filter.
        known: By column what it holds, one of `NUMBER`, `TEXT`, `TRUTH`, `NOTHING` (nulls alone); "" where its
            values cannot be filtered.

    Raises:
        ConfigError: A column is unknown, or is compared with another kind of value.
    """
    if isinstance(tree, Combination):
        for part in tree.parts:
            check_filter(part, known)
        return
    if tree.column not in known:
        close = difflib.get_close_matches(tree.column, list(known), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        there = ", ".join(sorted(known)[:12]) or "none"
        raise ConfigError(f"the filter names the column {tree.column!r}, the columns are: {there}.{hint}")
    if isinstance(tree, Missing):
        return
    holds = known[tree.column]
    if holds == NOTHING:
        return
    for value in tree.values if isinstance(tree, Membership) else (tree.value,):
        if kind_of(value) != holds:
            raise ConfigError(
                f"the filter compares the column {tree.column!r} with the {kind_of(value)} {value!r}, it holds "
                f"{holds + 's' if holds else 'values that have no order'}. Give a {holds or 'column of plain values'}."
            )
    if isinstance(tree, Comparison) and holds == TRUTH and tree.operator not in ("==", "!="):
        raise ConfigError(f"the filter orders the column {tree.column!r} of truth values. Compare it by == or !=.")


def arrow_kind(kind: pa.DataType) -> str:
    """Kind of values that a column of an Arrow type holds, for `check_filter`."""
    import pyarrow as pa

    types = pa.types
    if types.is_null(kind):
        return NOTHING
    if types.is_dictionary(kind):
        return arrow_kind(kind.value_type)
    if types.is_boolean(kind):
        return TRUTH
    if types.is_integer(kind) or types.is_floating(kind):
        return NUMBER
    return TEXT if types.is_string(kind) or types.is_large_string(kind) else ""


def mask(tree: Filter, table: pa.Table) -> Any:
    """Which rows of a table a filter lets through, as a numpy array of bool.

    Raises:
        ConfigError: As `check_filter`.
    """
    import numpy as np

    check_filter(tree, {field.name: arrow_kind(field.type) for field in table.schema})
    passed = _evaluate(tree, table).fill_null(False)
    return np.asarray(passed.to_numpy() if hasattr(passed, "chunks") else passed.to_numpy(zero_copy_only=False))


def _evaluate(tree: Filter, table: pa.Table) -> Any:
    """Truth of a filter for every row of an Arrow table; null where a missing value decides."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(tree, Combination):
        join = pc.and_kleene if tree.operator == "and" else pc.or_kleene
        out = _evaluate(tree.parts[0], table)
        for part in tree.parts[1:]:
            out = join(out, _evaluate(part, table))
        return out
    column = table.column(tree.column)
    if isinstance(tree, Missing):
        return pc.is_valid(column) if tree.negated else pc.is_null(column)
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), pa.bool_())
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if isinstance(tree, Comparison):
        return _ARROW[tree.operator](column, _scalar(tree.value))
    equal = [pc.equal(column, _scalar(value)) for value in tree.values]
    out = equal[0]
    for one in equal[1:]:
        out = pc.or_kleene(out, one)
    return pc.invert(out) if tree.negated else out


def _scalar(value: Value) -> Any:
    """Value of a filter as Arrow has it."""
    import pyarrow as pa

    return pa.scalar(value)


def _arrow(name: str) -> Callable[[Any, Any], Any]:
    """Comparison of a column with a value by a function of Arrow's."""

    def compare(column: Any, value: Any) -> Any:
        import pyarrow.compute as pc

        return getattr(pc, name)(column, value)

    return compare


_ARROW: dict[str, Callable[[Any, Any], Any]] = {
    "==": _arrow("equal"),
    "!=": _arrow("not_equal"),
    "<": _arrow("less"),
    "<=": _arrow("less_equal"),
    ">": _arrow("greater"),
    ">=": _arrow("greater_equal"),
}


# SQL: values go beside the text as parameters, names are quoted


def to_sql(tree: Filter, placeholder: Callable[[Value], str], quote: Callable[[str], str]) -> str:
    """Write a filter as the condition of a WHERE.

    Args:
        tree: The filter.
        placeholder: Takes a value and returns what stands for it in the text, such as `%s`; it keeps the value.
        quote: Quotes the name of a column.
    """
    if isinstance(tree, Combination):
        return "(" + f" {tree.operator.upper()} ".join(to_sql(part, placeholder, quote) for part in tree.parts) + ")"
    name = quote(tree.column)
    if isinstance(tree, Missing):
        return f"({name} IS {'NOT ' if tree.negated else ''}NULL)"
    if isinstance(tree, Membership):
        values = ", ".join(placeholder(value) for value in tree.values)
        return f"({name} {'NOT ' if tree.negated else ''}IN ({values}))"
    operator = {"==": "=", "!=": "<>"}.get(tree.operator, tree.operator)
    return f"({name} {operator} {placeholder(tree.value)})"


def quote_name(name: str) -> str:
    """A name in double quotes, as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def matches(tree: Filter, row: Mapping[str, Any]) -> bool:
    """Whether one row, a mapping of columns to values, passes a filter; a missing key is a missing value."""
    return _truth(tree, row) is True


def _truth(tree: Filter, row: Mapping[str, Any]) -> bool | None:
    """True, False, or None where a missing value decides."""
    if isinstance(tree, Combination):
        truths = [_truth(part, row) for part in tree.parts]
        decisive = tree.operator == "or"
        if decisive in truths:
            return decisive
        return None if None in truths else not decisive
    value = row.get(tree.column)
    if isinstance(tree, Missing):
        return (value is None) != tree.negated
    if value is None:
        return None
    if isinstance(tree, Membership):
        return (value in tree.values) != tree.negated
    return _PYTHON[tree.operator](value, tree.value)


_PYTHON: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}
