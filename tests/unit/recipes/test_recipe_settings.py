"""Settings of the recipes: presets beside the papers' values, and what is said of settings that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.worlds import three_spaces

from isthmus import ConnectConfig, ExtendConfig
from isthmus.cli.config import resolve
from isthmus.errors import ConfigError
from isthmus.recipes.config import check_space_names, make_config, settle
from isthmus.recipes.connect import connect
from isthmus.recipes.extend import extend

EVERY_KIND = None
"""`centric`: a pseudo pair starts from every modality in turn."""

PAPERS = {
    # Both papers; sections of Ex-MCR, from which C-MCR differs below.
    "aggregation_temperature": 0.01,  # tau 1, section 4.1
    "aggregation_method": "exact",  # equations 1 and 2: a softmax over the whole memory
    "pair_storage": "dense",
    "normalize_aggregates": True,  # not printed; without it the second hop is softer (docs/method.md)
    "max_pairs": None,
    "noise_cosine": 0.573,  # a variance of 0.004 per coordinate at the papers' 512 dimensions, section 3.2.2
    "noise_variance": None,
    "intra_weight": 0.1,  # lambda, section 4.1
    "batch_norm": "joint",  # not printed
    "hidden_ratio": 2.0,  # the released heads: 512, 1024, 512
    "initialization": "xavier",  # the authors' code
    "members": 1,
    "epochs": 36,  # section 4.1
    "learning_rate": 1e-3,  # section 4.1
    "weight_decay": 0.01,  # not printed: AdamW's default
    "precision": "float32",
}
EX_MCR = {
    **PAPERS,
    "centric": EVERY_KIND,  # section 3.2.1
    "batch_size": 4096,  # section 4.1
    "temperature": 0.05,  # tau 2, section 4.1
    "intra_norm": "l2",  # equation 3
    "align": ("leaf-base", "leaf-overlap", "overlap-base", "overlap-overlap"),  # equation 7
    "modalities": None,
    "leaf_layer": "linear",  # section 3.3
    "blocks": 2,  # section 4.1
    "description": 0.0,  # not of the papers
}
C_MCR = {
    **PAPERS,
    "centric": ("overlap",),  # section 3.2: texts alone are queries
    "batch_size": 10240,
    "temperature": 0.01,  # tau 2
    "pseudo_temperature": None,  # tau 3, equal to tau 2
    "intra_norm": "l2sq",
    "head": "mlp",  # the released CLAP-CLIP head
    "dim": 512,
}
HOW_IT_WORKS = {
    "preset", "seed", "memory_limit", "engine", "engine_address", "held_out", "checkpoint_seconds",
}  # fmt: skip


@pytest.mark.parametrize(("model", "papers"), [(ExtendConfig, EX_MCR), (ConnectConfig, C_MCR)])
def test_the_paper_preset_is_the_papers_table_key_by_key(model, papers) -> None:
    found = settle(model, None, "paper", None).model_dump()
    assert set(found) - set(papers) == HOW_IT_WORKS
    assert {key: found[key] for key in papers} == papers


@pytest.mark.parametrize("dim", [128, 512, 1280])
def test_the_paper_preset_keeps_the_meaning_of_the_printed_noise(dim: int) -> None:
    for model in (ExtendConfig, ConnectConfig):
        assert model(preset="paper").noise_cosine_at(dim) == 0.573


def test_what_is_set_stands_over_the_preset() -> None:
    config = resolve(ExtendConfig, file=None, assignments=["noise_cosine=0.9", "initialization=torch"], preset="paper")
    assert (config.noise_cosine_at(300), config.initialization, config.epochs) == (0.9, "torch", 36)


def test_a_seed_changes_nothing_but_the_seed() -> None:
    config = ExtendConfig(preset="paper", noise_variance=0.004, centric="text,leaf/audio")
    other = settle(ExtendConfig, config, None, 7).model_dump()
    assert other == {**config.model_dump(), "seed": 7}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["noise_cosine=0.9", "noise_variance=0.004"], r"noise_cosine \(0.9\) and noise_variance \(0.004\) are two"),
        (["epoch=3"], r"unknown key 'epoch'. Did you mean epochs\?"),
        (["align=leaf-bas"], r"config key 'align' got 'leaf-bas': Input should be 'leaf-base'"),
        (["align=[leaf-base, text]"], r"config key 'align' got 'text': Input should be"),
        (["align=3"], r"config key 'align' got 3: Input should be a valid tuple"),
        (['aggregation_temperature={clip="hot"}'], r"config key 'aggregation_temperature.clip' got 'hot': .*number"),
        (["aggregation_temperature={clip=-1.0}"], r"aggregation_temperature must lie between 0 and 100, got -1"),
        (["aggregation_temperature=warm"], r"config key 'aggregation_temperature' got 'warm': Input should be a valid"),
        (["leaf_layer=linea"], r"config key 'leaf_layer' got 'linea': Input should be 'linear', 'mlp'"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_answered(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve(ExtendConfig, file=None, assignments=given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "leaf-base,overlap-base",
        "[leaf-base, overlap-base]",
        '["leaf-base", "overlap-base"]',
        "'leaf-base',overlap-base",
    ],
)
def test_lists_are_read_as_a_shell_leaves_them(text: str) -> None:
    config = resolve(ExtendConfig, file=None, assignments=[f"align={text}"])
    assert config.align == ("leaf-base", "overlap-base")


def test_an_unknown_key_is_answered_from_python_too() -> None:
    with pytest.raises(ConfigError, match=r"config has the unknown key 'learning_rat'. Did you mean learning_rate\?"):
        make_config(ExtendConfig, {"learning_rat": 1.0})


def test_a_misspelt_space_in_a_table_is_answered(tmp_path: Path) -> None:
    clip, clap, _ = three_spaces(tmp_path, n=40)
    message = r"aggregation_temperature names the space 'clp', expected some of clip, clap. Did you mean 'cl.p'\?"
    with pytest.raises(ConfigError, match=message):
        extend(clip, clap, via="text", config=ExtendConfig(aggregation_temperature={"clp": 0.02}), quiet=True)
    with pytest.raises(ConfigError, match=message):
        connect(clip, clap, via="text", config=ConnectConfig(aggregation_temperature={"clp": 0.02}), quiet=True)
    check_space_names(ExtendConfig(aggregation_temperature={"clap": 0.02}), ["clip", "clap"])


def test_one_modality_of_the_leaf_is_brought_in(tmp_path: Path) -> None:
    clip, _, ulip = three_spaces(tmp_path, n=60)
    settings = {"epochs": 1, "batch_size": 16}
    whole = extend(clip, ulip, via="image", config=ExtendConfig(**settings), quiet=True)
    assert {"ulip/image", "ulip/point_cloud"} <= set(whole.routes)
    config = ExtendConfig(**settings, modalities="point_cloud")
    assert set(extend(clip, ulip, via="image", config=config, quiet=True).routes) == set(whole.routes)
    with pytest.raises(ConfigError, match=r"modalities names 'image', expected some of space 'ulip' .* point_cloud"):
        extend(clip, ulip, via="image", config=ExtendConfig(modalities=("image",)), quiet=True)
    with pytest.raises(ConfigError, match=r"modalities names 'audio', expected some of space 'ulip' .* point_cloud"):
        extend(clip, ulip, via="image", config=ExtendConfig(modalities=("audio",)), quiet=True)


def test_a_modality_that_is_left_out_is_no_part_of_the_pool(tmp_path: Path) -> None:
    """Here the overlap is texts alone, and pictures are a modality of both spaces that is no overlap."""
    from tests.worlds import meanings, write_space

    texts = meanings(60, 1)
    base = write_space(tmp_path, "base", 12, 1, {"text": ("t", texts), "image": ("i", meanings(60, 2))})
    items = {"text": ("t", texts), "image": ("j", meanings(60, 3)), "point_cloud": ("p", meanings(60, 4))}
    leaf = write_space(tmp_path, "leaf", 10, 2, items)
    config = ExtendConfig(epochs=1, batch_size=16, modalities=("point_cloud",))
    bridge = extend(base, leaf, via="text", config=config, quiet=True)
    assert "leaf/image" not in bridge.routes
    assert set(bridge.record["pseudo_pairs"]) == {
        "rows",
        "text",
        "base/image through text",
        "leaf/point_cloud through text",
    }
