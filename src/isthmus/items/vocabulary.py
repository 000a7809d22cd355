"""The vocabulary that ships, names of things, beings, events and sounds; and lists of texts that are to be encoded.

It comes from WordNet 3.0 by the rules of `scripts/make_vocabulary.py`, with additions of our own; its notice lies
beside the data (`LICENSE.wordnet`). Any two encoders that read text can be joined through it, with no corpus.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from isthmus.core.modality import TEXT
from isthmus.errors import ConfigError, FormatError
from isthmus.items.find import find_items

BUILTIN = "builtin"
"""The name of the vocabulary wherever texts are asked for."""


@dataclass(frozen=True)
class Entry:
    """Entry of the vocabulary: a name and its meaning.

    Attributes:
        name: The name, in small letters, one to six words.
        kind: artefact, animal, body, event, food, object, person, phenomenon, place, plant, shape, sound or substance.
        count: How often it was tagged in text and stands in definitions: common before rare.
        gloss: A short definition; empty for additions of our own.
    """

    name: str
    kind: str
    count: int
    gloss: str


@cache
def load_vocabulary() -> tuple[Entry, ...]:
    """Read the vocabulary that ships, in the order of the alphabet.

    Returns:
        Some 20,000 entries; `[entry.name for entry in load_vocabulary()]` are the texts of `--texts builtin`.
    """
    data = files("isthmus.items") / "data" / "vocabulary.tsv.gz"
    table = gzip.decompress(data.read_bytes()).decode()
    rows = csv.DictReader(table.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    return tuple(Entry(row["name"], row["kind"], int(row["count"]), row["gloss"]) for row in rows)


def search_vocabulary(word: str) -> list[Entry]:
    """Find entries by a word: the name itself, then names that hold it, then those whose gloss does.

    Args:
        word: A word or a part of one, in any case.
    """
    wanted = word.casefold().strip()
    rank = {entry: _rank(entry, wanted) for entry in load_vocabulary()}
    return sorted((entry for entry in rank if rank[entry] < 4), key=lambda entry: (rank[entry], -entry.count))


def _rank(entry: Entry, wanted: str) -> int:
    """How well an entry of the vocabulary answers to a word, 0 the best."""
    if entry.name == wanted:
        return 0
    if f" {wanted} " in f" {entry.name} ":
        return 1
    return 2 if wanted in entry.name else 3 if wanted in entry.gloss.casefold() else 4


def count_kinds() -> dict[str, int]:
    """Count the entries of each kind, the largest first."""
    return dict(Counter(entry.kind for entry in load_vocabulary()).most_common())


def text_id(text: str) -> str:
    """Make the id of a text from its hash, so that all spaces that embed it share the id.

    Unicode is brought to its composed form first: one text typed on two systems is one id.
    """
    return (
        "text-" + hashlib.sha256(unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")).hexdigest()[:20]
    )


def read_texts(source: str | Path | Iterable[str], *, text_column: str | None = None) -> list[str]:
    """Read a list of texts, each once, in their order.

    Args:
        source: "builtin"; a list of texts (.txt, one a line) or a table with a column of texts; or the texts.
        text_column: The column of a table that holds them.

    Raises:
        FormatError: The file cannot be read, or holds no text.
        ConfigError: A text is no string, or there are none.
    """
    if source == BUILTIN:
        return [entry.name for entry in load_vocabulary()]
    if isinstance(source, str | Path):
        if not Path(source).is_file():
            raise ConfigError(
                f"texts got {str(source)!r}, which is no file. Expected {BUILTIN!r} or a file with one text a line, or "
                "a table with a column of texts."
            )
        texts: Sequence[object] = [
            item.text for item in find_items(source, modality=TEXT, text_column=text_column).items
        ]
    else:
        texts = list(source)
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise ConfigError(f"texts hold {wrong[0]!r}. Expected strings.")
    distinct = list(dict.fromkeys(unicodedata.normalize("NFC", str(text)).strip() for text in texts))
    distinct = [text for text in distinct if text]
    if not distinct:
        raise FormatError(
            f"{source if isinstance(source, str | Path) else 'texts'}: holds no text. Expected one a line."
        )
    return distinct
