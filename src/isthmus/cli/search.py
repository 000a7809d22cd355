"""The verb search: one query of several items, and a gallery, a world's index or a vector store that answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import options as o
from isthmus.cli.output import Output, output
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.search.ask import QueryPart
    from isthmus.search.hits import Hit
    from isthmus.search.index import SearchIndex
    from isthmus.search.query import QueryItem
    from isthmus.spaces.embeddings import Embeddings

WORLD_BRIDGE, WORLD_INDEX = "unified.bridge", "index"


def search(
    bridge: Annotated[
        Path,
        typer.Argument(metavar="X.bridge|W.world", help="A bridge, or a world that join made.", show_default=False),
    ],
    gallery: Annotated[
        list[str] | None,
        typer.Option(metavar="T.space[/M]", help="What is searched; repeatable.", show_default=False),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--in", metavar="URL", help="Search a store: lance:DIR, postgresql://..., qdrant:...", show_default=False
        ),
    ] = None,
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
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[W*]M=V",
            help='One more item, such as "0.5*text=at night" or "-1*image=day.png"; repeatable.',
            show_default=False,
        ),
    ] = None,
    filter: Annotated[
        str | None,
        typer.Option(metavar="EXPR", help="Only items whose metadata pass: year > 2010.", show_default=False),
    ] = None,
    balance: Annotated[
        str | None,
        typer.Option(
            metavar="quota|none",
            help="Give each modality its share of hits (default where they are several), or rank all by score.",
            show_default=False,
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say why each hit matches.")] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Pass over an approximate index.")] = False,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The encoder of the query, if the bridge does not know.", show_default=False),
    ] = None,
    encoder_options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="For --encoder; repeatable.", show_default=False),
    ] = None,
    k: Annotated[int, typer.Option("-k", metavar="K", min=1, help="How many hits.")] = 10,
    space: o.SpacePaths = None,
    device: o.Device = None,
    force: o.Force = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Search galleries, a world or a store with one item or several."""
    from isthmus.bridges.bridge import load_bridge
    from isthmus.cli.config import parse_assignment
    from isthmus.cli.references import find_local_encoders, named_paths
    from isthmus.search.ask import embed_parts

    with output(as_json=as_json, quiet=quiet) as out:
        find_local_encoders(encoder)
        files = {"text": text, "image": image, "audio": audio, "point_cloud": point_cloud}
        parts = query_parts(files, item, also or [])
        world = bridge if (bridge / WORLD_BRIDGE).is_dir() else None
        unified = load_bridge(bridge if world is None else world / WORLD_BRIDGE)
        sources = open_sources(unified, world, gallery or [], named_paths(space), explain=explain)
        answer, index = answerer(unified, world, sources if gallery else {}, store, force=force, exact=exact)
        options = dict(map(parse_assignment, encoder_options or []))
        items = embed_parts(unified, parts, encoder=encoder, encoder_options=options, device=device, force=force)
        hits = answer(items, k=k, filter=filter, balance=balance)
        if explain:
            places = named_paths(space)
            hits = explain_shown(out, unified, items, hits, sources=sources, index=index, space_paths=places)
        out.report = {"query": " + ".join(map(str, parts)), "hits": hit_rows(hits)}
        show_hits(out, hits)


def query_parts(files: dict[str, Any], item: str | None, also: Sequence[str]) -> list[QueryPart]:
    """The items of a query, as the options name them.

    Raises:
        ConfigError: There is none, or several without weights; or `--also` is no `[WEIGHT*]MODALITY=VALUE`.
    """
    from isthmus.search.ask import QueryPart
    from isthmus.spaces.references import open_item

    given = {name: str(value) for name, value in files.items() if value is not None}
    if len(given) + (item is not None) > 1 or not (given or item or also):
        raise ConfigError(
            "search needs one query: --text, --image, --audio, --point-cloud or --id; further items go by --also."
        )
    parts = [QueryPart(name, value) for name, value in given.items()]
    if item is not None:
        one = open_item(item, option="--id")
        parts.append(QueryPart(one.modality, one.ids[0], source=one.whole))
    for text in also:
        weight, star, rest = text.partition("*")
        head, equals, value = (rest if star and "=" not in weight else text).partition("=")
        number = weight if star and "=" not in weight else "1"
        if not equals or not value or not head.strip().isidentifier() or not _is_number(number):
            raise ConfigError(f'--also got {text!r}, expected [WEIGHT*]MODALITY=VALUE such as "0.5*text=at night".')
        parts.append(QueryPart(head.strip(), value, float(number)))
    return parts


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def open_sources(
    bridge: Bridge, world: Path | None, galleries: Sequence[str], places: Mapping[str, Path], *, explain: bool
) -> dict[str, Embeddings]:
    """Modalities of spaces that hits are items of, by gallery: the galleries, or to explain hits all that can be found.

    Args:
        bridge: The bridge.
        world: The world that is searched, or None.
        galleries: Values of --gallery.
        places: Where the bridge's spaces lie now, by name.
        explain: Whether hits will be explained.
    """
    from isthmus.errors import IsthmusError
    from isthmus.spaces.references import open_galleries
    from isthmus.spaces.space import open_space

    if galleries or not explain:
        return open_galleries(galleries)
    spaces = [open_space(path) for path in sorted((world / "spaces").glob("*.space"))] if world is not None else []
    for known in bridge.spaces:
        with suppress(IsthmusError):  # what is not there cannot be looked up, and the hit is explained without it
            spaces.append(bridge.open_space(known.name, places.get(known.name)))
    found: dict[str, Embeddings] = {}
    for each in spaces:
        for modality in each.modalities:
            found.setdefault(f"{each.name}/{modality}", each[modality])
    return found


def answerer(
    bridge: Bridge,
    world: Path | None,
    galleries: Mapping[str, Embeddings],
    url: str | None,
    *,
    force: bool,
    exact: bool,
) -> tuple[Callable[..., list[Hit]], SearchIndex | None]:
    """What answers a query: a store, galleries, or the index of a world; opened before anything is embedded.

    Returns:
        What takes query items and gives hits, and the index that it searches, where it is a world's.

    Raises:
        ConfigError: None or several of them are given.
    """
    from isthmus.search import ask
    from isthmus.search.index import SearchIndex

    if url is not None and galleries:
        raise ConfigError("search looks into --in or into --gallery, got both. Give one of them.")
    if url is not None:
        from isthmus.search.stores.load import open_store_of

        store = open_store_of(bridge, url)
        return lambda items, **options: ask.search_store(store, items, exact=exact, **options), None
    if galleries or world is None:
        if not galleries:
            raise ConfigError("search needs something to search: --gallery T.space/M, or --in URL.")
        return lambda items, **options: ask.search_galleries(bridge, items, galleries, force=force, **options), None
    index = SearchIndex.open(world / WORLD_INDEX)
    return lambda items, **options: ask.search_index(bridge, items, index, exact=exact, **options), index


def hit_rows(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """Hits as --json prints them; those that were explained say why and from what."""
    rows = []
    for rank, hit in enumerate(hits, start=1):
        row = {"rank": rank, "score": float(hit.score), "id": hit.id, "modality": hit.modality, "gallery": hit.gallery}
        row["metadata"] = hit.metadata
        if hit.why is not None:
            shares = [{"text": text, "share": share} for text, share in hit.why.shares]
            row |= {"why": shares, "exact": hit.why.exact, "basis": hit.why.basis}
        rows.append(row)
    return rows


def show_hits(out: Output, hits: Sequence[Hit]) -> None:
    """Print hits as a table: rank, score, id, where from, what it is, and below each, where it was asked, why."""
    columns: dict[str, list[Any]] = {
        "rank": list(range(1, len(hits) + 1)),
        "cosine": [round(float(hit.score), 4) for hit in hits],
        "id": [hit.id for hit in hits],
    }
    if len({hit.gallery or hit.modality for hit in hits}) > 1:
        columns["gallery"] = [_place(hit) for hit in hits]
    if any(known := [_about(hit) for hit in hits]):
        columns["what"] = known
    rows = list(zip(*columns.values(), strict=True))
    out.table(list(columns), rows, notes=[None if hit.why is None else f"by {hit.why}" for hit in hits])
    for basis in dict.fromkeys(hit.why.basis for hit in hits if hit.why is not None):
        exact = any(hit.why is not None and hit.why.exact and hit.why.basis == basis for hit in hits)
        out.sentence(f"Shares are {'exact' if exact else 'an approximation'}: from {basis}.")


def explain_shown(
    out: Output, bridge: Bridge, items: Sequence[QueryItem], hits: Sequence[Hit], **where: Any
) -> list[Hit]:
    """Explain hits, and say which could not be."""
    from isthmus.search.ask import explain_hits

    told = explain_hits(bridge, items, hits, **where)
    if missing := sum(hit.why is None for hit in told):
        out.note(
            f"{missing} of {len(told)} hits are not explained: their items lie in no space at hand. "
            "Name it: --space NAME=PATH."
        )
    return told


def _place(hit: Hit) -> str:
    """The gallery of a hit: its space and modality, without the folders before them."""
    return "/".join(hit.gallery.split("/")[-2:]) or hit.modality


def _about(hit: Hit) -> str:
    """What is known of a hit beside its id, the text first."""
    own = {"id", "modality"}
    known = {name: value for name, value in (hit.metadata or {}).items() if name not in own and value is not None}
    # Ids of files are the ends of their paths: what a line would say twice is left out.
    known = {name: value for name, value in known.items() if not (name.endswith("_path") and _names(value, hit.id))}
    text = known.pop("text", None)
    return " ".join(map(str, [*([text] if text else []), *known.values()]))


def _names(path: object, name: str) -> bool:
    return str(path).replace("\\", "/").endswith("/" + name)
