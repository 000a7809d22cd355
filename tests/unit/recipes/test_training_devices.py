"""Training on devices that this machine has not: what Apple's MPS refuses, and where a resumed CUDA state lies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracle.test_training_oracle import DIMS, SLOTS, pool
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from isthmus.recipes.connect import ConnectConfig, InterIntra
from isthmus.recipes.extend import DenseAlignment, ExtendConfig
from isthmus.recipes.training.loop import make_optimizer, train
from isthmus.recipes.training.noise import add_noise, noise_generator
from isthmus.recipes.training.projectors import ConnectProjectors, LeafProjector, initialize
from isthmus.recipes.training.schedule import make_schedule
from isthmus.recipes.training.state import TrainingState

MPS = torch.device("mps")


class FakeMps(TorchFunctionMode):
    """Takes what is sent to an MPS device to the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def place(x: Any) -> Any:
            if not (isinstance(x, torch.device) and x.type == "mps"):
                return x
            self.moved += 1
            return torch.device("cpu")

        return func(*map(place, args), **{name: place(value) for name, value in (kwargs or {}).items()})


class NoFloat64(TorchDispatchMode):
    """Refuses what that device refuses."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if any(isinstance(x, Tensor) and x.dtype == torch.float64 for x in tree_leaves(out)):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return out


def test_the_fake_device_refuses_what_the_real_one_does() -> None:
    with FakeMps() as fake, NoFloat64(), pytest.raises(TypeError, match="float64"):
        torch.ones(2, device=MPS).double()
    assert fake.moved == 1


@pytest.mark.parametrize("recipe", ["extend", "connect"])
def test_training_on_mps_makes_no_float64_and_draws_on_the_cpu(recipe: str) -> None:
    pairs = pool()
    if recipe == "extend":
        config: Any = ExtendConfig(epochs=2, batch_size=24, held_out=0.1)
        module: Any = LeafProjector(["audio"], DIMS[1], DIMS[0])
        objective: Any = DenseAlignment(module, SLOTS, ["text"], config)
    else:
        config = ConnectConfig(epochs=2, batch_size=24, held_out=0.1, dim=9)
        module = ConnectProjectors(DIMS, 9)
        objective = InterIntra(module, SLOTS, ["text"], config)
    initialize(module, torch.Generator().manual_seed(0))
    with FakeMps() as fake, NoFloat64():
        result = train(module, objective, pairs, config, make_schedule(len(pairs), config), device=MPS, quiet=True)
    assert fake.moved > 0
    assert len(result.history) == 2


def test_noise_is_drawn_where_a_device_has_a_generator() -> None:
    generator = noise_generator(MPS, 0, 3, 0)
    assert generator.device.type == "cpu"
    batch = {SLOTS[0]: torch.empty((4, DIMS[0]), device="meta")}
    assert add_noise(batch, {SLOTS[0]: 0.1}, generator)[SLOTS[0]].device.type == "meta"


def test_a_resumed_cuda_state_lies_on_the_device_with_its_step() -> None:
    """The fused step wants its counter there; put back by hand it stayed on the CPU."""
    config = ExtendConfig()
    module = LeafProjector(["audio"], 6, 5)
    optimizer = make_optimizer(module, config, torch.device("cpu"))
    torch.stack([p.sum() for p in module.parameters()]).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()["state"]
    tensors = {f"{number}/{name}": value.clone() for number, each in state.items() for name, value in each.items()}
    assert {key.partition("/")[2] for key in tensors} == {"step", "exp_avg", "exp_avg_sq"}
    # The meta device stands for CUDA, whose optimiser is the fused one.
    there = LeafProjector(["audio"], 6, 5).to("meta")
    resumed = TrainingState(there, make_optimizer(there, config, torch.device("meta")), "run", {})
    resumed.optimizer.param_groups[0]["fused"] = True
    resumed.load_moments(tensors)
    assert len(resumed.optimizer.state) == len(list(there.parameters()))
    for each in resumed.optimizer.state.values():
        assert {value.device.type for value in each.values()} == {"meta"}
