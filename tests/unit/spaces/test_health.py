"""Health: figures against plain definitions, and a warning for each kind of trouble."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from isthmus import import_embeddings, inspect
from isthmus.core.geometry import effective_rank, modality_gap, normalize
from isthmus.errors import OverlapError
from isthmus.spaces.health import format_report, neighbour_agreement, sample_rows
from isthmus.spaces.space import Space, make_space, open_space
from isthmus.spaces.writer import ModalityWriter

RNG = np.random.default_rng(0)
N, D = 300, 32
X = RNG.normal(size=(N, D)).astype(np.float32)
IDS = [f"i{row}" for row in range(N)]
MAKER = {"library": "l", "id": "maker", "revision": None, "weights_sha256": None}


def space(path: Path, modalities: dict, **options) -> Space:
    options.setdefault("encoder", MAKER)
    return make_space(path, modalities, dtype="float32", shard_rows=77, **options)


def warnings(report: dict) -> str:
    return "\n".join(report["warnings"])


def test_figures_are_what_they_are_called(tmp_path: Path):
    y = normalize(X + 0.5)
    s = space(tmp_path / "s.space", {"image": (IDS, X), "text": (IDS, y)})
    report = inspect(s)
    image = report["modalities"]["image"]
    norms = np.linalg.norm(X, axis=1)
    unit = normalize(X)
    cosines = (unit @ unit.T)[~np.eye(N, dtype=bool)]
    assert (image["rows"], image["dim"], image["dtype"], image["encoder"]) == (N, D, "float32", "maker")
    assert image["fingerprint"] == s.fingerprint("image")
    for key, value in (("mean_norm", norms.mean()), ("min_norm", norms.min()), ("max_norm", norms.max())):
        assert image[key] == pytest.approx(value, rel=1e-5)
    assert image["mean_cosine"] == pytest.approx(cosines.mean(), abs=1e-5)
    assert image["effective_rank"] == pytest.approx(effective_rank(unit), abs=0.01)
    assert (image["unit_share"], report["modalities"]["text"]["unit_share"]) == (0.0, 1.0)
    assert image["duplicates"] == 0
    assert report["gaps"] == {"image - text": pytest.approx(modality_gap(unit, y), abs=1e-5)}
    assert (report["space"], report["dim"], report["rows"], report["normalized"]) == ("s", D, 2 * N, False)
    assert report["seconds"] >= 0
    assert report["warnings"] == []
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_samples_are_seeded_and_bound_the_work(tmp_path: Path):
    s = space(tmp_path / "s.space", {"image": (IDS, X)})
    first, again, other = (inspect(s, sample=50, seed=seed)["modalities"]["image"] for seed in (0, 0, 1))
    assert first == again
    assert first["effective_rank"] != other["effective_rank"]
    assert first["mean_cosine"] == other["mean_cosine"]
    assert sample_rows(10, 20, 0).tolist() == list(range(10))
    rows = sample_rows(1000, 20, 0)
    assert len(set(rows.tolist())) == 20
    assert rows.tolist() == sorted(rows.tolist())


def test_exact_duplicates(tmp_path: Path):
    x = X.copy()
    x[10] = x[3]
    x[200] = x[3]
    x[201] = -x[3]
    report = inspect(space(tmp_path / "s.space", {"image": (IDS, x)}))
    assert report["modalities"]["image"]["duplicates"] == 2
    assert "s/image: 2 rows (0.7%) repeat another row exactly, such as 'i3' and 'i10'" in warnings(report)


def test_near_collapse(tmp_path: Path):
    direction = np.ones(D, np.float32) * 10
    report = inspect(space(tmp_path / "a.space", {"image": (IDS, X + direction)}))
    assert report["modalities"]["image"]["mean_cosine"] > 0.9
    assert "a/image: nearly collapsed: rows have a mean cosine of 0.99" in warnings(report)
    line = (RNG.normal(size=(N, 1)) @ RNG.normal(size=(1, D))).astype(np.float32)
    report = inspect(space(tmp_path / "b.space", {"image": (IDS, line)}))
    assert "b/image: uses few directions: its effective rank is 1.0 of 32 possible" in warnings(report)


def test_nobody_says_which_encoder(tmp_path: Path):
    report = inspect(space(tmp_path / "s.space", {"image": (IDS, X), "text": (IDS, X[::-1])}, encoder=None))
    assert report["modalities"]["image"]["encoder"] is None
    assert report["warnings"] == [
        "s: nobody says which encoder made image, text; the name 's' stands in for it. "
        "Import with --encoder ID, so that spaces are not mixed up."
    ]


def test_rows_that_cannot_be_used(tmp_path: Path):
    s = space(tmp_path / "s.space", {"image": (IDS, X)})
    file = s["image"].shards[0].embeddings
    raw = bytearray(file.read_bytes())
    raw[128 : 128 + 4 * D] = bytes(4 * D)
    file.write_bytes(bytes(raw))
    report = inspect(open_space(tmp_path / "s.space"))
    assert report["modalities"]["image"]["min_norm"] == 0.0
    assert "s/image: has 1 rows that are zero or not finite" in warnings(report)
    raw[128 : 128 + 4] = np.float32(np.nan).tobytes()
    file.write_bytes(bytes(raw))
    assert "s/image: has 1 rows that are zero or not finite" in warnings(inspect(open_space(tmp_path / "s.space")))


def test_half_written_rows(tmp_path: Path):
    s = space(tmp_path / "s.space", {"image": (IDS, X)})
    writer = ModalityWriter(s.path, "text", dim=D)
    writer._held.close()
    assert "s/text: rows of it are half written and not counted here" in warnings(inspect(open_space(s.path)))


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_tiny_spaces(tmp_path: Path, rows: int):
    s = space(tmp_path / "a.space", {"text": (IDS[:rows], X[:rows])})
    t = space(tmp_path / "b.space", {"text": (IDS[:rows], X[:rows, :5])})
    report = inspect(s, t)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["overlap"]["text"]["shared"] == rows
    assert ("agreement" in report["overlap"]["text"]) == (rows == 3)
    assert format_report(report)


def oracle(x: np.ndarray, y: np.ndarray, k: int) -> tuple[float, float]:
    """Neighbour agreement, row by row."""
    shares, jaccards = [], []
    for row in range(len(x)):
        near = []
        for z in (x, y):
            order = [other for other in np.argsort(-(z @ z[row])) if other != row]
            near.append(set(order[:k]))
        shares.append(len(near[0] & near[1]) / k)
        jaccards.append(len(near[0] & near[1]) / len(near[0] | near[1]))
    return float(np.mean(shares)), float(np.mean(jaccards))


@pytest.mark.parametrize(("n", "k"), [(3, 1), (50, 10), (1500, 10)])
def test_neighbour_agreement_is_that_of_the_oracle(n: int, k: int):
    x = normalize(RNG.normal(size=(n, 8)))
    y = normalize(np.hstack([x, RNG.normal(size=(n, 4)).astype(np.float32)]))
    got = neighbour_agreement(x, y, k)
    share, jaccard = oracle(x, y, k)
    assert got["agreement"] == pytest.approx(share, abs=1e-3)
    assert got["jaccard"] == pytest.approx(jaccard, abs=1e-3)
    assert got["agreement_chance"] == pytest.approx(k / (n - 1))


def test_neighbour_agreement_between_one_and_chance():
    rng = np.random.default_rng(0)
    x = normalize(rng.normal(size=(2000, 16)))
    rotation = np.linalg.qr(rng.normal(size=(16, 16)))[0].astype(np.float32)
    assert neighbour_agreement(x, normalize(x @ rotation), 10)["agreement"] > 0.999
    random = neighbour_agreement(x, normalize(rng.normal(size=(2000, 16))), 10)
    assert random["agreement"] == pytest.approx(random["agreement_chance"], rel=0.2)


def test_what_two_spaces_share(tmp_path: Path):
    rotation = RNG.normal(size=(D, 20)).astype(np.float32)
    a = space(tmp_path / "a.space", {"text": (IDS, X), "image": (IDS[:9], X[:9])})
    b = space(
        tmp_path / "b.space", {"text": (IDS[100:][::-1], (X @ rotation)[100:][::-1]), "audio": (IDS[:9], X[:9, :20])}
    )
    report = inspect(a, b)
    assert report["overlap"].keys() == {"text"}
    shared = report["overlap"]["text"]
    assert (shared["shared"], shared["share_of_second"], shared["sampled"], shared["k"]) == (200, 1.0, 200, 10)
    assert shared["share_of_first"] == pytest.approx(2 / 3, abs=1e-6)
    x, y = a["text"].unit(range(100, 300)), normalize((X @ rotation)[100:])
    assert shared["agreement"] == pytest.approx(oracle(x, y, 10)[0], abs=1e-3)
    assert report["other"]["space"] == "b"
    assert "warnings" not in report["other"]
    assert (
        warnings(report)
        == "a and b, text: only 200 items are shared, all that a bridge learns from. Thousands are better."
    )
    assert inspect(a, b, via="text")["overlap"] == inspect(a, b, via=["text"])["overlap"] == report["overlap"]
    assert inspect(a, b, via="text", sample=150)["overlap"]["text"]["sampled"] == 150


def test_warnings_about_two_spaces(tmp_path: Path):
    big = RNG.normal(size=(1200, D)).astype(np.float32)
    ids = [f"i{row}" for row in range(1200)]
    a = space(tmp_path / "a.space", {"text": (ids, big)})
    noise = space(tmp_path / "noise.space", {"text": (ids, RNG.normal(size=(1200, 8)))})
    assert "a and noise, text: shared items have their neighbours in common no more often than chance" in warnings(
        inspect(a, noise)
    )
    few = space(tmp_path / "few.space", {"text": (ids[:100] + [f"x{row}" for row in range(1100)], big[:, :16])})
    assert "a and few, text: under 10 % of either side is shared" in warnings(inspect(a, few))
    same = space(tmp_path / "same.space", {"text": (ids, big)})
    report = inspect(a, same)
    assert "a and same, text: both were made by the same encoder; there is nothing to bridge" in warnings(report)
    assert report["overlap"]["text"]["agreement"] == 1.0


def test_nothing_shared(tmp_path: Path):
    a = space(tmp_path / "a.space", {"text": (IDS, X)})
    b = space(tmp_path / "b.space", {"text": ([f"x{row}" for row in range(N)], X[:, :9])})
    c = space(tmp_path / "c.space", {"audio": (IDS, X)})
    report = inspect(a, b)
    assert report["overlap"]["text"] == {"shared": 0, "share_of_first": 0.0, "share_of_second": 0.0}
    assert "a and b, text: no id is shared" in warnings(report)
    with pytest.raises(OverlapError, match="share 0 of 300 text ids"):
        inspect(a, b, via="text")
    with pytest.raises(OverlapError, match=r"'a' \(text\) and 'c' \(audio\) have no modality in common"):
        inspect(a, c)
    with pytest.raises(OverlapError, match="has no 'audio' to match"):
        inspect(a, b, via="audio")


def test_the_report_as_text(tmp_path: Path):
    a = space(tmp_path / "a.space", {"text": (IDS, X), "image": (IDS, X)}, encoder=None)
    b = space(tmp_path / "b.space", {"text": (IDS, X[:, :9])})
    text = format_report(inspect(a, b))
    assert "space a, dim 32, 600 rows" in text
    assert "modality gap text - image: 0.0000" in text
    assert "shared by a and b" in text
    assert "warning: a: nobody says which encoder made" in text
    lines = [line for line in text.splitlines() if line.startswith(("modality ", "text ", "image "))]
    assert len({len(line) for line in lines[:3]}) == 1
    assert "no warnings" in format_report({**inspect(b), "warnings": []})


def test_the_real_spaces(shared: Path, tmp_path: Path):
    folder = shared / "data" / "embeddings"
    for name, modality in (("picture", "text"), ("sound", "text"), ("sound", "audio")):
        import_embeddings(folder / name / f"{modality}.parquet", tmp_path / f"{name}.space", modality=modality)
    report = inspect(open_space(tmp_path / "picture.space"), open_space(tmp_path / "sound.space"))
    text = report["overlap"]["text"]
    assert text["shared"] == 17_427
    assert text["agreement"] > 50 * text["agreement_chance"]
    assert report["other"]["modalities"]["audio"]["rows"] == 3_478


def test_wide_embeddings_cost_no_cube_of_their_width(tmp_path: Path):
    import time

    rng = np.random.default_rng(0)
    make_space(tmp_path / "w.space", {"text": ([f"t{k}" for k in range(3000)], rng.normal(size=(3000, 6000)))})
    begin = time.process_time()
    report = inspect(open_space(tmp_path / "w.space"))["modalities"]["text"]
    assert time.process_time() - begin < 60.0
    assert report["effective_rank_rows"] == 2048
    assert 1500 < report["effective_rank"] <= 2048
    assert not [text for text in inspect(open_space(tmp_path / "w.space"))["warnings"] if "few directions" in text]


@pytest.mark.parametrize("shape", [(10, 300), (300, 10), (50, 50)])
def test_the_effective_rank_is_the_same_from_either_side(shape: tuple[int, int]):
    from isthmus.core.geometry import effective_rank

    x = np.random.default_rng(0).normal(size=shape)
    singular = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    p = singular[singular > 1e-9] / singular.sum()
    assert effective_rank(x) == pytest.approx(float(np.exp(-(p * np.log(p)).sum())), rel=1e-6)
