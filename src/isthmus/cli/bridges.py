"""Verbs that make and use bridges: connect, extend, project."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import options as o
from isthmus.cli.making import Making, share_listed_texts, share_texts_with_base
from isthmus.cli.output import output
from isthmus.cli.settings_help import settings_option
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from isthmus.core.distribution import Distribution

METHODS = ("ex-mcr", "posterior", "cca", "dictionary", "ridge", "procrustes")
CONNECT_METHODS = ("auto", "posterior", "cca", "c-mcr", "dictionary", "ridge", "procrustes", "mean_offset")


def connect(
    spaces: Annotated[list[Path], typer.Argument(metavar="S.space", help="Two spaces or more.", show_default=False)],
    via: Annotated[
        list[str],
        typer.Option(
            metavar="M[,M2]|A,B:M",
            help="The modality, or several, that all share; or one pair of spaces at a time, by name; repeatable.",
            show_default=False,
        ),
    ],
    out: o.BridgeOut,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(CONNECT_METHODS),
            help="auto (default) chooses a closed form without labels; c-mcr trains.",
            show_default=False,
        ),
    ] = None,
    texts: o.Texts = None,
    text_encoder: o.TextEncoders = None,
    preset: o.Preset = None,
    config: o.ConfigFile = None,
    assignments: o.Set = None,
    seed: o.Seed = None,
    device: o.Device = None,
    memory_limit: o.MemoryLimit = None,
    engine: o.Engine = None,
    address: o.Address = None,
    checkpoint_dir: o.CheckpointDir = None,
    curves: o.Curves = None,
    tensorboard: o.TensorBoard = None,
    help_settings: Annotated[bool, settings_option("connect")] = False,
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Connect spaces into a new one (auto, or C-MCR)."""
    from isthmus.recipes.connect import connect as recipe
    from isthmus.spaces.space import open_space

    making = Making(
        out, preset, config, assignments, memory_limit, engine, address, checkpoint_dir, curves, tensorboard,
        overwrite, quiet, as_json,
    )  # fmt: skip
    chosen, settings = making.connect_settings(method)
    making.run(
        lambda **more: recipe(
            *share_listed_texts([open_space(space) for space in spaces], texts, text_encoder, quiet=quiet), **more
        ),
        inputs=[*spaces, *(texts or [])],
        via=via[0] if len(via) == 1 else via,
        method=chosen,
        seed=seed,
        device=device,
        **settings,
    )


def extend(
    base: Annotated[
        Path, typer.Argument(metavar="BASE", help="A space or a bridge; it stays as it is.", show_default=False)
    ],
    leaf: Annotated[Path, typer.Argument(metavar="LEAF.space", help="The space to bring in.", show_default=False)],
    via: o.Via,
    out: o.BridgeOut,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(METHODS),
            help="ex-mcr (default) trains; posterior is the default on a bridge of posteriors.",
            show_default=False,
        ),
    ] = None,
    center: Annotated[
        str | None,
        typer.Option(metavar="no|leaf|both", help="Closed forms: remove modalities' means first.", show_default=False),
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(
            metavar="M", help="Bring in only this modality of the leaf; repeatable (ex-mcr).", show_default=False
        ),
    ] = None,
    texts: o.Texts = None,
    text_encoder: o.TextEncoders = None,
    preset: o.Preset = None,
    config: o.ConfigFile = None,
    assignments: o.Set = None,
    seed: o.Seed = None,
    device: o.Device = None,
    memory_limit: o.MemoryLimit = None,
    engine: o.Engine = None,
    address: o.Address = None,
    checkpoint_dir: o.CheckpointDir = None,
    curves: o.Curves = None,
    tensorboard: o.TensorBoard = None,
    space: o.SpacePaths = None,
    help_settings: Annotated[bool, settings_option("extend")] = False,
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Extend a frozen space or bridge by a leaf space (Ex-MCR)."""
    from isthmus.cli.references import named_paths
    from isthmus.recipes.extend import extend as recipe
    from isthmus.recipes.posterior.addition import recognises
    from isthmus.spaces.space import open_space

    making = Making(
        out, preset, config, assignments, memory_limit, engine, address, checkpoint_dir, curves, tensorboard,
        overwrite, quiet, as_json,
    )  # fmt: skip
    chosen, settings = making.extend_settings(method, center, modality, posteriors=recognises(open_base(base)))

    def recipe_with_texts(**settings: Any) -> Any:
        spaces = open_base(base), open_space(leaf)
        start, new, places = share_texts_with_base(*spaces, named_paths(space), texts, text_encoder, quiet=quiet)
        return recipe(start, new, space_paths=places, **settings)

    making.run(
        recipe_with_texts,
        inputs=[base, leaf, *recorded_places(base), *named_paths(space).values(), *(texts or [])],
        via=via,
        method=chosen,
        seed=seed,
        device=device,
        **settings,
    )


def recorded_places(base: Path) -> list[Path]:
    """Where the spaces of a base lie, if it is a bridge: extending it reads them."""
    if not (base / "bridge.json").is_file():
        return []
    from isthmus.bridges.bridge import load_bridge

    return [Path(space.path) for space in load_bridge(base).spaces if space.path]


def open_base(path: Path) -> Any:
    """Open what `extend` may start from: a bridge folder or a space folder."""
    if (path / "bridge.json").is_file():
        from isthmus.bridges.bridge import load_bridge

        return load_bridge(path)
    from isthmus.spaces.space import open_space

    return open_space(path)


def project(
    bridge: o.BridgePath,
    space: Annotated[
        list[Path],
        typer.Argument(metavar="S.space", help="Spaces, the base and its leaves together.", show_default=False),
    ],
    into: Annotated[
        str,
        typer.Option(
            "--into",
            metavar="U.space|URL",
            help="The space to write, or a store: lance:DIR, postgresql://..., qdrant:URL_OR_DIR.",
            show_default=False,
        ),
    ],
    modality: Annotated[
        list[str] | None,
        typer.Option(
            metavar="M", help="Only this modality; repeatable (default: all that have a route).", show_default=False
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Only part I of N, such as 0/8; a folder is joined by the last.", show_default=False
        ),
    ] = None,
    engine: o.ShardEngine = "local",
    tasks: o.Tasks = None,
    address: o.Address = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Into a store: delete rows that the space does not hold any more.")
    ] = False,
    overwrite: o.Overwrite = False,
    force: o.Force = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Project spaces through a bridge, into a folder or a store."""
    from isthmus.core.distribution import Distribution
    from isthmus.search.stores.load import is_store

    work = Distribution(shard, engine, tasks, address)
    if is_store(into):
        if overwrite:
            raise ConfigError("--overwrite is of folders. A store is brought up to date; --prune drops the rest.")
        load_store(bridge, space, into, modality, work, prune, force, quiet, as_json)
        return
    if prune:
        raise ConfigError("--prune is of stores (lance:DIR, postgresql://..., qdrant:...).")
    from isthmus.bridges import project as verb

    with output(as_json=as_json, quiet=quiet) as out:
        found = verb.project(
            bridge, space, into=into, modalities=modality, overwrite=overwrite, force=force, distribution=work
        )
        out.report, rows = found, found.rows
        out.table(["modality", "rows"], list(rows.items()))
        for name, missing in (found.waiting_for or {}).items():
            out.say(f"{name}: {len(missing):,} parts are missing still, the first is {missing[0]}")
        out.note(f"Next: isthmus inspect {into}")


def load_store(
    bridge: Path,
    spaces: list[Path],
    url: str,
    modality: list[str] | None,
    work: Distribution,
    prune: bool,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Project spaces into a vector store and say what was written."""
    from isthmus.bridges.bridge import load_bridge
    from isthmus.search.stores.load import load_spaces
    from isthmus.search.stores.urls import without_secrets
    from isthmus.spaces.space import open_space

    with output(as_json=as_json, quiet=quiet) as out:
        started = time.monotonic()
        opened, place = [open_space(path) for path in spaces], without_secrets(url)
        reports = load_spaces(
            load_bridge(bridge),
            opened,
            url,
            modalities=modality,
            distribution=work,
            prune=prune,
            force=force,
            quiet=quiet,
        )
        columns = ["gallery", "rows", "written", "unchanged", "deleted"]
        out.table(columns, [[getattr(report, name) for name in columns] for report in reports])
        out.report = {
            "path": place,
            "rows": {report.gallery: report.rows for report in reports},
            "loaded": [vars(report) for report in reports],
            "seconds": time.monotonic() - started,
        }
        out.note(f"Next: isthmus search {bridge} --in '{place}' --text TEXT")
