"""The bridge folder of format version 1, held by a golden one: what was written once is read for ever.

`python tests/contract/test_bridge_format.py` writes the golden bridge anew; do so only with a new format version, and
keep the old one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.bridges.bridge import Bridge, load_bridge
from isthmus.bridges.member import BridgeSpace
from isthmus.bridges.routes import STEPS
from isthmus.spaces.manifest import fingerprint

GOLDEN = Path(__file__).parent / "golden" / "every_step.bridge"
POSTERIOR = GOLDEN.with_name("posterior_steps.bridge")
FILES = ["README.md", "bridge.json", "history.jsonl", "projectors.safetensors"]
IDENTITY = {"library": "golden", "id": "", "revision": "1", "weights_sha256": "0" * 64}


def grid(*shape: int, start: int = 0) -> np.ndarray:
    """Numbers that every machine writes alike, among them negative ones."""
    size = int(np.prod(shape))
    return (((np.arange(start, start + size) * 7) % 11 - 5) / 8).reshape(shape).astype(np.float32)


def space(name: str, role: str, dim: int, *modalities: str) -> BridgeSpace:
    encoder = IDENTITY | {"id": name}
    preprocessing = {"size": 32}
    fingerprints = dict.fromkeys(modalities, fingerprint({"encoder": encoder, "preprocessing": preprocessing}, dim))
    encoders = {m: dict(encoder) for m in modalities}
    return BridgeSpace(name, role, dim, fingerprints, encoders, None, {m: dict(preprocessing) for m in modalities})


def golden() -> Bridge:
    """A bridge in which every kind of step occurs."""
    vectors = {"b1": grid(5, start=2), "g": grid(5, start=4) + 2, "h": grid(5, start=1), "mean": grid(5, start=3)}
    half = {"keys": grid(6, 3, start=1).astype(np.float16), "values": grid(6, 4, start=2).astype(np.float16)}
    matrices = {"w1": grid(5, 3), "w2": grid(4, 5), "w": grid(4, 3, start=3), "half": grid(2, 3)}
    arrays = vectors | half | matrices | {"m": grid(3), "var": np.abs(grid(5, start=5)) + 1}
    layers: list[dict[str, Any]] = [
        {"linear": ["w1", "b1"]},
        {"batch_norm": ["g", "h", "mean", "var"], "eps": 1e-5},
        {"relu": True},
        {"linear": ["w2", None]},
    ]
    mlp = {"kind": "mlp", "layers": layers}
    dictionary = {"kind": "dictionary", "keys": "keys", "values": "values", "temperature": 0.5}
    linear = [{"kind": "linear", "weight": "half", "bias": None}]
    routes: dict[str, Any] = {
        "audio": [
            {"kind": "normalize"},
            {"kind": "center", "mean": "m"},
            {"kind": "blend", "weights": [0.25, 0.75], "chains": [[mlp], [dictionary]]},
        ],
        "text": [{"kind": "concat", "weights": [0.5, 0.5], "chains": [linear, linear]}, {"kind": "normalize"}],
        "video": [{"kind": "linear", "weight": "w", "bias": None}],
    }
    base = space("base", "base", 4, "image", "text")
    over = Bridge("", 4, [base], {f"base/{m}": [{"kind": "normalize"}] for m in ("image", "text")}, {})
    leaf = space("leaf", "leaf", 3, "audio", "text", "video")
    made: dict[str, Any] = {"config": {"via": ["text"]}, "record": {"seeds": [0], "held_out": {"r@1": 0.5}}}
    return over.with_leaf(leaf, routes, arrays, method="ex-mcr", **made, history=[{"epoch": 1, "loss": 0.5}])


def golden_posterior() -> Bridge:
    """A bridge of the steps that posteriors need."""
    labels = np.frombuffer(json.dumps(["a", "b", "c", "d", "e", "f"]).encode(), dtype=np.uint8)
    arrays: dict[str, Any] = {
        "first/items": grid(6, 4, start=1).astype(np.float16),
        "second/items": grid(6, 3, start=2).astype(np.float16),
        "first/bias": grid(6),
        "joint/values": grid(6, 2, start=3).astype(np.float16),
        "first/memory": grid(5, 4, start=4).astype(np.float16),
        "joint/labels": labels,
    }
    items = {"labels": "joint/labels", "temperature": 0.5}
    first: list[dict[str, Any]] = [{"kind": "posterior", "keys": "first/items", "bias": "first/bias", **items}]
    second: list[dict[str, Any]] = [{"kind": "posterior", "keys": "second/items", "top": 2, **items}]
    average = [{"kind": "posterior", "keys": "second/items", "values": "first/items", "temperature": 0.25}]
    power = [{"kind": "power_average", "keys": "first/items", "values": "first/memory", "power": 2.0}]
    arrays["first/memory"] = grid(6, 4, start=4).astype(np.float16)
    still = {"kind": "denoise", "memory": "first/memory", "neighbours": 2, "weight": 0.5}
    filler = {"kind": "filler", "length": 8.0, "coordinates": 3}
    routes: dict[str, Any] = {
        "first/image": [
            {"kind": "normalize"},
            still,
            {"kind": "stack", "scales": [2.0, 0.5], "chains": [first, power]},
            {**filler, "index": 0},
        ],
        "second/audio": [
            {"kind": "stack", "scales": [2.0, 0.5], "chains": [second, average]},
            {**filler, "index": 1},
        ],
    }
    spaces = [space("first", "first", 4, "image"), space("second", "second", 3, "audio")]
    return Bridge("posterior", 13, spaces, routes, arrays, {"via": ["text"]}, {"seeds": [0]})


QUERIES = {
    "base/image": grid(4, 4),
    "leaf/audio": grid(4, 3, start=1),
    "leaf/text": grid(4, 3, start=2),
    "leaf/video": grid(4, 3, start=3),
}


POSTERIOR_QUERIES = {"first/image": grid(4, 4), "second/audio": grid(4, 3, start=1)}


def answers(bridge: Bridge, queries: dict[str, np.ndarray] = QUERIES) -> dict[str, Any]:
    return {
        key: bridge.project(x, space=key.partition("/")[0], modality=key.partition("/")[2]).round(6).tolist()
        for key, x in queries.items()
    }


def test_the_golden_bridges_have_every_kind_of_step() -> None:
    text = "".join((path / "bridge.json").read_text(encoding="utf-8") for path in (GOLDEN, POSTERIOR))
    assert all(f'"kind": "{kind}"' in text for kind in STEPS)
    assert sorted(path.name for path in GOLDEN.iterdir()) == FILES


def test_the_golden_bridge_is_read_and_gives_what_it_gave() -> None:
    bridge = load_bridge(GOLDEN)
    expected = json.loads(GOLDEN.with_suffix(".json").read_text(encoding="utf-8"))
    for key, got in answers(bridge).items():
        np.testing.assert_allclose(got, expected[key], atol=2e-6, err_msg=key)
    assert (bridge.method, bridge.dim) == ("ex-mcr", 4)
    assert bridge.history == [{"epoch": 1, "loss": 0.5}]


def test_the_golden_posterior_is_read_and_gives_what_it_gave(tmp_path: Path) -> None:
    bridge = load_bridge(POSTERIOR)
    expected = json.loads(POSTERIOR.with_suffix(".json").read_text(encoding="utf-8"))
    for key, got in answers(bridge, POSTERIOR_QUERIES).items():
        np.testing.assert_allclose(got, expected[key], atol=2e-6, err_msg=key)
    golden_posterior().save(tmp_path / "anew.bridge")
    for name in FILES[1:]:
        assert (tmp_path / "anew.bridge" / name).read_bytes() == (POSTERIOR / name).read_bytes(), name


def test_the_manifest_holds_what_the_contract_names() -> None:
    manifest = json.loads((GOLDEN / "bridge.json").read_text(encoding="utf-8"))
    assert manifest["format_version"] == 1
    assert {"method", "config", "spaces", "routes", "record", "projectors_sha256"} <= set(manifest)
    for entry in manifest["spaces"]:
        assert {"name", "role", "dim", "fingerprints", "encoders", "path"} <= set(entry)
        assert all(set(encoder) == set(IDENTITY) for encoder in entry["encoders"].values())
    assert manifest["routes"]["base/image"] == [{"kind": "normalize"}]


def test_writing_it_again_gives_the_same_bytes(tmp_path: Path) -> None:
    load_bridge(GOLDEN).save(tmp_path / "again.bridge")
    golden().save(tmp_path / "anew.bridge")
    for name in FILES[1:]:  # the words of the model card are free
        assert (tmp_path / "again.bridge" / name).read_bytes() == (GOLDEN / name).read_bytes(), name
        assert (tmp_path / "anew.bridge" / name).read_bytes() == (GOLDEN / name).read_bytes(), name


def test_the_arrays_are_plain_safetensors() -> None:
    from safetensors.numpy import load_file

    arrays = load_file(str(GOLDEN / "projectors.safetensors"))
    assert {str(array.dtype) for array in arrays.values()} == {"float16", "float32"}
    np.testing.assert_array_equal(arrays["leaf/w1"], grid(5, 3))


if __name__ == "__main__":
    golden().save(GOLDEN, overwrite=True)
    GOLDEN.with_suffix(".json").write_text(json.dumps(answers(golden()), indent=1) + "\n", encoding="utf-8")
    golden_posterior().save(POSTERIOR, overwrite=True)
    expected = json.dumps(answers(golden_posterior(), POSTERIOR_QUERIES), indent=1)
    POSTERIOR.with_suffix(".json").write_text(expected + "\n", encoding="utf-8")
