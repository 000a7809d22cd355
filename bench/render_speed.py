"""The page docs/speed.md and its plots, from the result files beside this script; `make results` writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Results = Mapping[str, Any]
Table = Callable[[list[str], list[list[str]]], str]

INTRO = """# Speed

Every number here is written by `make results` from the files in `bench/results`, which `bench/aggregate.py`,
`bench/train_step.py` and `bench/end_to_end.py` make. A ratio is of medians of runs that took turns in one
process, so that a noisy machine is noisy for both. *Peak* is what a float32 matrix product in the cache reaches on the
same machine between the runs; *plain* is the same computation written directly from the equations in torch.

The compressed scan, and 16-bit products on processors without bf16 instructions, are loops that numba compiles for x86
with AVX2: `pip install 'isthmus[fast]'`. They are compiled once, in some seconds when each is first used, and kept;
`isthmus doctor` says whether they are there, and `ISTHMUS_KERNELS=0` goes without. Everything works without them, more
slowly. The type of products is that for which the processor has instructions, never one that a stopwatch chose;
`ISTHMUS_PRODUCTS=bf16`, `=integer` or `=float32` forces it on any machine.
"""


AUTO = "16 bits or the same"
"""The step of `precision = "auto"` in the result files."""

HALF = {
    "int16": "This processor has no bf16 instructions that beat float32; the method multiplies 16-bit integers, by "
    "compiled loops. Each query here has one near row, at a random place in the memory: once it is found, weights "
    "that round to nothing take no part in the second product.\n",
    "float32": "This processor has no bf16 instructions that beat float32, and there are no compiled loops; the method "
    "rounds its operands and multiplies in float32, and `auto` does not choose it.\n",
}
"""What is said of 16-bit products where they are not bfloat16."""


def machine_line(machine: Mapping[str, Any]) -> str:
    """Where it was measured."""
    return (
        f"Measured on {machine['processor']}, {machine['threads']} threads, torch {machine['torch']}: float32 products "
        f"{machine['float32_gflops']:.0f} GFLOP/s, bf16 {machine['bf16_gflops']:.0f}, load {machine['load']:.1f}.\n"
    )


def exact_section(found: Results, table: Table) -> str:
    """Exact and bf16 beside the plain way and the peak."""
    row = found["exact"]
    rows = [
        ["exact, share of the float32 peak", f"{row['share_of_peak']:.0%}"],
        ["exact, times the plain way", f"{row['plain_over_exact']:.2f}"],
        ["exact, extra memory with the result", f"{row['extra_megabytes_with_result']:.0f} MB"],
        ["bf16, times exact", f"{row['exact_over_bf16']:.2f}"],
        ["bf16, mean relative error", f"{row['bf16']['mean']:.2%}"],
    ]
    words = HALF.get(row["bf16_products"], "")
    size = f"{row['queries']:,} queries over {row['rows']:,} rows of {row['dim']}"
    return f"## Exact aggregation, {size}\n\n" + table(["", ""], rows) + "\n" + words


def direction_section(found: Results, table: Table) -> str:
    """Compressed beside exact on every real direction."""
    rows = [
        [
            row["direction"], f"{row['temperature']:g}", f"{row['queries']:,} x {row['rows']:,}", row["report"]["used"],
            f"{row['exact_over_compressed']:.2f}", f"{row['errors']['mean']:.1e}", f"{row['errors']['p99']:.1e}",
            f"{row['errors']['min_cosine']:.4f}",
        ]
        for row in found["directions"]
    ]  # fmt: skip
    head = ["direction", "temperature", "queries x rows", "used", "times exact", "mean error", "p99", "min cosine"]
    return (
        "## Compressed aggregation on real embeddings\n\nErrors are relative, over all queries. The check inside a run "
        "judges 256 of them. At a temperature of 0.05 and on data without structure it refuses and falls back to "
        "exact, which costs the check. Sets of fewer rows are drawn up to size as the script states.\n\n"
        + table(head, rows)
    )


def index_section(found: Results, table: Table) -> str:
    """The library's compressed scan on the same."""
    rows = [
        [row["direction"], f"`{row['index']}`", f"{row['exact_over_index']:.2f}", f"{row['errors']['mean']:.1e}",
         f"{row['errors']['p99']:.1e}", f"{row['errors']['min_cosine']:.4f}"]
        for row in found["indexes"]
    ]  # fmt: skip
    return (
        "## Why not an index\n\nA product-quantised fast scan (faiss), its best 128 rescored, the best 32 averaged. It "
        "misses nearest rows, and a query whose nearest row is missed is wrong altogether.\n\n"
        + table(["direction", "index", "times exact", "mean error", "p99", "min cosine"], rows)
    )


def papers_section(found: Results) -> str:
    """The papers' text-image size."""
    row = found["papers"]
    check = row["report"].get("check", {})
    return (
        f"## The papers' text-image size\n\n{row['report']['queries']:,} queries ({row['fraction']:.1%} of 2.3 million)"
        f" over {row['report']['rows']:,} rows of {row['report']['dim']}, float16 on disk, by the method "
        f"{row['report']['used']}: {row['seconds']:,.0f} s with {row['gigabytes']:.1f} GB, which makes "
        f"**{row['minutes_for_all']:.0f} minutes** for all; 99th percentile of the relative error "
        f"{check.get('p99', 0.0):.1e}, smallest cosine {check.get('min_cosine', 1.0):.4f}.\n"
    )


def sparse_section(found: Results, table: Table) -> str:
    """Bytes of sparse weights, and of a pool of them."""
    rows = [
        [row["direction"], f"{row['mass']:g}{', chosen' if row.get('chosen') else ''}", str(row["max_k"]),
         f"{row['rows_per_query']:.1f}", f"{row['bytes_per_query']:.0f}", f"{row['check']['p99']:.1e}",
         f"{row['gigabytes_for_the_papers']:.2f}"]
        for row in found["sparse"] if "direction" in row
    ]  # fmt: skip
    head = ["direction", "mass", "most rows", "rows a query", "bytes a query", "p99", "GB for 5.4M quadruples"]
    text = "## Weights kept sparse\n\nTwo aggregations a quadruple, as written to disk.\n\n" + table(head, rows)
    return text + "".join(pool_section(row["pool"], table) for row in found["sparse"] if "pool" in row)


def pool_section(pool: Results, table: Table) -> str:
    """Bytes of a pool of pseudo pairs, here and at the papers' size."""
    rows = [
        [kind["kind"], f"{kind['queries']:,}", f"{kind['bytes_per_query']:.0f}",
         ", ".join(f"{step['rows_per_query']:.1f}" for step in kind["aggregations"]),
         f"{1e3 * kind['take_seconds']:.0f} ({1e3 * kind['take_dense_seconds']:.0f} dense)",
         f"{kind['papers_queries']:,}", f"{kind['gigabytes_as_here']:.2f}",
         ", ".join(f"{step['rows_grown']:.0f}" for step in kind["aggregations"]), f"{kind['gigabytes_grown']:.2f}"]
        for kind in pool["kinds"]
    ]  # fmt: skip
    head = [
        "kind", "queries", "bytes a pair", "rows a query", "ms for 4,096", "the papers' queries", "GB as here",
        "rows if they grow", "GB if they grow",
    ]  # fmt: skip
    return (
        "\n### A pool of pseudo pairs\n\nSounds and pictures through texts, real embeddings: what is written to disk, "
        "and the time to draw a batch. A query's own embedding takes no bytes. By kind, the papers' 5.4 million would "
        f"take **{pool['gigabytes_as_here']:.2f} GB** with as many rows a query as here; four dense float16 embeddings "
        f"take {pool['gigabytes_dense_float16']:.0f} GB. Larger memories have more rows near a query: should these go "
        "on growing as they do from a quarter of each real memory to all of it, an estimate stretched over two orders "
        f"of magnitude, it is **{pool['gigabytes_grown']:.2f} GB**.\n\n" + table(head, rows)
    )


def step_section(found: Results, table: Table) -> str:
    """The training step."""
    # Without such instructions "auto" is float32, the fused step again.
    bf16 = found["machine"]["bf16_gflops"] > found["machine"]["float32_gflops"]
    names = {"plain": "plain", "fused": "fused", **({AUTO: "fused, bf16"} if bf16 else {})}
    rows = []
    for row in (found["step"], found["small"]):
        size, plain, floor = f"{row['batch']:,} x {row['dim']}", row["seconds"]["plain"], row["floor_seconds"]
        taken = {name: row["seconds"][step] for step, name in names.items() if step in row["seconds"]}
        rows += [[size, name, f"{s:.3f}", f"{plain / s:.2f}", f"{floor / s:.0%}"] for name, s in taken.items()]
    loss = found["loss"]
    terms = ", and ".join(
        f"{ratio:.2f} times as fast in {'float32' if name == 'fused' else 'bf16'} (gradients apart by "
        f"{loss['gradients_apart'][name]:.0e})"
        for name, ratio in loss["plain_over"].items()
        if name in names
    )
    auto = (
        "is the last of these here" if bf16 else "is the fused step here, since this processor has no bf16 instructions"
    )
    return (
        "## The training step\n\nNoise, projectors, the dense alignment of four InfoNCE terms, AdamW. *Plain* is the "
        f'step in ordinary PyTorch; `precision = "auto"` {auto}. The last column is the time that the products of a '
        "step take at the float32 peak as a share of the step; a float32 step can not pass 100 %, which here is "
        f"{found['step']['plain_over_floor']:.2f} times the plain one. The four terms alone, beside the same written "
        f"out: {terms}.\n\n" + table(["batch", "step", "seconds", "times plain", "products' share"], rows)
    )


def end_section(found: Results, table: Table) -> str:
    """The whole of extend beside the recipe."""
    rows = [
        [name, f"{row['seconds']:.1f}", f"{row['recipe_over_this']:.2f}", f"{row['map']:.3f}",
         f"{row['map'] - found['rows']['recipe']['map']:+.3f}"]
        for name, row in found["rows"].items()
    ]  # fmt: skip
    head = ["run", "seconds", "times the recipe", "mAP", "mAP beside the recipe"]
    return (
        "## A whole `extend`\n\nSound to picture through their texts, 40,905 pseudo pairs; whole processes. *Recipe* "
        "is the papers written down literally in plain torch (36 epochs, batch 1024).\n\n" + table(head, rows)
    )


def encode_section(found: Results, table: Table) -> str:
    """What `isthmus encode` costs and saves."""
    how = found["settings"]
    words = (
        f"## Encoding\n\n{how['images']:,} photographs of {how['size']} through a ViT-B/32 of random weights, "
        f"batches of {how['batch_size']}, {how['cpus']} cores; rounds in which the ways alternate: "
        f"{len(found['rounds'])} (`bench/encode.py`). Bare is the model alone on pixels that lie decoded in "
        "memory; the loop opens, prepares and embeds one file after another.\n\n"
    )
    return words + table(["ratio of seconds", "median"], [[k, f"{v:.2f}"] for k, v in found["median_ratios"].items()])


def speed_page(load: Callable[[str], dict[str, Any] | None], table: Table) -> str:
    """docs/speed.md, of what was measured so far."""
    parts = [INTRO]
    found = load("aggregate") or {}
    if "machine" in found:
        parts.append(machine_line(found["machine"]))
    if found.get("quick"):
        parts.append("A quick run (small sizes, one repeat) on a busy machine: the ratios are rough.\n")
    sections: dict[str, Callable[[], str]] = {
        "exact": lambda: exact_section(found, table),
        "directions": lambda: direction_section(found, table),
        "tolerances": lambda: "![Error against time](speed-error.svg)\n",
        "indexes": lambda: index_section(found, table),
        "sizes": lambda: "## Time against the size of the memory\n\n![Time against memory size](speed-size.svg)\n",
        "papers": lambda: papers_section(found),
        "sparse": lambda: sparse_section(found, table),
    }
    parts += [section() for name, section in sections.items() if name in found]
    if step := load("train_step"):
        parts.append(step_section(step, table))
    if end := load("end_to_end"):
        parts.append(end_section(end, table))
    if encode := load("encode"):
        parts.append(encode_section(encode, table))
    return "\n".join(parts)


def write_plots(load: Callable[[str], dict[str, Any] | None], folder: Path) -> None:
    """Both plots, of what was measured so far."""
    import matplotlib

    matplotlib.use("svg")
    # The same numbers give the same bytes.
    matplotlib.rcParams["svg.hashsalt"] = "isthmus"
    found = load("aggregate") or {}
    if "sizes" in found:
        _plot_sizes(found["sizes"], folder / "speed-size.svg")
    if "tolerances" in found:
        _plot_errors(found["tolerances"], folder / "speed-error.svg")


def _plot_sizes(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0))
    marks = {"real": "-", "isotropic": ":"}
    for data, line in marks.items():
        some = [row for row in rows if row.get("data", "real") == data]
        for name, color in (("exact", "tab:gray"), ("compressed", "tab:green")):
            values = [row[f"{name}_us_per_query"] for row in some]
            axes.plot([row["rows"] for row in some], values, line, marker="o", color=color, label=f"{name}, {data}")
    axes.set(xscale="log", yscale="log", xlabel="rows of the memory", ylabel="microseconds a query")
    _finish(figure, axes, path)


def _plot_errors(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0))
    for data, mark in (("real", "o"), ("isotropic", "^")):
        for used, color in (("compressed", "tab:green"), ("bf16", "tab:blue"), ("exact", "tab:gray")):
            some = [row for row in rows if row["data"] == data and row["report"]["used"] == used]
            # Where it fell back to exact the error is that of rounding.
            errors = [max(row["errors"]["p99"], 1e-6) for row in some]
            times = [row["us_per_query"] for row in some]
            if some:
                axes.scatter(times, errors, marker=mark, color=color, label=f"{used}, {data}")
        exact = next(row["exact_us_per_query"] for row in rows if row["data"] == data)
        axes.axvline(exact, color="tab:gray", linestyle="-" if data == "real" else ":", label=f"exact alone, {data}")
    axes.set(yscale="log", xlabel="microseconds a query, the check in it", ylabel="relative error, 99th percentile")
    _finish(figure, axes, path)


def _finish(figure: Any, axes: Any, path: Path) -> None:
    from matplotlib import pyplot

    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
