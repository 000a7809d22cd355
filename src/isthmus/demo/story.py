"""The demo: raw files to spaces, spaces to a bridge, the bridge's scores on numbers that nothing was trained on.

Read `run` from top to bottom: it is the flow that a user of isthmus goes through, on the small world of
`isthmus.demo.world`. Everything follows from the seed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from isthmus.bridges.folder import FILES as BRIDGE_FILES
from isthmus.core.files import read_json, write_json
from isthmus.core.locks import one_writer
from isthmus.core.replace import claim_folder, remove_written
from isthmus.demo import demo_table as table
from isthmus.demo import raw
from isthmus.demo.ending import HOME, PICTURE, REPORT, Say, commands, serve_command, tell_results
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.recipes.extend import ExtendConfig
    from isthmus.spaces.embeddings import Embeddings
    from isthmus.spaces.space import Space

SPACES: Final = {
    "picture": ("toy:picture", "memory", ("image", "text")),
    "sound": ("toy:sound", "memory", ("audio", "text")),
    "shape": ("toy:shape", "memory", ("point_cloud", "image")),
    "picture-test": ("toy:picture", "test", ("image", "text")),
    "sound-test": ("toy:sound", "test", ("audio",)),
    "shape-test": ("toy:shape", "test", ("point_cloud",)),
}
"""By name: the encoder, the files it reads, and the modalities."""

FOLDERS: Final = ("raw", "spaces", "pairs", "unified.bridge", "trained.bridge")

_SHARDS = r"\w+_emb/\w+_emb_\d{5}\.npy|metadata/metadata_\d{5}\.parquet|_done/\d{5}\.json|\.partial/.*"
_WRITTEN: Final = {
    "raw": re.compile(r"(?:memory|test)/(?:texts\.txt|\w+/(?:\d+\.(?:wav|png|ply))?)"),
    "spaces": re.compile(rf"[\w-]+\.space/(?:space\.json|\.encode/.*|\w+/(?:{_SHARDS})?)?"),
    "pairs": re.compile(r"[\w-]+\.csv"),
    "unified.bridge": re.compile("|".join(map(re.escape, BRIDGE_FILES))),
    "trained.bridge": re.compile("|".join(map(re.escape, BRIDGE_FILES))),
}
"""By folder, the relative paths of what a demo writes in it."""


@dataclass(frozen=True)
class Size:
    """Size of the small world that the demo draws; smaller is for tests.

    Attributes:
        memory: Items of each unpaired memory.
        numbers: Numbers of the evaluation; None is all 240.
        config: Settings of both trained extensions; None is the defaults.
        oracle_steps: Training steps of the paired projector.
    """

    memory: Mapping[str, int] = field(default_factory=lambda: dict(raw.MEMORY))
    numbers: int | None = None
    config: ExtendConfig | None = None
    oracle_steps: int = 900


@one_writer("out")
def run(
    out: str | Path, *, seed: int = 0, quiet: bool = False, say: Say | None = None, size: Size | None = None
) -> dict[str, Any]:
    """Tell the whole story in a folder.

    Args:
        out: Folder for everything that the demo makes: `raw`, `spaces`, `pairs`, `unified.bridge`, `demo.png` and
            `demo.json`. An earlier demo in it is replaced.
        seed: Seed of the world's drawing and of training.
        quiet: Say nothing.
        say: Where lines go; None prints them.
        size: How much to draw; None is all.

    Returns:
        What `demo.json` holds: scores of every task with baselines and oracles, gaps, seconds, commands to try.

    Raises:
        ConfigError: `out` holds something else.
        DependencyError: Pillow, soundfile or matplotlib is not installed.
    """
    out, size = Path(out), size or Size()
    tell = (lambda line: None) if quiet else say or print
    steps = _Steps(tell)
    _clear(out)
    tell("A small world: the numbers 000 to 999, seen, heard, felt and read.")

    memory = raw.write_memory(out / "raw/memory", seed=seed, sizes=size.memory)
    test = raw.write_test(out / "raw/test", seed=seed, count=size.numbers)
    files = _write_pairs(out / "pairs", memory, test)
    steps.done(f"drew {sum(map(len, [*memory.ids.values(), *test.ids.values()])):,} items into {out / 'raw'}")

    _encode_all(out / "spaces", {"memory": memory, "test": test})
    steps.done("encoded them with three encoders that were trained apart")

    bridge = _connect(out, seed, steps)
    trained = _extend(out, seed, size.config, steps)
    bridge.save(out / "unified.bridge")
    trained.save(out / "trained.bridge")

    tasks = {task: _evaluate(out, bridge, task, files[task]) for task in raw.TASKS}
    for task, scores in tasks.items():
        scores["baselines"]["ex-mcr"] = _evaluate(out, trained, task, (files[task][0], None))["mean"]
    oracle = _network_oracle(out, files["audio", "image"], seed, size.oracle_steps)
    tasks["audio", "image"]["baselines"]["paired_projector"] = oracle
    steps.done("scored the bridge, the baselines and the paired oracles")

    _draw(out, bridge, test, seed)
    steps.done(f"drew {out / PICTURE}")

    report = {"seed": seed, **_report(out, bridge, tasks, test)}
    report["reasons"] = _reasons(out, bridge, test)
    report["seconds"] = {**steps.seconds, "all": steps.total()}
    write_json(out / REPORT, report)
    tell_results(tell, out, report)
    return report


class _Steps:
    """Steps of the demo and their seconds."""

    def __init__(self, tell: Say) -> None:
        self.tell, self.seconds = tell, dict[str, float]()
        self.start = self.last = time.perf_counter()

    def done(self, what: str) -> None:
        """Print the seconds of a step of the demo."""
        now = time.perf_counter()
        self.seconds[what.split()[0]] = self.seconds.get(what.split()[0], 0.0) + now - self.last
        self.tell(f"  {now - self.last:5.1f} s  {what}")
        self.last = now

    def total(self) -> float:
        """Seconds since the demo began."""
        return time.perf_counter() - self.start


def _clear(out: Path) -> None:
    """Make room: an earlier demo goes, anything else stays and is an error."""
    if out.exists() and not (out.is_dir() and (_is_demo(out) or not any(out.iterdir()))):
        raise ConfigError(f"{out} is not empty and holds no earlier demo. Give --out another folder.")
    for name in FOLDERS:  # first all of them, so that nothing goes where one is refused
        claim_folder(out / name, _WRITTEN[name], "folder of a demo", make=False)
    for name in FOLDERS:
        remove_written(out / name, _WRITTEN[name])
    (out / PICTURE).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / REPORT, {"isthmus_demo": 1, "state": "running"})


def _is_demo(out: Path) -> bool:
    """Whether a folder holds an earlier demo."""
    return (out / REPORT).is_file() and "isthmus_demo" in read_json(out / REPORT, kind="demo report")


def _write_pairs(folder: Path, memory: raw.Drawn, test: raw.Drawn) -> dict[tuple[str, str], tuple[Path, Path]]:
    """The truth of the evaluation, and the real pairs of the memory that only the oracles see, task by task."""
    files = {}
    for query, gallery in raw.TASKS:
        truth, oracle = folder / f"{query}-{gallery}.csv", folder / f"only-for-the-oracle-{query}-{gallery}.csv"
        raw.write_pairs(truth, test, query, gallery)
        raw.write_pairs(oracle, memory, query, gallery)
        files[query, gallery] = (truth, oracle)
    return files


def _encode_all(folder: Path, drawn: Mapping[str, raw.Drawn]) -> None:
    """Encode all raw files of the demo's world into its spaces."""
    from isthmus.encoders import load_encoder
    from isthmus.encoders.pipeline.encode import encode

    encoders = {name: load_encoder(name) for name, _, _ in SPACES.values()}
    for space, (encoder, part, modalities) in SPACES.items():
        for modality in modalities:
            # Decoding an item takes less than a millisecond: starting workers would take longer.
            encode(
                drawn[part].source(modality), encoder=encoders[encoder], into=folder / f"{space}.space",
                modality=modality, batch_size=64, workers=0, quiet=True,
            )  # fmt: skip


def _spaces(out: Path) -> list[Space]:
    """Spaces of the demo."""
    from isthmus.spaces.space import open_space

    return [open_space(out / f"spaces/{name}.space") for name in ("picture", "sound", "shape")]


def _connect(out: Path, seed: int, steps: _Steps) -> Bridge:
    """All three spaces at once, by the method that the estimate without labels takes."""
    from isthmus.recipes.connect import connect

    bridge = connect(*_spaces(out), via=["picture,sound:text", "picture,shape:image"], seed=seed, quiet=True)
    steps.done(f"connected the three through texts and images that two of them share; chosen: {bridge.method}")
    return bridge


def _extend(out: Path, seed: int, config: ExtendConfig | None, steps: _Steps) -> Bridge:
    """The picture space by the sound space through texts, and the result by the shape space through images."""
    from isthmus.recipes.extend import extend

    picture, sound, shape = _spaces(out)
    options: dict[str, Any] = {"seed": seed, "config": config, "device": "cpu", "quiet": True, "estimate": False}
    bridge = extend(picture, sound, via="text", **options)
    bridge = extend(bridge, shape, via="image", **options)
    steps.done("extended picture by sound and by shape, as the papers do: trained, picture stays as it is")
    return bridge


def _test(out: Path, modality: str) -> Embeddings:
    """Test items of the demo in their own space."""
    from isthmus.spaces.space import open_space

    return open_space(out / f"spaces/{HOME[modality]}.space")[modality]


def _evaluate(out: Path, bridge: Bridge, task: tuple[str, str], files: tuple[Path, Path | None]) -> dict[str, Any]:
    """Scores of a bridge, and where real pairs are given for the oracles, of the baselines."""
    from isthmus.evaluation.evaluate import evaluate_bridge

    query, gallery = (_test(out, modality) for modality in task)
    options: dict[str, Any] = {"baselines": True, "train_pairs": files[1]} if files[1] is not None else {}
    return evaluate_bridge(bridge, query=query, gallery=gallery, pairs=files[0], **options).to_dict()


def _reasons(out: Path, bridge: Bridge, test: raw.Drawn, count: int = 3) -> list[dict[str, Any]]:
    """For some sounds, the image that is nearest, and the shared texts that carry the match."""
    from isthmus.bridges.explain import Explainer
    from isthmus.spaces.selection import Selection

    sounds, images = _test(out, "audio"), _test(out, "image")
    explainer, reasons = Explainer(bridge), []
    for name in [test.ids["audio"][len(test.ids["audio"]) * n // count] for n in range(count)]:
        query = Selection.of_ids(sounds, [name])
        hit = Selection(images, [int((bridge.project(images) @ bridge.project(query)[0]).argmax())])
        why = explainer.explain(explainer.item(query), explainer.item(hit), top=3)
        reasons.append({"query": name, "hit": hit.ids[0], "why": why.shares, "words": str(why), "basis": why.basis})
    return reasons


def _network_oracle(out: Path, files: tuple[Path, Path], seed: int, steps: int) -> dict[str, Any]:
    """Beside the closed-form oracles: the bridge's own network, trained on real audio-image pairs."""
    from isthmus.demo.oracle import paired_projector_row
    from isthmus.spaces.space import open_space

    memory = open_space(out / "spaces/sound.space")["audio"], open_space(out / "spaces/picture.space")["image"]
    test = _test(out, "audio"), _test(out, "image")
    return paired_projector_row(memory, test, real_pairs=files[1], truth=files[0], seed=seed, steps=steps)


def _draw(out: Path, bridge: Bridge, test: raw.Drawn, seed: int) -> None:
    """Draw the picture of the demo's result."""
    from isthmus.demo import picture

    spaces = {modality: _test(out, modality) for modality in ("image", "audio", "point_cloud")}
    rows = {modality: space.rows_of(test.ids[modality]) for modality, space in spaces.items()}
    scene = picture.Scene(
        sounds=[test.folder / "audio" / name for name in test.ids["audio"]],
        images=[test.folder / "image" / name for name in test.ids["image"]],
        numbers=test.numbers["image"],
        before={modality: space.unit(rows[modality]) for modality, space in spaces.items()},
        after={modality: bridge.project(space)[rows[modality]] for modality, space in spaces.items()},
    )
    picture.draw(out / PICTURE, scene, seed=seed)


def _report(out: Path, bridge: Bridge, tasks: Mapping[tuple[str, str], Any], test: raw.Drawn) -> dict[str, Any]:
    """Report of the demo as it is written to its folder."""
    named = {"-".join(task): {**report, **table.shares(report)} for task, report in tasks.items()}
    return {
        "isthmus_demo": 1,
        "state": "done",
        "numbers": len(test.numbers["image"]),
        "tasks": named,
        "bridge": bridge.describe()["record"],
        "next": commands(out, test),
        "serve": serve_command(out),
    }
