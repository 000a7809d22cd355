"""Readers of the audio-visual data sets, on miniatures in their published layouts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from isthmus.errors import ConfigError, FormatError
from isthmus.evaluation.benchmarks.declaration import load_benchmark
from isthmus.evaluation.benchmarks.readers.flickr_soundnet import read_boxes
from isthmus.evaluation.benchmarks.readers.music_solo import RATE, choose
from isthmus.evaluation.benchmarks.task import Reading
from isthmus.items import Rejected
from isthmus.items.decoding.audio import decode_audio
from isthmus.items.decoding.image import decode_image
from isthmus.items.decoding.video import middle_frame
from miniatures_av import (
    AUDIOSET,
    AUDIOSET_CLASSES,
    AVE,
    FLICKR_TEST,
    FLICKR_TRAIN,
    MUSIC_CLIPS,
    NUMBERS,
    QUARTERS,
    VGGSS_CLIPS,
    VGGSS_EXTRA,
    draw,
    flickr_xml,
    make_audioset,
    make_ave,
    make_ave_order,
    make_esc50,
    make_flickr,
    make_music,
    make_urbansound,
    make_vggss,
    music_key,
    save_picture,
    save_sound,
    save_video,
    write,
)

MAKERS = {
    "ave": make_ave,
    "flickr-soundnet": make_flickr,
    "flickr-localization": make_flickr,
    "extended-flickr": make_flickr,
    "vggss": make_vggss,
    "vggss-localization": make_vggss,
    "extended-vggss": make_vggss,
    "music-solo": make_music,
    "esc-50": make_esc50,
    "urbansound8k": make_urbansound,
    "audioset": make_audioset,
}


def read(name: str, folder: Path, **options: object) -> Reading:
    return load_benchmark(name).read(folder, folder / "work", options)


def words(reading: Reading) -> str:
    return "\n".join(reading.notes)


@pytest.fixture(scope="module")
def flickr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_flickr(tmp_path_factory.mktemp("flickr"))


@pytest.fixture(scope="module")
def vggss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vggss(tmp_path_factory.mktemp("vggss"))


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_music(tmp_path_factory.mktemp("music"))


# ------------------------------------------------------------------------------------------------------------------ all


@pytest.mark.parametrize("name", MAKERS)
def test_all_items_exist_and_are_unique(name: str, tmp_path: Path):
    task = read(name, MAKERS[name](tmp_path)).task
    sides = [getattr(task, side) for side in ("query", "gallery", "image", "audio") if hasattr(task, side)]
    assert sides
    for side in sides:
        assert len(set(side.ids)) == len(side.ids) > 0
        assert all(Path(item.path).is_file() for item in side.items)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ave", "Annotations.txt or .* not found. Expected the annotations of AVE"),
        ("flickr-soundnet", "metadata/flickr_sup_train.txt or .* not found. Expected the training list"),
        ("flickr-localization", "metadata/flickr_test.csv or .* not found. Expected the test list of Flickr-SoundNet"),
        (
            "extended-flickr",
            "metadata/flickr_test_plus_silent.csv or .* not found. Expected SLAVC's list of non-sounding",
        ),
        ("vggss", "vggss.json or metadata/vggss.json not found. Expected the boxes of VGGSS"),
        ("vggss-localization", "vggss.json or metadata/vggss.json not found"),
        ("extended-vggss", "metadata/vggss_test_plus_silent.csv or .* not found"),
        ("music-solo", "solotest.json or music-exp/solotest.json not found. Expected the boxes of MUSIC-Solo"),
        ("esc-50", "meta/esc50.csv or esc50.csv not found. Expected the labels of ESC-50"),
        ("urbansound8k", "metadata/UrbanSound8K.csv or .* not found. Expected the labels of UrbanSound8K"),
        ("audioset", "eval_segments.csv or .* not found. Expected the segments of AudioSet"),
    ],
)
def test_an_empty_folder_is_told_what_is_expected(name: str, expected: str, tmp_path: Path):
    with pytest.raises(FormatError, match=f"{tmp_path}.*{expected}.*see `isthmus benchmarks`"):
        read(name, tmp_path)


@pytest.mark.parametrize("name", MAKERS)
def test_lists_without_media_are_told_where_media_go(name: str, tmp_path: Path):
    MAKERS[name](tmp_path)
    for path in tmp_path.rglob("*.wav"):
        path.unlink()
    for path in tmp_path.rglob("*.flac"):
        path.unlink()
    with pytest.raises(FormatError, match=r"none of the .* is there .looked for .* as .wav.*benchmarks` says"):
        read(name, tmp_path)


# ------------------------------------------------------------------------------------------------------------------ AVE


@pytest.mark.parametrize("header", [False, True])
def test_ave_counts_videos_and_not_rows(header: bool, tmp_path: Path):
    reading = read("ave", make_ave(tmp_path, header=header))
    assert reading.task.query.ids == reading.task.gallery.ids == list(AVE)
    assert (reading.task.query.modality, reading.task.gallery.modality) == ("audio", "image")
    assert list(reading.task.pairs) == [(name, name) for name in AVE]
    assert "1 rows name a video again under another label" in words(reading)
    assert read("ave", tmp_path, split="train").task.query.ids == ["-Fx0aHE0wa0"]
    assert read("ave", tmp_path, split="test").task.query.ids == list(AVE)[1:]
    with pytest.raises(FormatError, match=r"valSet\.txt or AVE/valSet\.txt or data/valSet\.txt not found"):
        read("ave", tmp_path, split="val")


def test_ave_splits_of_the_authors_code(tmp_path: Path):
    pytest.importorskip("h5py")
    make_ave(tmp_path, header=True)
    with pytest.raises(FormatError, match=r"data/val_order\.h5 or .* not found"):
        read("ave", tmp_path, split="val", list="h5")
    make_ave_order(tmp_path)
    names = list(AVE)
    assert read("ave", tmp_path, split="train", list="h5").task.query.ids == [names[3], names[0]]
    assert read("ave", tmp_path, split="test", list="h5").task.query.ids == [names[3], names[2]]
    write(tmp_path / "Annotations.txt", "Banjo&VWi2ENBuTbw&good&0&10\n")
    with pytest.raises(FormatError, match=r"points at rows 0 to 3, but .*Annotations.txt has 1 rows"):
        read("ave", tmp_path, split="train", list="h5")
    write(tmp_path / "data/val_order.h5", "no h5")
    with pytest.raises(FormatError, match=r"val_order\.h5: has no array 'order'"):
        read("ave", tmp_path, split="val", list="h5")


def test_ave_takes_the_middle_frame_of_its_videos(tmp_path: Path):
    make_ave(tmp_path, videos=True)
    (tmp_path / "AVE/RUhOCu3LNXM.mp4").write_bytes(b"damaged")
    reading = read("ave", tmp_path)
    assert list(reading.missing) == ["RUhOCu3LNXM"]
    assert "middle frame" in words(reading)
    for item in reading.task.gallery.items:
        shown = decode_image(item).mean(axis=2)
        order = [np.corrcoef(shown.ravel(), draw(number).ravel())[0, 1] for _, number in AVE.values()]
        assert int(np.argmax(order)) == list(AVE).index(item.id)
        assert max(order) > 0.8
    assert all(len(decode_audio(item.path, rate=8000)) > 8000 for item in reading.task.query.items)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work/frames").iterdir()}
    read("ave", tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "work/frames").iterdir()}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Church bell,RUhOCu3LNXM,good,0,10\n", r"line 1 is 'Church bell,.*Expected category&video&quality&start&end"),
        ("\n", "holds no row. Expected category&video"),
    ],
)
def test_ave_annotations_that_are_none(text: str, fault: str, tmp_path: Path):
    write(tmp_path / "Annotations.txt", text)
    with pytest.raises(FormatError, match=fault):
        read("ave", tmp_path)
    with pytest.raises(ConfigError, match=r"option 'split' got 'tset'. Expected one of all, train, val, test"):
        read("ave", tmp_path, split="tset")


def test_middle_frame_of_what_is_no_video(tmp_path: Path):
    save_sound(tmp_path / "a.wav", NUMBERS[0])
    with pytest.raises(Rejected, match="no picture track"):
        middle_frame(tmp_path / "a.wav")
    with pytest.raises(Rejected, match="no video that PyAV reads"):
        middle_frame(write(tmp_path / "b.mp4", "nothing"))
    with pytest.raises(Rejected, match="no video that PyAV reads"):
        middle_frame(tmp_path / "none.mp4")
    save_video(tmp_path / "c.mp4", NUMBERS[0], NUMBERS[1], seconds=1)
    assert middle_frame(tmp_path / "c.mp4").size == (72, 28)


# --------------------------------------------------------------------------------------------------------------- Flickr


def test_flickr_pairs_of_both_lists(flickr: Path):
    assert read("flickr-soundnet", flickr).task.query.ids == [*FLICKR_TRAIN, *FLICKR_TEST]
    assert read("flickr-soundnet", flickr, split="train").task.query.ids == list(FLICKR_TRAIN)
    assert read("flickr-soundnet", flickr, split="test").task.gallery.ids == list(FLICKR_TEST)
    assert read("flickr-soundnet", flickr, split="test", list="lvs").task.gallery.ids == list(FLICKR_TEST[:2])


def test_flickr_without_its_training_list_takes_what_is_annotated(tmp_path: Path):
    make_flickr(tmp_path)
    (tmp_path / "metadata/flickr_sup_train.txt").unlink()
    (tmp_path / f"frames/{FLICKR_TRAIN[0]}.jpg").unlink()
    reading = read("flickr-soundnet", tmp_path)
    assert set(reading.task.query.ids) == {*FLICKR_TEST, FLICKR_TRAIN[1]}
    assert list(reading.missing) == [FLICKR_TRAIN[0]]


def test_flickr_test_list_of_the_data_sets_own_repository(tmp_path: Path):
    make_flickr(tmp_path)
    (tmp_path / "metadata/flickr_test.csv").unlink()
    write(tmp_path / "test_list.txt", "10000130166.png\n3908875357.png\n")  # one name is misspelt there
    assert read("flickr-localization", tmp_path).task.image.ids == ["10000130166", "3908875350"]


def test_the_list_of_249_gets_the_name_that_it_lacks(tmp_path: Path):
    make_flickr(tmp_path)
    names = [str(number) for number in range(247)] + ["10000130166", "10437048305"]
    write(tmp_path / "metadata/flickr_test.csv", "".join(f"{name},0\r\n" for name in names))
    for name in names[:247]:
        write(tmp_path / f"Annotations/{name}.xml", flickr_xml([[(0, 0, 9, 9)]]))
    assert len(read("flickr-localization", tmp_path).missing) == 247
    assert read("flickr-localization", tmp_path).task.image.ids[-1] == "3908875350"
    assert "3908875350" not in read("flickr-localization", tmp_path, list="lvs").task.image.ids


def test_flickr_boxes_are_those_of_all_annotators(flickr: Path):
    reading = read("flickr-localization", flickr)
    task = reading.task
    assert (task.agreement, task.counterfactual) == (2, False)
    for place, sample in enumerate(task.samples):
        assert sample.id == sample.image == sample.audio == FLICKR_TEST[place]
        half = (QUARTERS[place][0], 0.0, QUARTERS[place][2], 1.0)
        assert list(sample.boxes) == [QUARTERS[place], QUARTERS[place], half]
    assert "Test list: 250 names, as SLAVC lists them" in words(reading)
    assert "A point boxed once counts a half" in words(reading)


@pytest.mark.parametrize("name", ["flickr-localization", "flickr-soundnet"])
def test_names_that_lead_out_of_the_folder(name: str, tmp_path: Path):
    make_flickr(tmp_path)
    write(tmp_path / "metadata/flickr_test.csv", "../../10000130166,0\r\n")
    with pytest.raises(FormatError, match=r"'../../10000130166(\.xml)?' leads out of the folder"):
        read(name, tmp_path)


def test_ave_names_that_lead_out_of_the_folder(tmp_path: Path):
    make_ave(tmp_path, videos=True)
    write(tmp_path / "Annotations.txt", "Bark&../x&good&0&10\n")
    with pytest.raises(FormatError, match="leads out of the folder"):
        read("ave", tmp_path)


def test_flickr_xml(tmp_path: Path):
    corners = (3, 10, 255, 256)
    path = write(tmp_path / "a.xml", flickr_xml([[corners, (0, 0, 300, 9)], []]))
    assert read_boxes(path) == [tuple(v / 256 for v in corners), (0.0, 0.0, 1.0, 9 / 256)]
    for text, fault in {
        "<a><b/></a>": "holds no bbox. Expected the boxes of three annotators",
        "<a>": "is not as published",
        "<a><b><bbox><c>1</c><d>2</d><e>3</e></bbox></b></a>": "a box is .*Expected four numbers",
        "<a><b><bbox><c>1</c><d>2</d><e>3</e><f>4</f><g>x</g></bbox></b></a>": "is not as published",
        '<!DOCTYPE a [<!ENTITY b "c">]><a/>': "declares a document type",
    }.items():
        with pytest.raises(FormatError, match=f"a.xml: {fault}"):
            read_boxes(write(tmp_path / "a.xml", text))
    with pytest.raises(FormatError, match=r"none\.xml: cannot be read as text .*No such file"):
        read_boxes(tmp_path / "none.xml")


def test_extended_flickr_pairs_pictures_with_other_sounds(flickr: Path):
    reading = read("extended-flickr", flickr)
    task = reading.task
    assert (task.counterfactual, task.agreement, len(task.samples)) == (True, 2, 6)
    silent = [(sample.image, sample.audio) for sample in task.samples if not sample.boxes]
    a, b, c = FLICKR_TEST
    assert silent == [(a, b), (b, c), (c, a)]
    assert sorted(task.image.ids) == sorted(task.audio.ids) == sorted(FLICKR_TEST)
    assert "3 sounding and 3 non-sounding samples" in words(reading)


# ---------------------------------------------------------------------------------------------------------------- VGGSS


def test_vggss_names_and_boxes(vggss: Path):
    assert read("vggss", vggss).task.query.ids == list(VGGSS_CLIPS)
    reading = read("vggss-localization", vggss)
    task = reading.task
    assert (task.agreement, task.counterfactual) == (1, False)
    assert [sample.id for sample in task.samples] == list(VGGSS_CLIPS)
    assert list(task.samples[0].boxes) == [QUARTERS[0], (0.0, 0.0, 0.25, 0.25)]
    assert list(task.samples[1].boxes) == [QUARTERS[1]]
    # The sentinel is brought into the picture and stays a box: the clip sounds, and nothing in it can be found.
    assert list(task.samples[2].boxes) == [(0.1, 0.2, 0.0, 0.0)]
    assert "1 boxes lay outside their picture and were brought in; 1 have no area, and 1 clips have no other" in words(
        reading
    )


def test_vggss_splits(vggss: Path):
    heard, unheard = (read("vggss-localization", vggss, split=split).task for split in ("heard", "unheard"))
    assert [sample.id for sample in heard.samples] == list(VGGSS_CLIPS)[:2]
    assert [sample.id for sample in unheard.samples] == list(VGGSS_CLIPS)[2:3]


def test_vggss_without_some_media(tmp_path: Path):
    make_vggss(tmp_path)
    a, b, c, d = VGGSS_CLIPS
    (tmp_path / f"frames/{a}.jpg").unlink()
    (tmp_path / f"audio/{b}.wav").unlink()
    for name in ("vggss", "vggss-localization"):
        reading = read(name, tmp_path)
        assert list(reading.missing) == [a, b]
    with pytest.raises(FormatError, match="not one of the 2 clips of VGGSS has both a picture and a sound"):
        read("vggss", tmp_path, split="heard")
    reading = read("extended-vggss", tmp_path)
    assert list(reading.missing) == [a, b, f"gone_000000+{a}"]
    # a has a sound still, and b a picture.
    assert [s.id for s in reading.task.samples if not s.boxes] == [
        f"{VGGSS_EXTRA}+{VGGSS_EXTRA}",
        f"{d}+{a}",
        f"{b}+{c}",
    ]


def test_vggss_from_videos_and_from_folders_of_frames(tmp_path: Path):
    make_vggss(tmp_path)
    for path in [*(tmp_path / "frames").iterdir(), *(tmp_path / "audio").iterdir()]:
        path.unlink()
    a, b, c, _ = VGGSS_CLIPS
    for number, name in enumerate((b, a)):
        save_picture(tmp_path / "frames" / a / f"image_{9 + number:03d}.jpg", NUMBERS[number])
        save_sound(tmp_path / f"audio/{name}.wav", NUMBERS[0])
    save_picture(tmp_path / "frames" / a / "image_100.jpg", NUMBERS[2])
    save_picture(tmp_path / f"frames/{b}.jpg", NUMBERS[1])
    reading = read("vggss", tmp_path)
    assert [Path(item.path).name for item in reading.task.gallery.items] == ["image_010.jpg", f"{b}.jpg"]
    assert "The picture of 1 clips is the middle one of the frames in their folder" in words(reading)
    (tmp_path / "frames").rename(tmp_path / "other")
    with pytest.raises(FormatError, match=r"frames or extend_frames not found. Expected pictures of VGGSS"):
        read("vggss", tmp_path)
    save_video(tmp_path / f"video/{c}.mp4", NUMBERS[3], NUMBERS[4], seconds=1)
    reading = read("vggss-localization", tmp_path)
    assert reading.task.image.ids == [c]
    assert reading.task.audio.items[0].suffix == ".mp4"
    assert "The picture of a clip is the middle frame of its video" in words(reading)


def test_extended_vggss_has_media_of_its_own(vggss: Path):
    reading = read("extended-vggss", vggss)
    task = reading.task
    assert [sample.id for sample in task.samples if sample.boxes] == list(VGGSS_CLIPS)
    assert next(sample.id for sample in task.samples if not sample.boxes) == f"{VGGSS_EXTRA}+{VGGSS_EXTRA}"
    assert list(reading.missing) == ["gone_000000+" + next(iter(VGGSS_CLIPS))]
    assert VGGSS_EXTRA in task.image.ids
    assert VGGSS_EXTRA in task.audio.ids


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{}", "holds a dict, expected the list of the boxes of VGGSS"),
        ("[", "cannot be read as the boxes of VGGSS"),
        ("[]", "is an empty list"),
        ('[{"file": "a"}]', "entry 0 is .*Expected file, class and bbox"),
        ('[{"file": "a", "bbox": [[0, 1, 2]]}]', r"entry 0: a box is \[0, 1, 2\]. Expected four numbers"),
        ('[{"file": "a", "bbox": [[0, 1, NaN, 1]]}]', "Expected four numbers"),
        ('[{"file": "a", "bbox": []}, {"file": "a", "bbox": []}]', "the clip 'a' stands twice"),
        ("nothing", "cannot be read as the boxes of VGGSS"),
    ],
)
def test_vggss_boxes_that_are_none(content: str, fault: str, tmp_path: Path):
    write(tmp_path / "vggss.json", content)
    with pytest.raises(FormatError, match=fault):
        read("vggss", tmp_path)


def test_lists_of_another_set(tmp_path: Path):
    make_vggss(tmp_path)
    write(tmp_path / "metadata/vggss_heard_test.csv", "other\n")
    with pytest.raises(FormatError, match=r"has no boxes of 'other', which vggss_heard_test\.csv lists"):
        read("vggss", tmp_path, split="heard")
    write(tmp_path / "metadata/vggss_heard_test.csv", "\r\n")
    with pytest.raises(FormatError, match=r"is empty. Expected the list of heard clips of VGGSS, one name a line"):
        read("vggss", tmp_path, split="heard")
    silent = tmp_path / "metadata/vggss_test_plus_silent.csv"
    write(silent, "video,audio\na,b\n")
    with pytest.raises(FormatError, match=r"has no column 'label'. Expected video, audio, label, got video, audio"):
        read("extended-vggss", tmp_path)
    write(silent, "video,audio,label\na,b,sounding\n")
    with pytest.raises(FormatError, match="has no row with the label 'non-sounding'"):
        read("extended-vggss", tmp_path)
    write(silent, "video,audio,label\na,b\n")
    with pytest.raises(FormatError, match="line 2 has 2 values, expected 3"):
        read("extended-vggss", tmp_path)


# ---------------------------------------------------------------------------------------------------------------- MUSIC


def test_music_takes_one_frame_a_second_and_its_second_of_sound(music: Path):
    first, second = MUSIC_CLIPS
    reading = read("music-solo", music)
    expected = [(first, 0), (first, 1), (second, 0)]  # the middle frame of the last second has no box
    assert [sample.image for sample in reading.task.samples] == [music_key(*one, 2) for one in expected]
    assert [sample.audio for sample in reading.task.samples] == [f"{clip}/{second:03d}" for clip, second in expected]
    assert [list(sample.boxes) for sample in reading.task.samples] == [[QUARTERS[i]] for i in (0, 1, 1)]
    assert "3 of 16 frames: the middle frame of each second" in words(reading)
    assert "corner, width and height" in words(reading)
    assert len(read("music-solo", music, frames="first").task.samples) == 4
    every = read("music-solo", music, frames="all").task
    assert len(every.samples) == 15
    assert len(every.audio.ids) == 4


def test_music_cuts_seconds_out_of_whole_tracks(tmp_path: Path):
    make_music(tmp_path, seconds=False)
    reading = read("music-solo", tmp_path, frames="first")
    assert len(reading.task.audio.ids) == 4
    for clip in MUSIC_CLIPS:
        whole = decode_audio(tmp_path / f"audio/{clip}.flac", rate=RATE)
        for second in range(2):
            item = next(item for item in reading.task.audio.items if item.id == f"{clip}/{second:03d}")
            cut = decode_audio(item.path, rate=RATE)
            assert np.allclose(cut, whole[second * RATE : (second + 1) * RATE], atol=1e-4)
    path = Path(reading.task.audio.items[0].path)
    before = path.stat().st_mtime_ns
    read("music-solo", tmp_path, frames="first")
    assert path.stat().st_mtime_ns == before


def test_music_without_some_media(tmp_path: Path):
    make_music(tmp_path)
    first, second = MUSIC_CLIPS
    (tmp_path / "video_frames" / music_key(first, 0, 2)).unlink()
    (tmp_path / f"audio_frames/{first}/001.wav").unlink()
    reading = read("music-solo", tmp_path)
    assert list(reading.missing) == [music_key(first, 0, 2), music_key(first, 1, 2)]
    assert [sample.image for sample in reading.task.samples] == [music_key(second, 0, 2)]


def test_music_pickles_are_not_read(tmp_path: Path):
    make_music(tmp_path)
    for path in (tmp_path / "audio_frames").rglob("*.wav"):
        path.rename(path.with_suffix(".pkl"))
    with pytest.raises(FormatError, match="none of the 2 sounds of MUSIC-Solo is there"):
        read("music-solo", tmp_path)


def test_music_boxes_cover_the_published_points(tmp_path: Path):
    from isthmus.evaluation.benchmarks.readers.music_solo import read_boxes as read_music
    from isthmus.evaluation.suite.localize import box_mask

    rng = np.random.default_rng(0)
    corners = rng.integers(0, 600, (400, 2))
    boxes = [[x / 640, y / 640, rng.integers(1, 641 - x) / 640, rng.integers(1, 641 - y) / 640] for x, y in corners]
    entry = {f"a/frame_000/{i:05d}.jpg": {"bbox": [{"normbox": box}]} for i, box in enumerate(boxes)}
    found = read_music(write(tmp_path / "solotest.json", json.dumps(entry)))
    plain = 0
    for box, (corner,) in zip(boxes, found.values(), strict=True):
        scaled = np.array(box) * 224
        expected = np.zeros((224, 224), dtype=bool)
        expected[int(scaled[1]) : int(scaled[1] + scaled[3]), int(scaled[0]) : int(scaled[0] + scaled[2])] = True
        assert np.array_equal(box_mask(corner), expected)
        x, y, width, height = box
        plain += np.array_equal(box_mask((x, y, x + width, y + height)), expected)
    assert plain < len(boxes), "adding before scaling rounds some boxes to other points"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[]", "holds a list, expected the dict of the boxes of MUSIC-Solo"),
        ('{"a.jpg": {"bbox": []}}', "entry 'a.jpg' is .*Expected <clip>/frame_<second>/<frame>.jpg with bbox"),
        ('{"a/frame_000/0.jpg": {"bbox": [{"box": [0, 0, 1, 1]}]}}', "a box is None. Expected four numbers"),
        ('{"a/frame_000/0.jpg": {"bbox": []}}', "has no frame with a box among the middle frames"),
        ('{"../frame_000/0.jpg": {"bbox": [{"normbox": [0, 0, 1, 1]}]}}', "leads out of the folder"),
    ],
)
def test_music_boxes_that_are_none(content: str, fault: str, tmp_path: Path):
    (tmp_path / "video_frames").mkdir()
    write(tmp_path / "solotest.json", content)
    with pytest.raises(FormatError, match=fault):
        read("music-solo", tmp_path)


def test_frames_of_a_second_are_put_in_order():
    keys = [f"a/frame_000/0000{i}.jpg" for i in (3, 1, 0, 2)] + ["a/frame_001/00004.jpg"]
    assert choose(keys, "middle") == [("a/frame_000/00002.jpg", "a", "000"), ("a/frame_001/00004.jpg", "a", "001")]
    assert [key for key, _, _ in choose(keys, "first")] == ["a/frame_000/00000.jpg", "a/frame_001/00004.jpg"]
    assert len(choose(keys, "all")) == 5


# --------------------------------------------------------------------------------------------------------------- sounds


def test_esc50_classes_go_by_target(tmp_path: Path):
    reading = read("esc-50", make_esc50(tmp_path))
    assert dict(reading.task.classes) == {"0": "dog", "9": "crow", "10": "sea waves"}
    assert list(reading.task.classes) == ["0", "9", "10"]
    assert list(reading.task.labels)[:2] == [("1-100030-A-10.wav", "10"), ("1-100031-A-9.wav", "9")]
    assert "esc50.csv has 6 rows, published are 2,000" in words(reading)
    assert len(read("esc-50", tmp_path, fold=2).task.labels) == 3
    assert set(read("esc-50", tmp_path, subset="esc10").task.classes) == {"0", "10"}
    with pytest.raises(FormatError, match="has no row of fold 3 of esc50"):
        read("esc-50", tmp_path, fold=3)


def test_esc50_in_its_first_form(tmp_path: Path):
    write(tmp_path / "esc50.csv", "filename,fold,target,category,esc10,category_name\na.wav,1,0,0,True,dog\n")
    with pytest.raises(FormatError, match="the column category holds numbers, as in the data set's first form"):
        read("esc-50", tmp_path)
    write(tmp_path / "esc50.csv", "filename,fold,target\na.wav,1,0\n")
    with pytest.raises(FormatError, match=r"has no column 'category'. Expected filename, .*, got filename, fold"):
        read("esc-50", tmp_path)


def test_urbansound_folds(tmp_path: Path):
    make_urbansound(tmp_path)
    (tmp_path / "audio/fold10/100031-0-0-0.wav").unlink()
    reading = read("urbansound8k", tmp_path)
    assert dict(reading.task.classes) == {"0": "air conditioner", "3": "dog bark", "9": "street music"}
    assert list(reading.missing) == ["100031-0-0-0.wav"]
    assert [label for _, label in reading.task.labels] == ["3", "9", "3"]
    assert "UrbanSound8K.csv has 4 rows, published are 8,732; a shortened copy circulates" in words(reading)
    assert read("urbansound8k", tmp_path, fold=1).task.query.ids == ["100033-3-0-0.wav"]
    with pytest.raises(FormatError, match="has no row of fold 7"):
        read("urbansound8k", tmp_path, fold=7)


def test_audioset_labels_and_names_of_files(tmp_path: Path):
    reading = read("audioset", make_audioset(tmp_path))
    task = reading.task
    assert task.multilabel
    assert dict(task.classes) == AUDIOSET_CLASSES
    assert task.query.ids == list(AUDIOSET)[:3]
    assert list(reading.missing) == ["gone0000000"]
    assert list(task.labels) == [(name, label) for name in list(AUDIOSET)[:3] for label in AUDIOSET[name][0]]
    assert not reading.notes


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('#NAME?, 30.000, 40.000, "/m/0jbk"\n', r"line 4: the id is '#NAME\?': a spreadsheet spoiled the file"),
        ('#REF!, 30.000, 40.000, "/m/0jbk"\n', r"line 4: the id is '#REF!': a spreadsheet spoiled the file"),
        ('abc, 30.000, #VALUE!, "/m/0jbk"\n', r"line 4: it holds '#VALUE!': a spreadsheet spoiled the file"),
        ("abc, 30.000, 40.000\n", "line 4 is 'abc, 30.000, 40.000'. Expected YTID, start_seconds"),
        ('abc, x, 40.000, "/m/0jbk"\n', "line 4 is .* Expected YTID, start_seconds"),
        ('abc, 0, 9, "/m/0jbk"\nabc, 0, 9, "/m/0jbk"\n', "line 5: 'abc' stands twice"),
        ('abc, 0, 9, "/m/none"\n', "'abc' has the label '/m/none', which .*class_labels_indices.csv does not have"),
        ("", "holds no segment"),
    ],
)
def test_audioset_segments_that_are_none(line: str, fault: str, tmp_path: Path):
    make_audioset(tmp_path)
    write(tmp_path / "eval_segments.csv", "# a\n# num_segs=2\n# c\n" + line)
    with pytest.raises(FormatError, match=fault):
        read("audioset", tmp_path)


@pytest.mark.parametrize("value", ["#NAME?", "#N/A", "#REF!"])
def test_audioset_class_names_that_a_spreadsheet_spoiled(value: str, tmp_path: Path):
    make_audioset(tmp_path)
    path = tmp_path / "class_labels_indices.csv"
    lines = path.read_text().splitlines()
    index, _, *rest = lines[2].split(",")
    path.write_text("\n".join([*lines[:2], ",".join([index, value, *rest]), *lines[3:]]) + "\n")
    with pytest.raises(FormatError, match=rf"line 3 holds '{re.escape(value)}': a spreadsheet spoiled the file"):
        read("audioset", tmp_path)


def test_audioset_says_when_segments_are_lost(tmp_path: Path):
    make_audioset(tmp_path)
    path = tmp_path / "eval_segments.csv"
    path.write_text(path.read_text().replace("num_segs=4", "num_segs=20371"))
    assert "eval_segments.csv has 4 segments, its head says 20,371" in words(read("audioset", tmp_path))
