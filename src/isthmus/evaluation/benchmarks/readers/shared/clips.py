"""What the readers of audio and audio-visual sets share: clips with a picture and a sound, found by name.

Names of clips are kept as strings, whatever they look like: Flickr's are numbers, YouTube's begin with a dash or an
underscore as often as not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isthmus.core.files import atomic_file, natural_key
from isthmus.core.messages import listed
from isthmus.errors import FormatError
from isthmus.evaluation.benchmarks.readers.shared.annotations import read_lines
from isthmus.evaluation.benchmarks.readers.shared.captions import Folder
from isthmus.evaluation.benchmarks.readers.shared.lookup import IMAGES, SOUNDS, inside, require
from isthmus.evaluation.benchmarks.task import Classification, ItemSet, Retrieval
from isthmus.items import Item, Rejected
from isthmus.items.decoding.video import middle_frame

VIDEOS = (".mp4", ".mkv", ".webm")

Media = dict[str, Path]


def read_list(path: Path, what: str) -> list[str]:
    """Names of a list, one a line: what stands before the first comma.

    Raises:
        FormatError: It cannot be read, or holds nothing.
    """
    names = [line.split(",")[0].strip() for line in read_lines(path)]
    names = [name for name in names if name]
    if not names:
        raise FormatError(f"{path}: is empty. Expected {what}, one name a line.")
    return names


def media_of(
    data: Path, folders: Sequence[str], names: Mapping[str, Sequence[str]], suffixes: Sequence[str], *, what: str
) -> Media:
    """Find a file for each clip in several folders.

    Args:
        data: The folder that the user downloaded.
        folders: Folders relative to it, best first; all that exist are looked through.
        names: By clip, the names that its file may have, best first, with or without a suffix.
        suffixes: Suffixes that count, best first.
        what: What is looked for, for the message.

    Returns:
        By clip, its file. Clips without one are left out.

    Raises:
        FormatError: No folder exists, not one file is found, or a name leads out of its folder.
    """
    present = _present(data, folders)
    if not present:
        require(data, *folders, what=what)
    place = Folder(data, present, suffixes)
    media = {clip: path for clip, stems in names.items() if (path := place.find(stems)) is not None}
    if names and not media:
        first = next(iter(names.values()))[0]
        others = f" and {len(present) - 1} more folders" if present[1:] else ""
        raise FormatError(
            f"{data / present[0]}{others}: none of the {len(names):,} {what} is there (looked for {first!r} as "
            f"{listed(suffixes, 6)}). Expected one file a name; `isthmus benchmarks` says where to get them."
        )
    return media


def _present(data: Path, folders: Sequence[str]) -> list[str]:
    """Folders of a data set that are there."""
    return [folder for folder in folders if (data / folder).is_dir()]


@dataclass(frozen=True)
class Places:
    """Where a data set keeps its media, relative to its folder, best first.

    Attributes:
        what: The data set, for messages.
        images: Folders of pictures, a file a clip or a folder a clip.
        sounds: Folders of sounds.
        videos: Folders of videos, for sets of which only these are published.
    """

    what: str
    images: Sequence[str]
    sounds: Sequence[str]
    videos: Sequence[str] = ()


@dataclass(frozen=True)
class Clips:
    """Clips whose picture and sound are both there.

    Attributes:
        names: In the order of the list.
        images: By name, the picture; also of clips that have no sound.
        sounds: By name, the sound; also of clips that have no picture.
        missing: Names of clips that lack one or both.
        notes: How pictures were chosen, where they were.
    """

    names: list[str]
    images: Media
    sounds: Media
    missing: list[str]
    notes: Sequence[str] = ()


def find_clips(data: Path, names: Iterable[str], places: Places, work: Path) -> Clips:
    """Find picture and sound of each clip by its name.

    Pictures are files named like the clip; or folders named like it, of whose frames the middle one is taken; or else
    the middle frames of videos, which also serve as sounds.

    Args:
        data: The folder that the user downloaded.
        names: Names of clips.
        places: Where media are.
        work: Frames of videos go to its folder `frames`.

    Raises:
        FormatError: No folder, no picture, no sound, or not one clip with both.
    """
    unique = list(dict.fromkeys(names))
    stems = {name: [name] for name in unique}
    images, notes = _pictures(data, stems, places, work)
    sounds = media_of(data, (*places.sounds, *places.videos), stems, SOUNDS, what=f"sounds of {places.what}")
    return both(unique, images, sounds, data, places.what, notes)


def _pictures(data: Path, stems: Mapping[str, Sequence[str]], places: Places, work: Path) -> tuple[Media, list[str]]:
    """Pictures of clips, and a note where they were chosen among many."""
    present = _present(data, places.images)
    if not present and _present(data, places.videos):
        videos = media_of(data, places.videos, stems, VIDEOS, what=f"videos of {places.what}")
        return middle_frames(videos, work / "frames"), ["The picture of a clip is the middle frame of its video."]
    framed = {
        name: frame for name in stems if (frame := _middle_of([inside(data / p, name) for p in present])) is not None
    }
    single = {name: names for name, names in stems.items() if name not in framed}
    if not framed:
        return media_of(data, places.images, stems, IMAGES, what=f"pictures of {places.what}"), []
    place = Folder(data, present, IMAGES)
    files = {name: path for name, names in single.items() if (path := place.find(names)) is not None}
    return {**files, **framed}, [
        f"The picture of {len(framed):,} clips is the middle one of the frames in their folder."
    ]


def _middle_of(folders: Sequence[Path]) -> Path | None:
    """The middle frame, in natural order, of the first of several folders that is one."""
    for folder in folders:
        if folder.is_dir():
            frames = sorted((p for p in folder.iterdir() if p.suffix.lower() in IMAGES), key=natural_key)
            return frames[len(frames) // 2] if frames else None
    return None


def middle_frames(videos: Media, folder: Path) -> Media:
    """Write the middle frame of each video once; a video without one is left out.

    Args:
        videos: By clip, its video.
        folder: Where the frames go, `<clip>.jpg`.
    """
    frames: Media = {}
    for name, video in videos.items():
        place = inside(folder, f"{name}.jpg")
        if not place.is_file():
            try:
                frame = middle_frame(video)
            except Rejected:
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(place) as aside:
                frame.save(aside, format="JPEG", quality=95)
        frames[name] = place
    return frames


def both(names: Sequence[str], images: Media, sounds: Media, data: Path, what: str, notes: Sequence[str] = ()) -> Clips:
    """Tell the clips that have picture and sound from the others.

    Raises:
        FormatError: None has both.
    """
    clips = [name for name in names if name in images and name in sounds]
    if not clips:
        raise FormatError(
            f"{data}: not one of the {len(names):,} clips of {what} has both a picture and a sound. Expected files "
            "that are named alike; `isthmus benchmarks` says where they go."
        )
    missing = [name for name in names if name not in images or name not in sounds]
    return Clips(clips, images, sounds, missing, notes)


def only(clips: Clips, names: Iterable[str], data: Path, what: str) -> Clips:
    """The clips of a list, out of more that were looked for.

    Raises:
        FormatError: None of them has both a picture and a sound.
    """
    return both(list(names), clips.images, clips.sounds, data, what, clips.notes)


def side(modality: str, media: Mapping[str, Path]) -> ItemSet:
    """Items of files, their ids the names of the clips."""
    return ItemSet(modality, [Item(name, str(path)) for name, path in media.items()])


def sound_and_picture(clips: Clips) -> Retrieval:
    """Each clip's picture is what its sound looks for."""
    return Retrieval(
        side("audio", {name: clips.sounds[name] for name in clips.names}),
        side("image", {name: clips.images[name] for name in clips.names}),
        [(name, name) for name in clips.names],
    )


def sounds_and_classes(
    sounds: Media, classes: Mapping[str, str], labels: Sequence[tuple[str, str]], *, multilabel: bool = False
) -> Classification:
    """Sounds with the labels of those that are there."""
    audible = [(clip, name) for clip, name in labels if clip in sounds]
    return Classification(side("audio", sounds), classes, audible, multilabel)


def spoken(name: str) -> str:
    """A class name as it goes into a prompt: blanks for underscores."""
    return name.replace("_", " ").strip()
