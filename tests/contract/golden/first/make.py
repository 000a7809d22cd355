"""What the commit ef769b8 wrote: run with its `src` on PYTHONPATH, in this folder, and never again with a later one."""

import json
from pathlib import Path

import numpy as np

import isthmus
from isthmus.recipes.connect import ConnectConfig
from isthmus.recipes.extend import ExtendConfig

here = Path(__file__).parent
rng = np.random.default_rng(7)
meaning = rng.normal(size=(24, 4))


def rows(dim, seed):
    draw = np.random.default_rng(seed)
    return (meaning @ draw.normal(size=(4, dim)) + 0.1 * draw.normal(size=(24, dim))).astype(np.float32)


def space(name, dim, seed, *modalities):
    ids = [f"item-{row}" for row in range(24)]
    content = {m: (ids, rows(dim, seed + n), {m if m == "text" else f"{m}_path": ids}) for n, m in enumerate(modalities)}
    encoder = {"library": "golden", "id": name, "revision": "1", "weights_sha256": "0" * 64}
    return isthmus.make_space(here / f"{name}.space", content, name=name, encoder=encoder, overwrite=True)


clip, clap, ulip = space("clip", 6, 1, "text", "image"), space("clap", 5, 4, "text", "audio"), space("ulip", 4, 7, "image", "point_cloud")
small = {"epochs": 2, "batch_size": 8, "seed": 1, "hidden_ratio": 1, "members": 1}
connected = isthmus.connect(clip, clap, via="text", config=ConnectConfig(**{k: v for k, v in small.items() if k != "members"}, dim=4), quiet=True)
extended = isthmus.extend(clip, clap, via="text", config=ExtendConfig(**small, hidden=8) if "hidden" in ExtendConfig.model_fields else ExtendConfig(**{k: v for k, v in small.items() if k in ExtendConfig.model_fields}), quiet=True)
closed = isthmus.extend(clip, clap, via="text", method="dictionary", seed=1)
grown = isthmus.extend(extended, ulip, via="image", method="ridge", seed=1, center="leaf")
expected = {}
for name, bridge in {"connect": connected, "extend": extended, "dictionary": closed, "chain": grown}.items():
    bridge.save(here / f"{name}.bridge", overwrite=True)
    loaded = isthmus.load_bridge(here / f"{name}.bridge")
    known = {"clip": clip, "clap": clap, "ulip": ulip}
    expected[name] = {key: loaded.project(known[key.split("/")[0]][key.split("/")[1]])[:3].round(6).tolist() for key in loaded.routes}
(here / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
