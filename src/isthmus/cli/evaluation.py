"""The verb evaluate: a bridge against true pairs or class labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from isthmus.cli import options as o
from isthmus.cli.output import Output, output
from isthmus.errors import ConfigError


def evaluate(
    bridge: o.BridgePath,
    query: Annotated[str, typer.Option(metavar="S.space/M", help="What is searched with.", show_default=False)],
    gallery: Annotated[
        str | None, typer.Option(metavar="T.space/M", help="Retrieval: what is searched.", show_default=False)
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(metavar="P.csv", help="Retrieval: true pairs, columns query_id,gallery_id.", show_default=False),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="T.space/text", help="Zero-shot: the class texts.", show_default=False)
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="L.csv", help="Zero-shot: the truth, columns query_id,class_id.", show_default=False),
    ] = None,
    baselines: Annotated[bool, typer.Option("--baselines", help="Score the simple methods beside the bridge.")] = False,
    train_pairs: Annotated[
        Path | None,
        typer.Option(metavar="P.csv", help="True training pairs, for the paired oracle.", show_default=False),
    ] = None,
    space: o.SpacePaths = None,
    force: o.Force = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Score a bridge on true pairs or on class labels."""
    from isthmus.bridges.bridge import load_bridge
    from isthmus.cli.references import named_paths
    from isthmus.evaluation.evaluate import evaluate_bridge
    from isthmus.spaces.references import open_reference

    with output(as_json=as_json, quiet=quiet) as out:
        target, truth, task = choose_task(gallery, pairs, classes, labels)
        what: dict[str, Any] = {task[0]: open_reference(target, option=f"--{task[0]}"), task[1]: truth}
        out.report = evaluate_bridge(
            load_bridge(bridge),
            query=open_reference(query, option="--query"),
            **what,
            baselines=baselines,
            train_pairs=train_pairs,
            space_paths=named_paths(space),
            force=force,
        )
        show_scores(out)


def choose_task(
    gallery: str | None, pairs: Path | None, classes: str | None, labels: Path | None
) -> tuple[str, Path, tuple[str, str]]:
    """Tell retrieval from zero-shot classification by the options given; refuse halves and mixtures."""
    if gallery and pairs and not (classes or labels):
        return gallery, pairs, ("gallery", "pairs")
    if classes and labels and not (gallery or pairs):
        return classes, labels, ("classes", "labels")
    given = {"--gallery": gallery, "--pairs": pairs, "--classes": classes, "--labels": labels}
    got = " ".join(name for name, value in given.items() if value) or "none of them"
    raise ConfigError(
        f"evaluate got {got}, expected --gallery with --pairs (retrieval) or --classes with --labels (zero-shot)."
    )


def show_scores(out: Output) -> None:
    """Print the scores of a bridge, with the baselines as further rows."""
    from isthmus.core.terminal import line_width
    from isthmus.evaluation.evaluate import format_table

    report = out.report
    if "mean" in report:
        out.say(
            f"{report['n_query']:,} queries, {report['n_gallery']:,} gallery items, {report['n_pairs']:,} true pairs"
        )
        out.say("Means of both directions; q>g and g>q are the directions.")
    else:
        out.say(f"{report['n']:,} items, {report['classes']:,} classes")
    out.say(format_table(report, width=line_width()))
