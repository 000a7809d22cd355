"""ULIP checkpoints: loading without a pickle's powers, point clouds, and the image and text towers beside them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from isthmus.encoders import load_encoder
from isthmus.encoders.models.slip import IMAGE_MEAN, IMAGE_STD, Slip, SlipShape
from isthmus.encoders.ulip import load_checkpoint
from isthmus.errors import EncoderError
from isthmus.items import Item, Rejected
from tiny_models import clip_tokenizer, save_ulip


class Foreign:
    pass


def cloud(points: int, seed: int, colours: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    xyz = rng.normal(size=(points, 3))
    xyz -= xyz.mean(axis=0)
    xyz /= np.linalg.norm(xyz, axis=1).max()
    return np.concatenate([xyz, rng.random((points, 3))] if colours else [xyz], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_ulip(tmp_path_factory.mktemp("ulip") / "plain.pt")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    clip_tokenizer(longest=77).save_pretrained(folder)
    return folder


def test_a_checkpoint_is_read_whole_and_its_options_are_let_through(plain: Path) -> None:
    state = load_checkpoint(plain)
    assert "point_encoder.cls_token" in state
    assert "visual.blocks.1.attn.qkv.bias" in state
    assert not any(key.startswith("module.") for key in state)


def test_no_other_class_is_let_through(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "args": Foreign()}, tmp_path / "foreign.pt")
    with pytest.raises(
        EncoderError, match=r"foreign\.pt cannot be read as a checkpoint of plain arrays: it holds more"
    ):
        load_checkpoint(tmp_path / "foreign.pt")
    torch.save({"state_dict": {"a": 1}, "args": argparse.Namespace(x=1)}, tmp_path / "numbers.pt")
    with pytest.raises(EncoderError, match=r"holds no state dict of arrays\. Expected a checkpoint with the key"):
        load_checkpoint(tmp_path / "numbers.pt")
    (tmp_path / "short.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(EncoderError, match=r"short\.pt cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "short.pt")
    with pytest.raises(EncoderError, match=r"there is no checkpoint at .*none\.pt\. Expected the ULIP authors' file"):
        load_encoder(f"ulip:{tmp_path / 'none.pt'}")


def test_clouds_give_the_same_embeddings_in_any_batch(plain: Path, tmp_path: Path) -> None:
    encoder = load_encoder(f"ulip:{plain}", device="cpu", points=600)
    assert encoder.modalities == ("point_cloud", "image", "text")
    assert encoder.dim == 40
    items = []
    for number, points in enumerate([600, 40, 999, 601, 333]):
        np.savez(tmp_path / f"{number}.npz", xyz=cloud(points, number), rgb=cloud(points, number, colours=True)[:, 3:])
        items.append(Item(str(number), path=str(tmp_path / f"{number}.npz")))
    decoded = [encoder.decode(item, "point_cloud") for item in items]
    assert [array.shape for array in decoded] == [(600, 3), (40, 3), (600, 3), (600, 3), (333, 3)]
    together = encoder.encode(decoded, modality="point_cloud")
    for size in (1, 2, 3):
        again = encoder.encode(decoded[::-1], modality="point_cloud", batch_size=size)[::-1]
        assert ((together * again).sum(axis=1) > 1 - 1e-6).all()


def test_the_coloured_variant_reads_colours_and_has_points_alone(tmp_path: Path) -> None:
    encoder = load_encoder(f"ulip:{save_ulip(tmp_path / 'coloured.pt', coloured=True, towers=False)}", device="cpu")
    assert encoder.modalities == ("point_cloud",)
    np.savez(tmp_path / "with.npz", xyz=cloud(100, 1), rgb=cloud(100, 1, colours=True)[:, 3:])
    np.save(tmp_path / "without.npy", cloud(100, 1))
    arrays = [encoder.decode(Item(n, path=str(tmp_path / n)), "point_cloud") for n in ("with.npz", "without.npy")]
    assert [array.shape for array in arrays] == [(100, 6)] * 2
    assert np.unique(arrays[1][:, 3:]).tolist() == [np.float32(0.4)]
    a, b = encoder.encode(arrays)
    assert a @ b < 1 - 1e-5
    grey = encoder.encode([cloud(100, 1)])[0]  # an array without colours is grey too
    assert grey @ b > 1 - 1e-5
    assert encoder.preprocessing("point_cloud")["colours"] is True


def test_too_few_points_are_rejected(plain: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", cloud(31, 0))
    with pytest.raises(Rejected, match=r"31 points; at least 32 are needed"):
        load_encoder(f"ulip:{plain}", device="cpu").decode(Item("few", path=str(tmp_path / "few.npy")), "point_cloud")


def test_images_and_captions_go_through_the_towers(plain: Path, tokenizer: Path, tmp_path: Path) -> None:
    encoder: Any = load_encoder(f"ulip:{plain}", device="cpu", tokenizer=str(tokenizer))
    items = []
    for number, size in enumerate([(40, 60), (33, 32), (90, 50)]):
        noise = np.random.default_rng(number).integers(0, 256, size=(*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
        items.append(Item(str(number), path=str(tmp_path / f"{number}.png")))
    images = [encoder.decode(item, "image") for item in items]
    assert {image.shape for image in images} == {(32, 32, 3)}
    captions = ["a chair", "a wooden table with four legs", "x"]
    for modality, inputs in (("image", images), ("text", captions)):
        together = encoder.encode(inputs, modality=modality)
        alone = np.concatenate([encoder.encode([one], modality=modality) for one in inputs])
        assert ((together * alone).sum(axis=1) > 1 - 1e-6).all()
    encoder.encode(["long " * 30], modality="text")
    assert encoder.truncated == 3  # the table twice and this one: the tiny model reads 20 tokens
    assert encoder.preprocessing("image")["mean"] == list(IMAGE_MEAN)
    assert encoder.preprocessing("image")["std"] == list(IMAGE_STD)


def test_captions_need_clips_own_vocabulary(plain: Path, tmp_path: Path) -> None:
    encoder = load_encoder(f"ulip:{plain}", device="cpu", tokenizer=str(tmp_path / "nowhere"))
    with pytest.raises(EncoderError, match=r"no CLIP tokenizer at '.*nowhere' .*Give a folder with CLIP's tokenizer"):
        encoder.encode(["a chair"], modality="text")
    short = clip_tokenizer()
    short.add_tokens(["<extra>"])
    short.save_pretrained(tmp_path / "other")
    encoder = load_encoder(f"ulip:{plain}", device="cpu", tokenizer=str(tmp_path / "other"))
    with pytest.raises(EncoderError, match=r"has \d+ tokens, the checkpoint \d+\. Give a folder"):
        encoder.encode(["a chair"], modality="text")


def test_identity_is_the_files(plain: Path, tmp_path: Path) -> None:
    encoder = load_encoder(f"ulip:{plain}", device="cpu")
    moved = tmp_path / plain.name
    moved.write_bytes(plain.read_bytes())
    assert load_encoder(f"ulip:{moved}", device="cpu").identity == encoder.identity
    assert (encoder.identity["library"], encoder.identity["id"]) == ("ulip", "plain.pt")


def test_published_tower_sizes_are_read_off_the_shapes() -> None:
    with torch.device("meta"):
        towers = Slip()
    shapes = {key: tuple(value.shape) for key, value in towers.state_dict().items()}
    assert shapes["visual.pos_embed"] == (1, 197, 768)
    assert shapes["visual.patch_embed.proj.weight"] == (768, 3, 16, 16)
    assert shapes["visual.blocks.11.mlp.fc1.weight"] == (3072, 768)
    assert shapes["image_projection"] == (768, 512)
    assert shapes["token_embedding.weight"] == (49408, 512)
    assert shapes["positional_embedding"] == (77, 512)
    assert shapes["transformer.resblocks.11.attn.in_proj_weight"] == (1536, 512)
    assert shapes["transformer.resblocks.11.mlp.c_proj.weight"] == (512, 2048)
    assert shapes["ln_final.bias"] == (512,)
    assert shapes["text_projection"] == (512, 512)
    assert SlipShape.of(towers.state_dict()) == SlipShape()
    assert SlipShape().image_size == 224


def test_towers_that_are_not_whole_are_refused() -> None:
    shape = SlipShape(64, 1, 96, 8, 16, 64, 1, 96, 50, 20, 40)
    state = Slip(shape).state_dict()
    missing = {key: value for key, value in state.items() if key != "ln_final.weight"}
    with pytest.raises(EncoderError, match=r"towers are not SLIP's: .*ln_final\.weight"):
        Slip.from_state_dict(missing)
    del missing["token_embedding.weight"]
    with pytest.raises(EncoderError, match=r"towers are not whole: 'token_embedding\.weight' is missing"):
        Slip.from_state_dict(missing)
    with pytest.raises(EncoderError, match=r"a tower 65 wide has no whole number of heads"):
        Slip(SlipShape(vision_width=65))
