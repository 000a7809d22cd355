"""What the documentation marks `<!-- run -->`: found, and run in a folder that has what the pages speak of."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^<!-- run -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """A block of a page: its language, its source and its first line's number."""

    language: str
    source: str
    line: int


def snippets(page: Path) -> list[Snippet]:
    """Find the blocks of a page that are marked to run."""
    text = page.read_text(encoding="utf-8")
    return [Snippet(m[1], m[2], text[: m.start(2)].count("\n") + 1) for m in _BLOCK.finditer(text)]


def run_page(page: Path, only: list[Snippet] | None = None) -> int:
    """Run the marked blocks of a page, or some of them, in the current folder; Python blocks share their names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    found = snippets(page) if only is None else only
    for snippet in found:
        if snippet.language == "python":
            exec(compile("\n" * (snippet.line - 1) + snippet.source, str(page), "exec"), names)
        elif snippet.language == "sh":
            run_commands(snippet.source, f"{page.name}:{snippet.line}")
        else:
            raise AssertionError(f"{page.name}:{snippet.line}: cannot run {snippet.language!r}")
    return len(found)


def run_commands(source: str, where: str) -> None:
    """Run lines of `isthmus ...`."""
    from isthmus.cli import main

    for line in source.splitlines():
        arguments = shlex.split(line, comments=True)
        if not arguments:
            continue
        assert arguments[0] == "isthmus", f"{where}: cannot run {line!r}"
        code = main(arguments[1:])
        assert code == 0, f"{where}: {line!r} ended with {code}"


def make_files(folder: Path, *, spaces: bool) -> None:
    """Put into a folder what the pages speak of: embedding files, true pairs and, where asked for, spaces."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    import isthmus
    from isthmus.demo import raw

    raw.write_memory(folder / "raw", seed=0, sizes={"image": 40, "audio": 40, "text": 80})
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(16, 32)), rng.normal(size=(16, 24))
    meaning = {"text": rng.normal(size=(400, 16)), "item": rng.normal(size=(300, 16))}

    def seen(by: np.ndarray, what: str) -> np.ndarray:
        clean = np.tanh(meaning[what] @ by / 4)
        return np.asarray(clean + 0.05 * rng.normal(size=clean.shape), dtype=np.float32)

    texts = [f"text-{i}" for i in range(400)]
    photos, sounds = [f"photo-{i}" for i in range(300)], [f"sound-{i}" for i in range(300)]

    def table(name: str, ids: list[str], embeddings: np.ndarray) -> None:
        pq.write_table(pa.table({"id": ids, "embedding": pa.array(list(embeddings))}), folder / f"{name}.parquet")

    content = {
        "clip": {"text": (texts, seen(one, "text")), "image": (photos, seen(one, "item"))},
        "clap": {"text": (texts, seen(two, "text")), "audio": (sounds, seen(two, "item"))},
    }
    for name, modalities in content.items():
        if spaces:
            isthmus.make_space(folder / f"{name}.space", modalities)
        for modality, (ids, embeddings) in modalities.items():
            table(f"{name}_{modality}", ids, embeddings)
    np.save(folder / "clap_audio.npy", content["clap"]["audio"][1])
    (folder / "clap_audio_ids.txt").write_text("".join(f"{name}\n" for name in sounds))
    pairs = "".join(f"sound-{i},photo-{i}\n" for i in range(300))
    (folder / "pairs.csv").write_text("query_id,gallery_id\n" + pairs)
