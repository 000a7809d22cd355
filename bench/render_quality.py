"""Write docs/quality.md: every way of joining on every benchmark, the estimates, and where `auto` was wrong.

`bench/render_results.py` calls it with the result files `quality`, `estimate` and `research`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Load = Callable[[str], dict[str, Any] | None]
Table = Callable[[list[str], list[list[str]]], str]
Rows = Sequence[Mapping[str, Any]]

WORDS = {
    "auto": "**auto** (`connect`)", "extend": "**`extend`, base frozen**", "ex-mcr": "`ex-mcr`, trained",
    "c-mcr": "`c-mcr`, trained", "posterior": "`posterior`", "cca": "`cca`", "dictionary": "`dictionary`",
    "two-sided dictionary": "`dictionary`, two-sided", "ridge": "`ridge`", "procrustes": "`procrustes`",
    "literal extend": "Ex-MCR written down literally", "literal connect": "C-MCR written down literally",
    "ceiling": "ceiling: both spaces' own posteriors over the tested names", "chance": "chance",
}  # fmt: skip
VARIANTS = {
    "all": "all texts", "captions": "captions alone", "names": "names and definitions alone",
    "vocabulary": "the vocabulary alone", "all+vocabulary": "all texts and the vocabulary",
    "tenth": "a tenth of the texts", "300": "300 texts",
}  # fmt: skip
SINGLE = ("posterior", "cca", "dictionary", "two-sided dictionary", "ridge", "procrustes", "c-mcr", "ex-mcr")
NEAR = 0.98
"""Share of the best single method's mAP from which `auto` counts as right."""


def quality_page(load: Load, table: Table) -> str:
    """Write the whole page."""
    parts = [
        "# Quality\n\nWritten by `make results` from files of `bench/results`; `bench/quality.py`, `bench/estimate.py` "
        "and `bench/research.py` measure. Figures are retrieval on true pairs across two spaces, of which no "
        "join has seen one; means over seeds, with deviations. Known leaks: the sound space was trained on the "
        "instrument clips of its test, and the names of the tested classes are among the texts (the row *captions "
        "alone* is without them). Methods and settings were compared on these pairs ([log](log.md)).\n"
    ]
    if found := load("quality"):
        parts += [_made(found), *_benchmarks(found["rows"], load("suite"), table), _overlaps(found["rows"], table)]
        parts.append(_where_wrong(found["rows"], table))
    if found := load("estimate"):
        parts.append(_estimates(found, table))
    if found := load("research"):
        parts.append(_research(found, table))
    return "\n".join(part for part in parts if part)


def _made(found: Mapping[str, Any]) -> str:
    record = found["record"]
    machine = record["machine"]
    return (
        f"Measured at commit `{record['commit']}` on {record['date']}, {machine['cores']} cores of "
        f"{machine['processor']}, Python {record['versions']['python']}, torch {record['versions']['torch']}. "
        "Seconds were taken while other work ran: compare them with each other, not with a quiet machine.\n"
    )


TRAINED = ("mean of ", "ex-mcr (paper)", "c-mcr (paper)")
"""How rows of `bench/suite.py` begin that this bench leaves to it: trained over seeds, and by the papers' settings."""


def _benchmarks(rows: Rows, suite: Mapping[str, Any] | None, table: Table) -> Iterable[str]:
    """One table a benchmark: every ordered pair of modalities."""
    reports = (suite or {}).get("reports", {})
    for name in dict.fromkeys(row["benchmark"] for row in rows):
        here = [row for row in rows if row["benchmark"] == name and row["variant"] == "all"]
        if not here:
            continue
        pairs = list(here[0]["scores"])
        head = ["method", "mAP", *(f"{pair}: mAP" for pair in pairs), *(f"{pair}: R@1, 5, 10" for pair in pairs)]
        lines = []
        for method, own in _by_method(here):
            cells = [WORDS.get(method, method), _spread([row["map"] for row in own])]
            cells += [f"{_mean(own, pair, 'map'):.3f}" for pair in pairs]
            cells += [", ".join(f"{_mean(own, pair, key):.2f}" for key in ("r@1", "r@5", "r@10")) for pair in pairs]
            lines.append([*cells, kept(own), _number([seconds(row) for row in own], "{:.1f}"), _estimate(own)])
        trained = [row for row in reports.get(name, {}).get("rows", ()) if row["name"].startswith(TRAINED)]
        blank = ["-"] * (len(head) + 1)
        lines += [[f"{row['name']}, from [results](results.md)", f"{row['map']:.3f}", *blank] for row in trained]
        yield f"## {name}\n\n" + table([*head, "own pairs kept", "seconds", "estimate"], lines) + _unseen(here)


def _unseen(rows: Rows) -> str:
    """Figures without the items that a space's own training has seen."""
    told = [
        f"{WORDS.get(method, method)} {_spread([row['unseen'] for row in own])}"
        for method, own in _by_method(rows)
        if all(row.get("unseen") for row in own)
    ]
    words = "Without the instrument clips, which the sound space was trained on (with texts, never with an image), mAP"
    return f"\n{words}: {', '.join(told)}.\n" if told else ""


def kept(rows: Rows) -> str:
    """Say what is kept of each space's own pairs, as shares of the mAP inside the space."""
    shares: dict[str, list[float]] = {}
    for row in rows:
        for pair, found in row.get("kept", {}).items():
            shares.setdefault(pair.split(":")[0], []).append(found["kept"])
    return ", ".join(f"{space} {np.mean(found):.0%}" for space, found in shares.items()) or "-"


def _overlaps(rows: Rows, table: Table) -> str:
    """What other overlaps give: mAP by variant and method."""
    parts = []
    for name in dict.fromkeys(row["benchmark"] for row in rows if row["variant"] != "all"):
        here = [row for row in rows if row["benchmark"] == name]
        methods = [method for method, _ in _by_method([row for row in here if row["variant"] != "all"])]
        lines = []
        for variant in VARIANTS:
            cells = [[row for row in here if (row["variant"], row["method"]) == (variant, m)] for m in methods]
            if any(cells):
                lines.append([VARIANTS[variant], *(_spread([row["map"] for row in cell]) for cell in cells)])
        parts.append(f"### {name}\n\n" + table(["overlap", *(WORDS.get(m, m) for m in methods)], lines))
    return "## Other overlaps\n\nmAP, both directions.\n\n" + "\n".join(parts) if parts else ""


def wrong(rows: Rows) -> list[dict[str, Any]]:
    """Find where `auto` is below `NEAR` of the best single method on the same spaces, overlap and seed."""
    groups: dict[tuple[Any, ...], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["benchmark"], row["variant"], row["seed"]), {})[row["method"]] = row
    found = []
    for (name, variant, seed), by in groups.items():
        singles = {method: by[method]["map"] for method in SINGLE if method in by}
        if "auto" not in by or len(singles) < 2:
            continue
        ranked = sorted(singles, key=lambda method: -singles[method])
        share = by["auto"]["map"] / singles[ranked[0]]
        below_second = by["auto"]["map"] < singles[ranked[1]]
        found.append(
            {
                "benchmark": name, "variant": variant, "seed": seed, "auto": by["auto"]["map"], "best": ranked[0],
                "best_map": singles[ranked[0]], "share": share, "below_second": below_second,
                "wrong": share < NEAR or below_second,
            }
        )  # fmt: skip
    return found


def _where_wrong(rows: Rows, table: Table) -> str:
    judged = wrong(rows)
    if not judged:
        return ""
    bad = [row for row in judged if row["wrong"]]
    head = (
        f"## Where auto was wrong\n\nOf {len(judged)} joins (spaces, overlap, seed) `auto` is within 2 % of the best "
        f"single method, or above it, and not below the second best in {len(judged) - len(bad)}."
    )
    if not bad:
        return head + "\n"
    lines = [
        [row["benchmark"], VARIANTS[row["variant"]], str(row["seed"]), f"{row['auto']:.3f}",
         f"{row['best_map']:.3f} ({row['best']})", f"{row['share']:.0%}", "yes" if row["below_second"] else "no"]
        for row in sorted(bad, key=lambda row: row["share"])
    ]  # fmt: skip
    names = ["benchmark", "overlap", "seed", "auto", "best single method", "share", "below the second best"]
    return f"{head} The others:\n\n" + table(names, lines)


def _estimates(found: Mapping[str, Any], table: Table) -> str:
    """How well the estimate ranks bridges, and what its flags caught."""
    lines = [[name, str(one["bridges"]), f"{one['spearman']:.2f}"] for name, one in found["spearman"].items()]
    ranks = table(["bridges of", "number", "Spearman with the true mAP"], lines)
    flags = [
        [name, str(one["bridges"]), str(one["flagged"]), ", ".join(f"{k} {v}" for k, v in one["verdicts"].items())]
        for name, one in found["flags"].items()
    ]
    caught = table(["damage", "bridges", "flagged", "verdicts"], flags)
    lines = [
        [row["benchmark"], VARIANTS[row["variant"]], row["method"], f"{row['healthy']:.3f}", f"{row['map']:.3f}",
         f"{row['map'] / row['healthy']:.0%}"]
        for row in found.get("mended", ())
        if row["method"] in SINGLE
    ]  # fmt: skip
    names = ["spaces", "overlap", "method", "mAP", "mAP, half of the ids shuffled", "share"]
    mended = "\n" + table(names, lines) if lines else ""
    return f"## The estimate without pairs\n\n{ranks}\n{caught}{mended}"


def _research(found: Mapping[str, Any], table: Table) -> str:
    """What was tried beside, whatever came of it."""
    parts = []
    for trial in dict.fromkeys(row["trial"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["trial"] == trial]
        names = list(dict.fromkeys(row["benchmark"] for row in rows))
        lines = []
        for form in dict.fromkeys(row["form"] for row in rows):
            by = {row["benchmark"]: row for row in rows if row["form"] == form}
            cells = [_figure(by.get(name, {}), key) for key in ("uncovered", "covered", "map") for name in names]
            lines.append([form, *cells])
        head = [f"{name}, {key}" for key in ("uncovered", "covered", "mAP") for name in names]
        parts.append(f"### {trial}\n\n" + table(["form", *head], lines))
    return "## Tried beside\n\nWhat came of it is said in the [log](log.md).\n\n" + "\n".join(parts)


def _figure(row: Mapping[str, Any], key: str) -> str:
    return f"{row[key]:.3f}" if row.get(key) is not None else "-"


def _by_method(rows: Rows) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Group rows by method, in the order of `WORDS`."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["method"], []).append(row)
    order = list(WORDS)
    return sorted(groups.items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order))


def _mean(rows: Rows, pair: str, key: str) -> float:
    return float(np.mean([row["scores"][pair][key] for row in rows]))


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values):.3f}" if len(values) > 1 else "")


def seconds(row: Mapping[str, Any]) -> float | None:
    """Give the seconds of a row's join."""
    return row.get("seconds")


def _number(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return form.format(float(np.median(known))) if known else "-"


def _estimate(rows: Rows) -> str:
    return _number([estimate_of(row.get("estimate")) for row in rows], "{:.3f}")


def estimate_of(estimate: Any) -> float | None:
    """Give the expected mAP of an estimate as bridges record it."""
    value = estimate.get("map") if isinstance(estimate, Mapping) else estimate
    return float(value) if isinstance(value, int | float) else None
