"""Write docs/stores.md: what an index and the vector stores cost, and what hundreds of millions of items would take.

`bench/render_results.py` calls it with the result files `search_index`, `stores` and `serve`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Load = Callable[[str], dict[str, Any] | None]
Table = Callable[[list[str], list[list[str]]], str]

NAMES = {"lance": "LanceDB", "postgres": "PostgreSQL (pgvector)", "qdrant": "Qdrant, local mode"}
LARGE = (100_000_000, 1_000_000_000)
SHOWN = ("per_second", "p50_ms", "p95_ms", "service_cores")
LOADERS, BUILDERS = 16, 64
"""Machines' cores that the arithmetic loads with by `--shard`, and builds an index with."""


def stores_page(load: Load, table: Table) -> str:
    """Write the whole page."""
    parts = [
        "# Stores and large collections\n\nWritten by `make results` from files of `bench/results`, measured on two "
        "cores that other work shared: compare within a row, where runs took turns, rather than between rows.\n"
    ]
    index, stores, served = load("search_index"), load("stores"), load("serve")
    if index:
        parts += [_life(index["life"]), _sizes(index["sizes"], table)]
    if stores:
        parts += [_stores(stores["stores"], table), _large(stores["stores"], table)]
    if served:
        parts.append(_served(served, table))
    return "\n".join(parts)


def _life(life: dict[str, Any]) -> str:
    return (
        f"## An index that lives\n\nAn index of {life['rows']:,} rows took {life['steps']:,} random additions, updates "
        "and deletions; after each, its ids, a search and a filtered search were those of a plain Python model. "
        f"{life['killed_saves']} processes were killed while they saved it: what lay on disk was then the index before "
        f"or the index after, whole. A change takes {1000 * life['seconds_a_change']:.1f} ms, saving "
        f"{life['seconds_to_save']:.2f} s (`bench/search_index.py`).\n"
    )


def _sizes(sizes: list[dict[str, Any]], table: Table) -> str:
    rows = [
        [
            f"{row['rows']:,}", f"{1000 * row['exact_seconds']:.1f}", f"{1000 * row['ivf']['seconds']:.2f}",
            f"{row['ivf']['recall']:.3f}", f"{row['ivf']['build_seconds']:.0f}",
            f"{row['ivf']['queries_until_it_pays']:,}",
        ]
        for row in sizes
    ]  # fmt: skip
    head = ["rows", "exact, ms a query", "IVF, ms a query", "recall@10", "build, s", "queries until the build pays"]
    return (
        f"## From which size an approximate index pays\n\nRows of {sizes[0]['dim']} numbers around random centres, one "
        "query at a time. Exact search needs no upkeep and is never wrong; `join` builds an index from half a million "
        "rows on, where one query begins to take a tenth of a second.\n\n" + table(head, rows)
    )


def _stores(stores: dict[str, Any], table: Table) -> str:
    rows = []
    for kind, one in stores.items():
        for name in ("plain", "filtered"):
            found = one[name]
            rows.append([
                NAMES[kind], f"{one['rows']:,}", name, f"{found['recall@10']:.3f}", f"{found['store_ms']:.0f}",
                f"{found['scan_ms']:.0f}", f"{found['memory_ms']:.0f}",
            ])  # fmt: skip
    head = ["store", "rows", "search", "recall@10", "its index, ms", "its exact scan, ms", "exact in memory, ms"]
    loads = [
        [
            NAMES[kind], str(one["killed_loads"]), f"{one['rows_there_after_kills']:,}", f"{one['rows_a_second']:,}",
            f"{one['index_seconds']:.0f}", f"{one['bytes'] / one['rows'] / 1000:.1f}",
            f"{one['bytes_of_vectors'] / one['rows'] / 1000:.1f}",
        ]
        for kind, one in stores.items()
    ]  # fmt: skip
    again = ["store", "killed loads", "rows there then", "rows a second", "index, s", "KB a row", "KB a row, vectors"]
    return (
        "## Vector stores\n\nProjected rows of 1,024 numbers. Each load was killed while it wrote, five times, and "
        "then ran to its end: every id was there once, and a further load wrote nothing (`bench/stores.py`).\n\n"
        + table(again, loads)
        + '\nSearches, without a filter and with `year > 2010 and label in ("dog", "cat")`, against exact search:\n\n'
        + table(head, rows)
    )


def _large(stores: dict[str, Any], table: Table) -> str:
    rows = []
    for count in LARGE:
        for kind, one in stores.items():
            if kind == "qdrant":
                continue  # a server, not its local mode, is what one would take
            load_hours = count / one["rows_a_second"] / 3600
            index_hours = count / (one["rows"] / one["index_seconds"]) / 3600
            rows.append([
                f"{count:,}", NAMES[kind], f"{count * one['bytes'] / one['rows'] / 1e12:.2f}",
                f"{load_hours:.0f}", f"{load_hours / LOADERS:.1f}", f"{index_hours:,.0f}",
                f"{index_hours * 2 / BUILDERS:,.0f}",
            ])  # fmt: skip
    head = ["items", "store", "TB", "load, h", f"load by {LOADERS} shards, h", "index on two cores, h",
            f"index on {BUILDERS} cores, h"]  # fmt: skip
    return (
        "## A hundred million items, and a thousand\n\nThe rates above, multiplied: rows of 1,024 float32, nothing "
        "measured at this size. Loading scales with processes (`isthmus project --shard I/N --into URL`, on as many "
        "machines as the store's disk keeps up with), and the index is built once, by a last run without `--shard`.\n\n"
        + table(head, rows)
        + "\nWhat to take: up to ten million items one machine with an NVMe disk and `lance:DIR`. At a hundred million "
        "one machine of 64 cores, 256 GB and the terabytes above, in LanceDB, whose index lies on disk. pgvector's "
        "graph has to fit in memory while it is built, which ends somewhere around fifty million rows of this width. "
        "At a thousand million a cluster of Qdrant servers, and vectors of 256 numbers or of bytes, which "
        "divide every column by four: at this size the number of bytes is the price.\n"
    )


def _served(served: dict[str, Any], table: Table) -> str:
    rows = [
        [name.replace("_", " "), *(f"{served[name][key]:g}" for key in SHOWN)]
        for name in ("searches", "one_client", "picture_uploads")
    ]
    head = ["requests", "a second", "median, ms", "95 of 100, ms", "cores it got"]
    return (
        f"## The service\n\nA gallery of {served['rows']:,} rows, {served['clients']} clients that each wait for their "
        "answer, texts of four words (`bench/serve.py`); searches of one client alone; uploads of pictures. Over "
        f"{served['soak_seconds']:g} seconds of searches and uploads its memory went from {served['memory_mb'][0]:.0f} "
        f"to {served['memory_mb'][-1]:.0f} MB.\n\n" + table(head, rows)
    )
