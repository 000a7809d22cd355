"""Draw docs/architecture.svg, the flow and the rooms: `python tests/docs/architecture_picture.py --write`."""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "contract"))

from import_rows import PACKAGE, ROWS  # noqa: E402

PICTURE = ROOT / "docs" / "architecture.svg"

ROOMS = {
    "errors": ("the faults a user can make",),
    "core": ("modality names, files, threads,", "messages, compiled loops"),
    "items": ("raw files: found and", "decoded without a model"),
    "memory": ("softmax averages,", "exact or checked"),
    "metrics": ("figures on", "plain arrays"),
    "spaces": ("embeddings on disk: format,", "import, health, overlap"),
    "encoders": ("raw items to embeddings:", "adapters, the resumable run"),
    "pairs": ("pseudo pairs through", "what two spaces share"),
    "bridges": ("routes of named steps, the folder,", "the card, the hub"),
    "recipes": ("connect, extend, closed forms,", "training"),
    "search": ("nearest items in the", "unified space"),
    "evaluation": ("scores, baselines, benchmarks,", "suites, ablations"),
    "serve": ("galleries over HTTP", "and a page"),
    "export": ("what one takes away:", "reports, formats"),
    "worlds": ("folders and spaces", "joined in one step"),
    "jobs": ("planned runs that", "resume"),
    "demo": ("a small world from", "drawing to table"),
    "cli": ("the verbs of the", "command line"),
}
"""By room: what it holds, in one or two short lines."""

FLOW = (
    ("raw files", "items"),
    ("space", "spaces"),
    ("pseudo pairs", "pairs"),
    ("bridge", "bridges"),
    ("unified space", "search"),
)
"""What data becomes on its way, and the room whose product it is."""
STEPS = (("encode", ""), ("pair", ""), ("connect", "extend"), ("project", ""))
END = "evaluate · search · serve · report"

WIDTH, MARGIN, GAP, HEIGHT, TOP = 960, 20, 12, 60, 124
LABEL = 52

STYLE = """
    .ground { fill: #ffffff } .room { fill: #f0fdfa; stroke: #0f766e } .product { fill: #fff7ed; stroke: #b45309 }
    .name { fill: #134e4a; font-weight: 600 } .words { fill: #334155 } .quiet { fill: #64748b }
    .arrow { stroke: #b45309; fill: none } .tip { fill: #b45309 }
    .down { stroke: #0f766e; fill: none } .downtip { fill: #0f766e }
    @media (prefers-color-scheme: dark) {
      .ground { fill: #1e293b } .room { fill: #134e4a; stroke: #5eead4 } .product { fill: #431407; stroke: #fdba74 }
      .name { fill: #f0fdfa } .words { fill: #e2e8f0 } .quiet { fill: #94a3b8 }
      .arrow { stroke: #fdba74 } .tip { fill: #fdba74 } .down { stroke: #5eead4 } .downtip { fill: #5eead4 }
    }
"""


def picture() -> str:
    """The whole picture as SVG."""
    rows = [tuple(room for room in row if (PACKAGE / room).is_dir()) for row in ROWS]
    rows = [row for row in rows if row]
    bottom = TOP + len(rows) * (HEIGHT + GAP) + 30
    label = "The flow from raw files to a unified space, and the rooms in rows: a room imports from rows above its own."
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}" font-family="system-ui, sans-serif" '
        f'font-size="13" role="img" aria-label="{label}">',
        f"  <style>{STYLE}  </style>",
        "  <defs>",
        *(
            f'    <marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path class="{css}" d="M0 0 8 4 0 8z"/></marker>'
            for name, css in (("t", "tip"), ("d", "downtip"))
        ),
        "  </defs>",
        f'  <rect class="ground" width="{WIDTH}" height="{bottom}" rx="10"/>',
        *_flow(),
        *(line for number, row in enumerate(rows) for line in _row(number, row)),
        f'  <path class="down" d="M34 {TOP + 6}V{bottom - 42}" marker-end="url(#d)" stroke-width="1.5"/>',
        f'  <text class="quiet" x="20" y="{bottom - 14}" font-size="12">A room imports from rows above its own; '
        "errors.py stands above all, the door (isthmus) loads every name on first use.</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _flow() -> list[str]:
    """The strip at the top: products in boxes, verbs on the arrows between them."""
    box, between = 112, 88
    lines, x = [], MARGIN
    for number, (product, _) in enumerate(FLOW):
        lines.append(f'  <rect class="product" x="{x}" y="34" width="{box}" height="40" rx="8" stroke-width="1.5"/>')
        lines.append(f'  <text class="words" x="{x + box / 2:g}" y="59" text-anchor="middle">{product}</text>')
        x += box
        if number < len(STEPS):
            lines.append(
                f'  <path class="arrow" d="M{x} 54H{x + between - 2}" marker-end="url(#t)" stroke-width="1.5"/>'
            )
            middle = x + between / 2 - 3
            lines += [
                f'  <text class="quiet" x="{middle:g}" y="{y}" text-anchor="middle" font-size="11">{verb}</text>'
                for verb, y in zip(STEPS[number], (46, 69), strict=True)
                if verb
            ]
            x += between
    lines.append(f'  <text class="quiet" x="{WIDTH - MARGIN}" y="96" text-anchor="end" font-size="12">{END}</text>')
    return lines


def _row(number: int, row: tuple[str, ...]) -> list[str]:
    """One row of rooms, each with what it holds."""
    y, names = TOP + number * (HEIGHT + GAP), sorted(row, key=list(ROOMS).index)
    width = (WIDTH - MARGIN - LABEL - MARGIN - GAP * (len(names) - 1)) / len(names)
    lines = []
    for place, name in enumerate(names):
        x = MARGIN + LABEL + place * (width + GAP)
        lines.append(
            f'  <rect class="room" x="{x:g}" y="{y}" width="{width:g}" height="{HEIGHT}" rx="8" stroke-width="1.2"/>'
        )
        lines.append(f'  <text class="name" x="{x + 12:g}" y="{y + 21}">{name}</text>')
        wide = width > 400
        for line, words in enumerate([" ".join(ROOMS[name])] if wide else ROOMS[name]):
            lines.append(
                f'  <text class="words" x="{x + 12:g}" y="{y + 38 + 15 * line}" font-size="11.5">{escape(words)}</text>'
            )
    return lines


if __name__ == "__main__":
    if "--write" in sys.argv:
        PICTURE.write_text(picture(), encoding="utf-8")
    else:
        print(picture())
