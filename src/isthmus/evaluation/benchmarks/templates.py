"""Prompt templates: our own short sets, and readers of the files in which authors published theirs."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.core.files import sha256_json
from isthmus.core.messages import one_line
from isthmus.errors import ConfigError, FormatError
from isthmus.items import Item

MAX_BYTES = 64 * 2**20
_MAX_CODE = 2**21
SLOT = "{}"
"""Where the name of a class goes."""

_SLOTS = ("{}", "{c}")
_OWN: dict[str, tuple[str, ...]] = {
    "sounds": (
        "the sound of {}",
        "{}, recorded up close",
        "{} heard in the distance",
        "a short audio clip of {}",
        "what you hear is {}",
        "noise made by {}",
    ),
    "images": (
        "a picture with a {} in it",
        "this picture shows a {}",
        "a {} seen from nearby",
        "a {} somewhere in the background",
        "one {} among other things",
        "a sharp, well-lit view of the {}",
        "a small and blurred {}",
    ),
    "shapes": (
        "the bare geometry of a {}",
        "a {} as a three-dimensional shape",
        "points scattered over the surface of a {}",
        "a scanned {} without its surroundings",
        "a plain grey model of one {}",
        "a computer-made {} seen from all sides",
    ),
}


@dataclass(frozen=True)
class Templates:
    """A set of prompts, each with one place for the name of a class.

    Attributes:
        name: What the set is called: ours, or the key under which its authors published it.
        source: "isthmus" for ours, else the name of the file.
        texts: The prompts, with `{}` for the name.
    """

    name: str
    source: str
    texts: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Which set was used, for cards and reports; `sha256` is of the texts in their order."""
        digest = sha256_json(list(self.texts))
        return {"name": self.name, "source": self.source, "count": len(self.texts), "sha256": digest}


def list_templates() -> list[str]:
    """Names of our own sets."""
    return list(_OWN)


def own_templates(name: str) -> Templates:
    """Set of prompts that ships with isthmus.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in _OWN:
        raise ConfigError(
            f"there is no template set {name!r}. Expected one of {', '.join(_OWN)}, or a file of prompts."
        )
    return Templates(name, "isthmus", _OWN[name])


def read_templates(file: str | Path, name: str | None = None) -> Templates:
    """Read prompts from a file as their authors published it. Nothing in the file is run.

    Args:
        file: .json: lists of prompts by name (ULIP, CLIP_benchmark), or one list. .ipynb: a list that a cell assigns
            (the CLIP notebook's `imagenet_templates`). .py: a list or a tuple of texts or of one-line functions
            (open_clip). .txt: one prompt a line. The name's place is `{}` or `{c}`.
        name: Which set of a file that holds several.

    Raises:
        FormatError: The file is missing or too large, of another kind, or holds no prompts; or a prompt has no place
            for the name, or several.
        ConfigError: The file holds several sets and `name` is none of them.
    """
    path = Path(file)
    text = _read_text(path)
    suffix = path.suffix.lower()
    if suffix == ".txt":
        sets = {path.stem: [line.strip() for line in text.splitlines() if line.strip()]}
    elif suffix == ".json":
        sets = _json_sets(path, text)
    elif suffix in (".ipynb", ".py"):
        sets = assigned_lists(path, text)
    else:
        raise FormatError(
            f"{path}: the suffix {suffix!r} is none of .json, .ipynb, .py, .txt. Save prompts one a line."
        )
    # A file of other lists too, such as a notebook with names of classes: those have no place for a name.
    prompts = {key: texts for key, texts in sets.items() if name or len(sets) == 1 or all(map(_has_slot, texts))}
    key = _choose(path, prompts, name)
    if not sets[key]:
        raise FormatError(f"{path}: holds no prompt. Expected one a line, with {SLOT} for the name.")
    return Templates(key, path.name, tuple(_prompt(path, number, text) for number, text in enumerate(sets[key], 1)))


def fill(templates: Templates, names: Mapping[str, str]) -> list[Item]:
    """The texts that stand for classes.

    Args:
        templates: The prompts.
        names: By class id, the name that is put into them.

    Returns:
        One text an item, class by class, each with the column `class` that evaluations average over.
    """
    return [
        Item(f"{each}#{number}", text=text.replace(SLOT, name), columns={"class": each})
        for each, name in names.items()
        for number, text in enumerate(templates.texts)
    ]


def assigned_lists(path: Path, text: str) -> dict[str, list[str]]:
    """Lists of texts that a notebook or a Python file assigns to names: its code is parsed, never run.

    Raises:
        FormatError: It is no notebook or no Python.
    """
    lists: dict[str, list[str]] = {}
    for source in _cells(path, text) if path.suffix.lower() == ".ipynb" else (text,):
        try:
            tree = ast.parse(
                source if len(source) <= _MAX_CODE else ""
            )  # Python's parser is not made for enormous texts
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if path.suffix.lower() == ".ipynb":  # a cell of notes or of another language
                continue
            raise FormatError(
                f"{path}: is no Python ({one_line(error)}). Save the prompts one a line, as .txt."
            ) from error
        for node in tree.body:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                texts = _literal_texts(node.value)
                if texts:
                    lists.setdefault(node.targets[0].id, texts)
    if not lists:
        raise FormatError(f"{path}: assigns no list of texts. Expected one, such as imagenet_templates = [...].")
    return lists


def _read_text(path: Path) -> str:
    """Text of a file of prompts, within the limit."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FormatError(f"{path}: has {size:,} bytes; a file of prompts has at most {MAX_BYTES:,}.")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(
            f"{path}: cannot be read as a file of prompts ({one_line(error)}). Check the path."
        ) from error


def _json_sets(path: Path, text: str) -> dict[str, list[str]]:
    """Sets of prompts in a JSON file, by name."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: is no JSON ({one_line(error)}). Fetch it again.") from error
    if isinstance(value, list):
        value = {path.stem: value}
    sets = {key: texts for key, texts in value.items() if _are_texts(texts)} if isinstance(value, dict) else {}
    if not sets:
        raise FormatError(f"{path}: holds no list of texts. Expected prompts by name, or a list of prompts.")
    return sets


def _are_texts(value: Any) -> bool:
    """Whether a value is a list of texts."""
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


def _cells(path: Path, text: str) -> Iterator[str]:
    """The code of a notebook, cell by cell, without the lines that are for the notebook itself."""
    try:
        cells = json.loads(text)["cells"]
        sources = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{path}: is no notebook ({one_line(error)}). Fetch it again.") from error
    for source in sources:
        lines = ("".join(source) if isinstance(source, list) else str(source)).split("\n")
        yield "\n".join(line for line in lines if not line.lstrip().startswith(("!", "%")))


def _literal_texts(node: ast.expr) -> list[str] | None:
    """The texts of a list or tuple of texts, or of functions of a name that give a text; None for anything else."""
    if not isinstance(node, ast.List | ast.Tuple):
        return None
    texts = []
    for element in node.elts:
        text = _lambda_text(element) if isinstance(element, ast.Lambda) else _literal(element)
        if not isinstance(text, str):
            return None
        texts.append(text)
    return texts


def _literal(node: ast.expr) -> Any:
    """Value of a literal in Python source, never run; None where it is none."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _lambda_text(node: ast.Lambda) -> str | None:
    """`lambda c: f"a photo of {c}."` as a prompt."""
    if len(node.args.args) != 1 or not isinstance(node.body, ast.JoinedStr):
        return None
    parts = []
    for part in node.body.values:
        if isinstance(part, ast.Constant):
            parts.append(str(part.value))
        elif isinstance(part, ast.FormattedValue) and ast.unparse(part.value) == node.args.args[0].arg:
            parts.append(SLOT)
        else:
            return None
    return "".join(parts)


def _choose(path: Path, sets: Mapping[str, list[str]], name: str | None) -> str:
    """Name of the set of prompts to take."""
    if name is None and len(sets) == 1:
        return next(iter(sets))
    if name in sets:
        return str(name)
    known = ", ".join(sets) or "none"
    if name is None and not sets:
        raise FormatError(f"{path}: none of its lists is of prompts with {' or '.join(_SLOTS)} for the name.")
    fault = "holds several sets of prompts" if name is None else f"holds no set of prompts {name!r}"
    raise ConfigError(f"{path}: {fault}. Expected one of {known}: give it as {path.name}:NAME.")


def _has_slot(text: str) -> bool:
    """Whether a prompt has one place for the name."""
    return sum(text.count(slot) for slot in _SLOTS) == 1


def _prompt(path: Path, number: int, text: str) -> str:
    """Prompt with its place for the name as `{}`."""
    if not _has_slot(text):
        raise FormatError(
            f"{path}: prompt {number} is {text[:60]!r}, expected exactly one place {' or '.join(_SLOTS)} for the name."
        )
    return text.replace("{c}", SLOT)
