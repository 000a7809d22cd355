"""Writing a report: one HTML file with everything inside, or Markdown."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.core.places import home_path
from isthmus.core.replace import replaced_file
from isthmus.errors import ConfigError
from isthmus.export.report.collect import FIGURES, Content, ReportTask, collect
from isthmus.export.report.figures import bars, curves

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge

TEMPLATES = Path(__file__).parent / "templates"
HEADS = {"r@1": "R@1", "r@5": "R@5", "r@10": "R@10", "map": "mAP", "median_rank": "median rank"}
HEADS |= {name: name for name in FIGURES if name not in HEADS}
"""By figure, what heads its column."""
TRIED = (
    "Each was scored on pseudo pairs of shared items, once fitted without their items (uncovered) and once with them "
    "(covered); the estimate takes both together, as mAP of new pairs."
)
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
    name: str | None = None,
) -> Path:
    """Write what a bridge joins and how, how good it is and why.

    Args:
        bridge: The bridge, or its folder.
        tasks: Items with a known truth, which are scored and shown; may be none.
        out: The file: `.html`, which holds everything and asks nothing of a network, or `.md`.
        baselines: Score the simple methods of each task too.
        space_paths: Where the bridge's spaces lie now, by name, for their health.
        overwrite: Replace a report that lies at `out`; a link is followed, and nothing else is replaced.
        force: Project embeddings of another encoder too.
        name: What the report calls the bridge; None takes the name of its folder.

    Returns:
        The file.

    Raises:
        ConfigError: The file's name has another suffix, or something lies there that is not to be replaced.
        EvaluationError: A task's truth does not fit its items.
    """
    from isthmus.bridges.bridge import load_bridge

    path = home_path(out)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"out got {str(out)!r}. Expected a name that ends in .html or .md.")
    given = bridge if isinstance(bridge, (str, Path)) else None
    inputs = [given, *(each.pairs for each in tasks if isinstance(each.pairs, (str, Path)))]
    path.parent.mkdir(parents=True, exist_ok=True)
    # What lies there is looked at before anything is scored, and once more when the report is put there.
    with replaced_file(path, overwrite=overwrite, ours=is_report, inputs=inputs) as aside:
        opened: Any = load_bridge(given) if given is not None else bridge
        title = name or (Path(given).resolve().name if given is not None else opened.method)
        content = collect(opened, tasks, name=title, baselines=baselines, space_paths=space_paths, force=force)
        aside.write_text(render(content, html=path.suffix.lower() != ".md"), encoding="utf-8")
    return path


def is_report(path: Path) -> bool:
    """Whether a file is a report that isthmus wrote."""
    with path.open("rb") as file:
        return MARK.encode() in file.read(200)


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
    environment.filters["rank"] = rank
    record = content.record
    return environment.get_template("report.html" if html else "report.md").render(
        content=content,
        bridge=content.bridge,
        record=record,
        made=record.get("versions", {}),
        today=datetime.date.today().isoformat(),
        figures=FIGURES,
        heads=HEADS,
        winner=str(_mapping(record.get("chosen")).get("method", "")),
        tried_words=TRIED,
        estimate=_mapping(record.get("estimate")),
        estimated=estimate_words(_mapping(record.get("estimate"))),
        chosen=chosen_rows(record.get("chosen")),
        gaps=gap_rows(record.get("gap")),
        gap_bars=bars(gap_rows(record.get("gap"))),
        curves=curves(content.bridge.history),
        config=json.dumps(content.bridge.config, indent=1, default=str),
        explained=any(each.reasons for task in content.tasks for each in task.best + task.worst),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def estimate_words(estimate: Mapping[str, Any]) -> list[str]:
    """What a bridge's estimate says, sentence by sentence."""
    words = []
    if isinstance(value := estimate.get("map", estimate.get("quality")), (int, float)):
        ends = list(estimate.get("map_ci95") or [])
        interval = f", 95 % interval {figure(float(ends[0]))} to {figure(float(ends[1]))}" if len(ends) == 2 else ""
        words.append(f"Expected mAP of pairs that were never trained: {figure(float(value))}{interval}.")
    words += [f"{str(reason)[:1].upper()}{str(reason)[1:]}." for reason in estimate.get("reasons") or ()]
    if dropped := estimate.get("dropped"):
        items = "1 shared item was left out: its" if dropped == 1 else f"{dropped:,} shared items were left out: their"
        words.append(f"{items} neighbours in the two spaces have nothing in common.")
    if anew := estimate.get("rematched"):
        items = "1 shared item was" if anew == 1 else f"{anew:,} shared items were"
        words.append(f"{items} matched anew by what they mean, as their ids were wrong.")
    if source := estimate.get("from"):
        words.append(f"Taken from {source}.")
    return words


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


def rank(value: Any) -> str:
    """A rank of a table, with one place after the point where it needs it; a dash where there is none."""
    return "-" if value is None else f"{round(float(value), 1):,g}"


def cell(value: Any) -> str:
    """Any value of a table, on one line that cannot break a Markdown table."""
    if isinstance(value, float):
        return figure(value)
    text = json.dumps(value, default=str) if isinstance(value, (Mapping, list, tuple)) else str(value)
    return " ".join(text.replace("|", "/").split())[:200]
