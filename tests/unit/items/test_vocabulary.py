"""The vocabulary that ships: what is in it, that its script makes it, and how texts are read."""

from __future__ import annotations

import gzip
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from isthmus.errors import ConfigError, FormatError
from isthmus.items.vocabulary import count_kinds, load_vocabulary, read_texts, search_vocabulary, text_id

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "src" / "isthmus" / "items" / "data"
WORDNET = Path("/usr/share/wordnet")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_vocabulary", ROOT / "scripts" / "make_vocabulary.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_vocabulary"] = module
    spec.loader.exec_module(module)
    return module


def test_it_has_twenty_thousand_distinct_names_with_short_glosses():
    entries = load_vocabulary()
    names = [entry.name for entry in entries]
    assert 19_000 <= len(names) <= 21_000
    assert names == sorted(set(names))
    assert all(name == name.strip() and len(name) > 1 for name in names)
    assert all(len(entry.gloss) <= 60 and "(" not in entry.gloss for entry in entries)
    assert sum(bool(entry.gloss) for entry in entries) > 0.9 * len(entries)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("dog", "animal"), ("guitar", "artefact"), ("thunder", "sound"), ("barking", "sound"), ("running", "event")],
)
def test_it_knows_things_beings_events_and_sounds(name: str, kind: str):
    found = {entry.name: entry.kind for entry in load_vocabulary()}
    assert found[name] == kind


@pytest.mark.parametrize("name", ["truth", "democracy", "Paris", "canidae", "thursday"])
def test_it_leaves_out_ideas_and_single_places(name: str):
    assert name not in {entry.name for entry in load_vocabulary()}


def test_it_is_small_and_its_notice_lies_beside_it():
    assert (DATA / "vocabulary.tsv.gz").stat().st_size < 1_500_000
    notice = (DATA / "LICENSE.wordnet").read_text()
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in notice
    assert "LICENSE.wordnet" in (ROOT / "pyproject.toml").read_text()


@pytest.mark.skipif(not (WORDNET / "data.noun").is_file(), reason="WordNet is not installed (apt: wordnet-base)")
def test_the_committed_file_is_what_the_script_makes(script: ModuleType):
    made = script.make(WORDNET)
    assert made == gzip.decompress((DATA / "vocabulary.tsv.gz").read_bytes()).decode()
    assert gzip.decompress(script.compress(made)).decode() == made


@pytest.mark.parametrize(
    ("verb", "form"),
    [
        ("bark", "barking"),
        ("scrape", "scraping"),
        ("hum", "humming"),
        ("tie", "tying"),
        ("see", "seeing"),
        ("dye", "dyeing"),
        ("sneeze", "sneezing"),
        ("blow", "blowing"),
        ("mix", "mixing"),
        ("open", "opening"),
    ],
)
def test_gerunds(script: ModuleType, verb: str, form: str):
    assert script.gerund(verb, {}) == form


def test_irregular_gerunds_go_first(script: ModuleType):
    assert script.gerund("picnic", {"picnic": "picnicking"}) == "picnicking"


def test_glosses_are_cut_between_words(script: ModuleType):
    synset = script.Synset("05", ["x"], gloss='a very (often) long thing; "an example"')
    assert script.gloss_of(synset) == "a very long thing"
    long = script.Synset("05", ["x"], gloss="one two three four five six seven eight nine ten of the eleven twelve")
    assert script.gloss_of(long) == "one two three four five six seven eight nine ten"


def test_search_ranks_the_name_before_names_before_glosses():
    found = [entry.name for entry in search_vocabulary("Violin")]
    assert found[0] == "violin"
    assert "violin playing" in found[:5]
    assert found == list(dict.fromkeys(found))
    assert search_vocabulary("qqqq") == []


def test_kinds_are_counted():
    kinds = count_kinds()
    assert sum(kinds.values()) == len(load_vocabulary())
    assert list(kinds.values()) == sorted(kinds.values(), reverse=True)


def test_an_id_is_that_of_the_text_however_it_was_typed():
    assert text_id("caf\u00e9") == text_id("cafe\u0301")
    assert text_id("dog") != text_id("Dog")
    assert text_id("dog").startswith("text-")
    assert len(text_id("dog")) == 25


def test_texts_are_read_from_lists_tables_and_the_vocabulary(tmp_path: Path):
    (tmp_path / "a.txt").write_text("dog\ncat\n\ndog \n")
    (tmp_path / "b.csv").write_text("id,caption\n1,a bird\n2,a bird\n")
    assert read_texts(tmp_path / "a.txt") == ["dog", "cat"]
    assert read_texts(tmp_path / "b.csv") == ["a bird"]
    assert read_texts(["one", "two", "one"]) == ["one", "two"]
    assert read_texts("builtin") == [entry.name for entry in load_vocabulary()]


def test_faults_of_texts_say_what_was_expected(tmp_path: Path):
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(ConfigError, match=r"texts got 'builtins', which is no file\. Expected 'builtin' or a file"):
        read_texts("builtins")
    with pytest.raises(FormatError, match=r"empty\.txt: holds no text\. Expected one a line"):
        read_texts(tmp_path / "empty.txt")
    with pytest.raises(ConfigError, match=r"texts hold 3\. Expected strings"):
        read_texts(["a", 3])  # type: ignore[list-item]
