"""Routes: every kind of step against a slow reading of its definition, and every fault in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isthmus.bridges import routes
from isthmus.bridges.routes import apply_route, rename_arrays, route_arrays, softmax_average, validate_route
from isthmus.bridges.steps import softmax
from isthmus.errors import BridgeError

N, D = 7, 5


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((N, D)).astype(np.float32)


@pytest.fixture
def arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return {
        "mean": draw(D), "w": draw(4, D), "b": draw(4), "w2": draw(3, 4), "b2": draw(3),
        "g": draw(4), "h": draw(4), "m": draw(4), "v": np.abs(draw(4)) + 0.1,
        "keys": draw(11, D), "values": draw(11, 3),
    }  # fmt: skip


def unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


MLP = {
    "kind": "mlp",
    "layers": [
        {"linear": ["w", "b"]},
        {"batch_norm": ["g", "h", "m", "v"], "eps": 1e-5},
        {"relu": True},
        {"linear": ["w2", None]},
    ],
}
DICTIONARY = {"kind": "dictionary", "keys": "keys", "values": "values", "temperature": 0.1}


def slow_mlp(x: np.ndarray, a: dict[str, np.ndarray]) -> np.ndarray:
    h = x.astype(np.float64) @ a["w"].T + a["b"]
    h = (h - a["m"]) / np.sqrt(a["v"] + 1e-5) * a["g"] + a["h"]
    return np.maximum(h, 0) @ a["w2"].T


def slow_dictionary(x: np.ndarray, keys: np.ndarray, values: np.ndarray, temperature: float) -> np.ndarray:
    scores = x.astype(np.float64) @ keys.astype(np.float64).T / temperature
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True) @ values.astype(np.float64)


def test_normalize_center_and_linear(x: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
    steps = [
        {"kind": "normalize"},
        {"kind": "center", "mean": "mean"},
        {"kind": "linear", "weight": "w", "bias": "b"},
        {"kind": "linear", "weight": "w2", "bias": None},
        {"kind": "normalize"},
    ]
    expected = unit(((unit(x) - arrays["mean"]) @ arrays["w"].T + arrays["b"]) @ arrays["w2"].T)
    got = apply_route(steps, arrays, x)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_mlp_uses_running_statistics(x: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(apply_route([MLP], arrays, x), slow_mlp(x, arrays), atol=1e-5)
    np.testing.assert_allclose(apply_route([MLP], arrays, x[:1]), slow_mlp(x[:1], arrays), atol=1e-5)


def test_dictionary(x: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
    expected = slow_dictionary(x, arrays["keys"], arrays["values"], 0.1)
    np.testing.assert_allclose(apply_route([DICTIONARY], arrays, x), expected, atol=1e-5)


@pytest.mark.parametrize("block", [1, 4, 11, 100])
def test_dictionary_in_blocks_is_the_dictionary(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    x, keys, values = (rng.standard_normal(shape).astype(np.float32) for shape in ((9, 6), (11, 6), (11, 2)))
    monkeypatch.setattr(softmax, "KEYS", block)
    for temperature in (1.0, 0.001):
        got = softmax_average(x, keys.astype(np.float16), values, temperature)
        np.testing.assert_allclose(got, slow_dictionary(x, keys.astype(np.float16), values, temperature), atol=2e-5)


def test_rows_in_blocks_are_the_rows(
    x: np.ndarray, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [{"kind": "normalize"}, DICTIONARY]
    whole = apply_route(steps, arrays, x)
    monkeypatch.setattr(routes, "ROWS", 2)
    np.testing.assert_allclose(apply_route(steps, arrays, x), whole, atol=1e-6)


def test_blend_and_concat(x: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
    chains = [[MLP], [DICTIONARY]]
    one, two = unit(slow_mlp(x, arrays)), unit(slow_dictionary(x, arrays["keys"], arrays["values"], 0.1))
    blend = apply_route([{"kind": "blend", "weights": [0.25, 0.75], "chains": chains}], arrays, x)
    np.testing.assert_allclose(blend, unit(0.25 * one + 0.75 * two), atol=1e-5)
    concat = apply_route([{"kind": "concat", "weights": [0.25, 0.75], "chains": chains}], arrays, x)
    assert concat.shape == (N, 6)
    np.testing.assert_allclose(concat @ concat.T, 0.25 * one @ one.T + 0.75 * two @ two.T, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(concat, axis=1), 1.0, atol=1e-6)


def test_no_rows_keep_the_dimension(arrays: dict[str, np.ndarray]) -> None:
    assert apply_route([MLP], arrays, np.empty((0, D), np.float32)).shape == (0, 3)


def test_an_empty_route_is_the_identity(x: np.ndarray) -> None:
    np.testing.assert_array_equal(apply_route([], {}, x), x)


def test_names_are_listed_and_renamed_everywhere(x: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
    steps = [
        {"kind": "center", "mean": "mean"},
        {"kind": "blend", "weights": [0.5, 0.5], "chains": [[MLP], [DICTIONARY]]},
        {"kind": "linear", "weight": "w3", "bias": None},
    ]
    names = route_arrays(steps)
    assert names == ["mean", "w", "b", "g", "h", "m", "v", "w2", "keys", "values", "w3"]
    arrays["w3"] = np.eye(3, dtype=np.float32)
    moved = rename_arrays(steps, lambda name: f"leaf/{name}")
    assert route_arrays(moved) == [f"leaf/{name}" for name in names]
    assert route_arrays(steps) == names
    renamed = {f"leaf/{name}": array for name, array in arrays.items()}
    np.testing.assert_array_equal(apply_route(moved, renamed, x), apply_route(steps, arrays, x))


def mlp(*layers: Any) -> list[Any]:
    return [{"kind": "mlp", "layers": [{"linear": ["w", "b"]}, *layers]}]


def several(kind: str, weights: list[float], *chains: Any) -> list[Any]:
    return [{"kind": kind, "weights": weights, "chains": list(chains)}]


def linear(weight: str, bias: str | None) -> list[Any]:
    return [{"kind": "linear", "weight": weight, "bias": bias}]


FAULTS: list[tuple[Any, str]] = [
    ([{"kind": "warp"}], r"^route, step 1: kind 'warp' is unknown here\. Expected normalize, .*isthmus may know it\.$"),
    (["normalize"], r"step 1: kind None is unknown here"),
    ("normalize", r"^route: got str\. Expected a list of steps\.$"),
    ([{"kind": "normalize", "eps": 1}], r"step 1 \(normalize\): key 'eps' is unknown here; a newer isthmus"),
    ([{"kind": "center"}], r"step 1 \(center\): key 'mean' is missing\. Expected mean\.$"),
    ([{"kind": "center", "mean": "nothing"}], r"array 'nothing' is not among the bridge's 12 arrays\.$"),
    ([{"kind": "center", "mean": ["mean"]}], r"array \['mean'\] is not among"),
    ([{"kind": "center", "mean": "w"}], r"array 'w' has shape \(4, 5\)\. Expected \(5\)\.$"),
    ([{"kind": "center", "mean": "nan"}], r"array 'nan' holds NaN or infinite values\."),
    (linear("w2", None), r"array 'w2' has shape \(3, 4\)\. Expected \(any, 5\)\.$"),
    (linear("w", "mean"), r"array 'mean' has shape \(5,\)\. Expected \(4\)\.$"),
    ([{"kind": "mlp", "layers": "relu"}], r"layers is str\. Expected a list\.$"),
    (mlp({"gelu": True}), r"\(mlp\), layer 2: got \{'gelu': True\}\. Expected one of linear, batch_norm, relu;"),
    (mlp({"relu": False}), r"layer 2: relu is False\. Expected true\.$"),
    (mlp({"linear": ["w2"]}), r"layer 2: linear is \['w2'\]\. Expected 2 array names\.$"),
    (mlp({"batch_norm": ["g", "h", "m", "v"]}), r"layer 2: eps is None\. Expected a number above 0"),
    (mlp({"batch_norm": ["g", "h", "m", "minus"], "eps": 1e-5}), r"array 'minus' holds negative variances"),
    ([{**DICTIONARY, "temperature": 0}], r"\(dictionary\): temperature is 0\. Expected a number above 0\.$"),
    ([{**DICTIONARY, "temperature": float("nan")}], r"temperature is nan"),
    ([{**DICTIONARY, "values": "w"}], r"array 'w' has shape \(4, 5\)\. Expected \(11, any\)\.$"),
    (several("blend", [1.0]), r"\(blend\): weights and chains do not match"),
    (
        several("blend", [0.5, 0.6], [], []),
        r"weights are \[0\.5, 0\.6\]\. Expected numbers of at least 0 that sum to 1",
    ),
    (several("concat", [-0.5, 1.5], [], []), r"Expected numbers of at least 0"),
    (several("blend", [0.5, 0.5], [], [MLP]), r"chains end in 5, 3 dimensions\. Expected the same of each\.$"),
    (several("concat", [1.0], [{"kind": "x"}]), r"^route, step 1 \(concat\), chain 1, step 1: kind 'x' is unknown"),
]


@pytest.mark.parametrize(("steps", "message"), FAULTS)
def test_a_fault_is_one_line(steps: Any, message: str, x: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
    arrays["minus"] = np.full(4, -1.0, dtype=np.float32)
    if "'nan'" in str(steps):
        arrays["nan"] = np.full(5, np.nan, dtype=np.float32)
    with pytest.raises(BridgeError, match=message) as caught:
        apply_route(steps, arrays, x)
    assert "\n" not in str(caught.value)


def test_rows_must_be_two_dimensional(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(BridgeError, match=r"^route: got embeddings of shape \(5,\)\. Expected two dimensions"):
        apply_route([], arrays, np.zeros(5, np.float32))


def test_lazy_arrays_are_asked_for_their_shape_only(arrays: dict[str, np.ndarray]) -> None:
    class Lazy(dict[str, np.ndarray]):
        def shape(self, name: str) -> tuple[int, ...]:
            return super().__getitem__(name).shape

        def __getitem__(self, name: str) -> np.ndarray:
            raise AssertionError("read")

    assert validate_route([{"kind": "normalize"}, DICTIONARY], Lazy(arrays), D) == 3


@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_batch_norm_adds_the_eps_that_a_route_names(eps: float) -> None:
    """A hidden unit that hardly varies has a variance no larger than eps."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 3)).astype(np.float32)
    held = {
        "w": rng.standard_normal(3), "b": rng.standard_normal(3), "m": rng.standard_normal(3),
        "v": np.array([1e-6, 1e-5, 1.0]),
    }  # fmt: skip
    held = {name: value.astype(np.float32) for name, value in held.items()}
    route = [{"kind": "mlp", "layers": [{"batch_norm": ["w", "b", "m", "v"], "eps": eps}]}]
    expected = (x - held["m"]) / np.sqrt(held["v"].astype(np.float64) + eps) * held["w"] + held["b"]
    np.testing.assert_allclose(apply_route(route, held, x), expected, rtol=1e-4)
