"""What does `isthmus encode` cost beside the bare model, and what does it save beside the loop that users write?

Random weights of CLIP ViT-B/32's sizes, saved and loaded as the published ones are; photographs are made of smooth
noise. Every round runs the three ways on the same files, one after another, so that a noisy machine is noisy for all:

- bare: the model over batches of pixels that lie decoded in memory, the least that any pipeline could cost;
- isthmus: `isthmus encode` from files to a sealed space, in a process of its own, seconds with and without its start;
- loop: open a file, run the processor, run the model, keep the row, next file (over a part, scaled to all).

    python bench/encode.py --images 2000 --rounds 3 --out bench/results/encode.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

BATCH = 32


def save_model(folder: Path) -> None:
    """A CLIP of ViT-B/32's sizes with random weights and a small vocabulary."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    words = ["a</w>", "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[])
    torch.manual_seed(0)
    text = {"vocab_size": 3, "num_hidden_layers": 1, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    model = CLIPModel(CLIPConfig(text_config=text, projection_dim=512))
    for part in (model, tokenizer, CLIPImageProcessorPil()):
        part.save_pretrained(folder)


def save_images(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """Photographs' worth of JPEG: smooth shapes with a little grain."""
    folder.mkdir()
    files = []
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        grain = rng.normal(0.0, 6.0, (size[1], size[0], 1))
        pixels = np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)
        files.append(folder / f"{number:05}.jpg")
        Image.fromarray(pixels).save(files[-1], quality=90)
    return files


class Bare:
    """The model alone, on pixels that were decoded before."""

    def __init__(self, model: Path, files: list[Path]) -> None:
        from transformers import CLIPImageProcessorPil, CLIPModel

        self.model: Any = CLIPModel.from_pretrained(model).eval()
        self.processor = CLIPImageProcessorPil.from_pretrained(model)
        self.pixels = torch.cat([self.decode(file) for file in files])

    def decode(self, file: Path) -> torch.Tensor:
        with Image.open(file) as image:
            return self.processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"]

    @torch.inference_mode()
    def batched(self) -> float:
        started = time.perf_counter()
        for start in range(0, len(self.pixels), BATCH):
            self.model.get_image_features(pixel_values=self.pixels[start : start + BATCH])
        return time.perf_counter() - started

    @torch.inference_mode()
    def loop(self, files: list[Path]) -> float:
        started = time.perf_counter()
        for file in files:
            self.model.get_image_features(pixel_values=self.decode(file))
        return time.perf_counter() - started


def isthmus(images: Path, model: Path, space: Path) -> tuple[float, float]:
    """Seconds of the whole process, and of decoding and encoding alone."""
    command = [sys.executable, "-m", "isthmus", "encode", images, "--encoder", f"clip:{model}", "--into", space]
    started = time.perf_counter()
    done = subprocess.run(
        [*map(str, command), "--batch-size", str(BATCH), "--quiet", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    whole, report = time.perf_counter() - started, json.loads(done.stdout)
    return whole, report["encoded"] / report["items_per_second"]


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--looped", type=int, default=300, help="images of the one-at-a-time loop")
    parser.add_argument("--size", default="500x375", help="width x height of the photographs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "encode.json")
    given = parser.parse_args()
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        width, height = map(int, given.size.split("x"))
        files = save_images(work / "images", given.images, (width, height))
        save_model(work / "model")
        bare = Bare(work / "model", files)
        bare.loop(files[:8])
        for number in range(given.rounds):
            base = bare.batched()
            whole, inner = isthmus(work / "images", work / "model", work / f"{number}.space")
            loop = bare.loop(files[: given.looped]) * given.images / given.looped
            rows.append({"bare": base, "isthmus_process": whole, "isthmus": inner, "loop": loop})
            print({name: round(value, 2) for name, value in rows[-1].items()}, flush=True)
    ratios = {
        name: statistics.median(row[a] / row[b] for row in rows)
        for name, a, b in (
            ("isthmus / bare", "isthmus", "bare"),
            ("whole process / bare", "isthmus_process", "bare"),
            ("isthmus / loop", "isthmus", "loop"),
            ("whole process / loop", "isthmus_process", "loop"),
        )
    }
    settings = {"images": given.images, "size": given.size, "batch_size": BATCH, "cpus": os.cpu_count()}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"settings": settings, "median_ratios": ratios, "rounds": rows}, indent=1) + "\n")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.3f}")


if __name__ == "__main__":
    main()
