"""How long do pseudo pairs and training take at the papers' sizes?

    python bench/papers_size.py --fraction 0.01 --out bench/results/papers_size.json
    python bench/papers_size.py --fraction 1 --device cuda --memory 60GB --out bench/results/gpu_size.json

2.3 million texts that both spaces know, 1.3 million images of the one and 1.8 million sounds of the other, of 512
dimensions: 5.4 million quadruples, 36 epochs of batches of 4096. `--fraction` takes so much of each. Pseudo pairs take
time by the square of the fraction and training by the steps, which the estimate for all goes by; steps are timed, and
not run to their end.

Real embeddings are drawn up to size as in `aggregate.py`; a text is drawn from the same texts in both spaces.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aggregate import machine, orthonormal, real, synchronize, unit, write

from isthmus.memory import MemoryBank
from isthmus.pairs.builder import Builder
from isthmus.pairs.kinds import choose_kinds
from isthmus.pairs.pairs import PseudoPairs
from isthmus.pairs.side import Side, Slot
from isthmus.recipes.extend import DenseAlignment, ExtendConfig, make_projector
from isthmus.recipes.training.loop import train, working_folder
from isthmus.recipes.training.schedule import make_schedule

DIM = 512
TEXTS, IMAGES, SOUNDS = 2_300_000, 1_300_000, 1_800_000
EPOCHS, BATCH = 36, 4096


class Drawn:
    """Where drawn rows come from: a row, one of its nearest, and how far between them."""

    def __init__(self, rows: np.ndarray, n: int, seed: int) -> None:
        _, near = MemoryBank(rows).nearest(rows, 9)
        rng = np.random.default_rng(seed)
        self.first = rng.integers(0, len(rows), n)
        self.second = near[self.first, rng.integers(1, 9, n)]
        self.share = 0.5 * rng.random((n, 1), dtype=np.float32)

    def of(self, rows: np.ndarray, seed: int) -> np.ndarray:
        """These rows of a matrix, with noise of 2 % of their length, turned into 512 dimensions."""
        rng, turn = np.random.default_rng(seed), orthonormal(rows.shape[1], DIM)
        out = np.empty((len(self.first), DIM), dtype=np.float32)
        for low in range(0, len(out), 100_000):
            part = slice(low, low + 100_000)
            x = rows[self.first[part]]
            x = x + self.share[part] * (rows[self.second[part]] - x)
            x += (0.02 / np.sqrt(x.shape[1])) * rng.standard_normal(x.shape, dtype=np.float32)
            out[part] = unit(x @ turn)
        return out


def sides(shared: Path, fraction: float) -> tuple[Side, Side]:
    """The two spaces at a fraction of the papers' size."""
    texts, images, sounds = (int(n * fraction) for n in (TEXTS, IMAGES, SOUNDS))
    picture, sound = real(shared, "picture/text"), real(shared, "sound/text")
    drawn = Drawn(picture, texts, 0)
    ids = {
        name: [f"{name}{i}" for i in range(n)] for name, n in (("text", texts), ("image", images), ("audio", sounds))
    }
    image, audio = real(shared, "picture/image"), real(shared, "sound/audio")
    base = {"text": drawn.of(picture, 1), "image": Drawn(image, images, 2).of(image, 3)}
    leaf = {"text": drawn.of(sound, 4), "audio": Drawn(audio, sounds, 5).of(audio, 6)}
    return Side("picture", {k: ids[k] for k in base}, base), Side("sound", {k: ids[k] for k in leaf}, leaf)


def build(base: Side, leaf: Side, config: ExtendConfig, place: torch.device, folder: Path) -> tuple[Any, Any]:
    """The pool, and seconds by kind."""
    builder = Builder(base, leaf, ["text"], config, device=place, notify=lambda line: print(line, flush=True))
    spent: dict[str, float] = {}
    pools: list[PseudoPairs] = []
    for kind in choose_kinds(base, leaf, ["text"], None):
        start = time.perf_counter()
        pools.append(builder.build([kind], folder / f"{kind.query.side}-{kind.query.modality}"))
        synchronize(place)
        spent[builder.describe(kind)] = time.perf_counter() - start
    return pools, spent


def step_seconds(base: Side, leaf: Side, pool: PseudoPairs, config: ExtendConfig, place: torch.device) -> float:
    """Seconds of a step of the training loop, drawing its batch included: of two epochs, the quicker."""
    projector = make_projector(leaf, base, ["text"], config, 0).to(place)
    objective = DenseAlignment(projector, pool.slots, ["text"], config)
    plan = make_schedule(len(pool), config)
    ends = [time.perf_counter()]

    def ended(row: Any) -> None:
        synchronize(place)
        ends.append(time.perf_counter())

    train(projector, objective, pool, config, plan, device=place, callback=ended, quiet=True)
    return float(np.diff(ends)[1:].min() / plan.steps_per_epoch)


def main() -> None:
    """Build, step, estimate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("ISTHMUS_SHARED", "../shared")))
    parser.add_argument("--fraction", type=float, default=0.01)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--method", default=None, help="of aggregation; bf16 on an accelerator, else compressed")
    parser.add_argument("--memory", default="4GB", help="dense pseudo pairs up to this size")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    place = torch.device(asked.device)
    method = asked.method or ("compressed" if place.type == "cpu" else "bf16")
    config = ExtendConfig(
        preset="paper", epochs=3, batch_size=BATCH, aggregation_method=method, memory_limit=asked.memory,  # type: ignore[arg-type]
        precision="auto",
    )  # fmt: skip
    base, leaf = sides(asked.shared, asked.fraction)
    with working_folder(None) as folder:
        pools, spent = build(base, leaf, config, place, folder)
        text = Slot(0, "text")
        pool = next(pool for pool in pools if len(pool) == len(base.ids[text.modality]))
        step = step_seconds(base, leaf, pool, config, place)
    quadruples = sum(len(pool) for pool in pools)
    steps = EPOCHS * (TEXTS + IMAGES + SOUNDS) // BATCH
    found = {
        "machine": machine(), "device": asked.device, "method": method, "fraction": asked.fraction,
        "quadruples": quadruples, "pair_seconds": spent, "step_seconds": step,
        "pair_minutes_for_all": sum(spent.values()) / asked.fraction**2 / 60,
        "training_minutes_for_all": step * steps / 60, "steps_for_all": steps,
        "reports": {name: row for pool in pools for name, row in pool.effective_neighbours.items()},
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    write(asked.out, found)


if __name__ == "__main__":
    main()
