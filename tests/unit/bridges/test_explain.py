"""Explanations: shares are the summands of the mixture, and names that differ by a template are one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.worlds import three_spaces

from isthmus.bridges.anchors import ItemRow
from isthmus.bridges.bridge import Bridge, load_bridge
from isthmus.bridges.explain import Explainer, _walk, explanation, merge_key
from isthmus.core.geometry import normalize
from isthmus.errors import BridgeError
from isthmus.recipes.extend import extend
from isthmus.recipes.posterior.join import join
from isthmus.spaces.selection import Selection

SETTINGS = {"concept_items": 10, "dim": 32, "agreement": False}


def test_shares_are_the_summands_of_the_mixture():
    p, q = np.array([0.5, 0.3, 0.2], np.float32), np.array([0.1, 0.1, 0.8], np.float32)
    found = explanation(p, q, ["a photo of a violin", "Violin.", "drum"])
    assert found.same == pytest.approx(0.05 + 0.03 + 0.16)
    assert dict(found.shares) == {"drum": pytest.approx(16 / 24), "a photo of a violin": pytest.approx(8 / 24)}
    assert str(found) == "drum (67 %), a photo of a violin (33 %)"


def test_templates_and_articles_do_not_tell_names_apart():
    names = ["violin", "a violin", "the sound of a violin", "This is a photo of a violin.", "Violin"]
    assert {merge_key(name) for name in names} == {"violin"}
    assert merge_key("a") == "a"
    assert merge_key("photograph") == "photograph"


@pytest.mark.filterwarnings("ignore")
def test_a_text_matches_itself_by_itself(tmp_path: Path):
    clip, clap, _ = three_spaces(tmp_path, 200)
    bridge = join([clip, clap], via="text", method="posterior", settings=SETTINGS)
    one, other = clip["text"], clap["text"]
    found = bridge.explain(one, other)
    assert found.shares[0][0] == one.ids[0]
    assert found.exact
    assert 0 < found.same <= 1


@pytest.mark.filterwarnings("ignore")
def test_exact_shares_are_those_of_the_routes_own_posteriors(tmp_path: Path):
    clip, clap, _ = three_spaces(tmp_path, 200)
    bridge = join([clip, clap], via="text", method="posterior", settings=SETTINGS | {"size": "full", "concepts": False})
    image, sound = Selection(clip["image"], [3]), Selection(clap["audio"], [7])
    found = bridge.explain(image, sound, top=200)
    p, names = _walk(bridge.route("clip", "image"), bridge.arrays, np.asarray(image))
    q, _ = _walk(bridge.route("clap", "audio"), bridge.arrays, np.asarray(sound))
    p, q = p[0], q[0]
    expected = {name: share / (p @ q) for name, share in zip(names, p * q, strict=True)}
    assert found.same == pytest.approx(float(p @ q), rel=1e-5)
    assert dict(found.shares) == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Bridge:
    """Texts join clip and clap, images bring in ulip, which reads no text; saved, so that places are recorded."""
    folder = tmp_path_factory.mktemp("linear")
    clip, clap, ulip = three_spaces(folder, 200)
    two = extend(clip, clap, via="text", method="procrustes")
    extend(two, ulip, via="image", method="procrustes", space_paths={"clip": clip.path}).save(folder / "u.bridge")
    return load_bridge(folder / "u.bridge")


def test_routes_that_do_not_tell_are_explained_by_the_posteriors_of_both_spaces(linear: Bridge):
    clip, clap = linear.open_space("clip"), linear.open_space("clap")
    for row in range(5):
        found = linear.explain(Selection(clip["text"], [row]), Selection(clap["text"], [row]))
        assert not found.exact
        assert found.shares[0][0] == clip["text"].ids[row]
        assert found.basis == "posteriors over 200 text items in the space 'clip' and the space 'clap'"
    # The shares are those of softmax over the shared texts in either space, each side centred by its own mean.
    image, sound = Selection(clip["image"], [3]), Selection(clap["audio"], [7])
    told = linear.explain(image, sound, top=200)
    p = _posterior(clip["image"].unit(), 3, clip["text"].unit())
    q = _posterior(clap["audio"].unit(), 7, clap["text"].unit())
    expected = dict(zip(clip["text"].ids, p * q / (p @ q), strict=True))
    assert dict(told.shares) == pytest.approx(expected, abs=1e-4)


def _posterior(items: np.ndarray, row: int, texts: np.ndarray) -> np.ndarray:
    keys = normalize(texts - texts.mean(axis=0))
    x = normalize(items[row : row + 1] - items.mean(axis=0))[0]
    logits = (keys @ x).astype(np.float64) / 0.05
    e = np.exp(logits - logits.max())
    return e / e.sum()


def test_a_space_without_texts_is_looked_up_in_the_unified_space(linear: Bridge):
    ulip, clap, clip = (linear.open_space(name) for name in ("ulip", "clap", "clip"))
    found = linear.explain(Selection(ulip["point_cloud"], [0]), Selection(clap["audio"], [0]))
    assert "text items in the unified space and the space 'clap'" in found.basis
    assert not found.exact
    # A shape's meaning is known here: the texts that carry its match with itself lie near it.
    assert sum(share for _, share in found.shares) <= 1 + 1e-6
    # An image that ulip embeds too is told by the same texts as by clip's own eyes, more often than by chance.
    explainer = Explainer(linear)
    same = [
        explainer.explain(*(explainer.item(Selection(space["image"], [row])) for space in (ulip, clip)), top=3).same
        for row in range(10)
    ]
    other = [
        explainer.explain(
            explainer.item(Selection(ulip["image"], [row])), explainer.item(Selection(clip["image"], [row + 50])), top=3
        ).same
        for row in range(10)
    ]
    assert np.mean(same) > 2 * np.mean(other)


def test_an_item_known_by_its_place_alone_is_explained_there(linear: Bridge):
    clip = linear.open_space("clip")
    row = linear.project(Selection(clip["text"], [4]))[0]
    found = Explainer(linear).explain(ItemRow("text", row=row), ItemRow("text", row=row))
    assert found.shares[0][0] == clip["text"].ids[4]
    assert found.basis.endswith("in the unified space")


def test_spaces_that_are_gone_are_asked_for(tmp_path: Path):
    clip, clap, _ = three_spaces(tmp_path, 100)
    extend(clip, clap, via="text", method="procrustes").save(tmp_path / "u.bridge")
    bridge = load_bridge(tmp_path / "u.bridge")
    one, other = Selection(clip["text"], [0]), Selection(clap["text"], [0])
    with pytest.raises(BridgeError, match="a row"):
        Explainer(bridge).explain(ItemRow("text"), ItemRow("text"))
    items = [Explainer(bridge).item(each) for each in (one, other)]
    for space in (clip, clap):
        shutil.move(space.path, tmp_path / "moved" / space.path.name)
    with pytest.raises(BridgeError, match=r"do not tell what they recognise, and .*clip.*is not there now.*--space"):
        Explainer(bridge).explain(*items)
    places = {name: tmp_path / "moved" / f"{name}.space" for name in ("clip", "clap")}
    assert Explainer(bridge, space_paths=places).explain(*items).shares
