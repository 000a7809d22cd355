"""Fitting images to a model's input: the pixels of transformers' own Pillow processor, and torchvision's middle."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isthmus.encoders.item_decoders import ImageDecoder, ImageFit
from isthmus.items import Item, Rejected


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), resample=2)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (64, 64), (33, 500), (31, 17), (225, 224)])
def test_clip_pixels_equal_the_processors(size: tuple[int, int]) -> None:
    from transformers import CLIPImageProcessorPil

    from isthmus.encoders.clip import fit_of

    processor = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    fit = fit_of(processor)
    assert fit == ImageFit(resize=64, crop=(64, 64), resample="bicubic", rounding="floor")
    image = picture(*size)
    ours = (fit(image).astype(np.float32) / 255.0 - processor.image_mean) / processor.image_std
    theirs = processor(images=image, return_tensors="np")["pixel_values"][0]
    assert np.abs(ours.transpose(2, 0, 1) - theirs).max() < 1e-5


def test_siglip_pixels_equal_the_processors_and_patch_models_keep_their_own() -> None:
    from transformers import Siglip2ImageProcessorPil, SiglipImageProcessorPil

    from isthmus.encoders.clip import fit_of

    processor = SiglipImageProcessorPil(size={"height": 48, "width": 40})
    fit = fit_of(processor)
    assert fit == ImageFit(resize=(48, 40), crop=None, resample="bicubic")
    image = picture(100, 70)
    theirs = processor(images=image, return_tensors="np")["pixel_values"][0]
    assert np.abs((fit(image) / 255.0 - 0.5) / 0.5 - theirs.transpose(1, 2, 0)).max() < 1e-5
    assert fit_of(Siglip2ImageProcessorPil()) is None


@pytest.mark.parametrize(
    ("rounding", "side", "left"), [("floor", 7, 1), ("nearest", 7, 2), ("floor", 6, 1), ("nearest", 6, 1)]
)
def test_the_middle_of_an_odd_rest(rounding: str, side: int, left: int) -> None:
    pixels = np.arange(side, dtype=np.uint8)[None, :, None].repeat(4, axis=0).repeat(3, axis=2)
    fit = ImageFit(resize=None, crop=(4, 4), rounding=rounding)  # type: ignore[arg-type]
    assert fit(Image.fromarray(pixels))[0, :, 0].tolist() == list(range(left, left + 4))


def test_an_image_smaller_than_the_crop_is_centred_on_black() -> None:
    fitted = ImageFit(resize=None, crop=(6, 6))(Image.new("RGB", (2, 2), (255, 255, 255)))
    assert fitted.shape == (6, 6, 3)
    assert fitted[2:4, 2:4].min() == 255
    assert int(fitted.astype(int).sum()) == 4 * 3 * 255


def test_a_decoder_reads_files_and_travels_to_worker_processes(tmp_path: Path) -> None:
    picture(50, 40).save(tmp_path / "a.png")
    decoder = pickle.loads(pickle.dumps(ImageDecoder(ImageFit(resize=32, crop=(32, 32)))))
    assert decoder(Item("a", path=str(tmp_path / "a.png"))).shape == (32, 32, 3)
    assert ImageDecoder(None)(Item("a", path=str(tmp_path / "a.png"))).shape == (40, 50, 3)
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.raises(Rejected):
        decoder(Item("b", path=str(tmp_path / "b.png")))
