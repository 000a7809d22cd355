"""What `isthmus doctor` finds out."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from isthmus.cli import machine


def test_extras_are_those_of_the_installed_package(monkeypatch: pytest.MonkeyPatch):
    requirements = [
        "numpy>=1.26",
        'pillow>=10; extra == "image"',
        'not-there-at-all>=1; extra == "mesh"',
        "isthmus[demo,hf]; extra == 'dev'",
        'pytest>=8; extra == "dev"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: requirements)
    image, mesh = machine.extras()
    assert (image["extra"], image["packages"], image["missing"], image["install"]) == ("image", ["pillow"], [], None)
    assert mesh["missing"] == ["not-there-at-all"]
    assert mesh["install"] == "pip install 'isthmus[mesh]'"


def test_an_extra_that_is_installed_and_does_not_work_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metadata, "requires", lambda name: ['av>=12; extra == "audio"'])
    (audio,) = machine.extras()
    assert (audio["missing"], audio["fault"]) == ([], None)

    def refuse(*_: object, **__: object) -> None:
        raise TypeError("open() got an unexpected keyword argument 'metadata_errors'")

    monkeypatch.setattr("isthmus.items.decoding.audio.open_container", refuse)
    (audio,) = machine.extras()
    assert "metadata_errors" in audio["fault"]


def test_a_source_tree_that_is_not_installed_has_no_extras(monkeypatch: pytest.MonkeyPatch):
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert machine.extras() == []


def test_a_package_that_does_not_fit_torch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "OFTEN_BROKEN", ("isthmus_test_broken", "isthmus_test_absent", "json"))
    (tmp_path / "isthmus_test_broken.py").write_text("raise RuntimeError('operator nms does not exist\\nmore')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert machine.broken() == [
        "isthmus_test_broken is installed but does not fit torch (operator nms does not exist). "
        "Not needed: pip uninstall isthmus_test_broken"
    ]


def test_why_there_are_no_compiled_loops_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("isthmus.core.kernels.missing", lambda: None)
    assert machine.machine()["compiled_loops"] == "yes"
    monkeypatch.setattr("isthmus.core.kernels.missing", lambda: "this processor has no AVX2")
    assert machine.machine()["compiled_loops"] == "this processor has no AVX2"


def test_the_machine_is_described():
    found = machine.machine()
    assert found["cores"] >= 1
    assert found["threads"] >= 1
    assert found["devices"].startswith("cpu")
