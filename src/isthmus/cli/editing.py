"""Verbs that change a space: update, remove, rename, merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli import options as o
from isthmus.cli.output import output
from isthmus.errors import ConfigError

Modality = Annotated[str, typer.Option(metavar="M", help="text, image, audio, point_cloud, ...", show_default=False)]


def update(
    space: o.SpacePath,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="All files that the modality shall hold.", show_default=False),
    ],
    modality: Modality,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="See `isthmus encoders` (default: the recorded one).", show_default=False),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep rows whose file is not named any more.")] = False,
    device: o.Device = None,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Bring a space up to date with its files, changed and gone."""
    from isthmus.cli.references import find_local_encoders
    from isthmus.encoders.pipeline.update import update_space
    from isthmus.items import find_items

    with output(as_json=as_json, quiet=quiet) as out:
        find_local_encoders(encoder)
        items = find_items(paths, modality=modality).items
        chosen = encoder or recorded_encoder(space, modality)
        report = update_space(
            items, space, modality=modality, encoder=chosen, drop=not keep, device=device, quiet=quiet
        )
        out.report = {"space": str(space), "modality": modality, **vars(report)}
        out.table(list(vars(report)), [list(vars(report).values())])


def recorded_encoder(space: Path, modality: str) -> str:
    """The name that a space's encoder was loaded by.

    Raises:
        ConfigError: The space does not say, or it is a class that only the user may name.
    """
    from isthmus.encoders.registry import REGISTRY
    from isthmus.spaces.space import open_space

    opened = open_space(space)
    name = str(opened[modality].info.get("encoder_name") or "") if modality in opened else ""
    if name.partition(":")[0] not in REGISTRY:
        raise ConfigError(f"{space}: does not tell the encoder of its {modality!r}. Name it: --encoder NAME.")
    return name


def remove(
    space: o.SpacePath,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of items.", show_default=False)] = None,
    modality: Annotated[
        str | None, typer.Option(metavar="M", help="text, image, audio, point_cloud, ...", show_default=False)
    ] = None,
    ids_file: Annotated[
        Path | None,
        typer.Option("--ids", metavar="FILE", help="A table with a column id, or one id a line.", show_default=False),
    ] = None,
    all_rows: Annotated[bool, typer.Option("--all", help="The whole modality.")] = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Remove items, or a whole modality, from a space."""
    from isthmus.spaces.editing import remove_items, remove_modality

    with output(as_json=as_json, quiet=quiet) as out:
        if modality is None:
            raise ConfigError("remove needs --modality M: ids are unique in a modality alone.")
        named = [*(ids or []), *(read_ids(ids_file) if ids_file else [])]
        if all_rows == bool(named):
            raise ConfigError("remove needs ids (ID..., --ids FILE), or --all for the whole modality.")
        rows = remove_items(space, modality, named) if named else None
        if all_rows:
            remove_modality(space, modality)
        out.report = {"space": str(space), "modality": modality, "removed": rows}
        out.say(f"Removed {'all' if rows is None else f'{rows:,}'} rows of {modality} from {space}.")


def read_ids(path: Path) -> list[str]:
    """Ids of a file: the column `id` of a table, or one a line."""
    from isthmus.core.table_files import TABLE_SUFFIXES, read_table
    from isthmus.core.text_lines import read_text_lines

    if path.suffix.lower() in TABLE_SUFFIXES:
        table = read_table(path)
        if "id" not in table.column_names:
            raise ConfigError(f"{path}: has no column id. It has: {', '.join(table.column_names)}.")
        return [str(value) for value in table.column("id").to_pylist()]
    return [line for line in read_text_lines(path) if line.strip()]


def rename(
    space: o.SpacePath,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="A new name of the space.", show_default=False)
    ] = None,
    modality: Annotated[
        str | None, typer.Option(metavar="M", help="The modality whose ids change.", show_default=False)
    ] = None,
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="OLD=NEW", help="A new id; repeatable.", show_default=False)
    ] = None,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Rename a space, or items of it."""
    from isthmus.cli.references import named_values
    from isthmus.spaces.editing import rename_items, rename_space

    with output(as_json=as_json, quiet=quiet) as out:
        if (name is None) == (not ids) or bool(ids) != (modality is not None):
            raise ConfigError("rename needs --name NAME, or --modality M with --id OLD=NEW.")
        if name is not None:
            rename_space(space, name)
        renamed = rename_items(space, str(modality), named_values(ids, option="--id", example="OLD=NEW")) if ids else 0
        out.report = {"space": str(space), "name": name, "renamed": renamed}
        out.say(f"Renamed {space}." if name else f"Renamed {renamed:,} ids of {space}.")


def merge(
    spaces: Annotated[list[Path], typer.Argument(metavar="S.space", help="Spaces of one encoder.", show_default=False)],
    into: Annotated[Path, typer.Option("--into", metavar="T.space", help="The space to write.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a new space (default: the first one's).", show_default=False)
    ] = None,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Put spaces of one encoder together; it resumes."""
    from isthmus.spaces.editing import merge_spaces

    with output(as_json=as_json, quiet=quiet) as out:
        added = merge_spaces(spaces, into, name=name)
        out.report = {"space": str(into), "added": added}
        out.table(["modality", "rows added"], list(added.items()))
        out.note(f"Next: isthmus inspect {into}")
