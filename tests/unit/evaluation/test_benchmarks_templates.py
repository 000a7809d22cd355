"""Prompt templates: our own sets, and files as their authors published them, of which nothing is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isthmus.errors import ConfigError, FormatError
from isthmus.evaluation.benchmarks.declaration import list_benchmarks
from isthmus.evaluation.benchmarks.templates import Templates, fill, list_templates, own_templates, read_templates
from miniatures_av import write
from miniatures_text import notebook

TWO = ["a thing like {}.", "one more {}"]


@pytest.mark.parametrize("name", list_templates())
def test_our_own_sets_have_one_place_each_and_repeat_nothing(name):
    templates = own_templates(name)
    assert all(text.count("{}") == 1 for text in templates.texts)
    assert len(set(templates.texts)) == len(templates.texts) >= 5
    assert (templates.name, templates.source) == (name, "isthmus")


def test_every_declared_set_is_one_of_ours():
    declared = {each.templates for each in list_benchmarks() if each.templates}
    assert declared <= set(list_templates())
    assert declared >= {"sounds", "images", "shapes"}


def test_an_unknown_set_is_refused():
    with pytest.raises(ConfigError, match=r"no template set 'smells'\. Expected one of sounds, images, shapes"):
        own_templates("smells")


def test_filled_texts_have_ids_of_their_own_and_a_class():
    items = fill(Templates("t", "x", tuple(TWO)), {"n1": "crane", "n2": "crane", "n3": "a {} b"})
    assert [(item.id, item.text, item.columns["class"]) for item in items] == [
        ("n1#0", "a thing like crane.", "n1"),
        ("n1#1", "one more crane", "n1"),
        ("n2#0", "a thing like crane.", "n2"),
        ("n2#1", "one more crane", "n2"),
        ("n3#0", "a thing like a {} b.", "n3"),
        ("n3#1", "one more a {} b", "n3"),
    ]


def test_ulip_s_file_by_key(tmp_path):
    path = write(tmp_path / "templates.json", json.dumps({"modelnet40_64": TWO, "shapenet_64": [*TWO, "x {}"]}))
    assert read_templates(path, "modelnet40_64") == Templates("modelnet40_64", "templates.json", tuple(TWO))
    with pytest.raises(
        ConfigError, match=r"several sets.*Expected one of modelnet40_64, shapenet_64.*templates\.json:NAME"
    ):
        read_templates(path)
    with pytest.raises(ConfigError, match=r"no set of prompts 'modelnet40'\. Expected one of modelnet40_64"):
        read_templates(path, "modelnet40")


def test_clip_benchmark_s_file_with_its_own_place(tmp_path):
    path = write(tmp_path / "en.json", json.dumps({"imagenet1k": ["a {c} here", "the {c}."], "other": {"a": 1}}))
    assert read_templates(path).texts == ("a {} here", "the {}.")


def test_a_list_in_json_and_plain_text(tmp_path):
    assert read_templates(write(tmp_path / "mine.json", json.dumps(TWO))).record()["name"] == "mine"
    assert read_templates(write(tmp_path / "mine.txt", "a thing like {}.\r\n\n one more {c} \n")).texts == tuple(TWO)


def test_a_notebook_s_list_is_parsed_and_never_run(tmp_path):
    prompts = ["a photo, so to say, of {}.", 'it\'s "{}"']
    text = notebook(imagenet_classes=["tench", "goldfish"], imagenet_templates=prompts)
    path = write(tmp_path / "Prompt.ipynb", text)
    assert read_templates(path) == Templates("imagenet_templates", "Prompt.ipynb", tuple(prompts))
    run = {"cell_type": "code", "source": [f"open({str(tmp_path / 'ran')!r}, 'w')\n", "t = [open('x'), '{}']\n"]}
    path = write(tmp_path / "evil.ipynb", json.dumps({"cells": [run, *json.loads(text)["cells"]]}))
    assert read_templates(path).texts == tuple(prompts)
    assert not (tmp_path / "ran").exists()


def test_open_clip_s_functions_are_read_as_texts(tmp_path):
    functions = ["lambda c: f'a bad {c}.'", 'lambda c: f"the {c}\'s end"']
    source = f"import os\nOPENAI = (\n    {', '.join(functions)},\n)\nSIMPLE = [lambda c: f'{{c}}']\n"
    path = write(tmp_path / "zero_shot_metadata.py", source)
    assert read_templates(path, "OPENAI").texts == ("a bad {}.", "the {}'s end")
    with pytest.raises(ConfigError, match=r"several sets of prompts\. Expected one of OPENAI, SIMPLE"):
        read_templates(path)
    called = write(tmp_path / "called.py", "X = [lambda c: f'{c.upper()} {c}', lambda c: f'a {c}']\nY = ['{}']\n")
    assert read_templates(called).name == "Y"


def test_the_record_is_of_the_texts(tmp_path):
    one, two = Templates("a", "x.json", tuple(TWO)), Templates("b", "y.txt", tuple(TWO))
    assert one.record() == {"name": "a", "source": "x.json", "count": 2, "sha256": two.record()["sha256"]}
    assert len(one.record()["sha256"]) == 64
    assert Templates("a", "x.json", tuple(reversed(TWO))).record()["sha256"] != one.record()["sha256"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", "x", r"the suffix '\.yaml' is none of \.json, \.ipynb, \.py, \.txt"),
        ("a.txt", "no place\n", r"a\.txt: prompt 1 is 'no place', expected exactly one place \{\} or \{c\}"),
        ("a.txt", "{} and {}\n", "prompt 1 is '{} and {}', expected exactly one"),
        ("a.json", "{", "a.json: is no JSON"),
        ("a.json", '{"a": 1}', "holds no list of texts"),
        ("a.json", '{"a": ["x"], "b": ["y"]}', "none of its lists is of prompts with {} or {c}"),
        ("a.ipynb", "{}", "is no notebook"),
        ("a.ipynb", '{"cells": []}', "assigns no list of texts"),
        ("a.py", "x = (", "is no Python"),
        ("a.py", "x = open('y')", "assigns no list of texts"),
    ],
)
def test_another_file_is_named_with_its_fault(tmp_path, name, content, message):
    with pytest.raises(FormatError, match=message):
        read_templates(write(tmp_path / name, content))


def test_a_missing_an_empty_or_an_undecodable_file(tmp_path: Path):
    with pytest.raises(FormatError, match=r"none\.txt: cannot be read as a file of prompts"):
        read_templates(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 {}")
    with pytest.raises(FormatError, match=r"latin\.txt: cannot be read"):
        read_templates(tmp_path / "latin.txt")
    with pytest.raises(FormatError, match="holds no prompt"):
        read_templates(write(tmp_path / "empty.txt", "\n"))
