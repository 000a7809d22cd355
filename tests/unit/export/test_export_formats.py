"""Exports against `bridge.project` and `bridge.encode`: ONNX, safetensors, parquet, a SentenceTransformer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import isthmus
import tiny_models
from isthmus.bridges.bridge import Bridge
from isthmus.bridges.member import BridgeSpace
from isthmus.bridges.routes import STEPS, Route
from isthmus.encoders import trusted
from isthmus.errors import BridgeError, ConfigError, EncoderError
from isthmus.export import onnx as onnx_module
from isthmus.export.export import export_bridge
from worlds import three_spaces

RNG = np.random.default_rng(0)
D, M, OUT = 6, 9, 5


def matrix(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


ARRAYS = {
    "mean": 0.1 * matrix(D),
    "w": matrix(OUT, D),
    "b": matrix(OUT),
    "h": matrix(8, D),
    "hb": matrix(8),
    "g": matrix(8),
    "beta": matrix(8),
    "mu": matrix(8),
    "var": np.abs(matrix(8)) + 0.1,
    "o": matrix(OUT, 8),
    "keys": matrix(M, D),
    "values": matrix(M, OUT),
    "bias": matrix(M),
    "memory": matrix(20, D) / 3,
}
LINEAR: Route = [{"kind": "linear", "weight": "w", "bias": "b"}]
MLP: Route = [
    {
        "kind": "mlp",
        "layers": [
            {"linear": ["h", "hb"]},
            {"batch_norm": ["g", "beta", "mu", "var"], "eps": 1e-5},
            {"relu": True},
            {"linear": ["o", None]},
        ],
    }
]
DICTIONARY: Route = [{"kind": "dictionary", "keys": "keys", "values": "values", "temperature": 0.2}]
NORMALIZE: Route = [{"kind": "normalize"}]
CHAINS: dict[str, Route] = {
    "linear": LINEAR,
    "mlp": [*NORMALIZE, {"kind": "center", "mean": "mean"}, *NORMALIZE, *MLP],
    "dictionary": [*NORMALIZE, *DICTIONARY, *NORMALIZE],
    "blend": [{"kind": "blend", "weights": [0.3, 0.7], "chains": [LINEAR, MLP]}],
    "concat": [{"kind": "concat", "weights": [0.3, 0.7], "chains": [LINEAR, DICTIONARY]}],
    "posterior": [
        {"kind": "posterior", "keys": "keys", "bias": "bias", "values": "values", "temperature": 0.3},
    ],
    "top": [{"kind": "posterior", "keys": "keys", "temperature": 0.3, "top": 3}],
    "power": [{"kind": "power_average", "keys": "keys", "values": "values", "power": 3.0}],
    "denoise": [*NORMALIZE, {"kind": "denoise", "memory": "memory", "neighbours": 4, "weight": 0.5}],
    "stack": [{"kind": "stack", "scales": [0.5, 2.0], "chains": [LINEAR, MLP]}],
    "filler": [*LINEAR, {"kind": "filler", "length": 30.0, "index": 2, "coordinates": 4}],
    "rows longer than their length": [*LINEAR, {"kind": "filler", "length": 0.1, "index": 0, "coordinates": 1}],
}


def known(route: Route) -> bool:
    return all(step["kind"] in STEPS and all(map(known, step.get("chains", []))) for step in route)


def bridge_of(route: Route) -> Bridge:
    from isthmus.bridges.routes import validate_route

    member = BridgeSpace("s", "base", D, {"audio": "f"}, {"audio": {}})
    return Bridge("m", validate_route(route, ARRAYS, D), [member], {"s/audio": route}, ARRAYS)


@pytest.mark.parametrize("name", [name for name, route in CHAINS.items() if known(route)])
@pytest.mark.parametrize("rows", [1, 17])
def test_onnx_projects_as_the_bridge_does(tmp_path: Path, name: str, rows: int) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    bridge = bridge_of(CHAINS[name])
    assert export_bridge(bridge, tmp_path / "o", format="onnx").files == ["s.audio.onnx"]
    session = runtime.InferenceSession(str(tmp_path / "o" / "s.audio.onnx"), providers=["CPUExecutionProvider"])
    x = matrix(rows, D)
    got = session.run(["unified"], {"embeddings": x})[0]
    assert np.abs(got - bridge.project(x, space="s", modality="audio")).max() < 1e-5


def test_every_kind_of_step_can_be_written() -> None:
    assert set(STEPS) == set(onnx_module.STEPS)


@pytest.mark.parametrize("method", ["posterior", "cca", "auto", "c-mcr"])
def test_every_route_of_a_bridge_as_connect_makes_it(tmp_path: Path, method: str) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    clip, clap, _ = three_spaces(tmp_path)
    config = isthmus.ConnectConfig(epochs=2, batch_size=64) if method == "c-mcr" else None
    bridge = isthmus.connect(clip, clap, via="text", method=method, config=config, quiet=True)
    kinds = {step["kind"] for route in bridge.routes.values() for step in route}
    assert ("filler" in kinds) == (method == "posterior")
    export_bridge(bridge, tmp_path / "o", format="onnx")
    for space in (clip, clap):
        for modality in space:
            file = str(tmp_path / "o" / f"{space.name}.{modality}.onnx")
            session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
            rows = np.asarray(space[modality])
            for part in (rows, rows[:1], rows[:7]):
                got = session.run(["unified"], {"embeddings": part})[0]
                expected = bridge.project(part, space=space.name, modality=modality)
                assert np.abs(got - expected).max() < 1e-4
                assert np.abs(got @ got.T - expected @ expected.T).max() < 1e-5


def test_safetensors_hold_the_folded_weights(tmp_path: Path) -> None:
    from safetensors import safe_open

    bridge = bridge_of(CHAINS["mlp"])
    export_bridge(bridge, tmp_path / "s", format="safetensors")
    with safe_open(str(tmp_path / "s" / "s.audio.safetensors"), framework="numpy") as file:
        steps = json.loads(file.metadata()["steps"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert not any("batch_norm" in layer for step in steps for layer in step.get("layers", []))
    again = Bridge("m", OUT, bridge.spaces, {"s/audio": steps}, arrays)
    x = matrix(7, D)
    kwargs: dict[str, Any] = {"space": "s", "modality": "audio"}
    assert np.abs(again.project(x, **kwargs) - bridge.project(x, **kwargs)).max() < 1e-5


def test_parquet_holds_rows_and_a_picture_of_them(tmp_path: Path) -> None:
    x = matrix(30, 4)
    content = {"image": ([f"i{n}" for n in range(30)], x, {"year": list(range(30))}), "text": (["t"], matrix(1, 4))}
    space = isthmus.make_space(tmp_path / "s.space", content, dtype="float32")
    bridge = Bridge.over(space)
    galleries = [f"{space.path}/image", f"{space.path}/text"]
    report = export_bridge(bridge, tmp_path / "rows.parquet", format="parquet", galleries=galleries)
    table = pq.read_table(tmp_path / "rows.parquet")
    assert report.rows == table.num_rows == 31
    assert table.column("id").to_pylist()[:2] == ["i0", "i1"]
    assert table.column("year").to_pylist()[29:] == [29, None]
    vectors = np.stack(table.column("vector").to_numpy(zero_copy_only=False))
    assert np.allclose(vectors[:30], bridge.project(space["image"]), atol=1e-6)
    places = np.stack([table.column("projection_x").to_numpy(), table.column("projection_y").to_numpy()], axis=1)
    unit = bridge.project(space["image"]).astype(float)
    _, _, axes = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    expected = (unit - unit.mean(axis=0)) @ axes[:2].T
    assert np.allclose(np.abs(places[:30]), np.abs(expected), atol=1e-4)


SCRIPT = """
import sys, numpy as np
sys.modules["isthmus"] = None  # as if it were not installed
import soundfile
from PIL import Image
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu", local_files_only=True)
texts = model.encode(["a dog", "cat"])
images = model.encode([Image.open(sys.argv[2])])
array, rate = soundfile.read(sys.argv[3], dtype="float32")
sounds = model.encode([{"audio": {"array": array, "sampling_rate": rate}}])
np.savez(sys.argv[4], text=texts, image=images, audio=sounds)
"""


def compare_with_a_sentence_transformer(tmp_path: Path, route: Route, python: str) -> None:
    """Export a bridge of a tiny CLIP and CLAP and compare what another process makes of raw files with it."""
    pytest.importorskip("sentence_transformers.sentence_transformer")
    soundfile = pytest.importorskip("soundfile")
    from PIL import Image

    clip, clap = tiny_models.save_clip(tmp_path / "clip"), tiny_models.save_clap(tmp_path / "clap", fused=False)
    picture, sound = tmp_path / "p.png", tmp_path / "s.wav"
    Image.fromarray(RNG.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(picture)
    soundfile.write(sound, 0.1 * RNG.standard_normal(48_000 * 10), 48_000, subtype="FLOAT")
    texts = tmp_path / "texts.txt"
    texts.write_text("a dog\ncat\n")
    options: dict[str, Any] = {"quiet": True, "workers": 0}
    for name, model, modality, source in (
        ("clip", f"clip:{clip}", "image", picture),
        ("clip", f"clip:{clip}", "text", texts),
        ("clap", f"clap:{clap}", "audio", sound),
        ("clap", f"clap:{clap}", "text", texts),
    ):
        isthmus.encode(source, encoder=model, into=tmp_path / f"{name}.space", modality=modality, **options)
    base, leaf = isthmus.open_space(tmp_path / "clip.space"), isthmus.open_space(tmp_path / "clap.space")
    arrays = {"h": matrix(40, 16), "hb": matrix(40), "o": matrix(24, 40)}
    arrays |= {name: np.abs(matrix(40)) + 0.1 for name in ("g", "beta", "mu", "var")}
    arrays |= {"keys": matrix(30, 16), "bias": matrix(30), "values": matrix(30, 24)}
    bridge = Bridge.over(base).with_leaf(
        BridgeSpace.of(leaf, role="leaf"), {"audio": [*NORMALIZE, *route, *NORMALIZE]}, arrays, method="m"
    )
    named = {"clip": f"clip:{clip}", "clap": f"clap:{clap}"}
    # This process has named the two folders itself, and so may use them; another has not.
    trusted._NAMED.clear()
    with pytest.raises(EncoderError, match="a file or folder, which a file may not choose"):
        export_bridge(bridge, tmp_path / "st", format="sentence-transformers")
    report = export_bridge(bridge, tmp_path / "st", format="sentence-transformers", encoders=named)
    assert set(report.files) == {"image", "text", "audio"}
    command = [python, "-c", SCRIPT, *map(str, (tmp_path / "st", picture, sound, tmp_path / "out.npz"))]
    subprocess.run(command, check=True, timeout=300, env=environment())
    got = np.load(tmp_path / "out.npz")
    assert np.abs(got["text"] - bridge.encode(["a dog", "cat"], modality="text", encoder=named["clip"])).max() < 1e-5
    assert np.abs(got["image"] - bridge.encode([picture], modality="image", encoder=named["clip"])).max() < 1e-5
    assert np.abs(got["audio"] - bridge.encode([sound], modality="audio", encoder=named["clap"])).max() < 1e-5


def environment() -> dict[str, str]:
    """This process's variables without those that would lend another environment its packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.mark.parametrize("name", ["mlp", "posterior"])
def test_a_sentence_transformer_of_clip_and_clap_loads_without_isthmus(tmp_path: Path, name: str) -> None:
    compare_with_a_sentence_transformer(tmp_path, MLP if name == "mlp" else CHAINS["posterior"], sys.executable)


@pytest.mark.slow
def test_it_loads_in_a_fresh_environment(tmp_path: Path) -> None:
    """An environment that holds sentence-transformers and no isthmus."""
    pytest.importorskip("sentence_transformers.sentence_transformer")
    root = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "fresh")], check=True)
    python = str(tmp_path / "fresh" / "bin" / "python")
    pins = ["-c", str(root / "constraints" / "cpu.txt")]
    wanted = ["sentence-transformers", "soundfile", "soxr", "pillow"]
    subprocess.run([python, "-m", "pip", "install", "-q", *pins, *wanted], check=True, env=environment(), timeout=1500)
    assert subprocess.run([python, "-c", "import isthmus"], capture_output=True, env=environment()).returncode
    for name in ("mlp", "posterior"):
        (tmp_path / name).mkdir()
        compare_with_a_sentence_transformer(tmp_path / name, MLP if name == "mlp" else CHAINS["posterior"], python)


def test_what_stock_modules_cannot_tell_is_said(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers.sentence_transformer")
    with pytest.raises(
        BridgeError, match=r"no modality can be told in stock modules .*is of None, not of transformers"
    ):
        export_bridge(bridge_of(LINEAR), tmp_path / "st", format="sentence-transformers")
    assert not (tmp_path / "st").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "pickle"}, "unknown format 'pickle'. Expected one of sentence-transformers, onnx"),
        ({"format": "parquet"}, "is of --format parquet, which needs it"),
        ({"format": "onnx", "galleries": ["s.space/image"]}, "is of --format parquet"),
    ],
)
def test_faults(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        export_bridge(bridge_of(LINEAR), tmp_path / "x", **arguments)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        export_bridge(bridge_of(LINEAR), tmp_path / "x", format="onnx")
