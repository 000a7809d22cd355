"""Readers of captions and of ImageNet, on miniatures in their published layouts; each trap has a test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from isthmus.demo.world import in_words
from isthmus.encoders import embed_items, load_encoder
from isthmus.errors import ConfigError, FormatError
from isthmus.evaluation.benchmarks.declaration import load_benchmark
from isthmus.evaluation.benchmarks.task import Classification, Reading, Retrieval
from isthmus.evaluation.evaluate import evaluate_retrieval, evaluate_zero_shot
from isthmus.items import Item
from miniatures_av import write
from miniatures_text import (
    AUDIOCAPS,
    CLASS_NUMBERS,
    CLOTHO,
    COCO,
    COCO_SPLITS,
    FLICKR,
    MAKERS,
    VAL,
    WNIDS,
    XM,
    captions,
    coco_captions,
    flickr_captions,
    make_flickr30k,
    make_imagenet,
    notebook,
    val_name,
)

LAYOUTS = ("folders", "devkit", "caffe", "kaggle")


def read(name: str, folder: Path, **options: object) -> Reading:
    return load_benchmark(name).read(folder, folder / "work", options)


def retrieval(reading: Reading) -> Retrieval:
    assert isinstance(reading.task, Retrieval)
    return reading.task


def classification(reading: Reading) -> Classification:
    assert isinstance(reading.task, Classification)
    return reading.task


def texts(reading: Reading) -> dict[str, list[str]]:
    """Captions by what they belong to."""
    task = retrieval(reading)
    by_id = {item.id: item.text or "" for item in task.query.items}
    found: dict[str, list[str]] = {}
    for query, gallery in task.pairs:
        found.setdefault(gallery, []).append(by_id[query])
    return found


def words(reading: Reading) -> str:
    return "\n".join(reading.notes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


# ------------------------------------------------------------------------------------------------------------------ all


@pytest.mark.parametrize("name", MAKERS)
def test_ids_are_unique_and_files_exist(made, name):
    task = read(name, made[name]).task
    sides = (task.query, task.gallery) if isinstance(task, Retrieval) else (task.query,)
    for side in sides:
        assert len(set(side.ids)) == len(side.ids) > 0
        for item in side.items:
            assert item.text or Path(item.path or "").is_file()
    rows = task.pairs if isinstance(task, Retrieval) else task.labels
    assert {first for first, _ in rows} == set(task.query.ids)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("audiocaps", r"dataset/test\.csv or test\.csv"),
        ("clotho", r"clotho_captions_evaluation\.csv"),
        ("coco", r"annotations/captions_val2017\.json"),
        ("flickr30k", r"dataset_flickr30k\.json or .*flickr30k_test_karpathy\.txt or .*results_20130124\.token"),
        ("imagenet", r"val or ILSVRC/Data/CLS-LOC/val"),
        ("xm3600", r"captions\.jsonl"),
    ],
)
def test_an_empty_folder_is_told_which_file_is_expected(tmp_path, name, expected):
    if name == "imagenet":  # the folder itself may hold the pictures, so a missing truth is what is said
        expected = r"ILSVRC2012_validation_ground_truth\.txt .*LOC_val_solution\.csv .*val\.txt.*not found"
    with pytest.raises(FormatError, match=rf"{tmp_path}.*{expected}.*isthmus benchmarks"):
        read(name, tmp_path)


@pytest.mark.parametrize("name", ["audiocaps", "clotho", "coco", "flickr30k", "xm3600"])
def test_captions_without_media_are_told_where_media_are_expected(tmp_path, made, name):
    for path in made[name].rglob("*"):
        if path.is_file() and path.suffix not in (".jpg", ".wav"):
            write(tmp_path / path.relative_to(made[name]), path.read_text())
    with pytest.raises(FormatError, match=r"none of the \d+ (clips|pictures) of .* is there .*Expected"):
        read(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "toy"), [("audiocaps", "sound"), ("clotho", "sound"), ("coco", "picture"), ("flickr30k", "picture")]
)
def test_what_is_read_is_encoded_and_scored(made, name, toy):
    """Numbers that are shown or dialled are found by what is written of them, so each id stands by its own content."""
    task, encoder = retrieval(read(name, made[name])), load_encoder(f"toy:{toy}")
    sides = [
        (side.ids, embed_items(encoder, side.items, modality=side.modality)) for side in (task.query, task.gallery)
    ]
    figures = evaluate_retrieval(*sides, list(task.pairs), bootstrap=0).to_dict()
    assert figures["mean"]["r@1"] > 0.6, figures


# ------------------------------------------------------------------------------------------------------------ AudioCaps


def test_audiocaps_groups_captions_by_clip_whatever_their_order(made):
    for version in ("1.0", "2.0"):
        reading = read("audiocaps", made["audiocaps"], version=version)
        found = texts(reading)
        assert set(found) == set(AUDIOCAPS) - {"lost-video0"}
        assert reading.missing == ["lost-video0"]
        for clip, number in AUDIOCAPS.items():
            own = {text.lower().removesuffix(", it\u2019s heard") for text in found.get(clip, [])}
            assert own <= {text.lower() for text in captions(number)}
        assert all(len(own) == 5 for own in found.values())
        assert "compare the number of clips" in words(reading)


def test_audiocaps_keeps_commas_apostrophes_and_no_carriage_returns(made):
    own = [text for each in texts(read("audiocaps", made["audiocaps"])).values() for text in each]
    assert any(text.endswith(", it\u2019s heard") for text in own)
    assert not any("\r" in text for text in own)


def test_audiocaps_finds_clips_under_every_name_and_tells_case_apart(made):
    items = {
        item.id: Path(item.path or "").name for item in retrieval(read("audiocaps", made["audiocaps"])).gallery.items
    }
    assert items == {
        "-_aBcDeFg12": "-_aBcDeFg12_30.wav",
        "_aBcDeFg123": "Y_aBcDeFg123.wav",
        "abcdefgh-01": "abcdefgh-01.wav",
        "ABCDEFGH-01": "ABCDEFGH-01.wav",
        "zZ9_-zZ9_-z": "1014.wav",
    }


def test_audiocaps_refuses_ids_that_a_spreadsheet_overwrote(tmp_path):
    write(tmp_path / "test.csv", "audiocap_id,youtube_id,start_time,caption\n1,#NAME?,30,A dog\n")
    with pytest.raises(FormatError, match=r"test\.csv: row 1 has the youtube_id '#NAME\?'; a spreadsheet"):
        read("audiocaps", tmp_path)


def test_audiocaps_as_retrieval_code_lists_it(tmp_path, made):
    rows = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n" + 'Y_aBcDeFg123.wav,"a, b",c,d,e,\n'
    write(tmp_path / "test.csv", rows)
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio/Y_aBcDeFg123.wav").write_bytes((made["audiocaps"] / "audio/Y_aBcDeFg123.wav").read_bytes())
    assert texts(read("audiocaps", tmp_path)) == {"Y_aBcDeFg123.wav": ["a, b", "c", "d", "e"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,youtube_id,start_time,caption\n", r"has no column 'audiocap_id'\. Expected .*, got id, youtube_id"),
        ("audiocap_id,youtube_id,start_time,caption\n1,abc,30\n", r"line 2 has 3 values, expected 4"),
        ("audiocap_id,youtube_id,start_time,caption\n", r"no clips of AudioCaps are listed"),
    ],
)
def test_another_table_is_named_with_its_fault(tmp_path, content, message):
    write(tmp_path / "dataset/test.csv", content)
    with pytest.raises(FormatError, match=message):
        read("audiocaps", tmp_path)


def test_a_table_that_is_not_utf8(tmp_path):
    (tmp_path / "test.csv").write_bytes(b"audiocap_id,youtube_id,start_time,caption\n1,a,3,caf\xe9\n")
    with pytest.raises(FormatError, match=r"test\.csv: cannot be read as text"):
        read("audiocaps", tmp_path)


def test_unknown_options_are_refused(made):
    with pytest.raises(ConfigError, match=r"option 'version' got '3\.0'\. Expected one of 1\.0, 2\.0"):
        read("audiocaps", made["audiocaps"], version="3.0")
    with pytest.raises(ConfigError, match=r"unknown key 'spilt'.*Did you mean split"):
        read("audiocaps", made["audiocaps"], spilt="val")


# --------------------------------------------------------------------------------------------------------------- Clotho


def test_clotho_takes_names_letter_by_letter(made):
    reading = read("clotho", made["clotho"])
    items = {item.id: Path(item.path or "").name for item in retrieval(reading).gallery.items}
    expected = {f"evaluation/{name}": name for name in CLOTHO if name != "gone.wav"}
    expected["evaluation/Unseathing &amp; Wobble.wav"] = "Unseathing & Wobble.wav"  # resolved by its unpacker
    assert items == expected
    assert reading.missing == ["evaluation/gone.wav"]


def test_clotho_ids_carry_the_split_as_names_stand_in_two(made):
    ids = [
        set(retrieval(read("clotho", made["clotho"], split=split)).gallery.ids)
        for split in ("evaluation", "development")
    ]
    assert not ids[0] & ids[1]
    assert {name.partition("/")[2] for name in ids[0]} == {name.partition("/")[2] for name in ids[1]}


def test_clotho_has_five_captions_a_clip_and_none_is_split(made):
    found = texts(read("clotho", made["clotho"]))
    assert all(len(own) == 5 for own in found.values())
    assert found["evaluation/Santa Motor.wav"] == captions(CLOTHO["Santa Motor.wav"])


# ----------------------------------------------------------------------------------------------------------------- COCO


@pytest.mark.parametrize("source", ["val2017", "karpathy", "blip", "clip_benchmark"])
def test_coco_sources_give_the_same_captions_of_a_picture(made, source):
    reading = read("coco", made["coco"], source=source)
    keys = [key for key in COCO if source == "val2017" or COCO_SPLITS[key] == "test"]
    found = texts(reading)
    assert set(found) == {str(key) for key in keys}
    for key in keys:
        assert sorted(found[str(key)]) == sorted(text.strip() for text in coco_captions(COCO[key], key))
    assert f"{len(keys)} pictures of COCO with {sum(map(len, found.values()))} captions" in words(reading)


def test_coco_finds_a_picture_of_either_release_by_its_number(made):
    items = {item.id: item.path or "" for item in retrieval(read("coco", made["coco"])).gallery.items}
    assert items["391895"].endswith("val2017/000000391895.jpg")
    assert items["139"].endswith("val2014/COCO_val2014_000000000139.jpg")
    karpathy = {
        item.id: item.path or "" for item in retrieval(read("coco", made["coco"], source="karpathy")).gallery.items
    }
    assert karpathy["391895"].endswith("val2014/COCO_val2014_000000391895.jpg")
    assert karpathy["285"].endswith("val2017/000000000285.jpg")


def test_coco_keeps_all_captions_or_five(made):
    assert len(texts(read("coco", made["coco"]))["391895"]) == 6
    reading = read("coco", made["coco"], captions="five")
    assert {len(own) for own in texts(reading).values()} == {5}
    assert "five captions a picture" in words(reading)


def test_coco_restval_is_train(made):
    found = texts(read("coco", made["coco"], source="karpathy", split="train"))
    assert set(found) == {str(key) for key, split in COCO_SPLITS.items() if split in ("train", "restval")}


@pytest.mark.parametrize(
    ("name", "source", "content", "message"),
    [
        ("annotations/captions_val2017.json", "val2017", "[]", "holds a list, expected the dict of COCO captions"),
        ("annotations/captions_val2017.json", "val2017", '{"images": []}', "has 'annotations' = 'None', expected list"),
        (
            "annotations/captions_val2017.json",
            "val2017",
            '{"images": [{"id": "1"}], "annotations": []}',
            "'id' = '1', expected int",
        ),
        ("annotations/captions_val2017.json", "val2017", "{", "cannot be read as COCO captions"),
        ("dataset_coco.json", "karpathy", '{"images": [{"filename": "x.jpg"}]}', "record 0 has 'split'"),
        ("coco_karpathy_test.json", "blip", '[{"image": "dog.jpg", "caption": ["a"]}]', "'dog.jpg' has no COCO number"),
    ],
)
def test_coco_names_the_fault_of_another_file(tmp_path, name, source, content, message):
    write(tmp_path / name, content)
    with pytest.raises(FormatError, match=rf"{Path(name).name}.*{message}"):
        read("coco", tmp_path, source=source)


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path):
    record = {"image": "../../000000000139.jpg", "caption": ["a"]}
    write(tmp_path / "coco_karpathy_test.json", json.dumps([record]))
    with pytest.raises(FormatError, match="leads out of the folder"):
        read("coco", tmp_path, source="blip")


# ------------------------------------------------------------------------------------------------------------ Flickr30k


@pytest.mark.parametrize("source", ["auto", "karpathy", "clip_benchmark", "token", "csv"])
def test_flickr30k_sources_give_the_same_test_pictures_and_captions(made, source):
    reading = read("flickr30k", made["flickr30k"], source=source)
    expected = {str(key): flickr_captions(number) for key, number in FLICKR.items() if key not in (36979, 134206)}
    assert texts(reading) == expected
    assert ("lacks its second bar: repaired" in words(reading)) == (source == "csv")


def test_flickr30k_all_pictures_and_other_splits(made):
    assert set(texts(read("flickr30k", made["flickr30k"], source="token", split="all"))) == set(map(str, FLICKR))
    assert set(texts(read("flickr30k", made["flickr30k"], split="val"))) == {"36979"}


def test_flickr30k_without_a_list_of_the_split(tmp_path, made):
    write(tmp_path / "results_20130124.token", (made["flickr30k"] / "results_20130124.token").read_text())
    with pytest.raises(
        FormatError, match=r"test\.txt or .*dataset_flickr30k\.json.*not found\. Expected the pictures of test"
    ):
        read("flickr30k", tmp_path)


def test_flickr30k_karpathy_under_its_other_name(tmp_path, made):
    write(tmp_path / "dataset_flickr32k.json", (made["flickr30k"] / "dataset_flickr30k.json").read_text())
    with pytest.raises(FormatError, match="none of the 4 pictures of Flickr30k"):
        read("flickr30k", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "results_20130124.token",
            "1.jpg#0 no tab\n",
            r"line 1 is '1\.jpg#0 no tab', expected NAME\.jpg#NUMBER, a tab",
        ),
        ("results.csv", "image,comment\n", r"begins with \['image,comment'\], expected image_name\| comment_number"),
        ("results.csv", "image_name| comment_number| comment\n1.jpg| a dog\n", r"row 1 is '1\.jpg\| a dog', expected"),
        (
            "flickr30k_test_karpathy.txt",
            "image,caption\n1.png,a dog\n",
            r"line 2 is '1\.png,a dog', expected NAME\.jpg,CAPTION",
        ),
    ],
)
def test_flickr30k_names_the_line_of_another_file(tmp_path, name, content, message):
    write(tmp_path / name, content)
    with pytest.raises(FormatError, match=message):
        read("flickr30k", tmp_path, split="test")


def test_flickr30k_two_lists_of_the_split_are_compared(tmp_path):
    make_flickr30k(tmp_path)
    assert "are not those of" not in words(read("flickr30k", tmp_path, source="token"))
    write(tmp_path / "test.txt", "1000092795\n36979\n")
    reading = read("flickr30k", tmp_path, source="token")
    assert set(texts(reading)) == {"1000092795", "36979"}
    assert "the test pictures of test.txt are not those of dataset_flickr30k.json: test.txt is taken" in words(reading)


def test_flickr30k_split_of_unknown_pictures(tmp_path, made):
    write(tmp_path / "results_20130124.token", (made["flickr30k"] / "results_20130124.token").read_text())
    write(tmp_path / "test.txt", "777\n")
    with pytest.raises(FormatError, match=r"'777\.jpg' is none of the 6 pictures"):
        read("flickr30k", tmp_path)


# ------------------------------------------------------------------------------------------------------------- ImageNet


@pytest.mark.parametrize("layout", LAYOUTS)
def test_imagenet_layouts_give_the_same_classes(tmp_path, layout):
    """The devkit's numbers are not positions of wnids: taken so, every label here would be wrong."""
    reading = read("imagenet", make_imagenet(tmp_path, layout))
    task = classification(reading)
    assert {Path(name).name: wnid for name, wnid in task.labels} == {val_name(n): wnid for n, wnid in VAL.items()}
    assert dict(task.classes) == {wnid: in_words(CLASS_NUMBERS[wnid]) for wnid in sorted(WNIDS)}
    assert f"layout {layout}, 3 classes with names of Prompt_Engineering_for_ImageNet.ipynb" in words(reading)
    positions = dict(enumerate(sorted(WNIDS), 1))
    assert all(positions[WNIDS[wnid]] != wnid for wnid in WNIDS)


@pytest.mark.parametrize("layout", ["devkit", "caffe", "kaggle"])
def test_imagenet_a_missing_picture_shifts_no_label(tmp_path, layout):
    make_imagenet(tmp_path, layout)
    (tmp_path / "val" / val_name(3)).unlink()
    reading = read("imagenet", tmp_path)
    assert reading.missing == [val_name(3)]
    assert dict(classification(reading).labels) == {val_name(n): wnid for n, wnid in VAL.items() if n != 3}


@pytest.mark.parametrize("layout", ["folders", "devkit"])
def test_imagenet_passes_hidden_copies_by(tmp_path, layout):
    make_imagenet(tmp_path, layout)
    for path in list((tmp_path / "val").rglob("*.JPEG")):
        path.with_name(f"._{path.name}").write_bytes(b"not a picture")
    labels = classification(read("imagenet", tmp_path)).labels
    assert sorted(Path(name).name for name, _ in labels) == sorted(map(val_name, VAL))


def test_imagenet_is_encoded_and_scored(made):
    task, encoder = classification(read("imagenet", made["imagenet"])), load_encoder("toy:picture")
    prompts = [Item(wnid, text=name) for wnid, name in task.classes.items()]
    classes = ([item.id for item in prompts], embed_items(encoder, prompts, modality="text"))
    query = (task.query.ids, embed_items(encoder, task.query.items, modality="image"))
    assert evaluate_zero_shot(query, classes, list(task.labels), bootstrap=0, ks=(1,)).to_dict()["accuracy@1"] > 0.6


def test_imagenet_names_of_other_files(tmp_path):
    make_imagenet(tmp_path, "devkit")
    (tmp_path / "Prompt_Engineering_for_ImageNet.ipynb").unlink()
    task = classification(read("imagenet", tmp_path))
    assert dict(task.classes) == {
        wnid: in_words(CLASS_NUMBERS[wnid]) for wnid in WNIDS
    }  # the first of meta.mat's words
    write(tmp_path / "en_classnames.json", json.dumps({"imagenet1k": ["one", "two", "two"], "cifar10": ["x"]}))
    reading = read("imagenet", tmp_path)
    assert list(classification(reading).classes.values()) == ["one", "two", "two"]
    assert "1 names stand for two classes; classes are told apart by their wnid" in words(reading)
    write(tmp_path / "LOC_synset_mapping.txt", "".join(f"{wnid} name of {wnid}, other\n" for wnid in WNIDS))
    named = classification(read("imagenet", tmp_path, names="LOC_synset_mapping.txt"))
    assert dict(named.classes) == {wnid: f"name of {wnid}" for wnid in sorted(WNIDS)}


def test_imagenet_names_of_all_classes_for_folders_of_some(tmp_path):
    make_imagenet(tmp_path)
    gone = sorted(WNIDS)[0]
    for path in (tmp_path / "val" / gone).iterdir():
        path.unlink()
    (tmp_path / "val" / gone).rmdir()
    with pytest.raises(ConfigError, match=r"has 3 names for 2 classes.*order of the wnids.*LOC_synset_mapping\.txt"):
        read("imagenet", tmp_path)
    write(tmp_path / "synsets.txt", "".join(f"{wnid}\n" for wnid in WNIDS))
    classes = classification(read("imagenet", tmp_path)).classes
    assert dict(classes) == {wnid: in_words(CLASS_NUMBERS[wnid]) for wnid in sorted(WNIDS)[1:]}


@pytest.mark.parametrize(
    ("layout", "name", "content", "message"),
    [
        (
            "devkit",
            "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
            "9\n" * 6,
            "line 1 is '9', expected an ILSVRC2012_ID",
        ),
        (
            "devkit",
            "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
            "1\n",
            "with a number from 1 to 1",
        ),
        ("devkit", "ILSVRC2012_devkit_t12/data/meta.mat", "no mat", "is no meta.mat of ImageNet's devkit"),
        ("caffe", "val.txt", "x.JPEG 3\n", r"line 1 is 'x\.JPEG 3', expected NAME INDEX with an index below 3"),
        ("caffe", "synset_words.txt", "tench\n", "line 1 begins with 'tench', expected a wnid"),
        (
            "kaggle",
            "LOC_val_solution.csv",
            "ImageId,PredictionString\na,tench 1 2\n",
            "row 1 has 'tench 1 2', expected a wnid",
        ),
        ("folders", "Prompt_Engineering_for_ImageNet.ipynb", "{}", "is no notebook"),
        (
            "folders",
            "Prompt_Engineering_for_ImageNet.ipynb",
            notebook(other=["x"]),
            "has no list of names 'imagenet_classes'",
        ),
    ],
)
def test_imagenet_names_the_fault_of_another_file(tmp_path, layout, name, content, message):
    write(make_imagenet(tmp_path, layout) / name, content)
    with pytest.raises(FormatError, match=message):
        read("imagenet", tmp_path, layout=layout)


def test_imagenet_flat_pictures_without_a_truth(tmp_path):
    make_imagenet(tmp_path, "kaggle")
    (tmp_path / "LOC_val_solution.csv").unlink()
    with pytest.raises(
        FormatError,
        match=r"ILSVRC2012_validation_ground_truth\.txt .* not found\. Expected folders named by wnid in val",
    ):
        read("imagenet", tmp_path)


# --------------------------------------------------------------------------------------------------------------- XM3600


def test_xm3600_is_scored_by_language(made):
    reading = read("xm3600", made["xm3600"])
    task = retrieval(reading)
    assert sorted(task.groups) == ["de", "en", "zh"]
    assert sorted(name for group in task.groups.values() for name in group) == sorted(task.query.ids)
    by_language = {language: len(ids) for language, ids in task.groups.items()}
    assert by_language == {"de": 10, "en": 9, "zh": 4}
    assert set(task.gallery.ids) == set(XM) - {list(XM)[5]}
    assert reading.missing == [list(XM)[5]]
    for query, key in task.pairs:
        assert query.startswith(f"{key}/")
    assert "all captions: 23 in 3 languages; figures are means over languages" in words(reading)


def test_xm3600_languages_and_first_captions(made):
    reading = read("xm3600", made["xm3600"], languages="en, de", captions="first")
    assert {language: len(ids) for language, ids in retrieval(reading).groups.items()} == {"en": 5, "de": 5}
    assert "the first caption of a picture" in words(reading)
    with pytest.raises(ConfigError, match=r"'languages' got 'xx'\. Expected all, or some of de, en, zh"):
        read("xm3600", made["xm3600"], languages="en,xx")


def in_files_by_language(folder: Path, form: str, names: str) -> None:
    """The captions of the miniature once more, one file a language."""
    lines = (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    (folder / "captions.jsonl").unlink()
    languages = sorted({name for record in records for name, value in record.items() if isinstance(value, dict)})
    for language in languages:
        own = [(record["image/key"], record[language]["caption"]) for record in records if language in record]
        rows = [(key, text) for key, texts in own for text in texts]
        value: object = {
            "dict": dict(own),
            "records": [{"image": f"{key}.jpg", "caption": text} for key, text in rows],
            "paths": {"image_paths": [f"images/{key}.jpg" for key, _ in rows], "annotations": [t for _, t in rows]},
            "coco": {
                "images": [{"id": n, "file_name": f"{key}.jpg"} for n, (key, _) in enumerate(own)],
                "annotations": [
                    {"image_id": n, "id": 0, "caption": text} for n, (_, texts) in enumerate(own) for text in texts
                ],
            },
        }[form]
        path = folder / names.format(language)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize("name", ["xm3600", "coco"])
@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("dict", "captions_{}.json"),
        ("records", "captions/captions_{}.json"),
        ("paths", "crossmodal3600_captions-{}.json"),
        ("coco", "annotations/captions_{}.json"),
    ],
)
def test_captions_in_one_file_a_language(tmp_path: Path, name: str, form: str, names: str):
    whole = retrieval(read("xm3600", MAKERS["xm3600"](tmp_path)))
    in_files_by_language(tmp_path, form, names)
    reading = read(name, tmp_path, **({"languages": "all"} if name == "coco" else {}))
    task = retrieval(reading)
    assert {key: sorted(ids) for key, ids in task.groups.items()} == {k: sorted(v) for k, v in whole.groups.items()}
    assert sorted(task.pairs) == sorted(whole.pairs)
    assert sorted(task.gallery.ids) == sorted(whole.gallery.ids)
    with pytest.raises(ConfigError, match=r"'languages' got 'xx'"):
        read(name, tmp_path, languages="xx")


def test_files_by_language_that_are_none(tmp_path: Path):
    MAKERS["xm3600"](tmp_path)
    (tmp_path / "captions.jsonl").unlink()
    (tmp_path / "captions_de.json").write_text('{"image_paths": ["a"], "annotations": []}')
    with pytest.raises(FormatError, match="has 1 pictures and 0 captions"):
        read("xm3600", tmp_path)
    (tmp_path / "captions_de.json").write_text('[{"caption": "x"}]')
    with pytest.raises(FormatError, match="record 0 names no image"):
        read("xm3600", tmp_path)


def test_xm3600_each_language_finds_its_pictures(made):
    task, encoder = retrieval(read("xm3600", made["xm3600"], languages="en,de")), load_encoder("toy:picture")
    text, image = (embed_items(encoder, side.items, modality=side.modality) for side in (task.query, task.gallery))
    best = {
        query: task.gallery.ids[int(row.argmax())] for query, row in zip(task.query.ids, text @ image.T, strict=True)
    }
    assert np.mean([best[query] == key for query, key in task.pairs]) > 0.6


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"imageId": "a", "captions": {}}',
            r"line 1 is no record of captions\.jsonl .*web_captions\.jsonl is another file",
        ),
        ("not json", r"line 1 is no record"),
        ('{"image/key": "a", "en": {"caption": "one text"}}', "line 1 has captions that are no lists"),
    ],
)
def test_xm3600_names_the_line_of_another_file(tmp_path, line, message):
    write(tmp_path / "captions.jsonl", line + "\n")
    with pytest.raises(FormatError, match=message):
        read("xm3600", tmp_path)


def test_shared_and_empty_captions_are_counted(tmp_path):
    write(tmp_path / "test.csv", "file_name,caption_1,caption_2\na.wav,same text,own\nb.wav,same text, \n")
    for name in "ab":
        write(tmp_path / f"audio/{name}.wav", "x")
    reading = read("audiocaps", tmp_path)
    assert "1 empty captions left out" in words(reading)
    assert "1 captions stand at more than one item; each counts as wrong for the others" in words(reading)
