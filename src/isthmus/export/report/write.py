"""Writing a report: one HTML file with everything inside, or Markdown."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.core.files import atomic_file
from isthmus.errors import ConfigError
from isthmus.export.report.collect import FIGURES, Content, ReportTask, collect
from isthmus.export.report.figures import bars, curves

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge

TEMPLATES = Path(__file__).parent / "templates"
SUFFIXES = (".html", ".htm", ".md")
MARK = "isthmus report"
"""Stands at the beginning of every report, so that one is known again before it is replaced."""


def report(
    bridge: Bridge | str | Path,
    tasks: Sequence[ReportTask] = (),
    *,
    out: str | Path,
    baselines: bool = False,
    space_paths: Mapping[str, str | Path] | None = None,
    overwrite: bool = False,
    force: bool = False,
) -> Path:
    """Write what a bridge joins and how, how good it is and why.

    Args:
        bridge: The bridge, or its folder.
        tasks: Items with a known truth, which are scored and shown; may be none.
        out: The file: `.html`, which holds everything and asks nothing of a network, or `.md`.
        baselines: Score the simple methods of each task too.
        space_paths: Where the bridge's spaces lie now, by name, for their health.
        overwrite: Replace a report that lies at `out`.
        force: Project embeddings of another encoder too.

    Returns:
        The file.

    Raises:
        ConfigError: The file's name has another suffix, or something lies there that is not to be replaced.
        EvaluationError: A task's truth does not fit its items.
    """
    from isthmus.bridges.bridge import load_bridge

    path = Path(out).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"out got {str(out)!r}. Expected a name that ends in .html or .md.")
    _check_place(path, overwrite)
    opened = load_bridge(bridge) if isinstance(bridge, (str, Path)) else bridge
    name = Path(bridge).resolve().name if isinstance(bridge, (str, Path)) else opened.method
    content = collect(opened, tasks, name=name, baselines=baselines, space_paths=space_paths, force=force)
    text = render(content, html=path.suffix.lower() != ".md")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path


def _check_place(path: Path, overwrite: bool) -> None:
    """Refuse to replace anything but a report, and that only where it was asked for."""
    if not path.exists() and not path.is_symlink():
        return
    if not overwrite:
        raise ConfigError(f"{path} exists. Give another name, or --overwrite (overwrite=True) to replace a report.")
    if path.is_symlink() or not path.is_file() or MARK.encode() not in path.read_bytes()[:200]:
        raise ConfigError(f"{path} is no report that isthmus wrote, so it is not replaced. Give another name.")


def render(content: Content, *, html: bool = True) -> str:
    """The report as text; in HTML every word from a file is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    environment.filters["cell"] = cell
    record = content.record
    return environment.get_template("report.html" if html else "report.md").render(
        content=content,
        bridge=content.bridge,
        record=record,
        made=record.get("versions", {}),
        today=datetime.date.today().isoformat(),
        figures=FIGURES,
        estimate=_mapping(record.get("estimate")),
        chosen=chosen_rows(record.get("chosen")),
        gaps=gap_rows(record.get("gap")),
        gap_bars=bars(gap_rows(record.get("gap"))),
        curves=curves(content.bridge.history),
        config=json.dumps(content.bridge.config, indent=1, default=str),
        explained=any(each.reasons for task in content.tasks for each in task.best + task.worst),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def chosen_rows(chosen: Any) -> list[dict[str, Any]]:
    """The candidates and their estimates, as the bridge records them, as rows of a table."""
    rows = chosen.get("candidates", chosen) if isinstance(chosen, Mapping) else chosen
    if isinstance(rows, Mapping):
        rows = [
            {"method": name, **(value if isinstance(value, Mapping) else {"estimate": value})}
            for name, value in rows.items()
        ]
    return [dict(row) for row in rows if isinstance(row, Mapping)] if isinstance(rows, Sequence) else []


def gap_rows(gap: Any) -> dict[str, tuple[float | None, float | None]]:
    """Gaps by pair of modalities, (before, after)."""
    before, after = _mapping(_mapping(gap).get("before")), _mapping(_mapping(gap).get("after"))
    names = list(dict.fromkeys([*before, *after]))
    return {name: (before.get(name), after.get(name)) for name in names}


def figure(value: Any) -> str:
    """A number of a table; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:,.3f}" if isinstance(value, float) and abs(value) < 100 else f"{value:,.4g}"


def cell(value: Any) -> str:
    """Any value of a table, on one line that cannot break a Markdown table."""
    if isinstance(value, float):
        return figure(value)
    text = json.dumps(value, default=str) if isinstance(value, (Mapping, list, tuple)) else str(value)
    return " ".join(text.replace("|", "/").split())[:200]
