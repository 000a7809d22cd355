"""The verb that shows the vocabulary that ships."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli import options as o
from isthmus.cli.output import output
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from isthmus.items.vocabulary import Entry


COLUMNS = ("id", "text", "kind", "gloss")


def vocabulary(
    search: Annotated[
        str | None, typer.Option("--search", metavar="WORD", help="Only entries with this word.", show_default=False)
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", metavar="KIND", help="Only entries of this kind, such as sound.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Entries to show; 0 shows all.")] = 20,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="F.csv", help="Write id, text, kind, gloss to a table.", show_default=False),
    ] = None,
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Show the names that ship: texts for --texts builtin."""
    from isthmus.items.vocabulary import count_kinds, load_vocabulary, search_vocabulary

    kinds = count_kinds()
    if kind is not None and kind not in kinds:
        raise ConfigError(f"--kind got {kind!r}, expected one of {', '.join(sorted(kinds))}.")
    found = list(load_vocabulary()) if search is None else search_vocabulary(search)
    found = [entry for entry in found if kind in (None, entry.kind)]
    if search is None and 0 < limit < len(found):  # a sample in the order of the alphabet, the same one every time
        shown = sorted(random.Random(0).sample(found, limit), key=lambda entry: entry.name)
    else:
        shown = found[: limit or None]
    with output(as_json=as_json, quiet=quiet) as printer:
        printer.report = {
            "count": sum(kinds.values()),
            "kinds": kinds,
            "found": len(found),
            "entries": [asdict(entry) for entry in shown],
        }
        printer.table(["name", "kind", "count", "gloss"], [[e.name, e.kind, e.count, e.gloss] for e in shown])
        printer.say(f"{len(shown):,} of {len(found):,} entries; the vocabulary has {sum(kinds.values()):,} names.")
        if out is not None:
            write_entries(found, out, overwrite=overwrite)
            printer.say(f"Saved {out}. Next: isthmus encode {out} --encoder NAME --into S.space --modality text")


def write_entries(entries: Iterable[Entry], path: Path, *, overwrite: bool) -> None:
    """Write entries as a table that `encode` reads, with the ids that `--texts` gives them.

    Raises:
        ConfigError: The file exists, or its name does not end in .csv.
    """
    from isthmus.core.replace import replaced_file
    from isthmus.items.vocabulary import text_id

    if path.suffix.lower() != ".csv":
        raise ConfigError(f"--out got {str(path)!r}, expected the name of a .csv file.")
    with (
        replaced_file(path, overwrite=overwrite, ours=_is_vocabulary, option="--out") as aside,
        open(aside, "w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows([text_id(entry.name), entry.name, entry.kind, entry.gloss] for entry in entries)


def _is_vocabulary(path: Path) -> bool:
    """Whether a file is a table that this verb wrote."""
    with open(path, encoding="utf-8", errors="replace", newline="") as stream:
        return stream.readline(200).rstrip("\r\n").split(",") == list(COLUMNS)
