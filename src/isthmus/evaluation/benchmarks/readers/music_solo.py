"""MUSIC-Solo with boxes (Hu et al., NeurIPS 2020): one instrument that plays, boxed in frames of 27 test videos.

`solotest.json` maps `<clip>/frame_<second>/<frame>.jpg` to boxes as corner, width and height, four frames a second. A
frame is paired with the second of sound that it was taken from. The authors keep those seconds as pickled spectrograms,
which are not read: sounds are `<second>.wav` a clip, or whole sound tracks from which the seconds are cut once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.core.files import atomic_file
from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import read_json_file
from isthmus.evaluation.benchmarks.readers.shared.box_tables import check_box
from isthmus.evaluation.benchmarks.readers.shared.clips import Clips, Media, both, media_of
from isthmus.evaluation.benchmarks.readers.shared.lookup import SOUNDS, inside, option, require
from isthmus.evaluation.benchmarks.readers.shared.sounding import localization
from isthmus.evaluation.benchmarks.task import Box, Reading, Sample
from isthmus.items import Rejected
from isthmus.items.decoding import require as require_module
from isthmus.items.decoding.audio import decode_audio

OPTIONS = {"frames": "middle"}

RATE = 48_000
"""Samples a second of the seconds that are cut out: what the encoders want most, at most."""

_KEY = re.compile(r"(?P<clip>[^/]+)/frame_(?P<second>\d{3})/(?P<frame>[^/]+)\.(jpg|jpeg|png)")
_SIDE = 224
_FRAMES = ("video_frames", "data/video_frames", "frames")
_SECONDS = ("audio_frames", "wav_frames", "data/audio_frames", "data/wav_frames")
_TRACKS = ("audio", "solo", "data/audio", "videos", ".")

Frame = tuple[str, str, str]
"""(key in the json, clip, second)"""


def read(data: Path, options: Mapping[str, Any], work: Path) -> Reading:
    """Frames with the boxes of what sounds in them.

    Args:
        data: Folder with `solotest.json`, `video_frames/`, and `audio_frames/<clip>/<second>.wav` or
            `audio/<clip>.flac`.
        options: `frames`: of the frames of a second take the "middle" or the "first" one, or "all". A frame without a
            box is passed over.
        work: Seconds that are cut out of whole sound tracks go here.

    Raises:
        FormatError: A file is not there, or not as published.
    """
    path = require(data, "solotest.json", "music-exp/solotest.json", what="the boxes of MUSIC-Solo")
    truth = read_boxes(path)
    which = option(options, "frames", ("middle", "first", "all"))
    chosen = [frame for frame in choose(list(truth), which) if truth[frame[0]]]
    if not chosen:
        raise FormatError(
            f"{path}: has no frame with a box among the {which} frames. Expected the published solotest.json."
        )
    folder = require(data, *_FRAMES, what="the frames of MUSIC-Solo, video_frames/<clip>/frame_<second>/<frame>.jpg")
    images = {key: inside(folder, key) for key, _, _ in chosen}
    images = {key: place for key, place in images.items() if place.is_file()}
    sounds = _seconds(data, chosen, work)
    paired = {key: sounds[clip, second] for key, clip, second in chosen if (clip, second) in sounds}
    clips = both([key for key, _, _ in chosen], images, paired, data, "MUSIC-Solo")
    return Reading(_task(clips, chosen, truth), clips.missing, _notes(len(truth), chosen, which))


def _task(clips: Clips, chosen: Sequence[Frame], truth: Mapping[str, Sequence[Box]]) -> Any:
    """Localization of the chosen frames of MUSIC-Solo."""
    heard = {key: f"{clip}/{second}" for key, clip, second in chosen}
    sounds = {heard[key]: clips.sounds[key] for key in clips.names}
    samples = [Sample(key, key, heard[key], truth[key]) for key in clips.names]
    return localization(Clips(clips.names, clips.images, sounds, clips.missing), samples)


def _notes(frames: int, chosen: Sequence[Frame], which: str) -> list[str]:
    """Conventions that a reader of MUSIC-Solo's figures must know."""
    words = {
        "middle": "the middle frame of each second",
        "first": "the first frame of each second",
        "all": "all frames",
    }
    return [
        f"{len(chosen):,} of {frames:,} frames: {words[which]}, where it has a box. The authors' code draws one of a "
        "second at random.",
        "Boxes are read as corner, width and height, as published; code that reads them as two corners gives figures "
        "that do not compare.",
    ]


def read_boxes(path: Path) -> dict[str, Sequence[Box]]:
    """Boxes by frame, as corners in fractions of the picture.

    Raises:
        FormatError: It is not as published.
    """
    boxes: dict[str, Sequence[Box]] = {}
    for key, entry in read_json_file(path, dict, "the boxes of MUSIC-Solo").items():
        entries = entry.get("bbox") if isinstance(entry, dict) else None
        if not _KEY.fullmatch(key) or not isinstance(entries, list):
            raise FormatError(
                f"{path}: entry {key!r} is {str(entry)[:80]}. Expected <clip>/frame_<second>/<frame>.jpg with bbox."
            )
        norm = [box.get("normbox") if isinstance(box, dict) else None for box in entries]
        boxes[key] = [_corners(box, f"{path}: entry {key!r}") for box in norm]
    return boxes


def _corners(box: Any, where: str) -> Box:
    """Corner, width and height, in fractions, to two corners that fall on the pixels of the published map."""
    x, y, _, _ = check_box(box, where)
    width, height = float(box[2]), float(box[3])
    return check_box((x, y, _end(x, width), _end(y, height)), where)


def _end(start: float, length: float) -> float:
    """Where a stretch ends. The published code adds after scaling to the map, which may round to another pixel."""
    pixel = int(start * _SIDE + length * _SIDE)
    end = start + length
    while int(end * _SIDE) < pixel:
        end = math.nextafter(end, math.inf)
    while int(end * _SIDE) > pixel:
        end = math.nextafter(end, -math.inf)
    return end


def choose(keys: Sequence[str], which: str) -> list[Frame]:
    """The frames to look at: by second the middle or the first one, or all, in their order."""
    seconds: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        match = _KEY.fullmatch(key)
        assert match is not None
        seconds.setdefault((match["clip"], match["second"]), []).append(key)
    frames = []
    for (clip, second), annotated in seconds.items():
        annotated.sort()
        picked = annotated if which == "all" else [annotated[len(annotated) // 2 if which == "middle" else 0]]
        frames += [(key, clip, second) for key in picked]
    return frames


def _seconds(data: Path, chosen: Sequence[Frame], work: Path) -> dict[tuple[str, str], Path]:
    """The file of each second of sound: found, or cut out of its clip's sound track."""
    wanted = dict.fromkeys((clip, second) for _, clip, second in chosen)
    for folder in _SECONDS:
        places = {one: _existing(inside(data / folder, "/".join(one))) for one in wanted}
        if by_name := {one: place for one, place in places.items() if place is not None}:
            return by_name
    clips = {clip: [clip] for clip, _ in wanted}
    tracks = media_of(data, _TRACKS, clips, SOUNDS, what="sounds of MUSIC-Solo")
    return cut_seconds(tracks, list(wanted), work / "seconds")


def _existing(stem: Path) -> Path | None:
    """The sound file of a stem."""
    return next((place for suffix in SOUNDS if (place := stem.with_name(stem.name + suffix)).is_file()), None)


def cut_seconds(tracks: Media, wanted: Sequence[tuple[str, str]], folder: Path) -> dict[tuple[str, str], Path]:
    """Write seconds of sound tracks, each once. A track that cannot be read, or ends before a second, has none.

    Args:
        tracks: By clip, its sound track.
        wanted: (clip, second) with seconds counted from 0.
        folder: Where they go, `<clip>/<second>.wav`, mono at `RATE`.
    """
    places = {one: folder / one[0] / f"{one[1]}.wav" for one in wanted if one[0] in tracks}
    for clip in dict.fromkeys(clip for clip, _ in places):
        lacking = {one: place for one, place in places.items() if one[0] == clip and not place.is_file()}
        if lacking:
            _cut(tracks[clip], {int(second): place for (_, second), place in lacking.items()})
    return {one: place for one, place in places.items() if place.is_file()}


def _cut(track: Path, places: Mapping[int, Path]) -> None:
    """Cut a track of MUSIC-Solo into the seconds that are heard."""
    soundfile = require_module("soundfile", extra="audio", purpose="cutting sounds")
    try:
        signal = decode_audio(track, rate=RATE)
    except Rejected:
        return
    for second, place in places.items():
        part = signal[second * RATE : (second + 1) * RATE]
        if len(part) == RATE:
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(place) as aside:
                soundfile.write(aside, part, RATE, subtype="PCM_16", format="WAV")
