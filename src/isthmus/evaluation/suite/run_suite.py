"""Running a benchmark: read, encode, score, and set the bridge's row beside all others."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.opening import as_bridge
from isthmus.core.locks import hold
from isthmus.core.runtime import notifier
from isthmus.errors import ConfigError, EvaluationError
from isthmus.evaluation.benchmarks.declaration import Benchmark, load_benchmark
from isthmus.evaluation.benchmarks.task import Classification, ItemSet, Localization, Reading
from isthmus.evaluation.benchmarks.templates import Templates, fill, own_templates, read_templates
from isthmus.evaluation.suite.embed import ItemSetEmbedder
from isthmus.evaluation.suite.methods import (
    EmbeddedTask,
    Row,
    bridge_row,
    mean_row,
    own_rows,
    random_row,
    recipe_rows,
    simple_rows,
)
from isthmus.evaluation.suite.questions import ScoringTask, scoring_task
from isthmus.evaluation.suite.reports import BenchmarkHead, SuiteReport
from isthmus.evaluation.suite.settings import SuiteSettings, settle

EXAMPLES = 5
"""Missing items that a report names."""

Bridges = Bridge | str | Path | Mapping[str, Bridge | str | Path]
"""A bridge or its folder, or several by name."""


def run_suite(
    bridges: Bridges,
    benchmark: str | Path | Benchmark,
    data: str | Path,
    *,
    cache: str | Path | None = None,
    settings: SuiteSettings | None = None,
    **changes: Any,
) -> SuiteReport:
    """Score bridges on a benchmark, beside simple methods, other recipes and what was published.

    Items that are not encoded yet are encoded by the encoders that the bridge's spaces were made by, and kept in the
    cache; a run that was interrupted goes on from there.

    Args:
        bridges: A bridge or its folder, or several by name, such as one a seed; the other rows are made from the
            first.
        benchmark: Name of a benchmark, the path of a TOML file, or a declaration.
        data: The folder of the data set.
        cache: Folder of encoded items and trained recipes, by default `isthmus-suite` in the current folder.
        settings: Everything else, by default `SuiteSettings()`.
        **changes: Settings over those.

    Raises:
        ConfigError: The benchmark or a setting is unknown, or a bridge is not of its modalities.
        FormatError: The data set is not there, or not as it was published.
        FingerprintError: An encoder, or embeddings, are not those that the bridge was trained on.
        EvaluationError: Nothing is left to score.
    """
    started = time.perf_counter()
    how = settle(settings, changes, cache)
    with hold(how.cache):
        return _run_suite(bridges, benchmark, data, how, started)


def _run_suite(
    bridges: Bridges,
    benchmark: str | Path | Benchmark,
    data: str | Path,
    how: SuiteSettings,
    started: float,
) -> SuiteReport:
    """Run a suite while its cache is locked."""
    named = {name: as_bridge(bridge) for name, bridge in _named(bridges).items()}
    if not named:
        raise ConfigError("a suite needs at least one bridge, got none.")
    declared = benchmark if isinstance(benchmark, Benchmark) else load_benchmark(benchmark)
    prepared = prepare(declared, data, how)
    check_names(named.values(), prepared.scoring, how)
    embedder = ItemSetEmbedder(how)
    rows, first = _bridge_rows(named, prepared.scoring, embedder)
    rows.append(random_row(first[1]))
    if prepared.whole_picture is not None:  # large sources make the whole picture a strong guess
        rows.append({"name": "whole picture", "kind": "baseline", **prepared.whole_picture})
    retention = None
    if how.baselines or how.train_pairs is not None:
        notifier(how.quiet)("Scoring the simple methods and each space's own pair")
        own, retention = own_rows(first[0], embedder)
        rows += [*own, *simple_rows(first[0], how)]
    rows += recipe_rows(first[0], how)
    return SuiteReport(
        describe(declared, data, prepared, how.limit),
        rows=rows,
        retention=retention,
        spaces=dict(zip(("query", "target"), first[0].spaces, strict=True)),
        encoded=embedder.encoded,
        published=[one.model_dump() for one in declared.published],
        seconds=time.perf_counter() - started,
    )


def _named(bridges: Bridges) -> Mapping[str, Bridge | str | Path]:
    """Bridges by name, a single one as `bridge`."""
    if isinstance(bridges, Mapping):
        return bridges
    return {"bridge": bridges}


class Prepared:
    """A benchmark that was read and taken apart.

    Attributes:
        reading: What the reader found.
        scoring: Its sides and truth.
        templates: What class names were put into; None where nothing was.
    """

    def __init__(self, reading: Reading, scoring: ScoringTask, templates: Templates | None) -> None:
        self.reading, self.scoring, self.templates = reading, scoring, templates

    @property
    def counts(self) -> dict[str, Any]:
        """Queries, gallery items, true pairs and so on."""
        return {name: value for name, value in self.scoring.counts.items() if name != "whole_picture"}

    @property
    def whole_picture(self) -> dict[str, Any] | None:
        """Figures of taking the whole picture for the source of a sound; None but for localisation."""
        figures: dict[str, Any] | None = self.scoring.counts.get("whole_picture")
        return figures


def prepare(benchmark: Benchmark, data: str | Path, settings: SuiteSettings) -> Prepared:
    """Read a data set and take its task apart."""
    work = settings.cache / "work" / benchmark.name
    work.mkdir(parents=True, exist_ok=True)
    if settings.templates is not None and benchmark.task not in ("classification", "multilabel"):
        raise ConfigError(f"templates are of classifications; {benchmark.name} is a {benchmark.task}. Leave them out.")
    if settings.proposals is not None and benchmark.task not in ("localization", "counterfactual"):
        raise ConfigError(f"proposals are of localisation; {benchmark.name} is a {benchmark.task}. Leave them out.")
    reading = benchmark.read(data, work, settings.options)
    task = reading.task
    if isinstance(task, Localization):
        return Prepared(reading, _task_with_proposals(task, settings), None)
    if isinstance(task, Classification) and task.prompts is None:
        templates = choose_templates(benchmark, settings.templates)
        prompts = ItemSet("text", fill(templates, task.classes))
        return Prepared(reading, scoring_task(task, prompts, limit=settings.limit), templates)
    if settings.templates is not None:
        raise ConfigError(f"the class texts of {benchmark.name} are embedded already. Leave the templates out.")
    return Prepared(reading, scoring_task(task, limit=settings.limit), None)


def check_names(bridges: Iterable[Bridge], scoring: ScoringTask, settings: SuiteSettings) -> None:
    """Refuse settings that speak of modalities or spaces that there are not.

    Raises:
        ConfigError: They do.
    """
    modalities = {scoring.query.modality, scoring.target.modality}
    spaces = {space.name for bridge in bridges for space in bridge.spaces}
    for words, given, known in (
        ("through", settings.through, modalities),
        ("encoders", settings.encoders, spaces),
        ("space_paths", settings.space_paths, spaces),
    ):
        if unknown := sorted(set(given) - known):
            raise ConfigError(f"{words} names {unknown[0]!r}. Expected one of {', '.join(sorted(known))}.")


def _task_with_proposals(task: Localization, settings: SuiteSettings) -> ScoringTask:
    """A localisation, with the proposals that are given or with windows, and a note that says which."""
    from isthmus.evaluation.suite.localize import localization_task
    from isthmus.evaluation.suite.proposals import SCALES, read_proposals, windows_of

    if settings.proposals is not None:
        proposals, words = read_proposals(settings.proposals, task), f"Proposals: {settings.proposals.name}"
    else:
        proposals, words = windows_of(task), f"Proposals: sliding windows, sides {', '.join(map(str, SCALES))}"
    scoring = localization_task(task, proposals, limit=settings.limit)
    return replace(scoring, notes=[words, *scoring.notes])


def choose_templates(benchmark: Benchmark, given: str | Path | None) -> Templates:
    """The user's templates (`FILE`, or `FILE:NAME` where the file holds several sets), or the declaration's set."""
    if given is not None:
        file, colon, name = str(given).rpartition(":")
        if colon and not Path(str(given)).exists():
            return read_templates(file, name)
        return read_templates(given)
    if benchmark.templates is None:
        return Templates("name alone", "isthmus", ("{}",))
    return own_templates(benchmark.templates)


def describe(benchmark: Benchmark, data: str | Path, prepared: Prepared, limit: int | None) -> BenchmarkHead:
    """The head of a report: what was asked and what was found."""
    missing, templates = list(prepared.reading.missing), prepared.templates
    notes = [*prepared.reading.notes, *prepared.scoring.notes]
    if limit is not None:
        notes.insert(0, f"Limited to the first {limit:,}: these figures are not the benchmark's.")
    return BenchmarkHead(
        benchmark=benchmark.name,
        title=benchmark.title,
        task=benchmark.task,
        metric=benchmark.metric,
        headline=list(benchmark.headline),
        data=str(data),
        published_items=benchmark.data.items,
        counts=prepared.counts,
        missing=len(missing),
        missing_examples=missing[:EXAMPLES],
        notes=notes,
        templates=templates.record() if templates is not None else None,
    )


def _bridge_rows(
    named: Mapping[str, Bridge], scoring: ScoringTask, embedder: ItemSetEmbedder
) -> tuple[list[Row], tuple[EmbeddedTask, Any]]:
    """A row a bridge; bridges that differ in their seed alone have a row of their mean before them."""
    rows: dict[str, Row] = {}
    first: tuple[EmbeddedTask, Any] | None = None
    for name, bridge in named.items():
        embedded = EmbeddedTask.of(bridge, scoring, embedder)
        rows[name], outcome = bridge_row(name, embedded, force=embedder.settings.force)
        first = first or (embedded, outcome)
    if first is None:
        raise EvaluationError("there is no bridge to score.")
    table: list[Row] = []
    for names in _alike(named):
        if len(names) > 1:
            seeds = [int(named[name].config.get("seed", 0)) for name in names]
            words = f"mean of {len(names)} {named[names[0]].method} (seeds {', '.join(map(str, seeds))})"
            table.append(mean_row(words, "bridge", [rows[name] for name in names], seeds))
        table += [rows[name] for name in names]
    return table, first


def _alike(named: Mapping[str, Bridge]) -> list[list[str]]:
    """Names of bridges that differ in nothing but their seed."""
    groups: dict[str, list[str]] = {}
    for name, bridge in named.items():
        steps = [*(step["config"] for step in bridge.record.get("earlier", [])), bridge.config]
        settings = [{key: value for key, value in step.items() if key != "seed"} for step in steps]
        spaces = [(space.name, sorted(space.fingerprints.items())) for space in bridge.spaces]
        groups.setdefault(repr([bridge.method, settings, spaces]), []).append(name)
    return list(groups.values())
