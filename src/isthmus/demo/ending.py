"""What the demo leaves to be read: its results in words, and commands that work on what it wrote."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from isthmus.demo import demo_table as table
from isthmus.demo import raw, world

HOME: Final = {"image": "picture-test", "text": "picture-test", "audio": "sound-test", "point_cloud": "shape-test"}
"""The space of each test modality."""
REPORT: Final = "demo.json"
PICTURE: Final = "demo.png"

Say = Callable[[str], None]


def _command() -> str:
    """How to call isthmus from here: by its name where the shell finds this very one, else by its path."""
    name = "isthmus.exe" if os.name == "nt" else "isthmus"
    here = Path(sys.executable).parent / name
    on_path = shutil.which("isthmus")
    if not here.exists() or (on_path and Path(on_path).resolve() == here.resolve()):
        return "isthmus"
    relative = os.path.relpath(here)
    return shlex.quote(str(here) if relative.startswith("..") else relative)


def commands(out: Path, test: raw.Drawn) -> list[str]:
    """Commands that work on what the demo wrote."""
    number = int(test.numbers["image"][len(test.numbers["image"]) // 3])
    words = shlex.quote(world.in_words(number))
    bridge, spaces, files, pairs = (
        shlex.quote(str(out / name)) for name in ("unified.bridge", "spaces", "raw/test", "pairs")
    )
    images, sounds, solids = (f"{spaces}/{HOME[name]}.space/{name}" for name in ("image", "audio", "point_cloud"))
    command = _command()
    scored = f"--query {sounds} --gallery {images} --pairs {pairs}/audio-image.csv --baselines"
    return [
        f"{command} search {bridge} --audio {files}/audio/{number:03d}.wav --gallery {images} -k 5 --explain",
        f"{command} search {bridge} --text {words} --gallery {solids} -k 5",
        f"{command} search {bridge} --point-cloud {files}/point_cloud/{number:03d}.ply --gallery {sounds} -k 5",
        f"{command} inspect {spaces}/picture.space {spaces}/sound.space --via text",
        f"{command} evaluate {bridge} {scored}",
        f"{command} report {bridge} {scored} --overwrite --out {shlex.quote(str(out / 'report.html'))}",
    ]


def serve_command(out: Path) -> str:
    """The command that opens the page of the demo's world."""
    galleries = [
        f"{shlex.quote(str(out / 'spaces'))}/{HOME[name]}.space/{name}" for name in ("image", "audio", "point_cloud")
    ]
    return f"{_command()} serve {shlex.quote(str(out / 'unified.bridge'))} --gallery {' --gallery '.join(galleries)}"


def tell_results(tell: Say, out: Path, report: Mapping[str, Any]) -> None:
    """Print what the demo's estimate expects, then the table of results."""
    from isthmus.recipes.posterior.auto import sentences

    record = report["bridge"]
    for line in sentences(record.get("chosen"), record["estimate"]):
        for part in textwrap.wrap(line, 78, subsequent_indent="  ", break_on_hyphens=False):
            tell(f"  {part}")
    tell("Not one audio-image, audio-3D or 3D-text pair was used on the way.")
    tell("")
    tell(f"Finding {report['numbers']} numbers that no training saw, drawn by writers that no training saw:")
    tell("")
    for line in table.lines(report["tasks"]):
        tell(line)
    tell("")
    for line in table.verdicts(report["tasks"]):
        tell(line)
    tell("")
    tell("Why, by texts that two encoders read (none of them names the number itself):")
    for each in report["reasons"]:
        tell(f"  {each['query']} finds {each['hit']} by {each['words']}")
    tell("")
    tell(f"Look at {out / PICTURE}; every figure is in {out / REPORT}. {report['seconds']['all']:.0f} s in all.")
    tell("")
    tell("Try next:")
    for command in report["next"]:
        tell(f"  {command}")
    tell("Or search it in a browser:")
    tell(f"  {report['serve']}")
