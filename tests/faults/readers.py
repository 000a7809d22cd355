"""Every reader of isthmus with small whole files for it: what the fuzzer damages and reads."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import isthmus
from isthmus.bridges.official import load_official
from isthmus.cli.editing import read_ids
from isthmus.core.json_text import parse_json
from isthmus.core.table_files import read_table
from isthmus.core.toml import read_toml
from isthmus.encoders.pipeline.journal import Journal
from isthmus.encoders.pipeline.rejected import read_rejected, write_rejected
from isthmus.encoders.pipeline.update import Source, read_ledger, write_ledger
from isthmus.encoders.trusted import read_trusted
from isthmus.errors import IsthmusError
from isthmus.evaluation.ablation.grid import read_grid
from isthmus.evaluation.benchmarks.declaration import load_benchmark
from isthmus.evaluation.benchmarks.templates import read_templates
from isthmus.evaluation.suite.retrain import own_steps
from isthmus.items.decoding.audio import decode_audio
from isthmus.items.decoding.image import open_image
from isthmus.items.decoding.object_npy import read_object_npy
from isthmus.items.decoding.point_cloud import decode_point_cloud
from isthmus.items.decoding.video import middle_frame
from isthmus.items.find import find_items
from isthmus.items.vocabulary import read_texts
from isthmus.recipes.closed_form import fit_closed_form_bridge
from isthmus.search.filter_parser import parse_filter
from isthmus.search.index import SearchIndex
from isthmus.spaces.health import inspect
from isthmus.spaces.importing.arrays import EACH_ARRAY
from isthmus.spaces.importing.formats import open_file
from isthmus.spaces.importing.ids import resolve_ids
from isthmus.spaces.importing.sources import open_source
from isthmus.spaces.space import open_space
from isthmus.worlds.world import open_world
from mixed_files import shape
from worlds import meanings, write_space

ROWS, DIM = 12, 6


@dataclass(frozen=True)
class Reader:
    """A reader of one file.

    Attributes:
        name: What is read.
        path: The file, which is damaged.
        seeds: Whole contents of it; the last place is for a folder's own.
        use: Reads it, as the product does.
        weight: How often it is drawn; decoders of sounds and pictures are slow, so their rate is lower.
        kind: How contents are damaged: "bytes", "text" or "json".
    """

    name: str
    path: Path
    seeds: tuple[bytes, ...]
    use: Callable[[Path], object]
    weight: float = 1.0
    kind: str = "bytes"


def make_readers(folder: Path) -> list[Reader]:
    """Write the whole files below a folder; returns all readers."""
    os.environ["ISTHMUS_CONFIG"] = str(folder / "plain")
    made = [
        *_arrays(folder / "arrays"),
        *_tables(folder / "tables"),
        *_texts(folder / "plain"),
        *_products(folder / "products"),
        *_media(folder / "media"),
        *_benchmarks(folder / "benchmarks"),
    ]
    for reader in made:
        reader.path.parent.mkdir(parents=True, exist_ok=True)
        reader.path.write_bytes(reader.seeds[0])
    return made


def _bytes(write: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


# ------------------------------------------------------------------------------------------------- embeddings of others


def _import(path: Path, column: str | None = None) -> None:
    """All that an import reads of a file of embeddings."""
    file = open_file(path, column)
    for values, beside in file.blocks(0, 5):
        np.asarray(values, np.float32)
        len(beside) if beside is not None else None
    for name in file.columns[:4]:
        file.column(name)


def _import_both(path: Path) -> None:
    """A file whose arrays are all embeddings, or one of them."""
    with suppress(IsthmusError):
        _import(path, EACH_ARRAY)
    _import(path)


def _import_source(path: Path) -> None:
    """A file of embeddings with the ids that stand in it."""
    resolve_ids(open_source(path, "image"), None)


def _arrays(folder: Path) -> Iterator[Reader]:
    import h5py
    import torch
    from safetensors.numpy import save as save_safetensors

    folder.mkdir(parents=True)
    rows = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)
    ids = np.array([f"i{i}" for i in range(ROWS)])
    each = {f"i{i}": row for i, row in enumerate(rows)}
    npy = [
        _bytes(lambda s, a=array: np.save(s, a)) for array in (rows, rows.astype(np.float16), np.asfortranarray(rows))
    ]
    yield Reader("npy", folder / "a.npy", tuple(npy), _import, 3)
    npz = [
        _bytes(lambda s: np.savez(s, embeddings=rows, ids=ids)),
        _bytes(lambda s: np.savez_compressed(s, embeddings=rows, ids=ids, labels=np.arange(ROWS))),
        _bytes(lambda s: np.savez(s, **each)),
    ]
    yield Reader("npz", folder / "a.npz", tuple(npz), _import_both, 2)
    tensors = [save_safetensors({"embeddings": rows}), save_safetensors({"a": rows, "b": rows[0]}, {"x": "y"})]
    yield Reader("safetensors", folder / "a.safetensors", tuple(tensors), _import, 3)
    pickled = [
        _bytes(lambda s: torch.save(torch.from_numpy(rows), s)),
        _bytes(lambda s: torch.save({"embeddings": torch.from_numpy(rows), "ids": ids.tolist()}, s)),
        _bytes(lambda s: torch.save(torch.from_numpy(rows), s, _use_new_zipfile_serialization=False)),
    ]
    yield Reader("pt", folder / "a.pt", tuple(pickled), _import_both, 0.5)
    yield Reader("official heads", folder / "heads.pt", tuple(pickled), load_official, 0.3)

    def hdf5(stream: io.BytesIO, **options: Any) -> None:
        with h5py.File(stream, "w") as file:
            file.create_dataset("embeddings", data=rows, **options)
            file.create_dataset("ids", data=[str(one) for one in ids])
            file.create_group("g").create_dataset("x", data=rows[0])

    packed = [_bytes(hdf5), _bytes(lambda s: hdf5(s, compression="gzip", chunks=(4, DIM)))]
    # Texts are read for trial in a process of their own, which takes a third of a second.
    yield Reader("h5", folder / "a.h5", tuple(packed), _import_both, 0.1)
    objects = np.empty((), object)
    objects[()] = {"xyz": rows[:, :3], "name": "x", "list": [1, 2.5, None, True, b"x"]}
    clouds = [_bytes(lambda s: np.save(s, objects, allow_pickle=True)), npy[0]]
    yield Reader("object npy", folder / "o.npy", tuple(clouds), read_object_npy, 3)


# --------------------------------------------------------------------------------------------------------------- tables


def _table(path: Path) -> None:
    """A table as embeddings, and as items."""
    read_table(path)
    for modality in ("text", "image"):
        with suppress(IsthmusError):
            list(find_items(path, modality=modality).items)
    with suppress(IsthmusError):
        _import_source(path)
    with suppress(IsthmusError):
        read_ids(path)
    _import(path)


def _tables(folder: Path) -> Iterator[Reader]:
    import pyarrow as pa
    import pyarrow.feather as feather
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    rows = np.random.default_rng(0).standard_normal((ROWS, DIM)).round(4)
    columns = {
        "id": [f"i{i}" for i in range(ROWS)],
        "text": [f"a {i}" for i in range(ROWS)],
        "embedding": rows.tolist(),
    }
    table = pa.table(columns)
    wide = pa.table({"id": columns["id"], **{f"d{i}": rows[:, i] for i in range(DIM)}})
    parquet = [
        _bytes(lambda s: pq.write_table(table, s)),
        _bytes(lambda s: pq.write_table(wide, s, compression="zstd", row_group_size=5)),
        _bytes(lambda s: pq.write_table(table, s, compression="gzip", use_dictionary=False, data_page_version="2.0")),
    ]
    yield Reader("parquet", folder / "a.parquet", tuple(parquet), _table, 1.5)

    def stream_of(sink: io.BytesIO) -> None:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)

    arrow = [_bytes(lambda s: feather.write_feather(table, s, compression="uncompressed")), _bytes(stream_of)]
    yield Reader("arrow", folder / "a.arrow", tuple(arrow), _import, 1.5)
    packed = (_bytes(lambda s: feather.write_feather(table, s, compression="zstd")),)
    yield Reader("feather", folder / "a.feather", packed, _import, 1)
    flat = [dict(zip(columns, one, strict=True)) for one in zip(*columns.values(), strict=True)]
    lines = "\n".join(json.dumps(one) for one in flat).encode()
    yield Reader("jsonl", folder / "a.jsonl", (lines, lines.replace(b"\n", b"\r\n")), _table, 3, "text")
    listed = (json.dumps(flat).encode(), json.dumps({"ids": columns["id"], "vectors": columns["embedding"]}).encode())
    yield Reader("json", folder / "a.json", listed, _import, 2, "json")
    spelled = [f'{one["id"]},"a ""{one["text"]}""","{one["embedding"]}"' for one in flat]
    plain = [",".join(map(str, [f"i{i}", *row])) for i, row in enumerate(rows.tolist())]
    csv = [
        "\n".join(["id,text,embedding", *spelled]).encode(),
        "\n".join([",".join(["id", *(f"d{i}" for i in range(DIM))]), *plain]).encode(),
        "\ufeffid,text\r\n1,été\r\n2,b\r\n".encode(),
    ]
    yield Reader("csv", folder / "a.csv", tuple(csv), _table, 3, "text")
    yield Reader("tsv", folder / "a.tsv", tuple(one.replace(b",", b"\t") for one in csv), _table, 2, "text")


# -------------------------------------------------------------------------------------------------- texts and settings

TOMLS = {
    "grid": (
        b'via = "text"\nmethod = "ex-mcr"\nseeds = [0, 1]\n[spaces]\nbase = "a.space"\nleaf = "b.space"\n[settings]\n'
        b'epochs = 4\n[grid]\nnoise_cosine = [0.6, 0.9]\n[[evaluate]]\nquery = "b.space/audio"\n'
        b'gallery = "a.space/image"\npairs = "pairs.csv"\n'
    ),
    "benchmark": (
        b'name = "own"\ntask = "retrieval"\nreader = "embeddings"\nmodalities = ["audio", "image"]\n[options]\n'
        b'query = "b.space/audio"\ngallery = "a.space/image"\npairs = "pairs.csv"\n[[published]]\nmodel = "x"\n'
        b"figures = {map = 0.4}\n"
    ),
    "trusted": b'[[encoder]]\nname = "clip:/models/a"\nfolder = "/models"\n[encoder.options]\nx = 1\n',
    "config": b"epochs = 4\nbatch_size = 32\nlearning_rate = 1e-3\nweight_decay = 0.01\nnoise_cosine = 0.9\n",
}
FILTERS = (b'split = "test" and (year >= 2010 or not label in ["a", "b"])', b"a.b != 3.5 and c is null", b"x = true")


def _configured(path: Path) -> None:
    from isthmus.cli.config import parse_assignment
    from isthmus.recipes.config import RecipeConfig, make_config

    table = read_toml(path, "--config")
    for key, value in table.items():
        with suppress(IsthmusError):
            parse_assignment(f"{key}={value}")
    make_config(RecipeConfig, table)


def _trusted(_: Path) -> None:
    read_trusted()


def _benchmark(path: Path) -> None:
    load_benchmark(path)


def _text_lists(path: Path) -> None:
    list(find_items(path, modality="text").items)
    with suppress(IsthmusError):
        read_texts(path)
    read_ids(path)


def _filter(path: Path) -> None:
    parse_filter(path.read_bytes().decode("utf-8", "surrogateescape"))


def _tar(path: Path) -> None:
    """A shard of a web data set: its items, and the content of each."""
    for modality in ("image", "text"):
        with suppress(IsthmusError):
            for item in find_items(path, modality=modality).items:
                item.content()
    list(find_items(path, modality="image").items)


def _tars() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in (("0.png", b"png"), ("0.txt", b"a text"), ("d/1.png", b"x" * 600), ("1.json", b"{}")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def _texts(folder: Path) -> Iterator[Reader]:
    folder.mkdir(parents=True)
    yield Reader("grid", folder / "grid.toml", (TOMLS["grid"],), read_grid, 2, "text")
    yield Reader("benchmark", folder / "own.toml", (TOMLS["benchmark"],), _benchmark, 2, "text")
    yield Reader("trusted encoders", folder / "trusted.toml", (TOMLS["trusted"],), _trusted, 1, "text")
    yield Reader("configuration", folder / "c.toml", (TOMLS["config"],), _configured, 2, "text")
    lists = (b"a dog\na cat\n\nrain\n", "\ufeffété\r\nà\r\n".encode(), b"x" * 300 + b"\n" + b"y" * 10)
    yield Reader("list of texts", folder / "a.txt", lists, _text_lists, 2, "text")
    yield Reader("templates", folder / "t.txt", (b"a photo of a {}.\na {} here\n",), read_templates, 1, "text")
    yield Reader("filter", folder / "f.txt", FILTERS, _filter, 4, "text")
    yield Reader("plain json", folder / "j.json", tuple(_JSONS), lambda path: _parsed(path), 4, "json")
    yield Reader("tar", folder / "s.tar", (_tars(),), _tar, 1)


_JSONS = (b'{"a": [1, 2.5, "\\u00e9", null, {"b": true}]}', b"[" * 40 + b"]" * 40, b'{"x": "' + b"\\\\" * 20 + b'"}')


def _parsed(path: Path) -> None:
    with suppress(ValueError):  # what it raises; its callers put it into words
        parse_json(path.read_bytes())


# --------------------------------------------------------------------------------------------------- isthmus' products


def use_space(path: Path) -> None:
    """All that reads a space."""
    space = open_space(_above(path, ".space"))
    for modality in space.modalities:
        np.asarray(space[modality])
        list(space[modality].ids)
        len(space[modality].metadata)
    space.verify()
    inspect(space)


def use_bridge(path: Path) -> None:
    """All that reads a bridge."""
    bridge = isthmus.load_bridge(_above(path, ".bridge"))
    bridge.summary()
    bridge.describe()
    for key in bridge.routes:
        space, _, modality = key.rpartition("/")
        bridge.project(np.ones((2, bridge.space(space).dim), np.float32), space=space, modality=modality)
    for member in bridge.spaces:
        for modality in member.encoders:
            with suppress(IsthmusError):
                member.encoder_name(modality)
    with suppress(IsthmusError):
        own_steps(bridge)


def _use_index(path: Path) -> None:
    index = SearchIndex.open(_above(path, ".index"))
    index.search(np.ones((1, index.dim), np.float32), k=3)


def _use_world(path: Path) -> None:
    open_world(_above(path, ".world"))


def _use_journal(path: Path) -> None:
    with Journal(path, DIM) as journal:
        journal.rows([name for name in ("a", "b") if journal.has_row(name)])


def _above(path: Path, suffix: str) -> Path:
    return next(parent for parent in path.parents if parent.suffix == suffix)


def _products(folder: Path) -> Iterator[Reader]:
    world = folder / "w.world"
    spaces = world / "spaces"
    spaces.mkdir(parents=True)
    texts, things = meanings(30, 1), meanings(30, 2)
    a = write_space(spaces, "a", 6, 1, {"text": ("t", texts), "image": ("i", things)})
    b = write_space(spaces, "b", 5, 2, {"text": ("t", texts), "audio": ("s", things)})
    fit_closed_form_bridge(a, b, via="text", method="dictionary").save(world / "unified.bridge")
    rows = np.random.default_rng(0).standard_normal((8, DIM)).astype(np.float32)
    index = SearchIndex(rows, ids=[f"i{i}" for i in range(8)], modalities="image")
    index.save(folder / "x.index")
    index.save(world / "index")
    head = {"format": "isthmus-world", "format_version": 1, "bridge": {"seed": 0}}
    (world / "world.json").write_text(json.dumps(head))
    targets: Mapping[str, tuple[Callable[[Path], object], float]] = {
        "w.world/spaces/a.space/space.json": (use_space, 3),
        "w.world/spaces/a.space/image/_done/00000.json": (use_space, 2),
        "w.world/unified.bridge/bridge.json": (use_bridge, 3),
        "w.world/unified.bridge/history.jsonl": (use_bridge, 1),
        "w.world/world.json": (_use_world, 0.5),
        "x.index/index.json": (_use_index, 2),
    }
    for name, (use, weight) in targets.items():
        whole = (folder / name).read_bytes() or b"{}"
        yield Reader(Path(name).name, folder / name, (whole,), use, weight, "json")
    for pattern, use in (("w.world/spaces/a.space/image/*.*", use_space), ("w.world/unified.bridge/*", use_bridge)):
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and path.suffix in (".npy", ".parquet", ".safetensors"):
                yield Reader(f"{path.suffix[1:]} of a {use.__name__[4:]}", path, (path.read_bytes(),), use, 0.5)
    for path in sorted((folder / "x.index").glob("*.*")):
        if path.suffix in (".npy", ".parquet"):
            yield Reader(f"{path.name} of an index", path, (path.read_bytes(),), _use_index, 0.5)
    ledger = folder / "ledger" / "image"
    ledger.mkdir(parents=True)
    write_ledger(ledger.parent, "image", {f"i{i}": Source(i, i, "0" * 32) for i in range(4)})
    (path,) = ledger.iterdir()
    yield Reader("ledger", path, (path.read_bytes(),), lambda one: read_ledger(one.parents[1], "image"), 0.5)
    rejected = folder / "rejected.parquet"
    from isthmus.encoders.pipeline.journal import Rejection

    write_rejected(rejected, [Rejection(f"i{i}", "p", "silent") for i in range(4)])
    yield Reader("rejected", rejected, (rejected.read_bytes(),), read_rejected, 0.5)
    journal = folder / "a.journal"
    with Journal(journal, DIM) as kept:
        kept.add(["a", "b"], rows[:2], [Rejection("c", "p", "silent")])
        kept.add(["d"], rows[:1])
    yield Reader("journal", journal, (journal.read_bytes(),), _use_journal, 1)


# --------------------------------------------------------------------------------------------------------- raw files


def _picture(path: Path) -> None:
    open_image(path.read_bytes())


def _sound(path: Path) -> None:
    decode_audio(path, rate=8_000)


def _solid(path: Path) -> None:
    decode_point_cloud(path, points=64, colours=True)


def _media(folder: Path) -> Iterator[Reader]:
    import soundfile
    from PIL import Image

    from miniatures_av import save_video

    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 4), dtype=np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "TGA", "ICO", "JPEG2000", "PCX", "DDS"):
        seeds = []
        for one in (image.convert("RGB"), image, image.convert("L"), image.convert("P")):
            with suppress(OSError, ValueError, KeyError):
                seeds.append(_bytes(lambda s, i=one, k=kind: i.save(s, k)))
        if kind in ("PNG", "TIFF"):
            seeds.append(_bytes(lambda s, k=kind: Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(s, k)))
        yield Reader(f"picture {kind.lower()}", folder / f"a.{kind.lower()}", tuple(seeds), _picture, 0.25)
    signal = np.sin(np.arange(1600) / 5).astype(np.float32) / 2
    for kind, subtypes in (
        ("WAV", ("PCM_16", "FLOAT", "PCM_U8")),
        ("FLAC", ("PCM_16",)),
        ("OGG", ("VORBIS", "OPUS")),
        ("MP3", ("MPEG_LAYER_III",)),
        ("AIFF", ("PCM_16",)),
        ("W64", ("PCM_16",)),
        ("AU", ("PCM_16",)),
        ("CAF", ("PCM_16",)),
    ):
        seeds = [_bytes(lambda s, k=kind, t=sub: soundfile.write(s, signal, 8_000, t, format=k)) for sub in subtypes]
        yield Reader(f"sound {kind.lower()}", folder / f"a.{kind.lower()}", tuple(seeds), _sound, 0.12)
    for suffix in (".mp4", ".avi", ".mkv"):
        path = folder / f"video{suffix}"
        save_video(path, 7, 8, seconds=1)
        yield Reader(f"video {suffix[1:]}", path, (path.read_bytes(),), middle_frame, 0.05)
        yield Reader(f"sound track {suffix[1:]}", folder / f"track{suffix}", (path.read_bytes(),), _sound, 0.05)
    for number in (0, 1, 2, 3, 4, 12, 6):
        suffix, data, _ = shape(number)
        seeds = [data, _ascii_ply()] if suffix == ".ply" else [data]
        yield Reader(f"shape {suffix[1:]}", folder / f"a{suffix}", tuple(seeds), _solid, 0.25)


def _ascii_ply() -> bytes:
    head = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    colours = "property uchar red\nproperty uchar green\nproperty uchar blue\nelement face 1\n"
    corners = "0 0 0 1 2 3\n1 0 0 4 5 6\n0 1 0 7 8 9\n0 0 1 255 0 0\n3 0 1 2\n"
    return f"{head}{colours}property list uchar int vertex_indices\nend_header\n{corners}".encode()


# --------------------------------------------------------------------------------------------- annotations of data sets

_ANNOTATED = (".csv", ".tsv", ".json", ".jsonl", ".txt", ".xml", ".toml", ".ipynb", ".token")


def _benchmarks(folder: Path) -> Iterator[Reader]:
    import miniatures_av as av
    import miniatures_text as text

    made: Mapping[str, Callable[[Path], object]] = {
        "ave": av.make_ave,
        "flickr-soundnet": av.make_flickr,
        "vggss": av.make_vggss,
        "music-solo": av.make_music,
        "esc-50": av.make_esc50,
        "urbansound8k": av.make_urbansound,
        "audioset": av.make_audioset,
        "audiocaps": text.make_audiocaps,
        "clotho": text.make_clotho,
        "coco": text.make_coco,
        "flickr30k": text.make_flickr30k,
        "xm3600": text.make_xm3600,
    }
    for name, make in made.items():
        data = folder / name
        data.mkdir(parents=True)
        make(data)
        benchmark, work = load_benchmark(name), folder / f"{name}.work"

        def use(path: Path, benchmark: Any = benchmark, data: Path = data, work: Path = work) -> None:
            benchmark.read(data, work, {})

        for path in sorted(data.rglob("*")):
            if path.is_file() and path.suffix in _ANNOTATED and 0 < path.stat().st_size < 200_000:
                kind = "json" if path.suffix == ".json" else "text"
                yield Reader(f"{name}: {path.name}", path, (path.read_bytes(),), use, 0.2, kind)
