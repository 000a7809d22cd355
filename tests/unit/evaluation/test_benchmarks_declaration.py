"""Benchmarks as declarations: what a TOML file may say, what it may not, and the readers of a user's own tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.errors import ConfigError, FormatError
from isthmus.evaluation.benchmarks.declaration import (
    CATALOGUE,
    HEADLINES,
    list_benchmarks,
    list_readers,
    load_benchmark,
)
from isthmus.evaluation.benchmarks.readers.shared import lookup as common
from isthmus.evaluation.benchmarks.task import Classification, Retrieval
from isthmus.spaces.space import make_space

SMALL = 'task = "retrieval"\nreader = "embeddings"\nmodalities = ["audio", "image"]\n'


def declared(folder: Path, text: str, name: str = "mine") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_a_small_declaration_has_sensible_defaults(tmp_path: Path):
    one = load_benchmark(declared(tmp_path, SMALL))
    assert (one.name, one.title, one.metric, one.published) == ("mine", "mine", "mean", [])
    assert tuple(one.headline) == HEADLINES["retrieval"]
    assert one.path == tmp_path / "mine.toml"
    with pytest.raises(Exception, match="frozen"):
        one.name = "other"  # type: ignore[misc]


def test_a_whole_declaration_is_read(tmp_path: Path):
    text = (
        'name = "my-own"\ntitle = "My own"\nheadline = ["r@1"]\nmetric = "query_to_gallery"\n'
        + SMALL
        + '[data]\ndownload = "words"\nplace = "a/"\nitems = 12\nsplit = "test"\n[options]\nquery = "a.npy"\n'
        '[[published]]\nmodel = "X"\nfigures = { "r@1" = 0.5, "median_rank" = 7.0 }\nsource = "a paper"\n'
    )
    one = load_benchmark(declared(tmp_path, text))
    assert (one.name, one.data.items, one.options) == ("my-own", 12, {"query": "a.npy"})
    assert one.published[0].figures == {"r@1": 0.5, "median_rank": 7.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL + "colour = 1\n", r"has the unknown key 'colour'. Valid keys: name, title, task, reader, modalities"),
        (
            SMALL + "[data]\nsise = 'x'\n",
            r"unknown key 'data.sise'. Did you mean size\? Valid keys: download, place",
        ),
        (SMALL + "path = 'x'\n", r"unknown key 'path'"),
        (SMALL + "[[published]]\nmodel = 'X'\nfigures = {'r@1' = 50.0}\n", r"r@1 is 50.0, expected a fraction"),
        (SMALL + "[[published]]\nmodel = 'X'\nfigures = {}\nfrom = 'x'\n", r"unknown key 'published.0.from'"),
        ('reader = "embeddings"\nmodalities = ["text"]\n', r"lacks the key 'task'"),
        (SMALL.replace('"retrieval"', '"search"'), r"key 'task' got 'search': Input should be 'retrieval'"),
        (SMALL.replace('["audio", "image"]', '["audio"]'), r"a retrieval has two modalities, got 1"),
        (SMALL.replace('["audio", "image"]', '"audio"'), r"key 'modalities' got 'audio': Input should be a valid list"),
        (SMALL + 'templates = "sounds"\n', r"a retrieval has no templates"),
        (SMALL + 'name = "My Own"\n', r"key 'name' got 'My Own'"),
        (SMALL.replace('"embeddings"', '"os:system.x"'), r"key 'reader' got 'os:system.x'"),
        ("task = \n", r"benchmark .*mine.toml is not TOML: .*line 1"),
    ],
)
def test_a_wrong_declaration_is_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_benchmark(declared(tmp_path, text))


def test_an_unknown_name_tells_the_nearest_and_all():
    with pytest.raises(ConfigError, match=r"there is no benchmark 'avee'. Did you mean ave\? Expected one of .*, or"):
        load_benchmark("avee")
    with pytest.raises(ConfigError, match=r"benchmark nowhere.toml does not exist"):
        load_benchmark("nowhere.toml")


def test_every_benchmark_that_comes_along_says_what_a_user_must_know():
    every = list_benchmarks()
    assert [one.name for one in every] == sorted(path.stem for path in CATALOGUE.glob("*.toml"))
    assert len(every) > 15
    for one in every:
        assert one.name == one.path.stem
        for what in ("download", "place", "licence", "size", "split"):
            assert getattr(one.data, what), f"{one.name} does not say its {what}"
        assert one.reader.partition(":")[0] in list_readers()
        assert one.known_options().keys() >= one.options.keys()
        for published in one.published:
            assert published.source, f"{one.name}: {published.model} has no source"
            assert published.figures


def test_a_reader_that_is_not_there_is_told(tmp_path: Path):
    one = load_benchmark(declared(tmp_path, SMALL.replace('"embeddings"', '"embedding"')))
    with pytest.raises(ConfigError, match=r"there is no reader 'embedding'. Expected one of .*embeddings"):
        one.read(tmp_path, tmp_path)
    one = load_benchmark(declared(tmp_path, SMALL.replace('"embeddings"', '"embeddings:reed"')))
    with pytest.raises(ConfigError, match=r"the reader 'embeddings:reed' has no function 'reed'"):
        one.read(tmp_path, tmp_path)


def test_options_are_checked_against_the_readers_own(tmp_path: Path):
    wrong = load_benchmark(declared(tmp_path, SMALL + "[options]\nqueri = 'x'\n"))
    with pytest.raises(ConfigError, match=r"\[options\] has the unknown key 'queri'. Did you mean query\?"):
        wrong.read(tmp_path, tmp_path)
    one = load_benchmark(declared(tmp_path, SMALL))
    with pytest.raises(ConfigError, match=r"--set has the unknown key 'pair'. Did you mean pairs\?"):
        one.read(tmp_path, tmp_path, {"pair": "x"})
    with pytest.raises(ConfigError, match=r"--set pairs got 3, expected a str like ''"):
        one.read(tmp_path, tmp_path, {"pairs": 3})
    with pytest.raises(ConfigError, match=r"lacks the option 'query'. Give it under \[options\], or with --set query="):
        one.read(tmp_path, tmp_path)


# what readers share


def test_require_takes_the_first_that_is_there(tmp_path: Path):
    (tmp_path / "part_10").mkdir()
    (tmp_path / "part_9").mkdir()
    assert common.require(tmp_path, "nowhere", "part_10", what="parts") == tmp_path / "part_10"
    assert common.require(tmp_path, "part_*", what="parts") == tmp_path / "part_9"
    with pytest.raises(
        FormatError, match=r"a.csv or b.csv not found. Expected the list there; see `isthmus benchmarks`"
    ):
        common.require(tmp_path, "a.csv", "b.csv", what="the list")


def test_media_are_found_by_name_whatever_their_suffix(tmp_path: Path):
    (tmp_path / "sounds" / "deep").mkdir(parents=True)
    for name in ("a.wav", "a.mp3", "b.FLAC", "c.txt", "deep/d.ogg"):
        (tmp_path / "sounds" / name).touch()
    names = ["a", "b", "c", "deep/d", "a.mp3"]
    found, missing = common.pick_media(tmp_path, ["audio", "sounds"], names, common.SOUNDS, what="clips")
    assert {key: path.name for key, path in found.items()} == {
        **{"a": "a.wav", "b": "b.FLAC"},
        **{"deep/d": "d.ogg", "a.mp3": "a.mp3"},
    }
    assert missing == ["c"]
    with pytest.raises(FormatError, match=r"none of the 2 clips is there \(looked for 'x' as .wav"):
        common.pick_media(tmp_path, ["sounds"], ["x", "y"], common.SOUNDS, what="clips")
    with pytest.raises(FormatError, match=r"leads out of the folder"):
        common.pick_media(tmp_path, ["sounds"], ["../secret"], common.SOUNDS, what="clips")


def test_an_option_of_a_few_values_is_checked():
    assert common.option({"split": "test"}, "split", ("test", "val")) == "test"
    with pytest.raises(ConfigError, match=r"option 'split' got 'dev'. Expected one of test, val \(--set split=...\)"):
        common.option({"split": "dev"}, "split", ("test", "val"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", r"has no column 'c', only a, b"),
        ("a,c\n", r"has no row"),
        ("a,c\n1,2\n1,\n", r"row 2 has no c"),
    ],
)
def test_a_table_that_lacks_something_is_told(tmp_path: Path, text: str, message: str):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(FormatError, match=message):
        common.columns(tmp_path / "t.csv", "a", "c")


# the reader of embeddings


def read(folder: Path, task: str, options: dict[str, Any], modalities: str = '["audio", "image"]') -> Any:
    text = f'task = "{task}"\nreader = "READER"\nmodalities = {modalities}\n'
    reader = options.pop("reader", "embeddings")
    one = load_benchmark(declared(folder, text.replace("READER", reader)))
    return one.read(folder, folder / "work", options)


@pytest.fixture
def embedded(tmp_path: Path) -> Path:
    """A space of five sounds with labels, pictures in a file, texts with classes."""
    rng = np.random.default_rng(0)

    def rows(n: int) -> np.ndarray:
        return rng.standard_normal((n, 4)).astype(np.float32)

    sounds = {"label": ["dog", "cat", "dog;cat", "", "cat"], "place": ["x", "x", "y", "y", "y"]}
    make_space(tmp_path / "s.space", {"audio": ([f"a{i}" for i in range(5)], rows(5), sounds)}, name="s")
    texts = {"text": ["a dog", "one cat", "the dog", "rain"], "class": ["dog", "cat", "dog", None]}
    make_space(tmp_path / "t.space", {"text": ([f"t{i}" for i in range(4)], rows(4), texts)}, name="t")
    np.save(tmp_path / "pictures.npy", rows(3))
    (tmp_path / "pairs.csv").write_text("query_id,gallery_id\na0,0\na1,2\na4,2\n")
    (tmp_path / "ids.txt").write_text("0\n1\n2\n")
    (tmp_path / "labels.csv").write_text("query_id,class_id\na0,dog\na1,cat\n")
    return tmp_path


def test_spaces_and_files_of_embeddings_are_retrieved(embedded: Path):
    options = {"query": "s.space/audio", "gallery": "pictures.npy", "gallery_space": "p"}
    options |= {"gallery_ids": "ids.txt", "pairs": "pairs.csv"}
    reading = read(embedded, "retrieval", {**options, "group_column": "place"})
    task = reading.task
    assert isinstance(task, Retrieval)
    assert (task.query.ids, task.gallery.ids) == ([f"a{i}" for i in range(5)], ["0", "1", "2"])
    assert list(task.pairs) == [("a0", "0"), ("a1", "2"), ("a4", "2")]
    assert task.groups == {"x": ["a0", "a1"], "y": ["a2", "a3", "a4"]}
    assert task.gallery.embeddings is not None
    assert task.gallery.embeddings.space_name == "p"
    made = sorted(path.name for path in (embedded / "work").iterdir())
    again = read(embedded, "retrieval", {**options, "query": "s.space"})  # a space alone: the modality is declared
    assert again.task.query.ids == task.query.ids
    assert sorted(path.name for path in (embedded / "work").iterdir()) == made
    np.save(embedded / "pictures.npy", np.ones((3, 4), np.float32))
    changed = read(embedded, "retrieval", options).task.gallery.embeddings
    assert np.array_equal(np.asarray(changed), np.ones((3, 4))), "a file that changed is imported anew"


def test_classes_are_a_column_or_chosen_texts(embedded: Path):
    options: dict[str, Any] = {"query": "s.space/audio", "classes": "t.space/text", "labels": "labels.csv"}
    task = read(embedded, "classification", dict(options), '["audio"]').task
    assert isinstance(task, Classification)
    assert task.prompts is not None
    assert task.prompts.embeddings is not None
    assert task.prompts.embeddings.metadata["class"].to_pylist() == ["dog", "cat", "dog", "t3"]
    chosen = {"class_texts": {"dog": ["the dog"], "cat": "one cat"}}
    task = read(embedded, "classification", {**options, **chosen}, '["audio"]').task
    assert (task.prompts.ids, task.prompts.embeddings.metadata["class"].to_pylist()) == (["t2", "t1"], ["dog", "cat"])
    column = {"query": "s.space/audio", "classes": "t.space/text", "label_column": "label", "label_separator": ";"}
    task = read(embedded, "multilabel", {**column, **chosen}, '["audio"]').task
    assert task.multilabel
    assert list(task.labels) == [("a0", "dog"), ("a1", "cat"), ("a2", "dog"), ("a2", "cat"), ("a4", "cat")]


@pytest.mark.parametrize(
    ("task", "options", "error", "message"),
    [
        ("retrieval", {"gallery": "pictures.npy"}, ConfigError, r"lacks the option 'pairs'"),
        ("retrieval", {"gallery": "x.npy", "pairs": "pairs.csv"}, FormatError, r"x.npy: no such file or folder"),
        ("retrieval", {"gallery": "../x.npy", "pairs": "pairs.csv"}, FormatError, r"leads out of the folder"),
        ("localization", {}, ConfigError, r"embeddings serve a retrieval or a classification, got a localization"),
        ("classification", {"class_texts": {"dog": "wolf"}}, FormatError, r"has no text 'wolf', which class_texts"),
        ("classification", {"class_texts": {"dog": "a dog"}}, FormatError, r"1 classes without a text, such as 'cat'"),
        ("classification", {"label_column": "x"}, FormatError, r"has no column 'x', only id, label, place"),
    ],
)
def test_a_fault_of_a_users_embeddings_is_told(
    embedded: Path, task: str, options: dict[str, Any], error: type[Exception], message: str
):
    given = {"query": "s.space/audio", "classes": "t.space/text", "labels": "labels.csv", **options}
    with pytest.raises(error, match=message):
        read(embedded, task, given, '["audio", "image"]')


# the reader of files


@pytest.fixture
def filed(tmp_path: Path) -> Path:
    """Three clips of which one is missing, with captions and labels."""
    (tmp_path / "media").mkdir()
    for name in ("a.wav", "b.wav"):
        (tmp_path / "media" / name).touch()
    rows = ["path,caption,label,language", "a.wav,rain,wet;loud,en", "a.wav,some rain,wet;loud,fr"]
    rows += ["b.wav,wind,loud,en", "c.wav,rain,wet,en"]
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "ids.csv").write_text("id,path\nA,a.wav\nB,b.wav\n")
    (tmp_path / "texts.csv").write_text("id,path\n1,rain\n2,wind\n")
    (tmp_path / "pairs.csv").write_text("query_id,gallery_id\nA,1\nB,2\n")
    return tmp_path


def test_one_table_gives_both_sides_and_pairs(filed: Path):
    options = {"reader": "files", "query": "clips.csv", "gallery_column": "caption", "media": "media"}
    reading = read(filed, "retrieval", {**options, "group_column": "language"}, '["audio", "text"]')
    task = reading.task
    assert task.query.ids == ["a.wav", "b.wav"]
    assert task.gallery.ids == ["rain", "some rain", "wind"]
    assert list(task.pairs) == [("a.wav", "rain"), ("a.wav", "some rain"), ("b.wav", "wind")]
    assert reading.missing == ["c.wav"]
    assert task.groups == {"en": ["a.wav", "b.wav"], "fr": ["a.wav"]}
    assert [item.text for item in task.gallery.items] == ["rain", "some rain", "wind"]
    assert Path(task.query.items[0].path).is_file()


def test_two_tables_have_ids_and_pairs(filed: Path):
    options = {"reader": "files", "query": "ids.csv", "gallery": "texts.csv", "pairs": "pairs.csv", "media": "media"}
    task = read(filed, "retrieval", dict(options), '["audio", "text"]').task
    assert (task.query.ids, task.gallery.ids, list(task.pairs)) == (["A", "B"], ["1", "2"], [("A", "1"), ("B", "2")])
    with pytest.raises(ConfigError, match=r"two tables need the option 'pairs'"):
        read(filed, "retrieval", {**options, "pairs": ""}, '["audio", "text"]')
    (filed / "pairs.csv").write_text("query_id,gallery_id\nA,3\n")
    with pytest.raises(FormatError, match=r"the pair \('A', '3'\) names an item that is in no table"):
        read(filed, "retrieval", dict(options), '["audio", "text"]')


def test_labels_stand_in_a_column_or_a_table(filed: Path):
    options = {"reader": "files", "query": "clips.csv", "label_separator": ";", "media": "media"}
    task = read(filed, "multilabel", dict(options), '["audio"]').task
    assert task.classes == {"loud": "loud", "wet": "wet"}
    assert list(task.labels) == [("a.wav", "wet"), ("a.wav", "loud"), ("b.wav", "loud")]
    (filed / "classes.csv").write_text("class_id,name\nw,heavy rain\nl,noise\n")
    (filed / "labels.csv").write_text("query_id,class_id\nA,w\nB,l\n")
    options = {"reader": "files", "query": "ids.csv", "classes": "classes.csv", "labels": "labels.csv"}
    task = read(filed, "classification", {**options, "media": "media"}, '["audio"]').task
    assert (task.classes, list(task.labels)) == ({"w": "heavy rain", "l": "noise"}, [("A", "w"), ("B", "l")])


def test_faults_of_a_users_tables_are_told(filed: Path):
    options = {"reader": "files", "query": "clips.csv", "gallery_column": "caption"}
    with pytest.raises(FormatError, match=r"none of its 4 files is there, such as .*a.wav. Check media"):
        read(filed, "retrieval", dict(options), '["audio", "text"]')
    (filed / "ids.csv").write_text("id,path\nA,a.wav\nA,b.wav\n")
    with pytest.raises(FormatError, match=r"the id 'A' stands for .*a.wav' and for .*b.wav'"):
        read(filed, "classification", {"reader": "files", "query": "ids.csv", "media": "media"}, '["audio"]')
    with pytest.raises(ConfigError, match=r"tables serve a retrieval or a classification, got a localization"):
        read(filed, "localization", dict(options))
