"""The demo: raw files to spaces, spaces to a bridge, the bridge's scores on numbers that nothing was trained on.

Read `run` from top to bottom: it is the flow that a user of isthmus goes through, on the small world of
`isthmus.demo.world`. Everything follows from the seed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from isthmus.bridges.folder import FILES as BRIDGE_FILES
from isthmus.core.files import read_json, write_json
from isthmus.core.locks import one_writer
from isthmus.core.replace import claim_folder, remove_written
from isthmus.demo import demo_table as table
from isthmus.demo import raw, world
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.recipes.extend import ExtendConfig
    from isthmus.spaces.embeddings import Embeddings

SPACES: Final = {
    "picture": ("toy:picture", "memory", ("image", "text")),
    "sound": ("toy:sound", "memory", ("audio", "text")),
    "shape": ("toy:shape", "memory", ("point_cloud", "image")),
    "picture-test": ("toy:picture", "test", ("image", "text")),
    "sound-test": ("toy:sound", "test", ("audio",)),
    "shape-test": ("toy:shape", "test", ("point_cloud",)),
}
"""By name: the encoder, the files it reads, and the modalities."""

HOME: Final = {"image": "picture-test", "text": "picture-test", "audio": "sound-test", "point_cloud": "shape-test"}
"""The space of each test modality."""

FOLDERS: Final = ("raw", "spaces", "pairs", "unified.bridge")
REPORT: Final = "demo.json"
PICTURE: Final = "demo.png"

_SHARDS = r"\w+_emb/\w+_emb_\d{5}\.npy|metadata/metadata_\d{5}\.parquet|_done/\d{5}\.json|\.partial/.*"
_WRITTEN: Final = {
    "raw": re.compile(r"(?:memory|test)/(?:texts\.txt|\w+/(?:\d+\.(?:wav|png|ply))?)"),
    "spaces": re.compile(rf"[\w-]+\.space/(?:space\.json|\.encode/.*|\w+/(?:{_SHARDS})?)?"),
    "pairs": re.compile(r"[\w-]+\.csv"),
    "unified.bridge": re.compile("|".join(map(re.escape, BRIDGE_FILES))),
}
"""By folder, the relative paths of what a demo writes in it."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How much of the small world the demo draws; smaller is for tests.

    Attributes:
        memory: Items of each unpaired memory.
        numbers: Numbers of the evaluation; None is all 240.
        config: Settings of both extensions; None is the defaults.
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
        seed: Of the world's drawing and of training.
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

    bridge = _extend(out, seed, size.config, steps)
    bridge.save(out / "unified.bridge")

    tasks = {task: _evaluate(out, bridge, task, files[task]) for task in raw.TASKS}
    oracle = _network_oracle(out, files["audio", "image"], seed, size.oracle_steps)
    tasks["audio", "image"]["baselines"]["paired_projector"] = oracle
    steps.done("scored the bridge, the baselines and the paired oracles")

    _draw(out, bridge, test, seed)
    steps.done(f"drew {out / PICTURE}")

    report = {"seed": seed, **_report(out, bridge, tasks, test)}
    report["seconds"] = {**steps.seconds, "all": steps.total()}
    write_json(out / REPORT, report)
    _tell_results(tell, out, report)
    return report


class _Steps:
    """What was done and how long it took."""

    def __init__(self, tell: Say) -> None:
        self.tell, self.seconds = tell, dict[str, float]()
        self.start = self.last = time.perf_counter()

    def done(self, what: str) -> None:
        now = time.perf_counter()
        self.seconds[what.split()[0]] = self.seconds.get(what.split()[0], 0.0) + now - self.last
        self.tell(f"  {now - self.last:5.1f} s  {what}")
        self.last = now

    def total(self) -> float:
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


def _extend(out: Path, seed: int, config: ExtendConfig | None, steps: _Steps) -> Bridge:
    """The picture space by the sound space through texts, and the result by the shape space through images."""
    from isthmus.recipes.extend import extend
    from isthmus.spaces.space import open_space

    picture, sound, shape = (open_space(out / f"spaces/{name}.space") for name in ("picture", "sound", "shape"))
    bridge = extend(picture, sound, via="text", seed=seed, config=config, device="cpu", quiet=True)
    steps.done("extended picture by sound, through texts that both encoders read")
    bridge = extend(bridge, shape, via="image", seed=seed, config=config, device="cpu", quiet=True)
    steps.done("extended the result by shape, through images that both encoders see")
    return bridge


def _test(out: Path, modality: str) -> Embeddings:
    from isthmus.spaces.space import open_space

    return open_space(out / f"spaces/{HOME[modality]}.space")[modality]


def _evaluate(out: Path, bridge: Bridge, task: tuple[str, str], files: tuple[Path, Path]) -> dict[str, Any]:
    from isthmus.evaluation.evaluate import evaluate_bridge

    query, gallery = (_test(out, modality) for modality in task)
    found = evaluate_bridge(bridge, query=query, gallery=gallery, pairs=files[0], baselines=True, train_pairs=files[1])
    return found.to_dict()


def _network_oracle(out: Path, files: tuple[Path, Path], seed: int, steps: int) -> dict[str, Any]:
    """Beside the closed-form oracles: the bridge's own network, trained on real audio-image pairs."""
    from isthmus.demo.oracle import paired_projector_row
    from isthmus.spaces.space import open_space

    memory = open_space(out / "spaces/sound.space")["audio"], open_space(out / "spaces/picture.space")["image"]
    test = _test(out, "audio"), _test(out, "image")
    return paired_projector_row(memory, test, real_pairs=files[1], truth=files[0], seed=seed, steps=steps)


def _draw(out: Path, bridge: Bridge, test: raw.Drawn, seed: int) -> None:
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
    named = {"-".join(task): {**report, **table.shares(report)} for task, report in tasks.items()}
    return {
        "isthmus_demo": 1,
        "state": "done",
        "numbers": len(test.numbers["image"]),
        "tasks": named,
        "bridge": bridge.describe()["record"],
        "next": _commands(out, test),
    }


def _command() -> str:
    """How to call isthmus from here: by its name where the shell finds this very one, else by its path."""
    name = "isthmus.exe" if os.name == "nt" else "isthmus"
    here = Path(sys.executable).parent / name
    found = shutil.which("isthmus")
    if not here.exists() or (found and Path(found).resolve() == here.resolve()):
        return "isthmus"
    relative = os.path.relpath(here)
    return shlex.quote(str(here) if relative.startswith("..") else relative)


def _commands(out: Path, test: raw.Drawn) -> list[str]:
    """Commands that work on what the demo wrote."""
    number = int(test.numbers["image"][len(test.numbers["image"]) // 3])
    words = shlex.quote(world.in_words(number))
    bridge, spaces, files, pairs = (
        shlex.quote(str(out / name)) for name in ("unified.bridge", "spaces", "raw/test", "pairs")
    )
    images, sounds, solids = (f"{spaces}/{HOME[name]}.space/{name}" for name in ("image", "audio", "point_cloud"))
    command = _command()
    return [
        f"{command} search {bridge} --audio {files}/audio/{number:03d}.wav --gallery {images} -k 5",
        f"{command} search {bridge} --text {words} --gallery {solids} -k 5",
        f"{command} search {bridge} --point-cloud {files}/point_cloud/{number:03d}.ply --gallery {sounds} -k 5",
        f"{command} inspect {spaces}/picture.space {spaces}/sound.space --via text",
        f"{command} evaluate {bridge} --query {sounds} --gallery {images} --pairs {pairs}/audio-image.csv --baselines",
    ]


def _tell_results(tell: Say, out: Path, report: Mapping[str, Any]) -> None:
    tell("Not one audio-image, audio-3D or 3D-text pair was used on the way.")
    tell("")
    tell(f"Finding {report['numbers']} numbers that no training saw, drawn by writers that no training saw:")
    tell("")
    for line in table.lines(report["tasks"]):
        tell(line)
    tell("")
    for line in table.verdicts(report["tasks"]):
        tell(line)
    tell(f"Look at {out / PICTURE}; every figure is in {out / REPORT}. {report['seconds']['all']:.0f} s in all.")
    tell("")
    tell("Try next:")
    for command in report["next"]:
        tell(f"  {command}")
