"""Train the demo's three small encoders, score them on numbers and writers they never saw, and write their weights.

    OMP_NUM_THREADS=1 python scripts/train_demo_encoders.py          # all three, some minutes each on one core
    python scripts/train_demo_encoders.py --only sound --steps 500   # one of them, thinner
    python scripts/train_demo_encoders.py --out mine                 # all three, written elsewhere
    python scripts/train_demo_encoders.py --score                    # no training: score the shipped weights

Each encoder is trained by InfoNCE on pairs of its own two modalities, drawn afresh at every step from its own numbers
and its own writers (isthmus.demo.world.SPLITS). No two of the three share a number, a writer, a seed or a batch.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.core.geometry import effective_rank
from isthmus.demo import world
from isthmus.encoders.protocol import weights_sha256
from isthmus.encoders.toy.decoders import SAMPLES
from isthmus.encoders.toy.encoder import REVISION, WEIGHTS, load_space
from isthmus.encoders.toy.towers import ToySpace, character_codes

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results/demo_encoders.json"
SEEDS = {"picture": 11, "sound": 22, "shape": 33}
STEPS = {"picture": 1800, "sound": 800, "shape": 1200}
STRENGTH = 1.6
"""How much more than the world's own the strokes of the few training writers are bent."""
WHITENING_FLOOR = 0.06
PAIRS = {"picture": ("image", "text"), "sound": ("audio", "text"), "shape": ("point_cloud", "image")}

Draw = Callable[[np.ndarray], dict[str, Tensor]]


def images(numbers: np.ndarray, writers: tuple[int, ...], rng: np.random.Generator, strength: float = 1.0) -> Tensor:
    digits = np.array([world.digits_of(int(n)) for n in numbers]).reshape(-1)
    glyphs = world.draw_glyphs(digits, writers, rng, strength=strength).reshape(-1, 3, world.GLYPH, world.GLYPH)
    return torch.from_numpy(world.compose_images(glyphs, rng)).float()


def clouds(numbers: np.ndarray, writers: tuple[int, ...], rng: np.random.Generator, strength: float = 1.0) -> Tensor:
    digits = np.array([world.digits_of(int(n)) for n in numbers]).reshape(-1)
    glyphs = world.draw_glyphs(digits, writers, rng, strength=strength).reshape(-1, 3, world.GLYPH, world.GLYPH)
    return torch.from_numpy(world.carve_clouds(glyphs, rng, points=512 if strength > 1 else world.POINTS))


def sounds(numbers: np.ndarray, rng: np.random.Generator) -> Tensor:
    out = np.zeros((len(numbers), SAMPLES), dtype=np.float32)
    for row, number in enumerate(numbers):
        sound = world.dial(int(number), rng)
        out[row, : len(sound)] = sound
    return torch.from_numpy(out)


def texts(numbers: np.ndarray, rng: np.random.Generator) -> Tensor:
    return character_codes([world.say(int(n), rng) for n in numbers])


def drawer(name: str, split: world.Split, rng: np.random.Generator, strength: float) -> Draw:
    """From numbers to a batch of pairs; training (strength above 1) bends strokes more than the world does."""
    if name == "picture":
        return lambda n: {"image": images(n, split.image_writers, rng, strength), "text": texts(n, rng)}
    if name == "shape":
        return lambda n: {
            "point_cloud": clouds(n, split.cloud_writers, rng, strength),
            "image": images(n, split.image_writers, rng, strength),
        }
    if strength <= 1:
        return lambda n: {"audio": sounds(n, rng), "text": texts(n, rng)}
    # A millisecond a sound is too slow to draw at every step: draw 40 of each number once.
    pool = {n: sounds(np.full(40, n), rng) for n in split.numbers}
    return lambda n: {
        "audio": torch.stack([pool[int(i)][int(rng.integers(40))] for i in n]),
        "text": texts(n, rng),
    }


def train(name: str, steps: int, batch: int) -> tuple[ToySpace, float]:
    """Train one encoder; returns it and the seconds it took."""
    start, seed = time.perf_counter(), SEEDS[name]
    torch.manual_seed(seed)
    space = ToySpace(name)
    rng = np.random.default_rng(seed)
    draw, split = drawer(name, world.SPLITS[name], rng, strength=STRENGTH), world.SPLITS[name]
    first, second = PAIRS[name]
    scale = nn.Parameter(torch.tensor(2.7))
    optimizer = torch.optim.AdamW([*space.parameters(), scale], lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        # Distinct numbers, so that no negative is a positive in disguise.
        numbers = rng.choice(split.numbers, size=batch, replace=False)
        data = draw(numbers)
        x, y = space(data[first], first), space(data[second], second)
        logits = x @ y.T * scale.clamp(max=4.6).exp()
        target = torch.arange(batch)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(space.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 0 or step == steps - 1:
            print(
                f"{name} step {step:5d} loss {loss.item():.4f} {time.perf_counter() - start:.0f} s",
                flush=True,
            )
    return space.eval(), time.perf_counter() - start


@torch.no_grad()
def score(name: str, space: ToySpace, *, draws: int = 3) -> dict[str, Any]:
    """Retrieval between an encoder's own two modalities on the evaluation's numbers and writers, one pair a number."""
    first, second = PAIRS[name]
    split = world.SPLITS["test"]
    numbers, rows = np.array(split.numbers), []
    for seed in range(draws):
        data = drawer(name, split, np.random.default_rng((7, seed)), strength=1.0)(numbers)
        x, y = space(data[first], first), space(data[second], second)
        similarity = (x @ y.T).numpy()
        rows.append([hits(similarity), hits(similarity.T), similarity.diagonal().mean(), similarity.mean()])
    mean = np.mean(rows, axis=0)
    return {
        "pair": f"{first}-{second}",
        "dim": int(x.shape[1]),
        "parameters": sum(p.numel() for p in space.parameters()),
        "gallery": len(numbers),
        "chance_r@1": round(1 / len(numbers), 4),
        f"{first}_to_{second}_r@1": round(float(mean[0]), 4),
        f"{second}_to_{first}_r@1": round(float(mean[1]), 4),
        "effective_rank": round(effective_rank(np.concatenate([x.numpy(), y.numpy()])), 1),
        "cosine_pairs": round(float(mean[2]), 3),
        "cosine_all": round(float(mean[3]), 3),
    }


def hits(similarity: np.ndarray) -> float:
    """R@1 of row-aligned pairs; a tie counts as a miss."""
    rival = similarity.copy()
    np.fill_diagonal(rival, -np.inf)
    return float((similarity.diagonal() > rival.max(1)).mean())


@torch.no_grad()
def whiten(name: str, space: ToySpace) -> None:
    """Set the encoder's last map from its own training numbers and writers, drawn as the world draws them."""
    split, rows = world.SPLITS[name], []
    draw = drawer(name, split, np.random.default_rng((SEEDS[name], 1)), strength=1.0)
    for _ in range(10):
        data = draw(np.array(split.numbers))
        rows += [space(data[modality], modality) for modality in PAIRS[name]]
    space.whiten(torch.cat(rows), floor=WHITENING_FLOOR)


def save(name: str, space: ToySpace, path: Path) -> None:
    """Write the weights in half precision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {k: v.half() if v.is_floating_point() else v for k, v in space.state_dict().items()}
    save_file(state, str(path), metadata={"encoder": f"toy:{name}", "revision": REVISION})
    path.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=sorted(SEEDS), action="append")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--score", action="store_true", help="score the shipped weights, train nothing")
    parser.add_argument("--out", type=Path, help="folder for weights and scores, instead of the places they ship from")
    options = parser.parse_args()
    torch.set_num_threads(1)  # other counts sum in another order
    weights, report = (options.out, options.out / RESULTS.name) if options.out else (WEIGHTS, RESULTS)
    for name in options.only or SEEDS:
        path = weights / f"{name}.safetensors"
        results = json.loads(report.read_text()) if report.exists() else {}
        seconds = results.get(name, {}).get("train_seconds")
        if not options.score:
            space, seconds = train(name, options.steps or STEPS[name], options.batch)
            whiten(name, space)
            save(name, space, path)
        results[name] = {
            **score(name, load_space(name, path)),
            "weights_sha256": weights_sha256([path]),
            "train_seconds": seconds and round(seconds),
        }
        print(json.dumps({name: results[name]}, indent=1))
        report.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
