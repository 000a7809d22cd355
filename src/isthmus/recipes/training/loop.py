"""The training loop of both recipes, visible in one place: batch, noise, loss, step, score, checkpoint, resume.

Everything random in a step is a function of the seed and the step's number, so that a run that was killed goes on from
its last checkpoint to the very bytes of a run that was not.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from isthmus.core.files import atomic_file, sha256_json
from isthmus.core.geometry import noise_std
from isthmus.core.products import low_precision_type
from isthmus.core.runtime import Progress, numpy_generator
from isthmus.errors import ConfigError
from isthmus.pairs.columns import pick
from isthmus.pairs.pairs import PseudoPairs, Slot, near
from isthmus.recipes.config import RecipeConfig
from isthmus.recipes.training.int16_linear import sixteen_bits
from isthmus.recipes.training.losses import reused_memory

_PERMUTATION, _NOISE, _HELD_OUT = 10, 11, 12
"""Streams of the seed."""
_SCORED = 1024
"""Held-out pseudo pairs that are scored: enough to tell checkpoints apart, and a negligible part of an epoch."""

_NOT_THE_RUN = {"checkpoint_seconds", "memory_limit", "pair_storage", "engine", "engine_address"}
"""Settings that say where and how a run works and not what comes out."""

Batch = dict[Slot, Tensor]


class Objective(Protocol):
    """What a recipe gives the loop: a loss on noisy batches and aligned embeddings to score on clean ones."""

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The loss of a batch, and its parts by name for the log."""
        ...

    def aligned(self, batch: Batch) -> list[tuple[str, Tensor, Tensor]]:
        """Row-aligned unit embeddings whose retrieval on held-out pseudo pairs says how good the projectors are."""
        ...


@dataclass(frozen=True)
class Plan:
    """What a run comes down to once the size of the pool is known."""

    epochs: int
    batch_size: int
    train_rows: NDArray[np.int64]
    held_out_rows: NDArray[np.int64]

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch; the last incomplete batch is dropped."""
        return len(self.train_rows) // self.batch_size

    @property
    def scored_rows(self) -> NDArray[np.int64]:
        """Held-out rows that are scored."""
        return self.held_out_rows[:_SCORED]

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self.epochs * self.steps_per_epoch


@dataclass
class Outcome:
    """What training leaves: the module holds the best checkpoint.

    Attributes:
        held_out: Scores of the best checkpoint, mean reciprocal rank and recall at 1 per aligned pair.
        history: A row per epoch.
        steps: Steps of the run.
        best_step: The step whose checkpoint was kept.
        seconds: Of training, in this process.
    """

    held_out: dict[str, float]
    history: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    best_step: int = 0
    seconds: float = 0.0


def make_plan(n: int, config: RecipeConfig) -> Plan:
    """Split a pool of `n` pseudo pairs and settle the batch size and the epochs that were left open.

    The papers' batches of 4096 and 10240 are for millions of pairs; on a pool of 41,000 they leave ten steps an epoch.
    An open batch size aims at eighty steps an epoch within 128 to 4096, and open epochs at the method's number of steps
    of all members together, within 1 to 36: `docs/log.md` has the measurements.

    Raises:
        ConfigError: The pool is too small to hold anything out or to fill a batch.
    """
    held = min(max(int(n * config.held_out), min(_SCORED, n // 10)), n // 2)
    batch = config.batch_size or min(4096, max(128, 2 ** round(math.log2(max(n / 80, 1)))))
    if config.batch_size is None:
        batch = min(batch, n - held)
    if held < 2 or batch < 2 or n - held < batch:
        raise ConfigError(
            f"{n:,} pseudo pairs are too few for batches of {batch:,} and a held-out part. Expected at least "
            f"{batch + max(held, 2):,}: give a smaller batch_size, or more embeddings."
        )
    order = numpy_generator(config.seed, _HELD_OUT).permutation(n)
    per_epoch = (n - held) // batch
    epochs = config.epochs or min(36, max(1, round(config.steps / config.members / per_epoch)))
    return Plan(epochs, batch, np.sort(order[held:]), order[:held])


def train(
    module: nn.Module,
    objective: Objective,
    pairs: PseudoPairs,
    config: RecipeConfig,
    plan: Plan,
    *,
    device: torch.device,
    checkpoint: Path | None = None,
    callback: Callable[[Mapping[str, Any]], None] | None = None,
    member: int = 0,
    quiet: bool = False,
) -> Outcome:
    """Train a module's projectors on pseudo pairs and leave it with the best held-out checkpoint, in eval mode.

    Args:
        module: The projectors, on the device, initialised.
        objective: Its loss and its scores.
        pairs: The pool.
        config: Noise, optimiser, batch-norm and checkpoint settings.
        plan: From `make_plan`.
        device: Where to train.
        checkpoint: File to write checkpoints to and to resume from; None trains without.
        callback: Called with each epoch's row of the history.
        member: Number of the member that is trained; every member sees batches and noise of its own.
        quiet: Show no progress.

    Raises:
        ConfigError: The checkpoint belongs to another run, or the loss is no longer finite.
    """
    started = time.monotonic()
    # The fused step updates all parameters in one pass; the plain one launches a dozen small operations for each.
    optimizer = torch.optim.AdamW(
        module.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    state = _State(module, optimizer, _identity(module, pairs, config, plan))
    if checkpoint is not None and checkpoint.is_file():
        state.load(checkpoint)
    source = near(pairs, device)
    held_out = source.take(plan.scored_rows, device)
    noise = _noise(pairs, config)
    saved = time.monotonic()
    label = "train" if config.members == 1 else f"train {member + 1} of {config.members}"
    bar = Progress(label, plan.steps, unit="steps", quiet=quiet, done=state.step)
    with bar as progress, reused_memory():
        while state.step < plan.steps:
            epoch, place = divmod(state.step, plan.steps_per_epoch)
            if place == 0 or state.order is None:
                state.order = numpy_generator(config.seed, _PERMUTATION, epoch, member).permutation(plan.train_rows)
            rows = state.order[place * plan.batch_size : (place + 1) * plan.batch_size]
            batch = _noisy(source.take(rows, device), noise, _generator(device, config.seed, state.step, member))
            for group in optimizer.param_groups:
                group["lr"] = 0.5 * config.learning_rate * (1.0 + math.cos(math.pi * state.step / plan.steps))
            with products(config, device):
                loss, parts = objective.loss(batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            state.step += 1
            state.losses.append(float(loss.detach()))
            progress.advance(loss=state.losses[-1], held_out=state.best)
            if place + 1 == plan.steps_per_epoch:
                state.finish_epoch(objective, held_out, {k: float(v) for k, v in parts.items()})
                if callback is not None:
                    callback(state.history[-1])
            over = state.step == plan.steps or time.monotonic() - saved >= config.checkpoint_seconds
            if checkpoint is not None and over:
                state.save(checkpoint)
                saved = time.monotonic()
    state.restore_best()
    module.eval()
    scores = held_out_scores(objective, held_out)
    return Outcome(scores, state.history, plan.steps, state.best_step, time.monotonic() - started)


@contextmanager
def products(config: RecipeConfig, device: torch.device) -> Iterator[None]:
    """The type in which a loss multiplies matrices: 16 bits where they are asked for, or pay and may be chosen.

    They are bfloat16 where the processor multiplies it itself, and else 16-bit integers, for the similarities alone.
    """
    kind = low_precision_type(device) if config.precision != "float32" else "float32"
    low = kind == "bf16" or (config.precision == "bf16" and kind == "float32")
    whole = sixteen_bits() if kind == "int16" else nullcontext()
    with whole, torch.autocast(device.type, torch.bfloat16, enabled=low):
        yield


@contextmanager
def working_folder(checkpoints: Path | None) -> Iterator[Path]:
    """The folder that a run streams to: the one for checkpoints, or one that is gone afterwards."""
    if checkpoints is not None:
        checkpoints.mkdir(parents=True, exist_ok=True)
        yield checkpoints
        return
    with tempfile.TemporaryDirectory(prefix="isthmus-") as folder:
        yield Path(folder)


@torch.no_grad()
def held_out_scores(objective: Objective, batch: Batch) -> dict[str, float]:
    """Mean reciprocal rank and recall at 1, both directions averaged, of every aligned pair; and their mean, `score`.

    A tie ranks behind, so that a collapsed projector scores nothing.
    """
    scores: dict[str, float] = {}
    for name, x, y in objective.aligned(batch):
        cosines = x @ y.T
        own = cosines.diagonal()
        ranks = torch.cat([(cosines >= own[:, None]).sum(1), (cosines >= own[None]).sum(0)]).float()
        scores[f"{name} mrr"] = float(ranks.reciprocal().mean())
        scores[f"{name} r@1"] = float((ranks == 1).float().mean())
    mrr = [value for key, value in scores.items() if key.endswith("mrr")]
    return {"score": sum(mrr) / len(mrr), **scores}


def _noise(pairs: PseudoPairs, config: RecipeConfig) -> dict[Slot, float]:
    widths = {slot: int(pairs.columns[slot].shape[1]) for slot in pairs.slots}
    return {slot: noise_std(config.noise_cosine_at(width), width) for slot, width in widths.items()}


def _noisy(batch: Batch, std: Mapping[Slot, float], generator: torch.Generator) -> Batch:
    """Gaussian noise on every embedding, then unit length again (both papers, section 3.2.2)."""
    out: Batch = {}
    for slot, x in batch.items():
        noise = torch.empty_like(x).normal_(generator=generator)
        out[slot] = F.normalize(noise.mul_(std[slot]).add_(x), dim=-1) if std[slot] > 0.0 else x
    return out


def _generator(device: torch.device, seed: int, step: int, member: int) -> torch.Generator:
    place = device if device.type == "cuda" else torch.device("cpu")
    words = np.random.SeedSequence((seed, _NOISE, step, member)).generate_state(1, np.uint64)
    return torch.Generator(place).manual_seed(int(words[0] >> np.uint64(1)))


def _identity(module: nn.Module, pairs: PseudoPairs, config: RecipeConfig, plan: Plan) -> str:
    """What a checkpoint must share with the run that resumes it."""
    sample = plan.train_rows[:: max(1, len(plan.train_rows) // 64)]
    return sha256_json(
        {
            "config": config.model_dump(exclude=_NOT_THE_RUN, mode="json"),
            "plan": [plan.epochs, plan.batch_size, len(plan.train_rows)],
            "shapes": {name: list(value.shape) for name, value in module.state_dict().items()},
            "pairs": {
                f"{s.side}/{s.modality}": float(pick(pairs.columns[s], sample).astype(np.float64).sum())
                for s in pairs.slots
            },
        }
    )


class _State:
    """What a checkpoint holds: the module, the optimiser's moments, the best module so far and the history."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, identity: str) -> None:
        self.module, self.optimizer, self.identity = module, optimizer, identity
        self.step, self.best, self.best_step = 0, -math.inf, 0
        self.best_module: dict[str, Tensor] = {}
        self.history: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self.order: NDArray[np.int64] | None = None

    def finish_epoch(self, objective: Objective, held_out: Batch, parts: dict[str, float]) -> None:
        """Score the module on the held-out pairs, keep it where it is the best, and write a row of history."""
        loss = sum(self.losses) / len(self.losses)
        if not math.isfinite(loss):
            raise ConfigError(f"the loss is {loss} after step {self.step}. Expected a number: lower learning_rate.")
        self.module.eval()
        scores = held_out_scores(objective, held_out)
        self.module.train()
        if scores["score"] > self.best:
            self.best, self.best_step = scores["score"], self.step
            self.best_module = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
        lr = float(self.optimizer.param_groups[0]["lr"])
        row = {"epoch": len(self.history) + 1, "step": self.step, "loss": loss, **parts, "learning_rate": lr}
        self.history.append({**row, "held_out": scores})
        self.losses = []

    def restore_best(self) -> None:
        """Give the module the weights of its best epoch."""
        self.module.load_state_dict(self.best_module)

    def save(self, path: Path) -> None:
        """Write a checkpoint beside the old one and put it in its place whole."""
        from safetensors.torch import save_file

        names: dict[Tensor, str] = {p: name for name, p in self.module.named_parameters()}
        tensors = {f"module/{k}": v for k, v in self.module.state_dict().items()}
        tensors |= {f"best/{k}": v for k, v in self.best_module.items()}
        for parameter, moments in self.optimizer.state.items():
            tensors |= {f"optimizer/{names[parameter]}/{k}": torch.as_tensor(v) for k, v in moments.items()}
        numbers = {name: getattr(self, name) for name in ("step", "best", "best_step", "history", "losses", "identity")}
        with atomic_file(path) as part:
            save_file({k: v.contiguous() for k, v in tensors.items()}, part, {"state": json.dumps(numbers)})

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of the same run.

        Raises:
            ConfigError: It is of another run, or cannot be read.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                numbers = json.loads(file.metadata()["state"])
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"checkpoint {path} cannot be read ({error}). Delete it to start over.") from error
        if numbers.pop("identity") != self.identity:
            raise ConfigError(
                f"checkpoint {path} belongs to a run with other settings or spaces. Give that run's settings to go on, "
                f"another checkpoint_dir, or delete it to start over."
            )
        for name, value in numbers.items():
            setattr(self, name, value)
        self.module.load_state_dict(_under(tensors, "module/"))
        self.best_module = {k: v.to(next(self.module.parameters()).device) for k, v in _under(tensors, "best/").items()}
        for name, parameter in self.module.named_parameters():
            moments = _under(tensors, f"optimizer/{name}/")
            if moments:
                on = {k: v if k == "step" else v.to(parameter.device) for k, v in moments.items()}
                self.optimizer.state[parameter] = on


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
