"""Filters on metadata: `year > 2010 and label in ("dog", "cat")`, parsed by a small grammar and never run as code.

    filter     = conjunct { "or" conjunct }
    conjunct   = negation { "and" negation }
    negation   = "not" negation | "(" filter ")" | condition
    condition  = column ( "==" | "=" | "!=" | "<>" | "<" | "<=" | ">" | ">=" ) literal
               | literal ( the same ) column
               | column [ "not" ] "in" "(" literal { "," literal } ")"
               | column "is" [ "not" ] "null"
    column     = a word, or any text between backquotes
    literal    = number | text in single or double quotes | true | false

A missing value follows SQL: a condition on it is neither true nor false, nor is its negation; only `is null` tells.
That makes one filter give one result in memory and in every store.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from isthmus.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

Value: TypeAlias = "str | int | float | bool"

MAX_LENGTH = 20_000
MAX_DEPTH = 40
COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")
_SAME = {"=": "==", "<>": "!="}
_MIRROR = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!="}
_NEGATION = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_WORDS = ("and", "or", "not", "in", "is", "null", "true", "false")


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

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | `(?P<quoted>[^`]+)`
      | (?P<word>[^\W\d]\w*(?:\.\w+)*)
      | (?P<symbol><=|>=|==|!=|<>|[<>=(),])
    )""",
    re.VERBOSE | re.DOTALL,
)


def parse_filter(text: str) -> Filter:
    """Read a filter.

    Args:
        text: Such as `year > 2010 and label in ("dog", "cat")`; see the module for the grammar.

    Raises:
        ConfigError: It is no filter; the message holds the place and what was expected there.
    """
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"the filter has {len(text):,} characters, expected at most {MAX_LENGTH:,}.")
    return _Parser(text).parse()


@dataclass(frozen=True)
class _Token:
    kind: str
    value: Any
    start: int


class _Parser:
    """Recursive descent over the tokens of one filter."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._tokens())
        self.place = 0

    def _tokens(self) -> Iterator[_Token]:
        end, place = len(self.text.rstrip()), 0
        while place < end:
            match = _TOKEN.match(self.text, place)
            if match is None:
                start = place + len(self.text[place:]) - len(self.text[place:].lstrip())
                raise self._fault(start, "a column, a value or an operator")
            kind = str(match.lastgroup)
            yield _Token(*_token(kind, match[kind]), start=match.start(kind))
            place = match.end()
        yield _Token("end", "", end)

    @property
    def token(self) -> _Token:
        return self.tokens[self.place]

    def _fault(self, start: int, expected: str) -> ConfigError:
        rest = self.text[start : start + 30].strip()
        got = f"{rest!r}" if rest else "the end"
        return ConfigError(
            f"the filter cannot be read at character {start + 1}: got {got}, expected {expected}. A filter is such as "
            'year > 2010 and label in ("dog", "cat").'
        )

    def _take(self, kind: str, *values: Any) -> _Token | None:
        if self.token.kind == kind and (not values or self.token.value in values):
            self.place += 1
            return self.tokens[self.place - 1]
        return None

    def _need(self, kind: str, expected: str, *values: Any) -> _Token:
        taken = self._take(kind, *values)
        if taken is None:
            raise self._fault(self.token.start, expected)
        return taken

    def parse(self) -> Filter:
        tree = self._either(False, 0)
        self._need("end", "and, or, or the end")
        return tree

    def _either(self, negated: bool, depth: int) -> Filter:
        return self._joined("or", self._all, negated, depth)

    def _all(self, negated: bool, depth: int) -> Filter:
        return self._joined("and", self._one, negated, depth)

    def _joined(self, word: str, part: Callable[[bool, int], Filter], negated: bool, depth: int) -> Filter:
        parts = [part(negated, depth)]
        while self._take("keyword", word):
            parts.append(part(negated, depth))
        if len(parts) == 1:
            return parts[0]
        # De Morgan: a negated "or" is an "and" of negations
        operator = {"and": "or", "or": "and"}[word] if negated else word
        return Combination(operator, tuple(parts))

    def _one(self, negated: bool, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise ConfigError(f"the filter is nested more than {MAX_DEPTH} deep. Write it flatter, with in (...).")
        if self._take("keyword", "not"):
            return self._one(not negated, depth + 1)
        if self._take("symbol", "("):
            inner = self._either(negated, depth + 1)
            self._need("symbol", "a closing parenthesis", ")")
            return inner
        return self._condition(negated)

    def _condition(self, negated: bool) -> Filter:
        if self.token.kind == "literal":
            value = self._literal()
            operator = _MIRROR[self._comparison()]
            return _compare(self._column(), operator, value, negated)
        column = self._column()
        if self._take("keyword", "is"):
            inverse = self._take("keyword", "not") is not None
            self._need("keyword", "null", "null")
            return Missing(column, inverse != negated)
        inverse = self._take("keyword", "not") is not None
        if inverse or self.token.value == "in":
            self._need("keyword", "in", "in")
            return Membership(column, self._values(), inverse != negated)
        return _compare(column, self._comparison(), self._literal(), negated)

    def _comparison(self) -> str:
        operator = str(self._need("symbol", "a comparison, in or is", *COMPARISONS, *_SAME).value)
        return _SAME.get(operator, operator)

    def _column(self) -> str:
        return str(self._need("column", "a column").value)

    def _literal(self) -> Value:
        value: Value = self._need("literal", "a number, a text in quotes, true or false").value
        return value

    def _values(self) -> tuple[Value, ...]:
        self._need("symbol", "an opening parenthesis", "(")
        values = [self._literal()]
        while self._take("symbol", ",") and not (self.token.kind == "symbol" and self.token.value == ")"):
            values.append(self._literal())
        self._need("symbol", "a comma or a closing parenthesis", ")")
        return tuple(values)


def _token(kind: str, text: str) -> tuple[str, Any]:
    """Kind and value of a token."""
    if kind == "number":
        value = int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
        if not (math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63):
            raise ConfigError(f"the filter holds the number {text[:40]}, expected one of 64 bits.")
        return "literal", value
    if kind == "string":
        return "literal", re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    if kind == "quoted":
        return "column", text
    if kind == "word":
        lower = text.lower()
        if lower in ("true", "false"):
            return "literal", lower == "true"
        return ("keyword", lower) if lower in _WORDS else ("column", text)
    return kind, text


def _compare(column: str, operator: str, value: Value, negated: bool) -> Comparison:
    return Comparison(column, _NEGATION[operator] if negated else operator, value)


def columns(tree: Filter) -> list[str]:
    """The columns that a filter looks at, each once, in the order of first use."""
    if isinstance(tree, Combination):
        return list(dict.fromkeys(name for part in tree.parts for name in columns(part)))
    return [tree.column]


# types: checked once against what the columns hold, so that no store compares a text with a number in its own way

NUMBER, TEXT, TRUTH, NOTHING = "number", "text", "truth value", "nothing"


def kind_of(value: Value) -> str:
    """What a literal is: a number, a text or a truth value."""
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
    """What a column of an Arrow type holds, for `check_filter`."""
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
    import pyarrow as pa

    return pa.scalar(value)


def _arrow(name: str) -> Callable[[Any, Any], Any]:
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


def read_filter(given: str | Filter | None) -> Filter | None:
    """A filter as text or parsed, or None where there is none."""
    return parse_filter(given) if isinstance(given, str) else given


def values_of(tree: Filter) -> Sequence[Value]:
    """Every value that a filter holds, in order."""
    if isinstance(tree, Combination):
        return [value for part in tree.parts for value in values_of(part)]
    if isinstance(tree, Missing):
        return []
    return tree.values if isinstance(tree, Membership) else (tree.value,)
