"""Miniatures of the audio-visual data sets, in the layouts that their authors publish, made of the demo's numbers.

A sound dials a number; a picture shows a number, or four of them as quarters, so that a model that reads numbers can
tell where in it a sound comes from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from isthmus.demo.world import RATE, SPLITS, dial, draw_images

NUMBERS = SPLITS["test"].numbers
WRITERS = SPLITS["test"].image_writers
QUARTERS = ((0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.5), (0.0, 0.5, 0.5, 1.0), (0.5, 0.5, 1.0, 1.0))


def draw(number: int, seed: int = 0) -> np.ndarray:
    """A number, (28, 72) bytes."""
    return draw_images(np.array([number]), WRITERS, np.random.default_rng((seed, number)))[0]


def save_picture(path: Path, *numbers: int) -> None:
    """One number, or four as quarters: upper left, upper right, lower left, lower right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = [draw(number) for number in numbers]
    pixels = drawn[0] if len(drawn) == 1 else np.block([drawn[:2], drawn[2:]])
    Image.fromarray(pixels).convert("RGB").save(path, quality=95)


def signal(number: int, seconds: float | None = None) -> np.ndarray:
    """A number dialled, silence behind it up to a length."""
    sound = dial(number, np.random.default_rng(number))
    return sound if seconds is None else np.pad(sound, (0, int(seconds * RATE)))[: int(seconds * RATE)]


def save_sound(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, signal(number), RATE)


def write(path: Path, text: str) -> Path:
    """Text as it stands, line ends too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def save_clips(folder: Path, clips: Mapping[str, int], images: str = "frames", sounds: str = "audio") -> None:
    for name, number in clips.items():
        save_picture(folder / images / f"{name}.jpg", number)
        save_sound(folder / sounds / f"{name}.wav", number)


def save_video(path: Path, number: int, other: int, seconds: int = 2) -> None:
    """A video that shows `other` in its first half and `number` from its middle on, and dials `number`."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        picture = out.add_stream("mpeg4", rate=5)
        picture.width, picture.height, picture.pix_fmt = 72, 28, "yuv420p"
        track = out.add_stream("aac", rate=RATE, layout="mono")
        for i in range(5 * seconds):
            shown = number if 2 * i >= 5 * seconds else other
            pixels = np.repeat(draw(shown)[:, :, None], 3, axis=2)
            out.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(picture.encode())
        samples = (signal(number, seconds) * 0.9).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = RATE
        out.mux(track.encode(frame))
        out.mux(track.encode())


# ------------------------------------------------------------------------------------------------------------------ AVE

AVE = {
    "-Fx0aHE0wa0": ("Rodents, rats, mice", NUMBERS[0]),
    "_Fx0aHE0wa1": ("Frying (food)", NUMBERS[1]),
    "RUhOCu3LNXM": ("Church bell", NUMBERS[2]),
    "VWi2ENBuTbw": ("Banjo", NUMBERS[3]),
}
AVE_ROWS = [f"{category}&{video}&good&0&10" for video, (category, _) in AVE.items()] + ["Mandolin&VWi2ENBuTbw&good&0&0"]
AVE_HEAD = "Category&VideoID&Quality&StartTime&EndTime"


def make_ave(folder: Path, *, header: bool = False, videos: bool = False) -> Path:
    """Five rows of four videos; one is held in trainSet.txt, the rest in testSet.txt."""
    head = [AVE_HEAD] if header else []
    write(folder / "Annotations.txt", "\n".join([*head, *AVE_ROWS]) + "\n")
    write(folder / "trainSet.txt", "\n".join([*head, AVE_ROWS[0]]))
    write(folder / "testSet.txt", "\r\n".join([*head, *AVE_ROWS[1:]]))
    for place, (video, (_, number)) in enumerate(AVE.items()):
        if videos:
            save_video(folder / "AVE" / f"{video}.mp4", number, NUMBERS[20 + place])
        else:
            save_clips(folder, {video: number})
    return folder


def make_ave_order(folder: Path) -> None:
    import h5py

    for name, rows in {"train": [3, 0], "val": [1], "test": [4, 2]}.items():
        (folder / "data").mkdir(exist_ok=True)
        with h5py.File(folder / "data" / f"{name}_order.h5", "w") as out:
            out["order"] = np.array(rows, dtype=np.int64)


# --------------------------------------------------------------------------------------------------------------- Flickr

FLICKR_TEST = ("10000130166", "10437048305", "3908875350")
FLICKR_TRAIN = ("2219075612", "4048303482")
FLICKR_CLIPS = dict(zip((*FLICKR_TEST, *FLICKR_TRAIN), NUMBERS[4:9], strict=True))


def flickr_xml(annotators: Sequence[Sequence[tuple[int, int, int, int]]]) -> str:
    """Boxes of each annotator in pixels of 256 x 256; a box opens with an entry that readers pass over."""

    def box(corners: tuple[int, ...]) -> str:
        names = ("class", "xmin", "ymin", "xmax", "ymax")
        return "<bbox>" + "".join(f"<{n}>{v}</{n}>" for n, v in zip(names, (1, *corners), strict=True)) + "</bbox>"

    people = "".join(f"<object><name>x</name>{''.join(map(box, boxes))}</object>" for boxes in annotators)
    return f"<annotation>{people}</annotation>"


def scene_of(clips: Mapping[str, int], name: str) -> tuple[tuple[int, int, int, int], int]:
    """Four numbers of a picture, the clip's own at a place that its position gives, and that place."""
    place = list(clips).index(name) % 4
    numbers = [NUMBERS[40 + 4 * list(clips).index(name) + i] for i in range(4)]
    numbers[place] = clips[name]
    return (numbers[0], numbers[1], numbers[2], numbers[3]), place


def pixels_of(box: Sequence[float], side: int = 256) -> tuple[int, int, int, int]:
    a, b, c, d = (int(value * side) for value in box)
    return a, b, c, d


def make_flickr(folder: Path) -> Path:
    """Three pictures of the test, two of the training; three annotators, the third of whom boxes a whole half."""
    for name in FLICKR_CLIPS:
        test = "test/" if name in FLICKR_TEST else ""
        numbers, place = scene_of(FLICKR_CLIPS, name)
        save_picture(folder / f"{test}frames/{name}.jpg", *numbers)
        save_sound(folder / f"{test}audio/{name}.wav", FLICKR_CLIPS[name])
        own = pixels_of(QUARTERS[place])
        write(folder / f"Annotations/{name}.xml", flickr_xml([[own], [own], [(own[0], 0, own[2], 256)]]))
    write(folder / "metadata/flickr_test.csv", "".join(f"{name},{202 * i}\r\n" for i, name in enumerate(FLICKR_TEST)))
    write(folder / "metadata/flickr_sup_train.txt", "\n".join(FLICKR_TRAIN))
    a, b, c = FLICKR_TEST
    silent = f"video,audio,label\r\n{a},{b},non-sounding\r\n{b},{c},non-sounding\r\n{c},{a},non-sounding\r\n"
    write(folder / "metadata/flickr_test_plus_silent.csv", silent)
    return folder


# ---------------------------------------------------------------------------------------------------------------- VGGSS

VGGSS_CLIPS = {
    "-wpuWikVorY_000032": NUMBERS[9],
    "_LQrEijrKgA_000300": NUMBERS[10],
    "M1P1xla8rg0_000000": NUMBERS[11],
    "zpWuikVorYg_000032": NUMBERS[12],
}
VGGSS_EXTRA = "MKC9LvRivTM_000030"
"""A clip of the non-sounding pairs alone."""
SENTINEL = -2.88e16


def make_vggss(folder: Path) -> Path:
    """Four clips, of which the third has no box but the sentinel; four non-sounding pairs, one with its own media."""
    rows = []
    for name in VGGSS_CLIPS:
        numbers, place = scene_of(VGGSS_CLIPS, name)
        save_picture(folder / f"frames/{name}.jpg", *numbers)
        save_sound(folder / f"audio/{name}.wav", VGGSS_CLIPS[name])
        box = [0.1, 0.2, SENTINEL, SENTINEL] if name.startswith("M1P1") else list(QUARTERS[place])
        rows.append({"file": name, "class": "female speech, woman speaking", "bbox": [box]})
    rows[0]["bbox"].append([0, 0, 0.25, 0.25])
    write(folder / "metadata/vggss.json", json.dumps(rows))
    save_picture(folder / f"frames/{VGGSS_EXTRA}.jpg", *NUMBERS[60:64])
    save_sound(folder / f"audio/{VGGSS_EXTRA}.wav", NUMBERS[64])
    a, b, c, d = VGGSS_CLIPS
    write(folder / "metadata/vggss_heard_test.csv", f"{a}\r\n{b}\r\n")
    write(folder / "metadata/vggss_unheard_test.csv", f"{c}\r\n")
    pairs = [(VGGSS_EXTRA, VGGSS_EXTRA), (d, a), (b, c), ("gone_000000", a)]
    silent = "video,audio,label\n" + "".join(f"{v},{s},non-sounding\n" for v, s in pairs)
    write(folder / "metadata/vggss_test_plus_silent.csv", silent)
    return folder


# ---------------------------------------------------------------------------------------------------------------- MUSIC

MUSIC_CLIPS = {"-jWAuF6dQYY_0_1000": (NUMBERS[13], NUMBERS[14]), "4XzH4YsV2nU_0_1000": (NUMBERS[15], NUMBERS[16])}


def music_key(clip: str, second: int, frame: int) -> str:
    return f"{clip}/frame_{second:03d}/{4 * second + frame:05d}.jpg"


def make_music(folder: Path, *, seconds: bool = True) -> Path:
    """Two clips of two seconds, four frames each; the last second of the second clip has no box in its middle frame.

    Args:
        folder: Where it goes.
        seconds: Sounds as seconds, else as a track a clip, 1.5 s a number, which is cut into three seconds.
    """
    truth = {}
    for row, (clip, numbers) in enumerate(MUSIC_CLIPS.items()):
        for second, number in enumerate(numbers):
            shown = [NUMBERS[70 + 8 * row + 4 * second + i] for i in range(4)]
            place = (row + second) % 4
            shown[place] = number
            x, y, right, low = QUARTERS[place]
            norm = [x, y, right - x, low - y]
            box = {"box": [norm[0] * 144, norm[1] * 56, norm[2] * 144, norm[3] * 56], "normbox": norm, "category_id": 1}
            for frame in range(4):
                save_picture(folder / "video_frames" / music_key(clip, second, frame), *shown)
                bare = frame == 2 and (row, second) == (1, 1)
                entry = {"bbox": [] if bare else [box], "wdith": 144, "height": 56}
                truth[music_key(clip, second, frame)] = entry
            if seconds:
                save_sound(folder / f"audio_frames/{clip}/{second:03d}.wav", number)
        if not seconds:
            (folder / "audio").mkdir(exist_ok=True)
            track = np.concatenate([signal(number, 1.0) for number in numbers])
            soundfile.write(folder / f"audio/{clip}.flac", track, RATE)
    write(folder / "solotest.json", json.dumps(truth))
    return folder


# --------------------------------------------------------------------------------------------------------------- sounds

ESC_CLASSES = ((0, "dog", True), (9, "crow", False), (10, "sea_waves", True))


def make_esc50(folder: Path) -> Path:
    """Six clips of three classes in two folds; classes as published do not stand in order."""
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in (1, 2):
        for place, (target, name, ten) in enumerate(reversed(ESC_CLASSES)):
            file = f"{fold}-10003{place}-A-{target}.wav"
            save_sound(folder / "audio" / file, NUMBERS[17 + place])
            lines.append(f"{file},{fold},{target},{name},{ten},10003{place},A")
    write(folder / "meta/esc50.csv", "\n".join(lines) + "\n")
    return folder


def make_urbansound(folder: Path) -> Path:
    """Four clips of three classes in folds 1 and 10."""
    lines = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for row, (fold, number, name) in enumerate(
        [(5, 3, "dog_bark"), (10, 0, "air_conditioner"), (5, 9, "street_music"), (1, 3, "dog_bark")]
    ):
        file = f"10003{row}-{number}-0-0.wav"
        save_sound(folder / f"audio/fold{fold}" / file, NUMBERS[17 + row])
        lines.append(f"{file},10003{row},0.0,0.317551,1,{fold},{number},{name}")
    write(folder / "metadata/UrbanSound8K.csv", "\n".join(lines) + "\n")
    return folder


AUDIOSET_CLASSES = {
    "/m/09x0r": "Speech",
    "/m/068hy": "Domestic animals, pets",
    "/m/0jbk": "Animal",
    "/t/dd00004": "Bark",
}
AUDIOSET = {
    "--4gqARaEJE": (["/m/068hy", "/m/0jbk"], "Y{}.wav"),
    "_BfyiQaIaaA": (["/m/09x0r"], "{}.wav"),
    "-0RWZT-miFs": (["/m/09x0r", "/t/dd00004"], "{}_30.flac"),
    "gone0000000": (["/t/dd00004"], None),
}


def make_audioset(folder: Path) -> Path:
    """Four segments, one of which has no sound; class names with commas."""
    head = "# Segments csv created Sun Mar  5 10:54:25 2017\n# num_ytids=4, num_segs=4, num_unique_labels=4\n"
    lines = []
    for row, (name, (labels, file)) in enumerate(AUDIOSET.items()):
        lines.append(f'{name}, 30.000, 40.000, "{",".join(labels)}"\n')
        if file:
            save_sound(folder / "audio/eval" / file.format(name), NUMBERS[21 + row])
    write(folder / "eval_segments.csv", head + "# YTID, start_seconds, end_seconds, positive_labels\n" + "".join(lines))
    rows = [f'{i},{mid},"{name}"\n' for i, (mid, name) in enumerate(AUDIOSET_CLASSES.items())]
    write(folder / "class_labels_indices.csv", "index,mid,display_name\n" + "".join(rows))
    return folder
