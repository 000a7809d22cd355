"""Numbers and ids in the containers that people hold them in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import isthmus
from isthmus.core.arrays import ids_of, to_numpy
from isthmus.errors import SpaceError

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
IDS = [f"t{k}" for k in range(6)]


def containers() -> dict[str, object]:
    torch = pytest.importorskip("torch")
    found = {
        "list": X.tolist(),
        "float32": torch.tensor(X),
        "float16": torch.tensor(X).half(),
        "bfloat16": torch.tensor(X).bfloat16(),
        "float64 with gradient": torch.tensor(X, dtype=torch.float64, requires_grad=True),
        "transposed": torch.tensor(X.T.copy()).T,
        "list of tensors": list(torch.tensor(X, requires_grad=True)),
        "object array of rows": np.array([*map(np.array, X), None], object)[:6],
        "arrow lists": pa.array(X.tolist()),
        "arrow chunks": pa.chunked_array([pa.array(X[:2].tolist()), pa.array(X[2:].tolist())]),
    }
    return found


@pytest.mark.parametrize("name", list(containers()))
def test_numbers_in_every_container(name: str, tmp_path: Path):
    x = containers()[name]
    assert np.allclose(to_numpy(x), X, atol=0.02)
    space = isthmus.make_space(tmp_path / "a.space", {"text": (IDS, x)}, dtype="float32")
    assert np.allclose(np.asarray(space["text"]), X, atol=0.02)
    scores = isthmus.evaluate_retrieval(x, x, [(k, k) for k in range(6)], bootstrap=0)
    assert scores.to_dict()["query_to_gallery"]["r@1"] == 1.0
    assert isthmus.SearchIndex(x).search(to_numpy(x)[0], k=1)


def test_frames_of_pandas(tmp_path: Path):
    pandas = pytest.importorskip("pandas")
    assert np.allclose(to_numpy(pandas.DataFrame(X)), X)
    frame = pandas.DataFrame({"id": range(6), "embedding": list(X)})
    assert np.allclose(to_numpy(frame["embedding"]), X)
    space = isthmus.make_space(tmp_path / "a.space", {"text": (frame["id"], frame["embedding"])})
    assert space["text"].ids == list("012345")
    assert ids_of(pandas.Index([3, 4]), "x", SpaceError) == ["3", "4"]


def test_frames_of_polars(tmp_path: Path):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"id": IDS, "embedding": X.tolist()})
    assert np.allclose(to_numpy(frame["embedding"]), X)
    assert np.allclose(to_numpy(polars.DataFrame(X)), X)
    space = isthmus.make_space(tmp_path / "a.space", {"text": (frame["id"], frame["embedding"])})
    assert space["text"].ids == IDS


@pytest.mark.parametrize(
    "ids", [[1, 2], np.array([1, 2], np.uint64), [np.int32(1), "2"], pa.array([1, 2]), (str(i) for i in (1, 2))]
)
def test_whole_numbers_are_ids(ids: object):
    assert ids_of(ids, "x", SpaceError) == ["1", "2"]


@pytest.mark.parametrize(
    ("ids", "got"),
    [
        (["a", 1.0], "a float"),
        (["a", None], "a NoneType"),
        (["a", True], "a bool"),
        (["a", ""], "an empty text"),
        (["a", b"b"], "a bytes"),
        (np.array([0.5, 1.0]), "a float"),
    ],
)
def test_what_is_no_id_is_refused_with_its_row(ids: object, got: str, tmp_path: Path):
    row = 0 if isinstance(ids, np.ndarray) else 1
    with pytest.raises(
        SpaceError, match=rf"a\.space: 'text': the id of row {row} is {got}\. Expected a text or a whole"
    ):
        isthmus.make_space(tmp_path / "a.space", {"text": (ids, X[:2])})
