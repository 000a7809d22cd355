"""Number types of products: asked of the processor, or forced; never timed."""

from __future__ import annotations

import json

import pytest
import torch

from isthmus.core import kernels, products
from isthmus.core.products import SWITCH, arithmetic, forced_way, has_bf16, low_precision_type, scan_type
from isthmus.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """Pretend a processor: with bf16 instructions or without, with compiled loops or without."""

    def pretend(*, bf16: bool, loops: bool) -> None:
        monkeypatch.delenv(SWITCH, raising=False)
        monkeypatch.setattr(products, "_processor_has_bf16", lambda: bf16)
        monkeypatch.setattr(kernels, "missing", lambda: None if loops else "no loops here")

    return pretend


@pytest.mark.parametrize(
    ("bf16", "loops", "products_of", "scan"),
    [
        (True, True, "bf16", "int8"), (True, False, "bf16", "bf16"),
        (False, True, "int16", "int8"), (False, False, "float32", "float32"),
    ],
)  # fmt: skip
def test_what_a_processor_has_decides(machine, bf16, loops, products_of, scan):
    machine(bf16=bf16, loops=loops)
    assert (has_bf16(CPU), low_precision_type(CPU), scan_type(CPU)) == (bf16, products_of, scan)


@pytest.mark.parametrize(
    ("way", "products_of", "scan"),
    [("bf16", "bf16", "bf16"), ("integer", "int16", "int8"), ("float32", "float32", "float32")],
)
@pytest.mark.parametrize("bf16", [True, False])
def test_every_way_can_be_forced_on_every_processor(machine, monkeypatch, bf16, way, products_of, scan):
    machine(bf16=bf16, loops=True)
    monkeypatch.setenv(SWITCH, way)
    assert (low_precision_type(CPU), scan_type(CPU)) == (products_of, scan)


def test_other_devices_have_no_integers(machine, monkeypatch):
    machine(bf16=True, loops=True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    assert (low_precision_type(torch.device("cuda")), scan_type(torch.device("cuda"))) == ("bf16", "bf16")
    assert (low_precision_type(torch.device("mps")), scan_type(torch.device("mps"))) == ("float32", "float32")


def test_a_way_that_cannot_be_had_is_refused(machine, monkeypatch):
    machine(bf16=False, loops=False)
    monkeypatch.setenv(SWITCH, "fast")
    with pytest.raises(ConfigError, match=r"ISTHMUS_PRODUCTS is 'fast'\. Expected one of bf16, integer, float32"):
        forced_way()
    monkeypatch.setenv(SWITCH, "integer")
    with pytest.raises(ConfigError, match=r"ISTHMUS_PRODUCTS=integer needs the compiled loops: no loops here\. Give"):
        low_precision_type(CPU)


def test_instructions_are_read_from_the_processor(monkeypatch):
    found = products._processor_has_bf16.__wrapped__
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr(products, "_linux_flags", lambda: {"asimd", "bf16"})
    assert found()
    monkeypatch.setattr(products, "_linux_flags", lambda: {"asimd"})
    assert not found()
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True, raising=False)
    assert found()
    monkeypatch.delattr("torch.cpu._is_avx512_bf16_supported")
    assert not found()
    monkeypatch.setattr(products, "_linux_flags", lambda: {"avx512_bf16"})
    assert found()


def test_what_was_used_is_written_down(machine, monkeypatch):
    machine(bf16=True, loops=False)
    used = json.loads(json.dumps(arithmetic(CPU)))
    assert used["products"] == used["scan"] == "bf16"
    assert used["compiled_loops"] is None
    assert used["threads"] == torch.get_num_threads()
    assert used["instructions"]
    monkeypatch.undo()
    if kernels.available():
        import numba

        assert arithmetic(CPU)["compiled_loops"] == numba.__version__
