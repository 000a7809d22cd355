"""A small world of real raw files, encoded by the toy encoders and joined in a second, for tests of what serves it."""

from __future__ import annotations

from pathlib import Path

from isthmus.cli.app import run
from isthmus.demo import raw

ITEMS = 24
GALLERIES = ("picture-test.space/image", "sound-test.space/audio", "shape-test.space/point_cloud")


def make_small_world(folder: Path, *, seed: int = 3) -> Path:
    """Write raw files, spaces and `unified.bridge` below a folder; the spaces lie in `spaces/`."""
    raw.write_memory(folder / "raw/memory", seed=seed, sizes=dict.fromkeys(raw.MEMORY, 120))
    raw.write_test(folder / "raw/test", seed=seed, count=ITEMS)
    for space, part, kinds in (
        ("picture", "memory", ("image", "text")),
        ("sound", "memory", ("audio", "text")),
        ("shape", "memory", ("point_cloud", "image")),
        ("picture-test", "test", ("image", "text")),
        ("sound-test", "test", ("audio",)),
        ("shape-test", "test", ("point_cloud",)),
    ):
        for kind in kinds:
            files = folder / "raw" / part / ("texts.txt" if kind == "text" else kind)
            into = folder / "spaces" / f"{space}.space"
            encoder = f"toy:{space.removesuffix('-test')}"
            assert not run(
                [
                    "encode",
                    str(files),
                    "--encoder",
                    encoder,
                    "--into",
                    str(into),
                    "--modality",
                    kind,
                    "--workers",
                    "0",
                    "-q",
                ]
            )
    spaces, first, bridge = folder / "spaces", folder / "first.bridge", folder / "unified.bridge"
    common = ["--method", "procrustes", "-q"]
    assert not run(
        [
            "extend",
            str(spaces / "picture.space"),
            str(spaces / "sound.space"),
            "--via",
            "text",
            "--out",
            str(first),
            *common,
        ]
    )
    assert not run(["extend", str(first), str(spaces / "shape.space"), "--via", "image", "--out", str(bridge), *common])
    return folder
