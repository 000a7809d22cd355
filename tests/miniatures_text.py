"""Miniatures of the data sets of captions and of ImageNet, in their published layouts, made of the demo's numbers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.demo.world import in_words, say
from miniatures_av import NUMBERS, save_picture, save_sound, write

COUNT = 6
SOME = [int(number) for number in NUMBERS[:COUNT]]


def captions(number: int, count: int = 5) -> list[str]:
    """What people might write of a number."""
    rng = np.random.default_rng((1, number))
    return [say(number, rng) for _ in range(count)]


def as_csv(rows: Sequence[Sequence[Any]], end: str = "\n") -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator=end).writerows(rows)
    return stream.getvalue()


# ------------------------------------------------------------------------------------------------------------ AudioCaps

AUDIOCAPS = dict(
    zip(("-_aBcDeFg12", "_aBcDeFg123", "abcdefgh-01", "ABCDEFGH-01", "zZ9_-zZ9_-z", "lost-video0"), SOME, strict=True)
)
"""Ids as YouTube has them: some begin with - or _, and two differ in nothing but case."""


def audiocaps_rows(*, lower: bool = False) -> list[list[Any]]:
    """A row a caption, the rows of a clip apart; a comma and a curly apostrophe are in some."""
    rows = []
    for at in range(5):
        for n, (clip, number) in enumerate(AUDIOCAPS.items()):
            text = captions(number)[at] + (", it\u2019s heard" if at == 4 and n == 0 else "")
            rows.append([1000 + 10 * at + n, clip, 30 + n, text.lower() if lower else text.capitalize()])
    return rows


def make_audiocaps(folder: Path) -> Path:
    """Both versions, and clips named in each of the ways that are around; one video is lost."""
    header = ["audiocap_id", "youtube_id", "start_time", "caption"]
    write(folder / "dataset/test.csv", as_csv([header, *audiocaps_rows()], "\r\n"))
    rows = sorted(audiocaps_rows(lower=True), key=lambda row: row[3])
    write(folder / "dataset2.0/test.csv", as_csv([header, *rows]))
    for n, (clip, number) in enumerate(AUDIOCAPS.items()):
        name = (f"{clip}_{30 + n}", f"Y{clip}", clip, clip, str(1010 + n), "")[n]
        if name:
            save_sound(folder / f"audio/{name}.wav", number)
    return folder


# --------------------------------------------------------------------------------------------------------------- Clotho

CLOTHO = dict(
    zip(
        (
            "Santa Motor.wav",
            "Hang Man&#39;s Rope.wav",
            "two  blanks .wav",
            "a, b [c] #1.v2.wav",
            "Unseathing &amp; Wobble.wav",
            "gone.wav",
        ),
        SOME,
        strict=True,
    )
)


def make_clotho(folder: Path) -> Path:
    """Names letter by letter, but one whose entity the unpacker resolved; one clip is missing."""
    header = ["file_name", *(f"caption_{n}" for n in range(1, 6))]
    rows = [[name, *captions(number)] for name, number in CLOTHO.items()]
    for split in ("evaluation", "development"):
        write(folder / f"clotho_captions_{split}.csv", as_csv([header, *rows]))
        for name, number in CLOTHO.items():
            stored = "Unseathing & Wobble.wav" if "amp" in name else name
            if name != "gone.wav":
                save_sound(folder / split / stored, number)
    return folder


# ----------------------------------------------------------------------------------------------------------------- COCO

COCO = dict(zip((391895, 139, 285, 632, 724, 776), SOME, strict=True))
COCO_SPLITS = dict(zip(COCO, ("test", "test", "test", "val", "train", "restval"), strict=True))


def coco_captions(number: int, key: int) -> list[str]:
    """Five, but six of one picture; one ends in a line break, as some do."""
    texts = captions(number, 6 if key == 391895 else 5)
    return [texts[0] + "\n", *texts[1:]]


def coco_json(keys: Sequence[int], name: str) -> dict[str, Any]:
    images = [{"id": key, "file_name": name.format(key=key)} for key in keys]
    rows = [(key, text) for key in keys for text in coco_captions(COCO[key], key)]
    order = np.random.default_rng(0).permutation(len(rows))  # the file's captions stand in any order
    annotations = [
        {"id": int(n), "image_id": rows[n][0], "caption": rows[n][1]} for n in sorted(order, key=lambda n: n % 5)
    ]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations}


def make_coco(folder: Path) -> Path:
    """All files that circulate beside each other, and pictures of both releases."""
    old, new = "COCO_val2014_{key:012d}.jpg", "{key:012d}.jpg"
    test = [key for key, split in COCO_SPLITS.items() if split == "test"]
    write(folder / "annotations/captions_val2017.json", json.dumps(coco_json(list(COCO), new)))
    write(folder / "coco_test_karpathy.json", json.dumps(coco_json(test, old)))
    images = [
        {
            "filepath": "val2014",
            "filename": old.format(key=key),
            "cocoid": key,
            "imgid": n,
            "split": split,
            "sentences": [{"raw": text, "tokens": ["tokens"]} for text in coco_captions(COCO[key], key)],
        }
        for n, (key, split) in enumerate(COCO_SPLITS.items())
    ]
    write(folder / "dataset_coco.json", json.dumps({"images": images, "dataset": "coco"}))
    blip = [{"image": f"val2014/{old.format(key=key)}", "caption": coco_captions(COCO[key], key)} for key in test]
    write(folder / "coco_karpathy_test.json", json.dumps(blip))
    for n, (key, number) in enumerate(COCO.items()):
        if n != 1:
            save_picture(folder / "val2017" / new.format(key=key), number)
        if n != 2:
            save_picture(folder / "val2014" / old.format(key=key), number)
    return folder


# ------------------------------------------------------------------------------------------------------------ Flickr30k

FLICKR = dict(zip((1000092795, 10002456, 1000268201, 2199200615, 36979, 134206), SOME, strict=True))
FLICKR_SPLITS = dict(zip(FLICKR, ("test", "test", "test", "test", "val", None), strict=True))


def flickr_captions(number: int) -> list[str]:
    """As the published file has them: tokenised, with commas and quotes among them."""
    return [f'{text} , "so to say" .' if n == 1 else f"{text} ." for n, text in enumerate(captions(number))]


def make_flickr30k(folder: Path) -> Path:
    """All files that circulate; the csv has the row that lacks its second bar."""
    tokens, table, listed = [], ["image_name| comment_number| comment"], ["image,caption"]
    for key, number in FLICKR.items():
        for n, text in enumerate(flickr_captions(number)):
            tokens.append(f"{key}.jpg#{n}\t{text}")
            broken = (key, n) == (2199200615, 4)
            table.append(f"{key}.jpg| {n}   {text}" if broken else f"{key}.jpg| {n}| {text}")
            if FLICKR_SPLITS[key] == "test":
                listed.append(f"{key}.jpg,{text}")
        save_picture(folder / f"flickr30k-images/{key}.jpg", number)
    write(folder / "results_20130124.token", "\n".join(tokens) + "\n")
    write(folder / "results.csv", "\n".join(table) + "\n")
    write(folder / "flickr30k_test_karpathy.txt", "\n".join(listed) + "\n")
    write(folder / "test.txt", "\n".join(str(key) for key, split in FLICKR_SPLITS.items() if split == "test") + "\n")
    images = [
        {
            "filename": f"{key}.jpg",
            "imgid": n,
            "split": FLICKR_SPLITS[key],
            "sentences": [{"raw": text, "tokens": ["tokens"]} for text in flickr_captions(number)],
        }
        for n, (key, number) in enumerate(FLICKR.items())
        if FLICKR_SPLITS[key]
    ]
    write(folder / "dataset_flickr30k.json", json.dumps({"images": images, "dataset": "flickr30k"}))
    return folder


# ------------------------------------------------------------------------------------------------------------- ImageNet

WNIDS = {"n01440764": 2, "n02012849": 3, "n03126707": 1}
"""By wnid in their order, the ILSVRC2012_ID of the devkit, which is another number."""

CLASS_NUMBERS = dict(zip(WNIDS, SOME, strict=False))
VAL = {n: list(WNIDS)[(2 * n + n // 3) % 3] for n in range(1, 7)}
"""By number of the picture, its class."""


def val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def save_meta(path: Path) -> None:
    """The devkit's meta.mat, with a synset that has children among the others."""
    from scipy.io import savemat

    fields = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8")]
    rows = [(number, wnid, f"{in_words(CLASS_NUMBERS[wnid])}, also so called", 0) for wnid, number in WNIDS.items()]
    rows = [*sorted(rows), (4, "n00000001", "everything", 3)]
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"synsets": np.array(rows, dtype=fields).reshape(-1, 1)})


def notebook(**lists: Sequence[str]) -> str:
    """A notebook whose cells assign lists, between cells that nobody should run."""
    cells = [{"cell_type": "markdown", "source": ["imagenet_templates = ['not this {}']"]}]
    cells += [{"cell_type": "code", "source": ["! pip install something\n", "%matplotlib inline\n", "import os\n"]}]
    for name, texts in lists.items():
        source = (
            f"{name} = [\n"
            + "".join(f"    {text!r},\n" for text in texts)
            + "]\n\nprint(f'{len("
            + name
            + ")} of them')"
        )
        cells.append({"cell_type": "code", "source": source.splitlines(keepends=True)})
    cells.append({"cell_type": "code", "source": ["this is no Python at all (\n"]})
    return json.dumps({"cells": cells, "nbformat": 4})


def make_imagenet(folder: Path, layout: str = "folders") -> Path:
    """One of the four layouts, with names as the CLIP notebook lists them."""
    for number, wnid in VAL.items():
        place = f"val/{wnid}/{val_name(number)}" if layout == "folders" else f"val/{val_name(number)}"
        save_jpeg(folder / place, CLASS_NUMBERS[wnid])
    names = [in_words(CLASS_NUMBERS[wnid]) for wnid in sorted(WNIDS)]
    write(
        folder / "Prompt_Engineering_for_ImageNet.ipynb",
        notebook(imagenet_classes=names, imagenet_templates=["room {}."]),
    )
    if layout == "devkit":
        data = folder / "ILSVRC2012_devkit_t12/data"
        write(data / "ILSVRC2012_validation_ground_truth.txt", "".join(f"{WNIDS[VAL[n]]}\n" for n in sorted(VAL)))
        save_meta(data / "meta.mat")
    if layout == "caffe":
        order = sorted(WNIDS)
        write(folder / "val.txt", "".join(f"{val_name(n)} {order.index(VAL[n])}\n" for n in sorted(VAL)))
        write(folder / "synset_words.txt", "".join(f"{wnid} a word, another\n" for wnid in order))
    if layout == "kaggle":
        rows = [[val_name(n).removesuffix(".JPEG"), f"{VAL[n]} 1 2 30 40 "] for n in sorted(VAL)]
        write(folder / "LOC_val_solution.csv", as_csv([["ImageId", "PredictionString"], *rows]))
    return folder


def save_jpeg(path: Path, number: int) -> None:
    """A picture under the suffix that ImageNet has."""
    save_picture(path.with_suffix(".jpg"), number)
    path.with_suffix(".jpg").rename(path)


# --------------------------------------------------------------------------------------------------------------- XM3600

XM = dict(zip((f"{n:016x}" for n in range(10, 16)), SOME, strict=True))


def make_xm3600(folder: Path) -> Path:
    """Two languages with one to three captions a picture, and one that no model here reads."""
    lines = []
    for n, (key, number) in enumerate(XM.items()):
        english, other = captions(number, 3)[: 1 + n % 3], captions(number, 2)
        record: dict[str, Any] = {"image/key": key, "image/locale": "en"}
        for language, texts in (("en", english), ("de", other), ("zh", ["\u6570\u5b57"] if n else [])):
            record[language] = {"caption": texts, "caption/tokenized": texts, "caption/tokenized/lowercase": texts}
        lines.append(json.dumps(record, ensure_ascii=False))
        if n != 5:
            save_picture(folder / f"images/{key}.jpg", number)
    write(folder / "captions.jsonl", "\n".join(lines) + "\n")
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {
    "audiocaps": make_audiocaps,
    "clotho": make_clotho,
    "coco": make_coco,
    "flickr30k": make_flickr30k,
    "imagenet": make_imagenet,
    "xm3600": make_xm3600,
}
"""By name of a benchmark, what makes its miniature in a folder."""
