"""Verbs of benchmarks by name: benchmarks, suite, compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import options as o
from isthmus.cli.output import Output, output
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from isthmus.evaluation.benchmarks.declaration import Benchmark

BenchmarkName = Annotated[
    str,
    typer.Option("--benchmark", metavar="NAME|TOML", help="A benchmark by name, or your own.", show_default=False),
]
DataFolder = Annotated[Path, typer.Option("--data", metavar="DIR", help="Where its files lie.", show_default=False)]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache", metavar="DIR", help="Keeps what is encoded and trained (default: isthmus-suite).", show_default=False
    ),
]
TemplateFile = Annotated[
    str | None,
    typer.Option(
        "--templates", metavar="FILE[:NAME]", help="Prompts as their authors published them.", show_default=False
    ),
]
Proposals = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Localisation: boxes by image, with a score.", show_default=False),
]
ReaderSet = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One option of the benchmark; repeatable.", show_default=False),
]
Through = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODALITY=SPACE", help="Whose encoder takes a modality (default: the base's).", show_default=False
    ),
]
EncoderOf = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder",
        metavar="SPACE=NAME",
        help="The encoder of a space, if the bridge does not know.",
        show_default=False,
    ),
]
MaxRejected = Annotated[
    float, typer.Option(metavar="SHARE", min=0.0, max=1.0, help="Share of a side's items that may be rejected.")
]
BatchSize = Annotated[int, typer.Option(metavar="B", min=1, help="Items in one pass through an encoder.")]
Limit = Annotated[int | None, typer.Option(metavar="N", help="Only the first items.", show_default=False)]


def benchmarks(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME|TOML", help="Say all about this one.", show_default=False)
    ] = None,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """List the benchmarks that can be run by name.

    With a name: what to download, where it goes, its licence, size and split, and the published rows."""
    from isthmus.evaluation.benchmarks.declaration import list_benchmarks, load_benchmark

    with output(as_json=as_json, quiet=quiet) as out:
        if name is not None:
            one = load_benchmark(name)
            out.report = about(one)
            show_benchmark(out, one)
            return
        every = list_benchmarks()
        out.report = {"benchmarks": [about(one) for one in every]}
        rows = [[one.name, one.task, " ".join(one.modalities), one.data.size, one.data.split] for one in every]
        out.table(["benchmark", "task", "modalities", "size", "split"], rows)
        out.note("Next: isthmus benchmarks NAME, for what to download and where it goes.")


def about(benchmark: Benchmark) -> dict[str, Any]:
    """A declaration as JSON, with all options of its reader."""
    return {**benchmark.model_dump(mode="json"), "options": benchmark.known_options()}


def show_benchmark(out: Output, benchmark: Benchmark) -> None:
    """Print one declaration."""
    data, known_options = benchmark.data, benchmark.known_options()
    out.say(f"{benchmark.title} ({benchmark.name}): {benchmark.task} of {' and '.join(benchmark.modalities)}")
    known = [
        ("download", data.download),
        ("place", data.place),
        ("licence", data.licence),
        ("size", data.size),
        ("split", data.split),
        ("paper", data.paper),
        ("templates", benchmark.templates),
        ("options", ", ".join(f"{key}={value}" for key, value in known_options.items() if value not in ("", {}))),
    ]
    for words, value in known:
        if value:
            out.say(f"{words}: {value}")
    if benchmark.published:
        rows = [
            [one.model, *(one.figures.get(figure) for figure in benchmark.headline), one.source]
            for one in benchmark.published
        ]
        out.table(["published", *benchmark.headline, "source"], rows)
    out.note(f"Next: isthmus suite X.bridge --benchmark {benchmark.name} --data DIR --baselines")


def suite(
    bridges: Annotated[
        list[Path], typer.Argument(metavar="X.bridge", help="Bridges; rows beside them are of the first.")
    ],
    benchmark: BenchmarkName,
    data: DataFolder,
    cache: Cache = None,
    templates: TemplateFile = None,
    proposals: Proposals = None,
    assignments: ReaderSet = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Add simple methods, each encoder's own pair, and retention.")
    ] = False,
    train_pairs: Annotated[
        Path | None,
        typer.Option(metavar="P.csv", help="True training pairs, for the paired oracle.", show_default=False),
    ] = None,
    recipes: Annotated[
        str | None,
        typer.Option(metavar="c-mcr,ex-mcr,ours", help="Train these beside the bridge, once.", show_default=False),
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="N,N,...", help="Seeds of those trainings.")] = "0",
    train: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="One setting of those trainings; repeatable.", show_default=False),
    ] = None,
    through: Through = None,
    encoder: EncoderOf = None,
    space: o.SpacePaths = None,
    max_rejected: MaxRejected = 0.01,
    batch_size: BatchSize = 32,
    limit: Limit = None,
    device: o.Device = None,
    force: o.Force = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Score bridges on a benchmark, above the published rows.

    Encodes what is not encoded yet by the encoders of the bridge's spaces."""
    from isthmus.bridges.bridge import load_bridge
    from isthmus.cli.config import collect
    from isthmus.core.terminal import line_width
    from isthmus.evaluation.suite import format_suite, run_suite

    with output(as_json=as_json, quiet=quiet) as out:
        settings = shared(cache, templates, proposals, assignments, through, encoder, space)
        out.report = run_suite(
            {name: load_bridge(path) for name, path in names_of(bridges).items()},
            benchmark,
            data,
            **settings,
            baselines=baselines,
            train_pairs=train_pairs,
            recipes=tuple(name.strip() for name in (recipes or "").split(",") if name.strip()),
            seeds=o.read_seeds(seeds),
            train=collect(None, train or []),
            max_rejected=max_rejected,
            batch_size=batch_size,
            limit=limit,
            device=device,
            force=force,
            quiet=quiet,
        )
        out.say(format_suite(out.report, width=line_width()))


def names_of(paths: list[Path]) -> dict[str, Path]:
    """Bridges by the names of their folders; by their whole paths where two are called the same.

    Raises:
        ConfigError: One is given twice.
    """
    if twice := {str(path) for path in paths if paths.count(path) > 1}:
        raise ConfigError(f"the bridge {min(twice)} is given twice. Give each once.")
    short = [path.resolve().name for path in paths]
    return {name if short.count(name) == 1 else str(path): path for name, path in zip(short, paths, strict=True)}


def compare(
    first: Annotated[Path, typer.Argument(metavar="A.bridge", help="A bridge.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B.bridge", help="Another bridge.", show_default=False)],
    benchmark: BenchmarkName,
    data: DataFolder,
    cache: Cache = None,
    templates: TemplateFile = None,
    proposals: Proposals = None,
    assignments: ReaderSet = None,
    resamples: Annotated[int, typer.Option(metavar="N", min=1, help="Resamples of the bootstrap.")] = 10_000,
    through: Through = None,
    encoder: EncoderOf = None,
    space: o.SpacePaths = None,
    max_rejected: MaxRejected = 0.01,
    batch_size: BatchSize = 32,
    limit: Limit = None,
    device: o.Device = None,
    force: o.Force = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Test two bridges against each other on a benchmark.

    A paired bootstrap over its items: differences B - A with 95 % intervals and p-values."""
    from isthmus.bridges.bridge import load_bridge
    from isthmus.evaluation.suite import compare_bridges

    with output(as_json=as_json, quiet=quiet) as out:
        settings = shared(cache, templates, proposals, assignments, through, encoder, space)
        out.report = compare_bridges(
            load_bridge(first),
            load_bridge(second),
            benchmark,
            data,
            **settings,
            bootstrap=resamples,
            max_rejected=max_rejected,
            batch_size=batch_size,
            limit=limit,
            device=device,
            force=force,
            quiet=quiet,
        )
        show_differences(out)


def shared(
    cache: Path | None,
    templates: str | None,
    proposals: Path | None,
    assignments: list[str] | None,
    through: list[str] | None,
    encoder: list[str] | None,
    space: list[str] | None,
) -> dict[str, Any]:
    """Settings that both verbs have, as `SuiteSettings` calls them."""
    from isthmus.cli.config import collect
    from isthmus.cli.references import find_local_encoders, named_paths, named_values

    encoders = named_values(encoder, option="--encoder", example="SPACE=NAME")
    find_local_encoders(*encoders.values())
    return {
        "cache": cache,
        "options": collect(None, assignments or []),
        "templates": templates,
        "proposals": proposals,
        "through": named_values(through, option="--through", example="MODALITY=SPACE"),
        "encoders": encoders,
        "space_paths": named_paths(space),
    }


def show_differences(out: Output) -> None:
    """Print the differences, the means of both directions first."""
    report = out.report
    out.say(f"{report['title']}, {report['task']}: B - A, {report['resamples']:,} resamples of the same items")
    rows = []
    for way, words in (("figures", ""), ("query_to_gallery", " q>g"), ("gallery_to_query", " g>q")):
        for name, one in report.get(way, {}).items():
            low, high = one["ci95"]
            rows.append(
                [f"{name}{words}", one["a"], one["b"], one["difference"], f"{low:+.4f} to {high:+.4f}", one["p"]]
            )
    out.table(["figure", "A", "B", "B - A", "95 %", "p"], rows)
