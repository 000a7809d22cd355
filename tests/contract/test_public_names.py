"""The door of the library: its names are there, load lazily, and stay what they are whatever is imported first."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import isthmus

NAMES = {
    "Bridge",
    "ConnectConfig",
    "ExtendConfig",
    "IsthmusError",
    "SearchIndex",
    "Space",
    "ablate",
    "compare_bridges",
    "connect",
    "encode",
    "evaluate_bridge",
    "evaluate_retrieval",
    "evaluate_zero_shot",
    "extend",
    "import_embeddings",
    "inspect",
    "join",
    "list_benchmarks",
    "list_encoders",
    "load_bridge",
    "load_official",
    "load_vocabulary",
    "make_space",
    "open_space",
    "project",
    "run_suite",
    "share_texts",
}


def test_the_door_has_exactly_these_names():
    assert set(isthmus.__all__) == NAMES
    assert isthmus.__all__ == sorted(isthmus.__all__)
    assert set(dir(isthmus)) >= NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_loads_and_is_documented(name: str):
    value = getattr(isthmus, name)
    assert callable(value)
    assert value.__doc__, f"isthmus.{name} has no docstring"
    assert getattr(import_module(value.__module__), name) is value


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'isthmus' has no attribute 'conect'"):
        isthmus.conect  # noqa: B018


@pytest.mark.parametrize("name", ["connect", "extend", "encode", "inspect"])
def test_importing_a_module_first_does_not_shadow_a_function(name: str):
    module = isthmus._DOOR[name]
    code = f"import isthmus.{module}\nimport isthmus\nassert callable(isthmus.{name}), isthmus.{name}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_star_import_gives_the_door():
    code = "from isthmus import *\nassert callable(extend) and callable(open_space)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_metrics_named_in_the_contract_are_there():
    metrics = import_module("isthmus.metrics")
    for name in ("consensus_iou", "localization_scores", "counterfactual_scores", "retrieval_scores", "multilabel_map"):
        assert callable(getattr(metrics, name))
