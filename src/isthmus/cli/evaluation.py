"""Verbs that use the unified space: evaluate, search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import options as o
from isthmus.cli.output import Output, output
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from isthmus.bridges.bridge import Bridge


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
    from isthmus.evaluation.evaluate import format_table

    report = out.report
    if "mean" in report:
        out.say(
            f"{report['n_query']:,} queries, {report['n_gallery']:,} gallery items, {report['n_pairs']:,} true pairs"
        )
        out.say("Means of both directions; q>g and g>q are the directions.")
    else:
        out.say(f"{report['n']:,} items, {report['classes']:,} classes")
    out.say(format_table(report))


def search(
    bridge: o.BridgePath,
    gallery: Annotated[
        list[str], typer.Option(metavar="T.space/M", help="What is searched; repeatable.", show_default=False)
    ],
    text: Annotated[str | None, typer.Option(metavar="T", help="Query: a text.", show_default=False)] = None,
    image: Annotated[Path | None, typer.Option(metavar="F", help="Query: an image file.", show_default=False)] = None,
    audio: Annotated[Path | None, typer.Option(metavar="F", help="Query: a sound file.", show_default=False)] = None,
    point_cloud: Annotated[
        Path | None, typer.Option(metavar="F", help="Query: a mesh or point file.", show_default=False)
    ] = None,
    item: Annotated[
        str | None,
        typer.Option("--id", metavar="S.space/M/ID", help="Query: an item of a space.", show_default=False),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The encoder of the query, if the bridge does not know.", show_default=False),
    ] = None,
    encoder_options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="For --encoder; repeatable.", show_default=False),
    ] = None,
    k: Annotated[int, typer.Option("-k", metavar="K", min=1, help="How many hits.")] = 10,
    device: o.Device = None,
    force: o.Force = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Search galleries with a text, a file or an item of a space."""
    from isthmus.bridges.bridge import load_bridge
    from isthmus.cli.config import parse_assignment
    from isthmus.cli.references import find_local_encoders
    from isthmus.spaces.references import open_item

    with output(as_json=as_json, quiet=quiet) as out:
        find_local_encoders(encoder)
        files = {"text": text, "image": image, "audio": audio, "point_cloud": point_cloud}
        given = {name: value for name, value in files.items() if value is not None}
        if len(given) + (item is not None) != 1:
            raise ConfigError("search needs one query: --text, --image, --audio, --point-cloud or --id.")
        unified = load_bridge(bridge)
        if item is not None:
            vector = unified.project(open_item(item, option="--id"), force=force)
        else:
            ((modality, value),) = given.items()
            options = dict(map(parse_assignment, encoder_options or []))
            vector = unified.encode(
                [value], modality=modality, encoder=encoder, encoder_options=options, device=device, force=force
            )
        out.report = {
            "query": str(item or next(iter(given.values()))),
            "hits": find(unified, vector, gallery, k, force),
        }
        show_hits(out)


def find(bridge: Bridge, vector: np.ndarray, galleries: list[str], k: int, force: bool) -> list[dict[str, Any]]:
    """Search every gallery and merge the hits by score."""
    from isthmus.search.index import SearchIndex
    from isthmus.spaces.references import open_reference

    hits: list[dict[str, Any]] = []
    for reference in galleries:
        index = SearchIndex.from_bridge(bridge, open_reference(reference, option="--gallery"), force=force)
        for hit in index.search(vector, k=k)[0]:
            hits.append({"score": float(hit.score), "id": hit.id, "gallery": reference, "metadata": hit.metadata})
    hits.sort(key=lambda hit: -hit["score"])
    return [{"rank": rank, **hit} for rank, hit in enumerate(hits[:k], start=1)]


def show_hits(out: Output) -> None:
    """Print the hits as a table: rank, score, id, where from, and what it is."""
    rows = []
    for hit in out.report["hits"]:
        about = [str(value) for name, value in (hit["metadata"] or {}).items() if name != "id" and value is not None]
        rows.append([hit["rank"], round(hit["score"], 4), hit["id"], hit["gallery"], " ".join(about)[:60]])
    out.table(["rank", "cosine", "id", "gallery", "what"], rows)
