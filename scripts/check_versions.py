"""Does the wheel work in clean environments: no extras, each extra alone, lowest and newest versions?

    python scripts/check_versions.py                                   no extras, each extra, newest versions
    python scripts/check_versions.py --resolution lowest-direct --python 3.10
    python scripts/check_versions.py --extras none,audio --python 3.13 --out versions.json

Each environment is made by uv in a temporary folder and removed again: the wheel is installed, `isthmus doctor` has to
say that the extra works, two small spaces are joined and searched by the command line, and with the extra `audio` an
m4a, an aac and an mp4 are decoded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import tomllib  # Python 3.11 and later

ROOT = Path(__file__).resolve().parent.parent
NOT_USERS = ("dev", "docs")
JOIN = """
import numpy as np, isthmus
rng = np.random.default_rng(0)
shared, own = rng.standard_normal((200, 8)), rng.standard_normal((50, 8))
for name, dim, modality in (("clip", 24, "image"), ("clap", 16, "audio")):
    look = rng.standard_normal((8, dim))
    for kind, rows in (("text", shared), (modality, own)):
        np.save(f"{name}_{kind}.npy", (rows @ look).astype(np.float32))
"""
SOUNDS = """
import io, av, numpy as np
from isthmus.items.decoding.audio import decode_audio
for format in ("ipod", "adts", "mp4"):
    stream = io.BytesIO()
    with av.open(stream, mode="w", format=format) as container:
        track = container.add_stream("aac", rate=48000)
        wave = np.sin(np.arange(48000, dtype=np.float32) / 16)[None]
        for start in range(0, 48000, 1024):
            frame = av.AudioFrame.from_ndarray(wave[:, start:start + 1024].copy(), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, start
            for packet in track.encode(frame):
                container.mux(packet)
        for packet in track.encode(None):
            container.mux(packet)
    seconds = len(decode_audio(stream.getvalue(), rate=16000)) / 16000
    assert 0.9 < seconds < 1.2, (format, seconds)
"""


def extras() -> list[str]:
    """Name the extras that users install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [name for name in project["optional-dependencies"] if name not in NOT_USERS]


def checked(wheel: Path, extra: str, given: argparse.Namespace) -> dict[str, Any]:
    """Install the wheel with one extra ("none": without) into an environment of its own, and use it."""
    with tempfile.TemporaryDirectory() as folder:
        work, row = Path(folder), {"extra": extra, "python": given.python, "resolution": given.resolution}
        python = work / "env/bin/python"
        # Not the wheel's name with its extra: what a wheel requires is not direct, and would never be the lowest.
        wanted = ["-r", ROOT / "pyproject.toml", *([] if extra == "none" else ["--extra", extra])]

        def run(*command: object) -> str:
            environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
            done = subprocess.run(list(map(str, command)), cwd=work, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(" ".join((done.stderr or done.stdout).split())[-600:])
            return done.stdout

        try:
            run(given.uv, "venv", "-q", "--python", given.python, work / "env")
            more = [part for option in given.uv_option for part in option.split()]
            install = (given.uv, "pip", "install", "-q", "--python", python)
            run(*install, "--resolution", given.resolution, *more, *wanted)
            run(*install, "--no-deps", wheel)
            row["versions"] = json.loads(run(given.uv, "pip", "list", "--format", "json", "--python", python))
            isthmus = work / "env/bin/isthmus"
            run(isthmus, "--help")
            found = {one["extra"]: one for one in json.loads(run(isthmus, "doctor", "--json"))["extras"]}
            told = found.get(extra, {})
            if told.get("missing") or told.get("fault"):
                raise RuntimeError(f"doctor: {told['missing'] or told['fault']}")
            run(python, "-c", JOIN)
            for space, kind in (("clip", "text"), ("clip", "image"), ("clap", "text"), ("clap", "audio")):
                run(isthmus, "import", f"{space}_{kind}.npy", "--into", f"{space}.space", "--modality", kind)
            both = ("clip.space", "clap.space", "--via", "text")
            run(isthmus, "extend", *both, "--out", "x.bridge", "--set", "epochs=2")
            hits = run(
                isthmus,
                "search",
                "x.bridge",
                "--gallery",
                "clip.space/image",
                "--id",
                "clap.space/audio/audio-00000000",
                "--json",
            )
            if len(json.loads(hits)["hits"]) != 10:
                raise RuntimeError(f"search gave {hits}")
            if extra == "audio":
                run(python, "-c", SOUNDS)
        except RuntimeError as error:
            return {**row, "works": False, "fault": str(error)}
    return {**row, "works": True}


def main() -> int:
    """Check one environment after the other and print a line for each; 1 where one does not work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extras", help="comma-separated; none is the wheel alone (default: none and every extra)")
    parser.add_argument("--python", default=f"{sys.version_info[0]}.{sys.version_info[1]}", help="version or path")
    parser.add_argument("--resolution", default="highest", choices=("highest", "lowest-direct"))
    parser.add_argument("--wheel", type=Path, help="a wheel that is built already")
    parser.add_argument("--uv", default="uv", help="the uv command")
    parser.add_argument("--uv-option", action="append", default=[], help="passed to `uv pip install`; repeatable")
    parser.add_argument("--out", type=Path, help="file of results")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        wheel = given.wheel
        if wheel is None:
            subprocess.run([given.uv, "build", "-q", "--wheel", "-o", folder, str(ROOT)], check=True)
            (wheel,) = Path(folder).glob("*.whl")
        for extra in given.extras.split(",") if given.extras else ["none", *extras()]:
            rows.append(checked(wheel.resolve(), extra, given))
            last = rows[-1]
            line = f"{given.python} {given.resolution} {extra}: {'works' if last['works'] else last['fault']}"
            print(line, flush=True)
            if given.out:
                given.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(not all(row["works"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
