"""Explanations: shares are the summands of the mixture, and names that differ by a template are one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.worlds import three_spaces

from isthmus.bridges.explain import explain, explanation, merge_key
from isthmus.errors import BridgeError
from isthmus.recipes.posterior.join import join


def test_shares_are_the_summands_of_the_mixture():
    p, q = np.array([0.5, 0.3, 0.2], np.float32), np.array([0.1, 0.1, 0.8], np.float32)
    found = explanation(p, q, ["a photo of a violin", "Violin.", "drum"])
    assert found.same == pytest.approx(0.05 + 0.03 + 0.16)
    assert dict(found.shares) == {"drum": pytest.approx(16 / 24), "a photo of a violin": pytest.approx(8 / 24)}
    assert str(found) == "drum 67%, a photo of a violin 33%"


def test_templates_and_articles_do_not_tell_names_apart():
    names = ["violin", "a violin", "the sound of a violin", "This is a photo of a violin.", "Violin"]
    assert {merge_key(name) for name in names} == {"violin"}
    assert merge_key("a") == "a"
    assert merge_key("photograph") == "photograph"


@pytest.mark.filterwarnings("ignore")
def test_a_text_matches_itself_by_itself(tmp_path: Path):
    clip, clap, _ = three_spaces(tmp_path, 200)
    settings = {"concept_items": 10, "dim": 32, "agreement": False}
    bridge = join([clip, clap], via="text", method="posterior", settings=settings)
    one, other = clip["text"], clap["text"]
    found = bridge.explain(one, other)
    assert found.shares[0][0] == one.ids[0]
    assert found.exact
    assert 0 < found.same <= 1
    linear = join([clip, clap], via="text", method="cca", settings=settings)
    with pytest.raises(BridgeError, match="recognises no named items"):
        explain(linear, one, other)
