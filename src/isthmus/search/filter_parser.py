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

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from isthmus.errors import ConfigError
from isthmus.search.filter_tree import COMPARISONS, Combination, Comparison, Filter, Membership, Missing, Value

MAX_LENGTH = 20_000
MAX_DEPTH = 40
_SAME = {"=": "==", "<>": "!="}
_MIRROR = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!="}
_NEGATION = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_WORDS = ("and", "or", "not", "in", "is", "null", "true", "false")

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


def read_filter(given: str | Filter | None) -> Filter | None:
    """A filter as text or parsed, or None where there is none."""
    return parse_filter(given) if isinstance(given, str) else given


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
        """Tokens of the filter's text, and one that marks its end."""
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
        """The token that comes next."""
        return self.tokens[self.place]

    def _fault(self, start: int, expected: str) -> ConfigError:
        """Fault at a character of the filter's text."""
        rest = self.text[start : start + 30].strip()
        got = f"{rest!r}" if rest else "the end"
        return ConfigError(
            f"the filter cannot be read at character {start + 1}: got {got}, expected {expected}. A filter is such as "
            'year > 2010 and label in ("dog", "cat").'
        )

    def _take(self, kind: str, *values: Any) -> _Token | None:
        """The next token if it is such a one, passing it; else None."""
        if self.token.kind == kind and (not values or self.token.value in values):
            self.place += 1
            return self.tokens[self.place - 1]
        return None

    def _need(self, kind: str, expected: str, *values: Any) -> _Token:
        """The next token, which must be such a one."""
        taken = self._take(kind, *values)
        if taken is None:
            raise self._fault(self.token.start, expected)
        return taken

    def parse(self) -> Filter:
        """Parse the whole text."""
        tree = self._either(False, 0)
        self._need("end", "and, or, or the end")
        return tree

    def _either(self, negated: bool, depth: int) -> Filter:
        """Conjuncts joined by `or`."""
        return self._joined("or", self._all, negated, depth)

    def _all(self, negated: bool, depth: int) -> Filter:
        """Negations joined by `and`."""
        return self._joined("and", self._one, negated, depth)

    def _joined(self, word: str, part: Callable[[bool, int], Filter], negated: bool, depth: int) -> Filter:
        """Parts joined by one word; a negation is pushed down into them."""
        parts = [part(negated, depth)]
        while self._take("keyword", word):
            parts.append(part(negated, depth))
        if len(parts) == 1:
            return parts[0]
        # De Morgan: a negated "or" is an "and" of negations
        operator = {"and": "or", "or": "and"}[word] if negated else word
        return Combination(operator, tuple(parts))

    def _one(self, negated: bool, depth: int) -> Filter:
        """A negation, a filter in parentheses, or a condition."""
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
        """One condition on a column."""
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
        """Comparison operator in its one spelling."""
        operator = str(self._need("symbol", "a comparison, in or is", *COMPARISONS, *_SAME).value)
        return _SAME.get(operator, operator)

    def _column(self) -> str:
        """Name of a column."""
        return str(self._need("column", "a column").value)

    def _literal(self) -> Value:
        """Number, text or truth value."""
        value: Value = self._need("literal", "a number, a text in quotes, true or false").value
        return value

    def _values(self) -> tuple[Value, ...]:
        """Literals in parentheses."""
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
    """Comparison of a column with a value, its operator turned round where it is negated."""
    return Comparison(column, _NEGATION[operator] if negated else operator, value)
