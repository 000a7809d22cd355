"""Projectors: sizes and names of the official heads, identity at the start, routes that equal the modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isthmus.bridges.routes import apply_route
from isthmus.recipes.training.projectors import (
    MLP,
    ConnectProjectors,
    LeafProjector,
    arrays,
    initialize,
    parameter_count,
)


def trained(module: torch.nn.Module, *inputs: int) -> torch.nn.Module:
    """A module with drawn weights and BatchNorm statistics that are not the initial ones."""
    generator = torch.Generator().manual_seed(3)
    initialize(module, generator)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            part.running_mean.normal_(generator=generator)
            part.running_var.uniform_(0.5, 2.0, generator=generator)
    return module.eval()


def test_parameter_counts_are_those_of_the_official_heads() -> None:
    assert parameter_count(ConnectProjectors((512, 512), 512)) == 2_106_368
    assert parameter_count(ConnectProjectors((512, 512), 512, head="half")) == 527_360
    assert parameter_count(LeafProjector(["audio"], 512, 512)) == 2_369_024


def test_block_names_are_those_of_the_official_heads() -> None:
    names = set(MLP(4).state_dict())
    norms = {
        f"{n}.1.{k}"
        for n in ("net1", "net2")
        for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert names == norms | {f"{n}.0.{k}" for n in ("net1", "net2") for k in ("weight", "bias")}


def test_f_l_starts_as_the_identity() -> None:
    """And a bias as torch draws it, which is what the official code leaves it at."""
    projector = LeafProjector(["audio"], 6, 5)
    initialize(projector, torch.Generator().manual_seed(0), scheme="xavier")
    layer = projector.linear["audio"]
    assert torch.equal(layer.weight, torch.eye(6))
    assert 0.0 < float(layer.bias.detach().abs().max()) <= 6**-0.5
    x = torch.randn(3, 6)
    torch.testing.assert_close(projector.to_overlap(x, "audio"), x + layer.bias)


@pytest.mark.parametrize(("leaf_layer", "blocks"), [("linear", 2), ("mlp", 1), ("mlp2", 2), ("none", 0), ("linear", 3)])
@pytest.mark.parametrize("modality", ["audio", "text"])
def test_a_leaf_route_equals_the_module(modality: str, leaf_layer: str, blocks: int) -> None:
    projector = trained(LeafProjector(["audio"], 6, 10, ratio=1.5, leaf_layer=leaf_layer, blocks=blocks))
    x = torch.nn.functional.normalize(torch.randn(7, 6), dim=-1)
    start = projector.to_overlap(x, modality) if modality == "audio" else x
    expected = projector.to_base([start])[0].detach().numpy()
    found = apply_route(projector.steps(modality, "clap."), arrays(projector, "clap."), x.numpy())
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("head", ["mlp", "half"])
@pytest.mark.parametrize("side", [0, 1])
def test_a_connect_route_equals_the_module(side: int, head: str) -> None:
    projectors = trained(ConnectProjectors((6, 4), 8, head=head))
    x = torch.nn.functional.normalize(torch.randn(7, 6 - 2 * side), dim=-1)
    expected = projectors([x], side)[0].detach().numpy()
    np.testing.assert_allclose(
        apply_route(projectors.steps(side, ""), arrays(projectors, ""), x.numpy()), expected, atol=2e-6
    )
    assert (bool((expected < 0).any()), (expected > 0).any()) == (head == "mlp", True)


def test_joint_and_separate_batches_differ_in_training_and_agree_afterwards() -> None:
    projector = trained(LeafProjector([], 6, 6))
    x, y = torch.randn(9, 6), torch.randn(9, 6) + 3.0
    torch.testing.assert_close(projector.to_base([x, y]), projector.to_base([x, y], joint=False))
    projector.train()
    assert not torch.allclose(projector.to_base([x, y]), projector.to_base([x, y], joint=False), atol=1e-2)


def test_initialisation_follows_its_generator_alone() -> None:
    first, second = LeafProjector(["audio"], 6, 6), LeafProjector(["audio"], 6, 6)
    for module in (first, second):
        initialize(module, torch.Generator().manual_seed(5))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("scheme", ["torch", "xavier"])
def test_initial_weights_are_as_large_as_their_scheme_says(scheme: str) -> None:
    """Xavier's bound goes by both widths, torch's by the input alone; biases are torch's either way."""
    module = LeafProjector(["audio"], 40, 20)
    initialize(module, torch.Generator().manual_seed(0), scheme=scheme)
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, torch.nn.Linear)}
    assert len(layers) == 5
    for name, layer in layers.items():
        torch_bound = layer.in_features**-0.5
        bound = torch_bound if scheme == "torch" else (6 / (layer.in_features + layer.out_features)) ** 0.5
        if not name.startswith("linear"):
            assert 0.97 * bound < float(layer.weight.detach().abs().max()) <= bound
        assert 0.5 * torch_bound < float(layer.bias.detach().abs().max()) <= torch_bound
