"""The training loop of both recipes, visible in one place: batch, noise, loss, step, score, checkpoint, resume.

Everything random in a step is a function of the seed and the step's number, so that a run that was killed goes on from
its last checkpoint to the very bytes of a run that was not.
"""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isthmus.core.locks import hold
from isthmus.core.products import arithmetic, has_bf16
from isthmus.core.replace import claim_folder
from isthmus.core.runtime import Progress, notifier
from isthmus.errors import ConfigError
from isthmus.pairs.pairs import PseudoPairs, to_device_if_it_fits
from isthmus.recipes.config import RecipeConfig
from isthmus.recipes.training.losses import reused_memory
from isthmus.recipes.training.noise import add_noise, noise_deviations, noise_generator
from isthmus.recipes.training.objective import Batch, LossParts, Objective, held_out_scores
from isthmus.recipes.training.schedule import Schedule
from isthmus.recipes.training.state import TrainingState, run_identity


@dataclass
class TrainingResult:
    """What training leaves; the module then has the weights of the best checkpoint.

    Attributes:
        held_out: Scores of the best checkpoint, mean reciprocal rank and recall at 1 per aligned pair.
        history: A row per epoch.
        steps: Steps of the run.
        best_step: The step whose checkpoint was kept.
        seconds: Seconds of training, in this process.
        products: Type of the matrix products, "float32" or "bf16".
        arithmetic: What decided the last digits, once for every machine that the run was on.
    """

    held_out: dict[str, float]
    history: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    best_step: int = 0
    seconds: float = 0.0
    products: str = "float32"
    arithmetic: list[Mapping[str, Any]] = field(default_factory=list)


def train(
    module: nn.Module,
    objective: Objective,
    pairs: PseudoPairs,
    config: RecipeConfig,
    schedule: Schedule,
    *,
    device: torch.device,
    checkpoint: Path | None = None,
    callback: Callable[[Mapping[str, Any]], None] | None = None,
    member: int = 0,
    quiet: bool = False,
    also: Mapping[str, Any] | None = None,
) -> TrainingResult:
    """Train a module's projectors on pseudo pairs and leave it with the best held-out checkpoint, in eval mode.

    Args:
        module: The projectors, on the device, initialised.
        objective: Its loss and its scores.
        pairs: The pool.
        config: Noise, optimiser, batch-norm and checkpoint settings.
        schedule: From `make_schedule`.
        device: Where to train.
        checkpoint: File to write checkpoints to and to resume from; None trains without.
        callback: Called with each epoch's row of the history.
        member: Number of the member that is trained; every member sees batches and noise of its own.
        quiet: Show no progress.
        also: What beside settings and pairs a checkpoint must share with this run: the hooks.

    Raises:
        ConfigError: The checkpoint belongs to another run, or the loss is no longer finite.
    """
    started = time.monotonic()
    label = "train" if config.members == 1 else f"train {member + 1} of {config.members}"
    optimizer = make_optimizer(module, config, device)
    products = product_type(config, device)
    used = arithmetic(device) | {"products": products}
    state = TrainingState(module, optimizer, run_identity(module, pairs, config, schedule, also=also), used)
    if checkpoint is not None and checkpoint.is_file():
        state.load(checkpoint)
        if len(state.arithmetic) > 1:
            notifier(quiet)(f"{label}: the checkpoint was made with other arithmetic; the last digits may differ")
    source = to_device_if_it_fits(pairs, device)
    held_out = source.take(schedule.scored_rows, device)
    deviations = noise_deviations(pairs, config)
    saved = time.monotonic()
    bar = Progress(label, schedule.steps, unit="steps", quiet=quiet, done=state.step)
    with bar as progress, reused_memory():
        while state.step < schedule.steps:
            epoch, place = divmod(state.step, schedule.steps_per_epoch)
            if place == 0 or state.order is None:
                state.order = schedule.order(config.seed, epoch, member)
            rows = state.order[place * schedule.batch_size : (place + 1) * schedule.batch_size]
            generator = noise_generator(device, config.seed, state.step, member)
            batch = add_noise(source.take(rows, device), deviations, generator)
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate(config.learning_rate, state.step)
            parts = _step(objective, batch, optimizer, state, autocast(products, device))
            scored = {"held_out": state.best} if state.history else {}
            progress.advance(1, loss=state.losses[-1], **scored)
            if place + 1 == schedule.steps_per_epoch:
                state.finish_epoch(objective, held_out, {name: float(part) for name, part in parts.items()})
                if callback is not None:
                    callback(state.history[-1])
            over = state.step == schedule.steps or time.monotonic() - saved >= config.checkpoint_seconds
            if checkpoint is not None and over:
                state.save(checkpoint)
                saved = time.monotonic()
    state.restore_best()
    module.eval()
    scores = held_out_scores(objective.aligned, held_out)
    seconds = time.monotonic() - started
    return TrainingResult(scores, state.history, schedule.steps, state.best_step, seconds, products, state.arithmetic)


def _step(
    objective: Objective,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    types: AbstractContextManager[None],
) -> LossParts:
    """One step of the optimiser, counted in the state; the parts of its loss.

    Raises:
        ConfigError: The loss is not finite; nothing has changed then.
    """
    with types:
        loss, parts = objective.loss(batch)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise ConfigError(f"the loss is {value} after step {state.step}. Expected a number: lower learning_rate.")
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    state.step += 1
    state.losses.append(value)
    return parts


def make_optimizer(module: nn.Module, config: RecipeConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW with torch's betas (the papers give none), fused into one pass over all parameters where a device can."""
    return torch.optim.AdamW(
        module.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )


def product_type(config: RecipeConfig, device: torch.device) -> str:
    """The type in which a loss multiplies matrices, "float32" or "bf16": the configured one, or the device's (auto)."""
    if config.precision == "auto":
        return "bf16" if has_bf16(device) else "float32"
    return config.precision


@contextmanager
def autocast(products: str, device: torch.device) -> Iterator[None]:
    """Matrix products in bfloat16 within, where that is their type; all else stays float32."""
    with torch.autocast(device.type, torch.bfloat16, enabled=products == "bf16"):
        yield


_BRIDGE = r"(?:bridge\.json|projectors\.safetensors|history\.jsonl|README\.md)"
_RUN = r"(?:connect|extend(?:-\d+)?)\.safetensors|pairs/(?:.+/)?(?:\d+(?:_[a-z][a-z0-9_]*)?\.npy|about\.json)"
# safetensors writes aside under a name of its own, which a kill leaves behind.
CHECKPOINTS = re.compile(rf"(?:\d+/)?(?:{_RUN}|\.tmp\w+)|\d+\.bridge/(?:{_BRIDGE}|\.tmp\w+)|(?:[\w.-]+/)+")
"""Relative paths of what runs of training keep in their folder, those of several steps in numbered ones."""


def check_checkpoints(folder: Path, *, inputs: Iterable[str | Path | None] = ()) -> Path:
    """Refuse a folder of checkpoints that holds anything else; returns where it is, and makes nothing.

    Raises:
        ConfigError: It is a file, holds what no run wrote, or is or holds one of the inputs.
    """
    return claim_folder(
        folder, CHECKPOINTS, "folder of checkpoints", inputs=inputs, option="--checkpoint-dir", make=False
    )


@contextmanager
def working_folder(checkpoints: Path | None) -> Iterator[Path]:
    """The folder that a run streams to: the one for checkpoints, or one that is gone afterwards."""
    if checkpoints is not None:
        with hold(checkpoints):
            yield claim_folder(checkpoints, CHECKPOINTS, "folder of checkpoints")
        return
    with tempfile.TemporaryDirectory(prefix="isthmus-") as folder:
        yield Path(folder)
