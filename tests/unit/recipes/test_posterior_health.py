"""Agreement of neighbours, kinship, and the verdict: what is damaged is seen, dropped, counted and listed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.worlds import contrastive, meanings, three_spaces, write_space

import isthmus
from isthmus.recipes.posterior.agreement import agreeing, chance, common_neighbours
from isthmus.recipes.posterior.auto import Candidate, estimate_record, sentences
from isthmus.recipes.posterior.config import posterior_config
from isthmus.recipes.posterior.estimate import Figure
from isthmus.recipes.posterior.forecast import estimate_pair, lines
from isthmus.recipes.posterior.health import Health, choose_family, examine, trust_in
from isthmus.recipes.posterior.join import read_vias
from isthmus.recipes.posterior.joint import Joint
from isthmus.recipes.posterior.kinship import kinship
from isthmus.recipes.posterior.members import gather
from isthmus.recipes.posterior.model import ABSENT, biases_of, fit_model
from isthmus.recipes.posterior.rematch import rematch


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Joint:
    clip, clap, _ = three_spaces(tmp_path_factory.mktemp("world"), 600)
    return gather([clip, clap], read_vias([clip, clap], "text"), memory_rows=600, seed=0)


def with_items(joint: Joint, rows: np.ndarray) -> Joint:
    """The same with other rows of the second space's shared items."""
    members = [joint.members[0], replace(joint.members[1], items=rows)]
    return replace(joint, members=members, links=[replace(joint.links[0], rows=(joint.members[0].items, rows))])


def test_common_neighbours_are_counted_as_by_hand():
    rng = np.random.default_rng(0)
    x, y = unit(rng.standard_normal((40, 6))), unit(rng.standard_normal((40, 5)))

    def nearest(rows: np.ndarray, row: int) -> set[int]:
        order = [i for i in np.argsort(-(rows @ rows[row])).tolist() if i != row]
        return set(order[:7])

    expected = [len(nearest(x, row) & nearest(y, row)) for row in range(40)]
    np.testing.assert_array_equal(common_neighbours(x, y, neighbours=7), expected)


def test_the_same_rows_have_all_neighbours_in_common_and_a_row_alone_has_none():
    x = unit(np.random.default_rng(1).standard_normal((30, 4)))
    assert (common_neighbours(x, x, neighbours=5) == 5).all()
    assert common_neighbours(x[:1], x[:1]).tolist() == [0]
    # Among others that are drawn, too: every item is counted, whether it was drawn or not.
    assert (common_neighbours(x, x, neighbours=5, others=12) == 5).all()


def shuffled(joint: Joint, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The second space's items with a share of their ids shuffled, and which."""
    rng = np.random.default_rng(3)
    rows, some = joint.members[1].items.copy(), rng.choice(600, int(share * 600), replace=False)
    rows[some] = rows[rng.permutation(some)]
    return rows, some


def test_chance_is_what_two_spaces_without_relation_share():
    rng = np.random.default_rng(2)
    x, y = unit(rng.standard_normal((3000, 30))), unit(rng.standard_normal((3000, 30)))
    none = float((common_neighbours(x, y, neighbours=20) == 0).mean())
    # Hubs make it a little less likely than drawing at random.
    assert none == pytest.approx(chance(3000, neighbours=20), abs=0.05)


def test_where_half_is_wrong_neighbours_are_sought_once_more_among_the_right():
    x = unit(np.random.default_rng(6).standard_normal((1200, 6)))
    order, some = np.arange(1200), np.random.default_rng(7).choice(1200, 600, replace=False)
    order[some] = np.roll(some, 1)
    wrong = order != np.arange(1200)
    once, none = agreeing(x, x[order], neighbours=20, doubtful=1.1)
    twice, same = agreeing(x, x[order], neighbours=20, doubtful=0.3)
    assert none == same > 0.3
    assert twice[wrong].mean() < once[wrong].mean()
    assert twice[~wrong].mean() > 0.99
    # A healthy overlap is looked at once.
    assert agreeing(x, x, neighbours=20, doubtful=0.3)[1] == 0.0


def test_kinship_tells_a_spaces_own_items_from_strangers():
    # Texts and sounds of one space, against texts of the same meanings in directions of another encoder.
    texts, sounds = meanings(400, 1), meanings(400, 2)
    memory = contrastive(sounds, 24, 7, 1)
    memory = unit(memory - memory.mean(axis=0))
    own, foreign = (contrastive(texts, 24, space, 0) for space in (7, 8))
    near, far = (kinship(unit(rows - rows.mean(axis=0)), memory) for rows in (own, foreign))
    assert near > 0.15 > far


@pytest.mark.parametrize(("share", "verdict"), [(0.0, "good"), (0.5, "doubtful"), (1.0, "broken")])
def test_shuffled_ids_are_seen_and_left_out(joint: Joint, share: float, verdict: str):
    rows, some = shuffled(joint, share)
    found, health = examine(with_items(joint, rows), mend=False)
    expected = "broken" if health.broken else "doubtful" if health.doubtful else "good"
    assert expected == verdict
    wrong = set(np.asarray(joint.ids)[some])
    assert len(found.ids) + len(found.dropped) == 600
    assert not found.rematched
    if share == 0.5:
        # Most of what is left out is wrong, and most of what is wrong is left out.
        assert len(wrong & set(found.dropped)) > 0.8 * len(found.dropped)
        assert len(wrong & set(found.dropped)) > 0.6 * len(wrong)
    if share == 0.0:
        assert len(found.dropped) < 12


def test_of_half_shuffled_ids_most_are_matched_anew(joint: Joint):
    rows, some = shuffled(joint, 0.5)
    found, health = examine(with_items(joint, rows))
    assert health.doubtful
    assert len(found.ids) > 550
    number = {name: row for row, name in enumerate(joint.ids)}
    true = joint.members[1].items[[number[name] for name in found.ids]]
    assert (np.einsum("nd,nd->n", found.members[1].items, true) > 0.95).mean() > 0.9
    assert {first for first, _ in found.rematched} <= set(np.asarray(joint.ids)[some]) | set(found.ids)
    source = {name: rows[number[name]] for name in joint.ids}
    at = {name: row for row, name in enumerate(found.ids)}
    for first, second in found.rematched:
        assert found.members[1].items[at[first]] == pytest.approx(source[second])
    assert found.links[0].rows[1] == pytest.approx(found.members[1].items)
    # All wrong tells nothing about the right; all right needs nothing.
    assert not examine(with_items(joint, shuffled(joint, 1.0)[0]))[0].rematched
    assert not examine(joint)[0].rematched


def test_matches_are_believed_only_where_held_out_items_find_themselves():
    rng = np.random.default_rng(8)
    x = unit(rng.standard_normal((400, 12)))
    agree = np.arange(400) < 250
    order = np.arange(400)
    order[250:] = rng.permutation(order[250:])
    partner = rematch(x, x[order], agree)
    assert (order[partner[250:]] == np.arange(250, 400)).all()
    assert (partner[:250] == np.arange(250)).all()
    # Spaces that are alike in the large alone: nearest items are others, and so nothing is matched.
    coarse = unit(x[:, :2] @ rng.standard_normal((2, 12)) + 0.5 * rng.standard_normal((400, 12)))
    assert (rematch(x, coarse[order], agree)[250:] == -1).all()
    assert (rematch(x, x[order], np.zeros(400, bool)) == -1).all()


def test_a_share_of_few_items_is_flagged_only_where_it_is_sure():
    def health(share: float, items: int) -> Health:
        return Health({"a and b": share}, {"a/image": 1.0}, {"a and b": items})

    assert not health(0.38, 100).doubtful
    assert health(0.38, 10_000).doubtful
    assert not health(0.78, 100).broken
    assert health(0.78, 10_000).broken
    assert health(0.0, 10_000).broken == []
    assert Health({}, {"b/audio": 0.01}, {}).broken == ["the shared items of b/audio lie nowhere near its own"]


def test_an_estimate_from_few_items_is_shrunk():
    clusters = np.full(40, 0.5, np.float32)
    figure, healthy = Figure(0.5, clusters), Health({}, {}, {})
    many, few = (Candidate(0.0, figure, figure, trust_in(n)) for n in (100_000, 100))
    assert many.both == pytest.approx(0.5, abs=0.001)
    assert few.both == pytest.approx(0.25)
    empty = Joint([], [], ["x"] * 5, ["x"] * 5, {"text": 5})
    record = estimate_record(few, healthy, empty)
    assert record["map"] == pytest.approx(0.25)
    assert record["map_ci95"] == pytest.approx([0.25, 0.25])
    assert record["verdict"] == "good"
    poor = Candidate(0.0, Figure(0.05, clusters / 10), Figure(0.05, clusters / 10))
    assert estimate_record(poor, healthy, empty)["verdict"] == "doubtful"


def test_what_was_left_out_is_counted_and_listed_in_full(tmp_path: Path):
    clip, clap, _ = three_spaces(tmp_path, 500)
    rng = np.random.default_rng(4)
    order, some = np.arange(500), rng.choice(500, 250, replace=False)
    order[some] = rng.permutation(some)
    mixed = isthmus.make_space(
        tmp_path / "mixed.space",
        {
            "text": ([f"t{row}" for row in order], np.asarray(clap["text"])),
            "audio": (clap["audio"].ids, np.asarray(clap["audio"])),
        },
        name="mixed",
    )
    bridge = isthmus.connect(clip, mixed, via="text", method="posterior")
    listed = json.loads(bytes(bridge.arrays["joint/dropped"]))
    known = json.loads(bytes(bridge.arrays["joint/ids"]))["text"]
    anew = [tuple(pair) for pair in json.loads(bytes(bridge.arrays["joint/rematched"]))]
    assert bridge.record["estimate"]["dropped"] == len(listed) > 0
    assert bridge.record["estimate"]["rematched"] == len(anew) > 150
    assert [tuple(pair) for pair in bridge.record["rematched"]] == anew[:200]
    assert f"{len(anew)} matched anew by what they mean" in sentences(None, bridge.record["estimate"])[-1]
    assert bridge.record["dropped"] == listed[:200]
    assert sorted(listed + known) == sorted(clip["text"].ids)
    assert bridge.record["overlap"] == {"text": 500}
    assert bridge.record["estimate"]["items"] == len(known)
    bridge.save(tmp_path / "b.bridge")
    again = isthmus.load_bridge(tmp_path / "b.bridge")
    assert json.loads(bytes(again.arrays["joint/dropped"])) == listed


def test_what_one_of_three_spaces_disagrees_on_stays_for_the_others(tmp_path: Path):
    clip, clap, _ = three_spaces(tmp_path, 600)
    third = write_space(tmp_path, "tact", 18, 104, {"touch": ("h", meanings(300, 5)), "text": ("t", meanings(600, 1))})
    spaces = [clip, clap, third]
    joint = gather(spaces, read_vias(spaces, "text"), memory_rows=300, seed=0)
    wrong = np.sort(np.random.default_rng(5).choice(600, 200, replace=False))
    rows = joint.members[2].items.copy()
    rows[wrong] = rows[np.roll(wrong, 7)]
    members = [*joint.members[:2], replace(joint.members[2], items=rows)]
    links = [replace(each, rows=tuple(members[n].items for n in (each.first, each.second))) for each in joint.links]
    found, health = examine(replace(joint, members=members, links=links))
    assert health.damaged["clip and clap"] < 0.05 < 0.2 < health.damaged["clip and tact"]
    # clip and clap keep (nearly) all; tact does not know what is wrong in it.
    assert len(found.ids) > 590
    unknown = {name for name, row in zip(found.ids, found.members[2].items, strict=True) if not row.any()}
    assert all(member.items.any(axis=1).mean() > 0.98 for member in found.members[:2])
    assert len(unknown & set(np.asarray(joint.ids)[wrong])) > 0.8 * len(unknown) > 100
    bias = biases_of(found.members[2], posterior_config({}))
    known = np.array([name not in unknown for name in found.ids])
    assert all(((values > ABSENT / 2) == known).all() for values in bias.values())
    # Its posteriors are 0 there.
    model = fit_model(found, posterior_config({"concept_items": 10}))
    p = model.describe(2, "touch", found.members[2].memories["touch"].rows[:50]).p
    assert p[:, ~known].max() == 0.0


@pytest.fixture(scope="module")
def twice_shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[isthmus.Space, isthmus.Space]:
    """Two spaces that share 500 texts and 500 images by id; half of the images are others in the second."""
    folder = tmp_path_factory.mktemp("twice")
    clip, _, _ = three_spaces(folder, 500)
    images = meanings(500, 2)
    images[::2] = meanings(500, 9)[::2]
    content = {"image": ("i", images), "text": ("t", meanings(500, 1)), "point_cloud": ("p", meanings(500, 4))}
    return clip, write_space(folder, "shape", 18, 104, content)


def test_of_two_shared_modalities_the_one_whose_items_agree_is_joined_through(
    twice_shared: tuple[isthmus.Space, isthmus.Space],
):
    clip, shape = twice_shared
    both = isthmus.connect(clip, shape, via="image,text")
    alone = isthmus.connect(clip, shape, via="text")
    assert both.record["via"] == ["text"]
    assert both.record["pairs"] == {"clip,shape": ["text"]}
    assert both.record["overlap"] == {"text": 500}
    assert both.record["families"]["text"] > 0.7 > both.record["families"]["image"]
    assert "families" not in alone.record
    clouds = np.asarray(shape["point_cloud"])[:50]
    ours, theirs = (b.project(clouds, space="shape", modality="point_cloud") for b in (both, alone))
    assert ours == pytest.approx(theirs, abs=1e-5)
    # Canonical directions are linear, so that items of both kinds can speak at once.
    assert isthmus.connect(clip, shape, via="image,text", method="cca").record["overlap"] == {"image": 500, "text": 500}


def test_estimates_and_descriptions_are_over_one_shared_modality_too(
    twice_shared: tuple[isthmus.Space, isthmus.Space],
):
    clip, shape = twice_shared
    both, text = (estimate_pair(clip, shape, via=via) for via in ("image,text", "text"))
    assert both.estimate["map"] == pytest.approx(text.estimate["map"], abs=1e-3)
    assert text.families == {}
    assert lines(both.to_dict())[0].startswith("through text alone, whose items agree best")
    frozen = isthmus.extend(clip, shape, via="image,text", method="posterior")
    assert frozen.arrays["shape/shared"].shape == (500, 18)
    sentence = sentences(None, both.estimate, {"image": 0.4, "text": 0.9})[0]
    assert sentence == "through text alone, whose items agree best in their neighbours: image 40%, text 90%"


def test_few_shared_items_count_less_than_many(joint: Joint):
    few = replace(joint, via={"text": 560, "image": 40}, ids=[*joint.ids])
    chosen, worth = choose_family(few)
    assert list(chosen.via) == ["text"]
    assert len(chosen.ids) == 560
    assert worth["text"] > worth["image"]
    assert chosen.members[0].items == pytest.approx(few.members[0].items[:560])
    assert choose_family(joint) == (joint, {})
