"""A loss, a projector, an aggregation of one's own: what they change, what is recorded, and what is refused."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import isthmus
from isthmus.errors import ConfigError, EvaluationError
from isthmus.evaluation.suite.retrain import own_steps
from isthmus.pairs.own_aggregation import OwnAggregation
from isthmus.recipes.connect import ConnectConfig
from isthmus.recipes.extend import ExtendConfig
from isthmus.recipes.hooks import Hooks
from worlds import three_spaces

FAST = {"epochs": 2, "batch_size": 64, "members": 1, "precision": "float32"}


class SigmoidLoss:
    """Pairwise sigmoid loss."""

    def __init__(self, bias: float = -2.0) -> None:
        self.bias = bias

    def __call__(self, x: torch.Tensor, z: torch.Tensor, temperature: float) -> torch.Tensor:
        labels = 2.0 * torch.eye(len(x)) - 1.0
        return -F.logsigmoid(labels * (x @ z.T / temperature + self.bias)).sum(1).mean()


def info_nce_again(x: torch.Tensor, z: torch.Tensor, temperature: float) -> torch.Tensor:
    logits, own = x @ z.T / temperature, torch.arange(len(x))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def small(dim_in: int, dim_out: int) -> nn.Module:
    inner = nn.Sequential(nn.Linear(dim_in, 24), nn.ReLU(), nn.BatchNorm1d(24, eps=1e-3))
    return nn.Sequential(inner, nn.Linear(24, dim_out))


def softmax_again(queries: np.ndarray, memory: np.ndarray, temperature: float) -> np.ndarray:
    scores = queries @ memory.T / temperature
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def nearest(queries: np.ndarray, memory: np.ndarray, temperature: float) -> np.ndarray:
    return np.eye(len(memory), dtype=np.float32)[(queries @ memory.T).argmax(axis=1)]


@pytest.fixture(scope="module")
def spaces(tmp_path_factory: pytest.TempPathFactory) -> tuple[isthmus.Space, ...]:
    return three_spaces(tmp_path_factory.mktemp("spaces"))


def joined(spaces: tuple[isthmus.Space, ...], recipe: str, hooks: Hooks | None = None, **options) -> isthmus.Bridge:
    settings = {**FAST, **options.pop("settings", {})}
    common = {"via": "text", "quiet": True, "seed": 3, "device": "cpu", "estimate": False, "hooks": hooks, **options}
    if recipe == "connect":
        config = ConnectConfig(**{**settings, "dim": 40})
        return isthmus.connect(*spaces[:2], config=config, **common)
    return isthmus.extend(*spaces[:2], config=ExtendConfig(**{**settings, "description": 0.0}), **common)


def largest_difference(first: isthmus.Bridge, second: isthmus.Bridge) -> float:
    """The largest difference of two bridges on 200 rows. Not of their arrays: a bias before BatchNorm does nothing."""
    rows = np.random.default_rng(0).standard_normal((200, 20)).astype(np.float32)
    both = [bridge.project(rows, space="clap", modality="audio") for bridge in (first, second)]
    return float(np.abs(both[0] - both[1]).max())


@pytest.mark.parametrize("recipe", ["connect", "extend"])
def test_what_a_paper_has_written_out_again_is_the_same(spaces, recipe: str):
    stock = joined(spaces, recipe, settings={"aggregation_method": "exact", "pair_storage": "dense"})
    same = joined(spaces, recipe, Hooks(loss=info_nce_again, aggregation=softmax_again))
    # Adam makes steps of the last digits of small gradients: the losses agree to more digits than the projectors.
    losses = [[row["loss"] for row in bridge.history] for bridge in (stock, same)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    difference = largest_difference(stock, same)
    assert difference < 0.02
    for hooks in (Hooks(loss=SigmoidLoss()), Hooks(aggregation=nearest)):
        assert largest_difference(stock, joined(spaces, recipe, hooks)) > 2 * difference


def test_a_loss_written_out_again_is_the_same_on_a_batch(spaces):
    from test_training import SLOTS, unit

    from isthmus.recipes.extend import DenseAlignment
    from isthmus.recipes.training.projectors import LeafProjector, initialize

    projector = LeafProjector(["audio"], 12, 12)
    initialize(projector, torch.Generator().manual_seed(0))
    batch = {slot: torch.from_numpy(unit(40, 12, number)) for number, slot in enumerate(SLOTS)}
    values = []
    for hooks in (Hooks(), Hooks(loss=info_nce_again), Hooks(loss=SigmoidLoss())):
        projector.zero_grad()
        loss, _ = DenseAlignment(projector, SLOTS, ["text"], ExtendConfig(), hooks).loss(batch)
        loss.backward()
        values.append((float(loss.detach()), projector.mlp1.net1[0].weight.grad.clone()))
    assert values[1][0] == pytest.approx(values[0][0], rel=1e-6)
    torch.testing.assert_close(values[1][1], values[0][1], rtol=1e-4, atol=1e-7)
    assert abs(values[2][0] - values[0][0]) > 0.1


@pytest.mark.parametrize("recipe", ["connect", "extend"])
def test_a_projector_becomes_steps_that_need_no_class(spaces, recipe: str, tmp_path: Path):
    bridge = joined(spaces, recipe, Hooks(loss=SigmoidLoss(), projector=small, aggregation=nearest))
    bridge.save(tmp_path / "own.bridge")
    record = json.loads((tmp_path / "own.bridge" / "bridge.json").read_text())["record"]
    names = {kind: hook["name"] for kind, hook in record["hooks"].items()}
    place = __name__
    assert names == {
        "loss": f"{place}:SigmoidLoss", "projector": f"{place}:small", "aggregation": f"{place}:nearest"
    }  # fmt: skip
    assert all(len(hook["source_sha256"]) == 64 for hook in record["hooks"].values())
    audio = np.asarray(spaces[1]["audio"])[:7]
    here = bridge.project(audio, space=spaces[1].name, modality="audio")
    np.save(tmp_path / "audio.npy", audio)
    code = """
import sys, numpy as np, isthmus
bridge = isthmus.load_bridge(sys.argv[1] + "/own.bridge")
rows = bridge.project(np.load(sys.argv[1] + "/audio.npy"), space=sys.argv[2], modality="audio")
np.save(sys.argv[1] + "/there.npy", rows)
assert not any("test_hooks" in name for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, tmp_path, spaces[1].name], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "there.npy"), here, atol=1e-6)
    assert np.linalg.norm(here, axis=1) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(EvaluationError, match="of somebody's own, which a file never builds"):
        own_steps(isthmus.load_bridge(tmp_path / "own.bridge"))
    del bridge.record["hooks"], bridge.config["via"]
    with pytest.raises(EvaluationError, match="step 1 of the bridge's record does not say via what it was made"):
        own_steps(bridge)


def test_a_route_computes_what_the_module_does(spaces):
    hooks = Hooks(projector=small)
    module = hooks.projector_of(20, 30, seed=1, number=0)
    assert module is not None
    again = hooks.projector_of(20, 30, seed=1, number=0)
    other = hooks.projector_of(20, 30, seed=1, number=1)
    weights = [one.state_dict()["1.weight"] for one in (module, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    from isthmus.bridges.routes import apply_route
    from isthmus.recipes.training.projectors import arrays, own_layers

    module(torch.randn(50, 20))  # running statistics other than those of the start
    module.eval()
    x = np.random.default_rng(0).standard_normal((5, 20)).astype(np.float32)
    route = [{"kind": "mlp", "layers": own_layers(module, "p.")}]
    expected = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(apply_route(route, arrays(module, "p."), x), expected, atol=1e-5)


def test_a_checkpoint_is_of_its_hooks(spaces, tmp_path: Path):
    folder = tmp_path / "run"
    first = joined(spaces, "extend", Hooks(loss=SigmoidLoss()), checkpoint_dir=folder)
    again = joined(spaces, "extend", Hooks(loss=SigmoidLoss()), checkpoint_dir=folder)
    assert largest_difference(first, again) == 0
    for hooks in (None, Hooks(loss=info_nce_again)):
        with pytest.raises(ConfigError, match="belongs to a run with other settings or spaces"):
            joined(spaces, "extend", hooks, checkpoint_dir=folder)


def test_pairs_that_are_kept_are_of_their_aggregation(spaces, tmp_path: Path):
    pairs = tmp_path / "pairs"
    stock = joined(spaces, "extend", pairs_dir=pairs)
    own = joined(spaces, "extend", Hooks(aggregation=nearest), pairs_dir=pairs)
    assert largest_difference(stock, own) > 1e-3
    assert {hop["method"] for hop in own.record["effective_neighbours"].values()} == {f"{__name__}:nearest"}
    assert {hop["median"] for hop in own.record["effective_neighbours"].values()} == {1.0}


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def constant(x: torch.Tensor, z: torch.Tensor, temperature: float) -> torch.Tensor:
    return torch.tensor(1.0)


def unreduced(x: torch.Tensor, z: torch.Tensor, temperature: float) -> torch.Tensor:
    return (x * z).sum(1)


def half_wrong(queries: np.ndarray, memory: np.ndarray, temperature: float) -> np.ndarray:
    return queries


def not_numbers(queries: np.ndarray, memory: np.ndarray, temperature: float) -> np.ndarray:
    return np.full((len(queries), len(memory)), np.nan)


@pytest.mark.parametrize(
    ("hooks", "fault"),
    [
        (lambda: Hooks(loss="mypackage:Loss"), "loss is 'mypackage:Loss', expected something to call. A name alone"),
        (lambda: Hooks(loss=nn.Linear(2, 2)), r"the loss torch\S+:Linear has parameters, which would not be trained"),
        (lambda: Hooks(loss=constant), r":constant does not depend on its rows"),
        (lambda: Hooks(loss=unreduced), r":unreduced gave shape \(64,\), expected a scalar"),
        (lambda: Hooks(loss=lambda x, z, t: 1.0), r"gave float, expected a scalar"),
        (lambda: Hooks(projector=lambda a, b: nn.GELU()), "holds a GELU, which no route of a bridge computes"),
        (lambda: Hooks(projector=Doubled), "holds a Doubled, which no route"),
        (lambda: Hooks(projector=functools.partial(nn.Linear, bias=False)), "torch.*:Linear: holds a Linear, which no"),
        (lambda: Hooks(projector=lambda a, b: nn.BatchNorm1d(a, affine=False)), "holds a BatchNorm1d"),
        (lambda: Hooks(projector=lambda a, b: nn.Linear(a, b + 1)), r"maps \(2, \d+\) to \(2, \d+\), expected"),
        (lambda: Hooks(projector=lambda a, b: nn.Linear(a + 1, b)), "cannot be multiplied"),
        (lambda: Hooks(projector=lambda a, b: 3), "gave a int, expected a torch module"),
        (lambda: Hooks(aggregation=half_wrong), r":half_wrong gave float32 of shape \(\d+, \d+\), expected weights"),
        (lambda: Hooks(aggregation=not_numbers), "gave weights that are NaN or infinite"),
        (lambda: {"loss": constant}, r"hooks got a dict, expected isthmus\.recipes\.hooks\.Hooks"),
    ],
)
def test_refusals(spaces, hooks, fault: str):
    with pytest.raises(ConfigError, match=fault) as caught:
        joined(spaces, "extend", hooks())
    assert len(str(caught.value)) <= 400


def test_methods_that_do_not_train_take_none(spaces):
    with pytest.raises(ConfigError, match=r"hooks are of c-mcr, got method='procrustes'"):
        isthmus.connect(*spaces[:2], via="text", method="procrustes", hooks=Hooks(loss=constant))
    with pytest.raises(ConfigError, match=r"hooks are of ex-mcr, got method='ridge'"):
        isthmus.extend(*spaces[:2], via="text", method="ridge", hooks=Hooks(loss=constant))
    with pytest.raises(ConfigError, match=r"keeps pairs dense, got pair_storage='sparse'"):
        joined(spaces, "extend", Hooks(aggregation=nearest), settings={"pair_storage": "sparse"})


def test_weighted_sums_of_a_block_and_of_many():
    rng = np.random.default_rng(0)
    queries, memory, values = (rng.standard_normal(shape).astype(np.float32) for shape in ((2500, 6), (9, 6), (9, 4)))
    out = [np.empty((2500, 6), np.float32), np.empty((2500, 4), np.float32)]
    own = OwnAggregation(softmax_again, "x:y", "x:y")
    neighbours = own.average(queries, memory, [memory, values], 0.5, out)
    weights = softmax_again(queries.astype(np.float64), memory.astype(np.float64), 0.5)
    for array, averaged in zip(out, (memory, values), strict=True):
        np.testing.assert_allclose(array, weights @ averaged, atol=1e-5)
    entropy = -(weights * np.log(weights)).sum(axis=1)
    np.testing.assert_allclose(neighbours, np.exp(entropy), rtol=1e-4)
