"""The state of a training run: what a checkpoint holds, written whole and taken up again bit for bit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from isthmus.core.files import atomic_file, sha256_json
from isthmus.errors import ConfigError
from isthmus.pairs.pairs import PseudoPairs
from isthmus.recipes.config import RecipeConfig
from isthmus.recipes.training.objective import Batch, Objective, held_out_scores
from isthmus.recipes.training.schedule import Schedule

_NOT_THE_RUN = {"checkpoint_seconds", "memory_limit", "pair_storage", "engine", "engine_address"}
"""Settings that say where and how a run works; the form that they give the pairs is part of the pairs' identity."""
_NUMBERS = ("step", "best", "best_step", "history", "losses", "identity", "arithmetic")


class TrainingState:
    """A module, its optimiser, the best module so far and the history.

    Args:
        module: The projectors.
        optimizer: Optimizer of their parameters.
        identity: Identity of the run, from `run_identity`: a checkpoint with another one is refused.
        arithmetic: What decides the last digits here; the state lists that of every machine that the run was on.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        identity: str,
        arithmetic: Mapping[str, Any],
    ) -> None:
        self.module, self.optimizer, self.identity = module, optimizer, identity
        self.arithmetic: list[Mapping[str, Any]] = [arithmetic]
        self.step, self.best, self.best_step = 0, -math.inf, 0
        self.best_module: dict[str, Tensor] = {}
        self.history: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self.order: NDArray[np.int64] | None = None

    def finish_epoch(self, objective: Objective, held_out: Batch, parts: dict[str, float]) -> None:
        """Score the module on the held-out pairs, keep it where it is the best, and write a row of history."""
        self.module.eval()
        scores = held_out_scores(objective.aligned, held_out)
        self.module.train()
        if scores["score"] > self.best or not self.best_module:
            self.best, self.best_step = scores["score"], self.step
            self.best_module = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
        row = {
            "epoch": len(self.history) + 1,
            "step": self.step,
            "loss": sum(self.losses) / len(self.losses),
            **parts,
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "held_out": scores,
        }
        self.history.append(row)
        self.losses = []

    def restore_best(self) -> None:
        """Give the module the weights of its best epoch."""
        self.module.load_state_dict(self.best_module)

    def save(self, path: Path) -> None:
        """Write a checkpoint beside the old one and put it in its place whole."""
        from safetensors.torch import save_file

        tensors = {f"module/{k}": v for k, v in self.module.state_dict().items()}
        tensors |= {f"best/{k}": v for k, v in self.best_module.items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{k}": torch.as_tensor(v) for k, v in moments.items()}
        numbers = {name: getattr(self, name) for name in _NUMBERS}
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
        here = self.arithmetic[-1]
        for name, value in numbers.items():
            setattr(self, name, value)
        if here not in self.arithmetic:
            self.arithmetic = [*self.arithmetic, here]
        self.module.load_state_dict(_under(tensors, "module/"))
        self.best_module = {k: v.to(next(self.module.parameters()).device) for k, v in _under(tensors, "best/").items()}
        self.load_moments(_under(tensors, "optimizer/"))

    def load_moments(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the optimiser what a checkpoint holds of it, by "number of the parameter/name".

        The optimiser's own way puts each value where it belongs: a fused one keeps `step` on the device.
        """
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            number, _, name = key.partition("/")
            moments.setdefault(int(number), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})


def run_identity(
    module: nn.Module,
    pairs: PseudoPairs,
    config: RecipeConfig,
    schedule: Schedule,
    *,
    also: Mapping[str, Any] | None = None,
) -> str:
    """Hash of what a checkpoint must share with the run that resumes it: settings and what the pairs were made of.

    No number that was computed is in it. The last digits of those may differ between processes, and a run would then
    refuse its own checkpoint.
    """
    return sha256_json(
        {
            "config": config.model_dump(exclude=_NOT_THE_RUN, mode="json"),
            "plan": [schedule.epochs, schedule.batch_size, len(schedule.train_rows)],
            "shapes": {name: list(value.shape) for name, value in module.state_dict().items()},
            "pairs": pairs.identity,
            **(also or {}),
        }
    )


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
