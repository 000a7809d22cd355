"""Closed forms: each against its definition or a world where the answer is known, and the bridges made of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.bridges.bridge import Bridge, load_bridge
from isthmus.bridges.routes import apply_route
from isthmus.core.geometry import centroid, normalize
from isthmus.errors import ConfigError, OverlapError
from isthmus.recipes.closed_form import closed_form, fit_closed_form_bridge
from isthmus.recipes.solvers import METHODS, STRENGTHS, TEMPERATURES, ClosedFormConfig, solve
from isthmus.spaces.space import Space, make_space


def unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return normalize(rng.standard_normal((n, d)).astype(np.float32))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def rotated(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A base in 12 dimensions, and a leaf that is a rotation of it."""
    base = unit(rng, 200, 12)
    turn, _ = np.linalg.qr(rng.standard_normal((12, 12)))
    return base, (base @ turn).astype(np.float32)


# the methods


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("method", ["ridge", "procrustes"])
def test_a_rotation_is_undone(method: str, center: bool, rotated: tuple[np.ndarray, np.ndarray]) -> None:
    base, leaf = rotated
    options = {"strength": 1e-6} if method == "ridge" else {}
    route, arrays = closed_form(base, leaf, method=method, center=center, **options)
    got = normalize(apply_route(route, arrays, leaf))
    expected = normalize(base - centroid(base)) if center else base
    assert (got * expected).sum(axis=1).min() > 0.999


@pytest.mark.parametrize(("wide", "narrow"), [(8, 5), (5, 8)])
def test_procrustes_between_unequal_dims_is_semi_orthogonal(wide: int, narrow: int, rng: np.random.Generator) -> None:
    base, leaf = unit(rng, 300, wide), unit(rng, 300, narrow)
    base[:, : min(wide, narrow)] += leaf[:, : min(wide, narrow)]
    base = normalize(base)
    _, arrays = closed_form(base, leaf, method="procrustes")
    weight = arrays["leaf/weight"]
    small = min(wide, narrow)
    gram = weight.T @ weight if wide > narrow else weight @ weight.T
    np.testing.assert_allclose(gram, np.eye(small), atol=1e-5)
    u, _, vt = np.linalg.svd(base.T.astype(np.float64) @ leaf, full_matrices=False)
    np.testing.assert_allclose(weight, u @ vt, atol=1e-4)


def test_ridge_is_the_penalised_least_squares_map(rng: np.random.Generator) -> None:
    base, leaf = unit(rng, 100, 6), unit(rng, 100, 4)
    _, arrays = closed_form(base, leaf, method="ridge", strength=0.5)
    x = leaf.astype(np.float64)
    penalty = 0.5 * (x**2).sum() / 4
    expected = np.linalg.solve(x.T @ x + penalty * np.eye(4), x.T @ base).T
    np.testing.assert_allclose(arrays["leaf/weight"], expected, atol=1e-5)


def test_dictionary_is_a_softmax_over_the_overlap(rng: np.random.Generator) -> None:
    base, leaf, x = unit(rng, 40, 6), unit(rng, 40, 4), unit(rng, 3, 4)
    route, arrays = closed_form(base, leaf, method="dictionary", temperature=0.1)
    weights = np.exp(x @ leaf.T / 0.1)
    expected = weights / weights.sum(axis=1, keepdims=True) @ base
    np.testing.assert_allclose(apply_route(route, arrays, x), expected, atol=2e-3)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}


def test_mean_offset_moves_one_mean_to_the_other(rng: np.random.Generator) -> None:
    base, leaf = unit(rng, 50, 4), unit(rng, 50, 4)
    route, arrays = closed_form(base, leaf, method="mean_offset")
    np.testing.assert_allclose(centroid(apply_route(route, arrays, leaf)), centroid(base), atol=1e-6)
    with pytest.raises(
        ConfigError, match=r"^mean_offset needs spaces of equal dims, got 4 and 3: .* Use procrustes, ridge"
    ):
        closed_form(base, leaf[:, :3], method="mean_offset")


def test_cca_finds_what_two_spaces_share(rng: np.random.Generator) -> None:
    """Two spaces of eight coordinates that have three in common, each under a mixing of its own."""
    common = rng.standard_normal((4000, 3))
    one, two = (np.hstack([common, rng.standard_normal((4000, 5))]) @ rng.standard_normal((8, 8)) for _ in range(2))
    base, leaf = normalize(one.astype(np.float32)), normalize(two.astype(np.float32))
    fit = solve(base, leaf, ClosedFormConfig(method="cca", dim=3, strength=1e-4))
    a, b = apply_route(fit.leaf, fit.arrays, leaf), apply_route(fit.base, fit.arrays, base)
    assert a.shape == (4000, 3)
    assert (normalize(a) * normalize(b)).sum(axis=1).mean() > 0.9
    from sklearn.cross_decomposition import CCA

    found = CCA(n_components=3).fit(leaf.astype(np.float64), base.astype(np.float64)).transform(leaf, base)
    theirs = [np.corrcoef(found[0][:, i], found[1][:, i])[0, 1] for i in range(3)]
    ours = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(3)]
    np.testing.assert_allclose(ours, theirs, atol=0.01)


def test_cca_from_one_side_gives_the_same_products(rng: np.random.Generator) -> None:
    base, leaf = unit(rng, 300, 6), unit(rng, 300, 5)
    base[:, :4] += leaf[:, :4]
    settings = {"method": "cca", "strength": 0.1}
    both, one = (solve(base, leaf, ClosedFormConfig(**settings, two_sided=sides)) for sides in (True, False))
    joint = apply_route(both.leaf, both.arrays, leaf) @ apply_route(both.base, both.arrays, base).T
    alone = apply_route(one.leaf, one.arrays, leaf) @ (base - centroid(base)).T
    np.testing.assert_allclose(alone, joint, atol=1e-4)
    assert one.base == []


def test_a_two_sided_dictionary_adds_the_cosines_of_both_spaces(rng: np.random.Generator) -> None:
    base, leaf = unit(rng, 60, 6), unit(rng, 60, 4)
    config = ClosedFormConfig(two_sided=True, temperature=0.1, base_temperature=0.2)
    fit = solve(base, leaf, config)
    x, y = unit(rng, 3, 4), unit(rng, 2, 6)

    def look_up(q: np.ndarray, keys: np.ndarray, values: np.ndarray, temperature: float) -> np.ndarray:
        weights = np.exp(q @ keys.T / temperature)
        return normalize((weights / weights.sum(axis=1, keepdims=True) @ values).astype(np.float32))

    expected = 0.5 * look_up(x, leaf, base, 0.1) @ y.T + 0.5 * x @ look_up(y, base, leaf, 0.2).T
    got = apply_route(fit.leaf, fit.arrays, x) @ apply_route(fit.base, fit.arrays, y).T
    np.testing.assert_allclose(got, expected, atol=2e-3)
    assert sorted(fit.arrays) == ["base/overlap", "leaf/overlap"]
    averaged = solve(base, leaf, ClosedFormConfig(two_sided="average", temperature=0.1, base_temperature=0.2))
    got = normalize(apply_route(averaged.base, averaged.arrays, y))
    np.testing.assert_allclose(got, look_up(y, base, base, 0.2), atol=2e-3)


# choosing


def test_what_is_left_open_is_chosen_from_the_overlap_alone_and_the_same_each_time(
    rng: np.random.Generator,
) -> None:
    base, leaf = unit(rng, 400, 8), unit(rng, 400, 8)
    leaf = normalize(base + 0.3 * leaf)
    fits = [solve(base, leaf, ClosedFormConfig(method=m, seed=5)) for m in ("dictionary", "ridge", "cca") for _ in "ab"]
    for one, two in pairwise(fits[::1]):
        if one.config.method == two.config.method:
            assert one.config == two.config
            assert all(np.array_equal(one.arrays[name], two.arrays[name]) for name in one.arrays)
    assert fits[0].config.temperature is not None
    assert fits[2].config.strength is not None
    assert fits[0].held_out["rows"] == 40
    assert 0.2 < fits[0].held_out["mrr"] <= 1.0


@pytest.mark.parametrize("method", ["ridge", "cca"])
def test_the_strongest_penalty_that_costs_little_is_chosen(method: str, rng: np.random.Generator) -> None:
    common = rng.standard_normal((600, 6)) * np.logspace(0, -1, 6)
    base, leaf = (
        normalize((common @ rng.standard_normal((6, d)) + 0.05 * rng.standard_normal((600, d))).astype(np.float32))
        for d in (30, 20)
    )
    chosen = solve(base, leaf, ClosedFormConfig(method=method)).config.strength
    tried = [ClosedFormConfig(method=method, strength=strength) for strength in STRENGTHS]
    scores = [solve(base, leaf, config).held_out["mrr"] for config in tried]
    good = [strength for strength, score in zip(STRENGTHS, scores, strict=True) if score >= 0.95 * max(scores)]
    assert chosen == max(good)
    assert chosen < max(STRENGTHS)


def test_the_best_temperature_is_chosen(rng: np.random.Generator) -> None:
    base = unit(rng, 500, 16)
    leaf = normalize(base @ rng.standard_normal((16, 12)).astype(np.float32))
    fit = solve(base, leaf, ClosedFormConfig())
    scores = [solve(base, leaf, ClosedFormConfig(temperature=t)).held_out["mrr"] for t in TEMPERATURES]
    assert fit.held_out["mrr"] == pytest.approx(max(scores), abs=0.01)
    assert len(set(scores)) > 1


def test_tiny_overlaps_are_fitted(rng: np.random.Generator) -> None:
    for method in METHODS:
        fit = solve(unit(rng, 8, 5), unit(rng, 8, 5), ClosedFormConfig(method=method))
        assert fit.held_out["rows"] == 4
    with pytest.raises(ConfigError, match=r"needs the same items of both spaces, got \(8, 5\) and \(7, 5\)\.$"):
        solve(unit(rng, 8, 5), unit(rng, 7, 5), ClosedFormConfig())


def test_linear_maps_of_huge_overlaps_are_fitted_on_a_draw(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, rotated: tuple[np.ndarray, np.ndarray]
) -> None:
    monkeypatch.setattr("isthmus.recipes.solvers.LINEAR_ROWS", 100)
    base, leaf = rotated
    route, arrays = closed_form(base, leaf, method="procrustes")
    assert (normalize(apply_route(route, arrays, leaf)) * base).sum(axis=1).min() > 0.999


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"method": "magic"},
            r"^unknown method 'magic'\. Expected one of dictionary, ridge, procrustes, mean_offset, cca\.$",
        ),
        ({"center": "base"}, r"^center got 'base'\. Expected False, True or 'leaf'\.$"),
        ({"method": "ridge", "two_sided": True}, r"^two_sided got True, which ridge does not know\. Leave it out\.$"),
        ({"temperature": 0}, r"^temperature got 0\. Expected a number above 0"),
        ({"strength": float("nan")}, r"^strength got nan\."),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClosedFormConfig(**settings)


def test_closed_form_carries_one_side_alone(rng: np.random.Generator) -> None:
    x = unit(rng, 20, 4)
    with pytest.raises(ConfigError, match=r"^closed_form carries the leaf alone, .* Use solve\.$"):
        closed_form(x, x, method="dictionary", two_sided=True)
    with pytest.raises(
        ConfigError,
        match=r"^unknown setting 'temprature' of a closed form\. Did you mean temperature\? Expected one of method",
    ):
        closed_form(x, x, method="dictionary", temprature=0.1)


# bridges


@pytest.fixture
def world(tmp_path: Path, rng: np.random.Generator) -> tuple[Space, Space, dict[str, np.ndarray]]:
    """A latent world of 300 things: two spaces see it through matrices of their own, each modality off by a mean."""
    latent = rng.standard_normal((300, 10))
    eyes = {name: rng.standard_normal((10, dim)) / 3 for name, dim in (("picture", 16), ("sound", 12))}
    keys = ("picture/image", "picture/text", "sound/audio", "sound/text")
    offset = {key: rng.standard_normal(16 if key.startswith("picture") else 12) / 2 for key in keys}

    def see(key: str, rows: np.ndarray) -> np.ndarray:
        space = key.partition("/")[0]
        noise = 0.2 * rng.standard_normal((len(rows), eyes[space].shape[1]))
        return normalize((rows @ eyes[space] + offset[key] + noise).astype(np.float32))

    train, test = latent[:260], latent[260:]
    ids = [f"t{i}" for i in range(200)]

    def other(prefix: str, n: int) -> list[str]:
        return [f"{prefix}{i}" for i in range(n)]

    half = rng.standard_normal((130, 10))
    picture = {"text": (ids, see("picture/text", train[:200])), "image": (other("i", 130), see("picture/image", half))}
    reverse = (ids[::-1], see("sound/text", train[:200])[::-1])
    back = {"text": reverse, "audio": (other("a", 60), see("sound/audio", train[200:]))}
    held = {key: see(key, test) for key in offset}
    return (
        make_space(tmp_path / "picture.space", picture, encoder="eye", dtype="float32"),
        make_space(tmp_path / "sound.space", back, encoder="ear", dtype="float32"),
        held,
    )


def found(bridge: Bridge, held: dict[str, np.ndarray], query: str, gallery: str) -> float:
    """Share of unseen items that find themselves first."""
    q, g = (bridge.project(held[k], space=k.split("/")[0], modality=k.split("/")[1]) for k in (query, gallery))
    return float(((q @ g.T).argmax(axis=1) == np.arange(len(q))).mean())


SETTINGS = [
    {"method": "ridge"},
    {"method": "ridge", "center": True},
    {"method": "ridge", "center": "leaf"},
    {"method": "procrustes", "center": True},
    {"method": "cca"},
    {"method": "cca", "two_sided": False, "center": "leaf"},
    {"method": "dictionary"},
    {"method": "dictionary", "center": True},
    {"method": "dictionary", "center": "leaf"},
    {"method": "dictionary", "two_sided": True},
    {"method": "dictionary", "two_sided": True, "center": True},
    {"method": "dictionary", "two_sided": "average", "center": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_closed_form_joins_audio_to_images_without_a_pair(
    settings: dict[str, Any], world: tuple[Space, Space, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    picture, sound, held = world
    bridge = fit_closed_form_bridge(picture, sound, via="text", **settings)
    assert found(bridge, held, "sound/audio", "picture/image") > (5 if "center" in settings else 2) / 40
    assert found(bridge, held, "sound/text", "picture/text") > 10 / 40
    two_sided = settings.get("two_sided", settings["method"] == "cca")
    assert bool(bridge.base_moved) == (settings.get("center") is True or bool(two_sided))
    bridge.save(tmp_path / "x.bridge")
    loaded = load_bridge(tmp_path / "x.bridge")
    assert loaded.project(sound["audio"]).tobytes() == bridge.project(sound["audio"]).tobytes()
    assert loaded.project(picture["image"]).shape == (130, bridge.dim)
    assert ("MOVED" in loaded.summary()) == bool(bridge.base_moved)
    record = loaded.record
    assert record["overlap"] == {"text": 200}
    assert record["held_out"]["rows"] == 20
    assert loaded.config["via"] == ["text"]
    gap = "picture/image - sound/audio"
    assert gap in record["gap"]["after"]
    if settings.get("center") is True and settings["method"] != "dictionary":
        assert record["gap"]["after"][gap] < 0.3


def test_a_base_that_stays_keeps_its_bits(world: tuple[Space, Space, dict[str, np.ndarray]]) -> None:
    picture, sound, _ = world
    bridge = fit_closed_form_bridge(picture, sound, via="text", method="dictionary", center="leaf")
    assert bridge.project(picture["image"]).tobytes() == picture["image"].unit().tobytes()
    assert not any(name.startswith("picture/") for name in bridge.arrays)


def test_centring_uses_each_modality_s_own_mean(world: tuple[Space, Space, dict[str, np.ndarray]]) -> None:
    picture, sound, _ = world
    bridge = fit_closed_form_bridge(picture, sound, via="text", method="ridge", center=True)
    np.testing.assert_allclose(bridge.arrays["sound/mean.audio"], centroid(sound["audio"].unit()), atol=1e-6)
    np.testing.assert_allclose(bridge.arrays["picture/mean.image"], centroid(picture["image"].unit()), atol=1e-6)
    np.testing.assert_allclose(bridge.arrays["picture/mean.text"], centroid(picture["text"].unit()), atol=1e-6)


def test_overlaps_of_several_modalities_are_stacked(
    world: tuple[Space, Space, dict[str, np.ndarray]], tmp_path: Path, rng: np.random.Generator
) -> None:
    picture, _, _ = world
    texts, images = picture["text"].unit(), picture["image"].unit()
    turn = rng.standard_normal((16, 9))
    shape = make_space(
        tmp_path / "shape.space",
        {
            "text": (picture["text"].ids, texts @ turn),
            "image": (picture["image"].ids, images @ turn),
            "point_cloud": (["p0", "p1", "p2"], rng.standard_normal((3, 9))),
        },
        dtype="float32",
    )
    bridge = fit_closed_form_bridge(picture, shape, via="image,text", method="dictionary", temperature=0.05)
    assert bridge.record["overlap"] == {"image": 130, "text": 200}
    assert bridge.arrays["shape/overlap"].shape == (330, 9)
    assert bridge.config["temperature"] == 0.05


def test_a_bridge_is_extended_and_stays(
    world: tuple[Space, Space, dict[str, np.ndarray]], tmp_path: Path, rng: np.random.Generator
) -> None:
    picture, sound, _ = world
    first = fit_closed_form_bridge(picture, sound, via="text", method="ridge")
    first.save(tmp_path / "first.bridge")
    first = load_bridge(tmp_path / "first.bridge")
    images = picture["image"].unit()
    shape = make_space(
        tmp_path / "shape.space",
        {
            "image": (picture["image"].ids, images @ rng.standard_normal((16, 9))),
            "point_cloud": (["p"], np.ones((1, 9))),
        },
        dtype="float32",
    )
    second = fit_closed_form_bridge(first, shape, via="image", method="procrustes")
    assert [space.role for space in second.spaces] == ["base", "leaf", "leaf"]
    assert second.method == "ridge+procrustes"
    assert {k: second.routes[k] for k in first.routes} == first.routes
    assert all(second.arrays[name].tobytes() == first.arrays[name].tobytes() for name in first.arrays)
    assert second.project(sound["audio"]).tobytes() == first.project(sound["audio"]).tobytes()
    got = second.project(shape["image"])
    assert (got * second.project(picture["image"])).sum(axis=1).mean() > 0.5
    with pytest.raises(ConfigError, match=r"^cca with .* moves the base, and a bridge as base stays as it is\."):
        fit_closed_form_bridge(first, shape, via="image", method="cca")
    with pytest.raises(OverlapError, match=r"^no space of the bridge has 'video' \(they have audio, image, text\)\."):
        fit_closed_form_bridge(first, shape, via="video", method="ridge")
    with pytest.raises(ConfigError, match=r"two spaces are called 'sound'"):
        fit_closed_form_bridge(first, sound, via="text", method="ridge")
    with pytest.raises(ConfigError, match=r"two spaces are called 'picture'"):
        fit_closed_form_bridge(picture, picture, via="text", method="ridge")


def test_a_leaf_reaches_the_bridge_through_another_leaf(
    world: tuple[Space, Space, dict[str, np.ndarray]], tmp_path: Path, rng: np.random.Generator
) -> None:
    picture, sound, _ = world
    first = fit_closed_form_bridge(picture, sound, via="text", method="ridge")
    drum = make_space(
        tmp_path / "drum.space",
        {"audio": (sound["audio"].ids, sound["audio"].unit() @ rng.standard_normal((12, 7)))},
        dtype="float32",
    )
    second = fit_closed_form_bridge(first, drum, via="audio", method="ridge", strength=1e-4)
    assert (second.project(drum["audio"]) * second.project(sound["audio"])).sum(axis=1).mean() > 0.8


def test_too_small_an_overlap_is_refused(world: tuple[Space, Space, dict[str, np.ndarray]], tmp_path: Path) -> None:
    picture, _, _ = world
    few = make_space(tmp_path / "few.space", {"text": (picture["text"].ids[:5], np.ones((5, 4)))})
    with pytest.raises(
        OverlapError, match=r"^spaces 'picture' and 'few' share 5 of 5 text ids .* needs at least 8 of the same texts"
    ):
        fit_closed_form_bridge(picture, few, via="text", method="ridge")
