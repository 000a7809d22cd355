"""A user's own benchmark of embeddings that exist: spaces, or files of embeddings, with a table of the truth.

Options, every path relative to the data folder:

query, gallery, classes   a modality of a space ("clips.space/audio"), or a file of embeddings (.parquet, .npy, ...)
*_space, *_encoder        of a file: the name of its space, and the encoder where the space declares one; both must be
                          those of the space that the bridge was trained on
*_ids                     of a file without a column `id`: the column, or a list or table of ids beside it
pairs                     retrieval: a table with query_id,gallery_id
labels, label_column      classification: a table with query_id,class_id, or a column of the query's own metadata
label_separator           what parts several labels in one field of that column
class_column              column of the class texts that names their class; where there is none a class is one text
class_texts               or: by class, the texts that name it, as they stand in the column `text`
group_column              retrieval: column of the query's metadata by which queries are scored apart
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.core.files import sha256_json
from isthmus.errors import ConfigError, FormatError
from isthmus.evaluation.benchmarks.readers.shared.lookup import columns, inside
from isthmus.evaluation.benchmarks.task import Classification, ItemSet, Reading, Retrieval
from isthmus.spaces.embeddings import Embeddings
from isthmus.spaces.importing.importer import import_embeddings
from isthmus.spaces.selection import Selection
from isthmus.spaces.space import open_space

OPTIONS: dict[str, Any] = {
    **{"query": "", "query_space": "", "query_encoder": "", "query_ids": ""},
    **{"gallery": "", "gallery_space": "", "gallery_encoder": "", "gallery_ids": ""},
    **{"classes": "", "classes_space": "", "classes_encoder": "", "classes_ids": ""},
    **{"pairs": "", "labels": "", "label_column": "", "label_separator": "", "class_column": "class"},
    **{"class_texts": {}, "group_column": ""},
}


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Open both sides and read the truth."""
    task, modalities = options["task"], options["modalities"]
    if task not in ("retrieval", "classification", "multilabel"):
        raise ConfigError(f"embeddings serve a retrieval or a classification, got a {task}. Give it another reader.")
    query = _open(data, options, "query", modalities[0], work)
    side = ItemSet(modalities[0], embeddings=query)
    if task == "retrieval":
        gallery = _open(data, options, "gallery", modalities[1], work)
        pairs = list(zip(*columns(path_of(data, options, "pairs"), "query_id", "gallery_id"), strict=True))
        return Reading(Retrieval(side, ItemSet(modalities[1], embeddings=gallery), pairs, _groups(query, options)))
    prompts = _prompts(data, options, work)
    labels = _labels(data, options, query)
    classes = prompts.metadata["class"].to_pylist()
    known = set(classes)
    unnamed = sorted({label for _, label in labels if label not in known})
    if unnamed:
        raise FormatError(
            f"{data}: the labels name {len(unnamed):,} classes without a text, such as {unnamed[0]!r}. Name them in "
            "class_texts or in the class column, or leave the rows out."
        )
    names = {name: name for name in dict.fromkeys(classes)}
    return Reading(
        Classification(
            side, names, labels, multilabel=task == "multilabel", prompts=ItemSet("text", embeddings=prompts)
        )
    )


def path_of(data: Path, options: Mapping[str, Any], key: str) -> Path:
    """The file or folder of an option.

    Raises:
        ConfigError: The option is not given.
        FormatError: It is not there.
    """
    if not options[key]:
        raise ConfigError(f"the benchmark lacks the option {key!r}. Give it under [options], or with --set {key}=PATH.")
    path = inside(data, options[key])
    if not path.exists():
        raise FormatError(f"{path}: no such file or folder. Expected the option {key!r} of the benchmark there.")
    return path


def _open(data: Path, options: Mapping[str, Any], key: str, modality: str, work: Path) -> Embeddings:
    """A modality of a space, or a file that is imported once into a space of the work folder."""
    given = str(options[key])
    folder = inside(data, given.rpartition("/")[0] or ".") if given else data
    if (folder / "space.json").is_file():
        return open_space(folder)[given.rpartition("/")[2]]
    source = path_of(data, options, key)
    if (source / "space.json").is_file():
        return open_space(source)[modality]
    name, encoder = options[f"{key}_space"] or None, options[f"{key}_encoder"] or None
    about = source.stat()
    ids = options[f"{key}_ids"] or None
    if ids is not None and inside(data, ids).is_file():
        ids = inside(data, ids)
    made = [str(source.resolve()), about.st_size, about.st_mtime_ns, name, encoder, modality, str(ids)]
    target = work / f"{key}-{sha256_json(made)[:16]}.space"
    import_embeddings(source, target, modality=modality, ids=ids, name=name or source.stem, encoder=encoder)
    return open_space(target)[modality]


def _prompts(data: Path, options: Mapping[str, Any], work: Path) -> Selection:
    """The class texts, with a column `class`."""
    every = _open(data, options, "classes", "text", work)
    table, texts = every.metadata, options["class_texts"]
    if texts:
        if "text" not in table.column_names:
            raise FormatError(f"{every.path}: class_texts needs a column 'text', got {', '.join(table.column_names)}.")
        row_of = {text: row for row, text in reversed(list(enumerate(table["text"].to_pylist())))}
        chosen = [(name, text) for name, wanted in texts.items() for text in _listed(wanted)]
        if missing := [text for _, text in chosen if text not in row_of]:
            raise FormatError(f"{every.path}: has no text {missing[0]!r}, which class_texts names. Check its spelling.")
        return Selection(every, [row_of[text] for _, text in chosen], {"class": [name for name, _ in chosen]})
    column = options["class_column"] if options["class_column"] in table.column_names else "id"
    named = zip(table[column].to_pylist(), every.ids, strict=True)  # a text without a class is one of its own
    return Selection(
        every, range(len(every)), {"class": [name if value is None else str(value) for value, name in named]}
    )


def _listed(texts: Any) -> list[str]:
    """Class texts as a list."""
    return [texts] if isinstance(texts, str) else list(texts)


def _labels(data: Path, options: Mapping[str, Any], query: Embeddings) -> list[tuple[str, str]]:
    """Labels of the queries, from a table or a column of the space."""
    if not options["label_column"]:
        return list(zip(*columns(path_of(data, options, "labels"), "query_id", "class_id"), strict=True))
    values, separator = _column(query, options["label_column"]), options["label_separator"]
    return split_labels(query.ids, values, separator)


def split_labels(ids: list[str], values: list[Any], separator: str) -> list[tuple[str, str]]:
    """(id, label) of a column of labels; empty fields are items without one."""
    pairs = zip(ids, values, strict=True)
    fields = [(name, str(value).split(separator) if separator else [str(value)]) for name, value in pairs if value]
    return [(name, label.strip()) for name, labels in fields for label in labels if label.strip()]


def _groups(query: Embeddings, options: Mapping[str, Any]) -> dict[str, list[str]]:
    """Queries by the group that a column of the space names."""
    if not options["group_column"]:
        return {}
    groups: dict[str, list[str]] = {}
    for name, group in zip(query.ids, _column(query, options["group_column"]), strict=True):
        groups.setdefault(str(group), []).append(name)
    return groups


def _column(query: Embeddings, name: str) -> list[Any]:
    """Column of a space's metadata, which must be there."""
    table = query.metadata
    if name not in table.column_names:
        raise FormatError(f"{query.path}: has no column {name!r}, only {', '.join(table.column_names)}.")
    values: list[Any] = table[name].to_pylist()
    return values
