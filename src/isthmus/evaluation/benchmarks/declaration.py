"""A benchmark as a declaration: one TOML file, data and not code, that names a reader and what was published."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from inspect import isfunction, signature
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from isthmus.core.messages import shorten, unknown_key, unknown_name, validation_fault
from isthmus.core.toml import read_toml
from isthmus.errors import ConfigError, FormatError
from isthmus.evaluation.benchmarks.task import Reading

CATALOGUE = Path(__file__).parent / "catalogue"
READERS = "isthmus.evaluation.benchmarks.readers"

TASKS = ("retrieval", "classification", "multilabel", "localization", "counterfactual")
HEADLINES: dict[str, tuple[str, ...]] = {
    "retrieval": ("r@1", "r@5", "map"),
    "classification": ("accuracy@1", "accuracy@5"),
    "multilabel": ("map",),
    "localization": ("ciou", "auc"),
    "counterfactual": ("ap", "max_f1", "loc_acc"),
}
"""Figures that the table shows where a declaration does not say, by task."""

Read = Callable[[Path, Mapping[str, Any], Path], Reading]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Data(_Strict):
    """Data of a benchmark that a user must have on disk.

    Attributes:
        download: Where it is from, or in words what to download.
        place: Where it goes, relative to the folder that `--data` names.
        licence: Its terms.
        size: Its size in words.
        items: Published number of items of the split, to print found / published.
        split: The split that the paper used.
        paper: What the paper says of the protocol, and what it does not.
    """

    download: str = ""
    place: str = ""
    licence: str = ""
    size: str = ""
    items: int | None = Field(default=None, ge=1)
    split: str = ""
    paper: str = ""


class Published(_Strict):
    """A published row.

    Attributes:
        model: Whose.
        figures: By figure, as a fraction 0 to 1 (median ranks as they are).
        source: Paper and table.
        note: What differs from the protocol here.
    """

    model: str
    figures: dict[str, float]
    source: str = ""
    note: str = ""

    @field_validator("figures")
    @classmethod
    def _fractions(cls, figures: dict[str, float]) -> dict[str, float]:
        """Refuse published figures that are no fractions."""
        for name, value in figures.items():
            if not name.startswith("median") and not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} is {value}, expected a fraction from 0 to 1")
        return figures


class Benchmark(_Strict):
    """A benchmark, as its TOML file declares it.

    Attributes:
        name: What it is called on the command line; by default the file's stem.
        title: What it is called in a table; by default the name.
        task: One of `TASKS`.
        reader: Module of `isthmus.evaluation.benchmarks.readers`, or `module:function` (by default the function
            `read`).
        modalities: Modalities of the query (or picture) and the other side.
        templates: Classification: the default prompt set.
        headline: Figures that the table shows.
        metric: Which direction of a retrieval the published figures are of.
        data: What must be on disk.
        options: Settings of the reader.
        published: Rows of the papers.
        path: The file that it was read from; not a key.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str
    task: Literal["retrieval", "classification", "multilabel", "localization", "counterfactual"]
    reader: str = Field(pattern=r"^[a-z][a-z0-9_]*(:[a-z][a-z0-9_]*)?$")
    modalities: list[str] = Field(min_length=1, max_length=2)
    templates: str | None = None
    headline: list[str] = Field(min_length=1)
    metric: Literal["mean", "query_to_gallery", "gallery_to_query"] = "mean"
    data: Data = Field(default_factory=Data)
    options: dict[str, Any] = Field(default_factory=dict)
    published: list[Published] = Field(default_factory=list)
    path: Path = Field(exclude=True)

    @model_validator(mode="after")
    def _check(self) -> Benchmark:
        """Refuse a declaration whose parts do not go together."""
        if len(self.modalities) != 2 and self.task not in ("classification", "multilabel"):
            raise ValueError(f"a {self.task} has two modalities, got {len(self.modalities)}")
        if self.templates is not None and self.task not in ("classification", "multilabel"):
            raise ValueError(f"a {self.task} has no templates")
        return self

    def known_options(self) -> dict[str, Any]:
        """The reader's settings and their values: the reader's own `OPTIONS` where it has them, under `[options]`.

        A reader without `OPTIONS` takes exactly the keys that the declaration gives.

        Raises:
            ConfigError: There is no such reader, or the declaration gives a key that it does not know.
        """
        known = getattr(_reader_module(self), "OPTIONS", None)
        if known is None:
            return dict(self.options)
        _check_keys(self.options, known, f"{self.path}: [options]")
        return {**known, **self.options}

    def read(self, data: str | Path, work: str | Path, options: Mapping[str, Any] | None = None) -> Reading:
        """Read the data set.

        Args:
            data: The folder that the user downloaded.
            work: A folder for what has to be made first.
            options: Settings over those of the declaration. The reader gets them with `task` and `modalities`.

        Raises:
            ConfigError: A setting is unknown, or of another kind than its default.
            FormatError: The data set is not there, or not as its authors published it.
        """
        known = self.known_options()
        given = dict(options or {})
        _check_keys(given, known, "--set")
        for key, value in given.items():
            default = known[key]
            number = isinstance(default, float) and isinstance(value, int)
            if default is not None and not number and type(value) is not type(default):
                raise ConfigError(f"--set {key} got {value!r}, expected a {type(default).__name__} like {default!r}.")
        reader = _reader(self)
        # What every reader may ask of the declaration itself; not settings, so `--set` cannot reach them.
        fixed = {"task": self.task, "modalities": tuple(self.modalities)}
        try:
            return reader(Path(data), {**known, **given, **fixed}, Path(work))
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            name = shorten(Path(str(error.filename)).name, 60)
            raise FormatError(
                f"{data}: the annotations of {self.name} name {name!r}, which no file can be called. Fetch them again."
            ) from error


def _reader_module(benchmark: Benchmark) -> ModuleType:
    """Module of a benchmark's reader."""
    name = benchmark.reader.partition(":")[0]
    if name not in list_readers():
        raise ConfigError(
            f"{benchmark.path}: there is no reader {name!r}. Expected one of {', '.join(list_readers())}."
        )
    return import_module(f"{READERS}.{name}")


def _reader(benchmark: Benchmark) -> Read:
    """The function of a reader: one that the reader itself defines to read a data set, and nothing else it holds."""
    module, function = _reader_module(benchmark), benchmark.reader.partition(":")[2] or "read"
    known = sorted(
        name
        for name, value in vars(module).items()
        if isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and signature(value).return_annotation in (Reading, "Reading")
    )
    if function not in known:
        raise ConfigError(
            f"{benchmark.path}: the reader {benchmark.reader!r} has no function {function!r}. "
            f"Expected one of {', '.join(known)}."
        )
    return cast(Read, getattr(module, function))


def _check_keys(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Refuse a key of a declaration that is unknown."""
    names = list(known)
    if unknown := next((key for key in given if key not in names), None):
        raise ConfigError(unknown_key(where, unknown, names))


def load_benchmark(name_or_toml: str | Path) -> Benchmark:
    """The benchmark of a name, or of a user's own TOML file.

    Raises:
        ConfigError: There is none of that name, or the file is not a declaration: the message names the key.
    """
    path = Path(name_or_toml)
    if path.suffix != ".toml":
        known = [file.stem for file in _files()]
        if str(name_or_toml) not in known:
            fault = unknown_name("there is no benchmark", str(name_or_toml), known).removesuffix(".")
            raise ConfigError(f"{fault}, or the path of your own .toml file.")
        path = CATALOGUE / f"{name_or_toml}.toml"
    return parse_benchmark(read_toml(path, "benchmark"), path)


def parse_benchmark(table: Mapping[str, Any], path: Path) -> Benchmark:
    """Check the table of a TOML file.

    Args:
        table: What was read.
        path: The file, for messages and the name.

    Raises:
        ConfigError: A key is unknown or missing, or a value is not what it should be.
    """
    values = {"name": path.stem, **table}
    values.setdefault("title", values["name"])
    values.setdefault("headline", list(HEADLINES.get(str(values.get("task")), ("map",))))
    if "path" in table:
        raise ConfigError(unknown_key(str(path), "path", [name for name in Benchmark.model_fields if name != "path"]))
    try:
        return Benchmark(**values, path=path)
    except ValidationError as error:
        raise ConfigError(validation_fault(error, Benchmark, str(path))) from error


def _files() -> list[Path]:
    """Declarations that come with isthmus."""
    return sorted(CATALOGUE.glob("*.toml"), key=lambda file: file.stem)


def list_benchmarks() -> list[Benchmark]:
    """All benchmarks that come along, by name."""
    return [load_benchmark(file) for file in _files()]


def list_readers() -> list[str]:
    """Names of the readers that come along."""
    package = import_module(READERS)
    files = [file for folder in package.__path__ for file in Path(folder).glob("*.py")]
    return sorted(file.stem for file in files if file.stem not in ("__init__", "common"))
