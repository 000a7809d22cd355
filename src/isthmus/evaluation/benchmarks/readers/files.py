"""A user's own benchmark of raw files and texts: tables of paths, texts, ids and labels.

Options, every path relative to the data folder:

query, query_column       a table and its column of paths; of texts where the query's modality is text
query_id                  its column of ids; where there is none the path or text is the id, and equal ones are one item
gallery, gallery_column, gallery_id   retrieval: the same for the other side; without a table of its own the gallery is
                          another column of the query's table, and every row is a true pair
pairs                     retrieval: a table with query_id,gallery_id, where both sides have tables
group_column              retrieval: column of the query's table by which queries are scored apart
label_column, labels      classification: a column of the query's table, or a table with query_id,class_id
label_separator           what parts several labels in one field of that column
classes                   a table with class_id,name; where there is none a label is its own name
media                     the folder that paths start from
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.core.modality import TEXT
from isthmus.core.table_files import read_table
from isthmus.errors import ConfigError, FormatError
from isthmus.evaluation.benchmarks.readers.embeddings import path_of, split_labels
from isthmus.evaluation.benchmarks.readers.shared.lookup import columns, inside
from isthmus.evaluation.benchmarks.task import Classification, ItemSet, Reading, Retrieval
from isthmus.items import Item

OPTIONS: dict[str, Any] = {
    **{"query": "", "query_column": "path", "query_id": "id"},
    **{"gallery": "", "gallery_column": "path", "gallery_id": "id"},
    **{"pairs": "", "group_column": "", "labels": "", "label_column": "label", "label_separator": ""},
    **{"classes": "", "media": "."},
}


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Read the tables and look for the files."""
    task, modalities = options["task"], options["modalities"]
    if task not in ("retrieval", "classification", "multilabel"):
        raise ConfigError(f"tables serve a retrieval or a classification, got a {task}. Give it another reader.")
    query = _side(data, options, "query", path_of(data, options, "query"), modalities[0])
    if task == "retrieval":
        return _retrieval(data, options, query, modalities)
    labels = [pair for pair in _labels(data, options, query) if pair[0] in query.items]
    if options["classes"]:
        names = dict(zip(*columns(path_of(data, options, "classes"), "class_id", "name"), strict=True))
    else:
        names = {label: label for label in sorted({label for _, label in labels})}
    side = ItemSet(modalities[0], list(query.items.values()))
    return Reading(Classification(side, names, labels, multilabel=task == "multilabel"), missing=query.missing)


def _retrieval(data: Path, options: Mapping[str, Any], query: _Found, modalities: tuple[str, str]) -> Reading:
    """Retrieval between the items of tables of files."""
    alone = bool(options["gallery"])
    table = path_of(data, options, "gallery") if alone else path_of(data, options, "query")
    gallery = _side(data, options, "gallery", table, modalities[1])
    if options["pairs"]:
        pairs = list(zip(*columns(path_of(data, options, "pairs"), "query_id", "gallery_id"), strict=True))
    elif alone:
        raise ConfigError("two tables need the option 'pairs', a table with query_id,gallery_id. Give it.")
    else:
        pairs = list(zip(query.ids, gallery.ids, strict=True))
    left, right = set(query.ids), set(gallery.ids)
    for pair in pairs:
        if pair[0] not in left or pair[1] not in right:
            raise FormatError(f"{data}: the pair {pair!r} names an item that is in no table. Expected ids of both.")
    pairs = [pair for pair in dict.fromkeys(pairs) if pair[0] in query.items and pair[1] in gallery.items]
    groups: dict[str, list[str]] = {}
    if options["group_column"]:
        (values,) = columns(path_of(data, options, "query"), options["group_column"])
        for name, group in dict.fromkeys(zip(query.ids, values, strict=True)):
            if name in query.items:
                groups.setdefault(group, []).append(name)
    sides = [ItemSet(m, list(listing.items.values())) for m, listing in zip(modalities, (query, gallery), strict=True)]
    return Reading(Retrieval(sides[0], sides[1], pairs, groups), missing=[*query.missing, *gallery.missing])


@dataclass(frozen=True)
class _Found:
    """Items of a table by id, the id of every row, and what is not there."""

    items: dict[str, Item]
    ids: list[str]
    missing: list[str]


def _side(data: Path, options: Mapping[str, Any], key: str, table: Path, modality: str) -> _Found:
    """Items of one side, from a column of a table."""
    (values,) = columns(table, options[f"{key}_column"])
    own = options[f"{key}_id"]
    # Columns of one table need no ids of their own: what stands in them says which items are the same.
    named = own in read_table(table).column_names and (key == "query" or bool(options["gallery"]))
    ids = columns(table, own)[0] if named else values
    items: dict[str, Item] = {}
    missing: dict[str, None] = {}
    media = inside(data, options["media"])
    for name, value in zip(ids, values, strict=True):
        item = Item(name, text=value) if modality == TEXT else Item(name, path=str(inside(media, value)))
        if items.get(name, item) != item:
            raise FormatError(f"{table}: the id {name!r} stands for {items[name].source!r} and for {item.source!r}.")
        if item.path is None or Path(item.path).is_file():
            items[name] = item
        else:
            missing[name] = None
    if not items:
        raise FormatError(
            f"{table}: none of its {len(ids):,} files is there, such as {media / values[0]}. Check media."
        )
    return _Found(items, ids, list(missing))


def _labels(data: Path, options: Mapping[str, Any], query: _Found) -> list[tuple[str, str]]:
    """Labels of the items, from a table or a column."""
    if options["labels"]:
        return list(zip(*columns(path_of(data, options, "labels"), "query_id", "class_id"), strict=True))
    (values,) = columns(path_of(data, options, "query"), options["label_column"])
    return list(dict.fromkeys(split_labels(query.ids, values, options["label_separator"])))
