"""Figures of a report as inline SVG in the page's own colours: training curves and bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

WIDTH, HEIGHT, MARGIN = 520, 200, 44


def curves(history: Sequence[Mapping[str, Any]]) -> Markup:
    """Held-out score and loss over the steps of training; empty where nothing was trained."""
    steps = [float(line["step"]) for line in history if "step" in line]
    held = [line.get("held_out") for line in history if "step" in line]
    scores = [float(each["score"]) if isinstance(each, Mapping) and "score" in each else math.nan for each in held]
    losses = [float(line.get("loss", math.nan)) for line in history if "step" in line]
    if len(steps) < 2:
        return Markup()
    return Markup("").join(
        line_plot(name, steps, values)
        for name, values in (("held-out score", scores), ("loss", losses))
        if sum(map(math.isfinite, values)) > 1
    )


def line_plot(name: str, x: Sequence[float], y: Sequence[float]) -> Markup:
    """A line with its least and greatest value written at the axis. Values that are not finite are left out."""
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    low, high = min(b for _, b in points), max(b for _, b in points)
    first, last = points[0][0], max(a for a, _ in points)

    def at(a: float, b: float) -> str:
        left = MARGIN + (WIDTH - 2 * MARGIN) * (a - first) / ((last - first) or 1)
        top = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (b - low) / ((high - low) or 1)
        return f"{left:.1f},{top:.1f}"

    path = " ".join(at(a, b) for a, b in points)
    return Markup(
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)} over training steps, '
        f'from {points[0][1]:.4g} to {points[-1][1]:.4g}">'
        f'<text x="{MARGIN}" y="20" class="name">{escape(name)}</text>'
        f'<text x="{MARGIN - 6}" y="{MARGIN + 4}" text-anchor="end">{high:.3g}</text>'
        f'<text x="{MARGIN - 6}" y="{HEIGHT - MARGIN + 4}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - MARGIN + 20}" text-anchor="end">step {last:,.0f}</text>'
        f'<path d="M{MARGIN},{MARGIN}V{HEIGHT - MARGIN}H{WIDTH - MARGIN}" class="axis"/>'
        f'<polyline points="{path}" class="line"/></svg>'
    )


def bars(values: Mapping[str, tuple[float | None, float | None]]) -> Markup:
    """Pairs of bars, before and after, one row a name."""
    rows = list(values.items())
    top = max([abs(v) for pair in values.values() for v in pair if v is not None] or [1.0]) or 1.0
    shown = [
        [(v, kind) for v, kind in zip(pair, ("before", "after"), strict=True) if v is not None] for _, pair in rows
    ]
    height = 18 + sum(20 + 10 * len(each) for each in shown)
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="modality gaps before and after">'
    ]
    y = 14
    for (name, _), drawn in zip(rows, shown, strict=True):
        parts.append(f'<text x="0" y="{y}">{escape(name)}</text>')
        for row, (value, kind) in enumerate(drawn):
            long = (WIDTH - 70) * abs(value) / top
            parts.append(f'<rect x="0" y="{y + 4 + 10 * row}" width="{long:.1f}" height="8" class="{kind}"/>')
            parts.append(f'<text x="{long + 5:.1f}" y="{y + 12 + 10 * row}" class="small">{value:.3f}</text>')
        y += 20 + 10 * len(drawn)
    return Markup("").join([Markup(part) for part in parts] + [Markup("</svg>")])
