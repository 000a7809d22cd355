"""A loss, a projector, an aggregation of one's own, for `connect` by c-mcr and `extend` by ex-mcr.

A bridge records them by name and by the hash of their source, and never needs them: what was trained is exported into
the steps that every bridge has, so that a file alone never builds or runs a class of somebody's own.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from isthmus.core.messages import shorten
from isthmus.core.runtime import torch_generator
from isthmus.errors import ConfigError
from isthmus.pairs.config import PairConfig
from isthmus.pairs.own_aggregation import OwnAggregation, Weigh
from isthmus.recipes.training.losses import info_nce
from isthmus.recipes.training.projectors import own_layers

Loss: TypeAlias = Callable[[Tensor, Tensor, float], Tensor]
MakeProjector: TypeAlias = Callable[[int, int], nn.Module]


@dataclass(frozen=True)
class Hooks:
    """What a researcher puts in the place of a part of a recipe; None keeps the part as it is.

    Attributes:
        loss: The contrastive loss in the place of InfoNCE: called with two row-aligned batches of float32 unit rows
            (batch, dim) and the temperature, it returns a scalar. The attraction inside a space stays; its weight is
            the setting `intra_weight`.
        projector: Called with the widths (dim_in, dim_out), it returns the module that carries a space into the unified
            one, untrained: `nn.Sequential` of `nn.Linear`, `nn.BatchNorm1d` and `nn.ReLU`, also nested. Of `connect`
            both sides are made by it, of `extend` f_m. Draws from torch's generator follow the seed.
        aggregation: Called with queries (q, dim), a memory (n, dim), both float32 unit rows, and a temperature, it
            returns the (q, n) weights of the memory's rows. It runs in this process, on blocks of 1,024 queries.
    """

    loss: Loss | None = None
    projector: MakeProjector | None = None
    aggregation: Weigh | None = None

    def __post_init__(self) -> None:
        for kind in _KINDS:
            hook = getattr(self, kind)
            if hook is not None and not callable(hook):
                raise ConfigError(
                    f"hooks: {kind} is {shorten(repr(hook), 60)}, expected something to call. A name alone is not "
                    "imported: give the function or the object itself."
                )
        if isinstance(self.loss, nn.Module) and any(True for _ in self.loss.parameters()):
            raise ConfigError(
                f"hooks: the loss {hook_name(self.loss)} has parameters, which would not be trained. Expected one "
                "without, or put them into the projector."
            )

    def record(self) -> dict[str, dict[str, str | None]]:
        """Name and hash of the source of each, for the bridge."""
        return {kind: _described(getattr(self, kind)) for kind in _KINDS if getattr(self, kind) is not None}

    def contrast(self, x: Tensor, z: Tensor, temperature: float) -> Tensor:
        """The contrastive loss of two row-aligned batches of unit rows: one's own, or InfoNCE.

        Raises:
            ConfigError: One's own gives no scalar, or one that does not depend on the rows.
        """
        if self.loss is None:
            return info_nce(x, z, temperature)
        with torch.autocast(x.device.type, enabled=False):
            value = self.loss(x.float(), z.float(), temperature)
        if not isinstance(value, Tensor) or value.ndim != 0:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(f"hooks: the loss {hook_name(self.loss)} gave {got}, expected a scalar torch.Tensor.")
        if torch.is_grad_enabled() and not value.requires_grad:
            raise ConfigError(
                f"hooks: the loss {hook_name(self.loss)} does not depend on its rows. Keep to torch operations."
            )
        return value

    def projector_of(self, dim_in: int, dim_out: int, *, seed: int, number: int) -> nn.Module | None:
        """One's own projector, its draws fixed by the seed and its number; None where there is none.

        Raises:
            ConfigError: It holds what no route computes, or does not map (n, dim_in) to (n, dim_out).
        """
        if self.projector is None:
            return None
        name = hook_name(self.projector)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch_generator(seed, 1, number).initial_seed()) % 2**63)
            module = self.projector(dim_in, dim_out)
        if not isinstance(module, nn.Module):
            raise ConfigError(f"hooks: the projector {name} gave a {type(module).__name__}, expected a torch module.")
        try:
            own_layers(module, "")
            module.eval()
            with torch.no_grad():
                shape = tuple(module(torch.zeros(2, dim_in)).shape)
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"hooks: the projector {name}: {shorten(str(error), 200)}") from error
        if shape != (2, dim_out):
            raise ConfigError(
                f"hooks: the projector {name} maps (2, {dim_in}) to {shape}, expected (2, {dim_out}). Use both widths "
                "that it is called with."
            )
        return module.train()

    def own_aggregation(self, config: PairConfig) -> OwnAggregation | None:
        """One's own aggregation with its name; None where there is none.

        Raises:
            ConfigError: A setting asks for what one's own cannot do.
        """
        if self.aggregation is None:
            return None
        name = hook_name(self.aggregation)
        wrong = {"engine": config.engine != "local", "pair_storage": config.pair_storage == "sparse"}
        for setting in (key for key, value in wrong.items() if value):
            raise ConfigError(
                f"hooks: the aggregation {name} runs in this process and keeps pairs dense, got "
                f"{setting}={getattr(config, setting)!r}. Leave the setting out."
            )
        described = _described(self.aggregation)
        return OwnAggregation(self.aggregation, name, f"{name} {described['source_sha256']}")


_KINDS = ("loss", "projector", "aggregation")
NO_HOOKS = Hooks()


def check_hooks(hooks: Hooks | None, method: str, trained: str) -> Hooks:
    """The hooks of a recipe, or none.

    Raises:
        ConfigError: They are no `Hooks`, or the method does not train.
    """
    if hooks is None:
        return NO_HOOKS
    if not isinstance(hooks, Hooks):
        raise ConfigError(f"hooks got a {type(hooks).__name__}, expected isthmus.recipes.hooks.Hooks.")
    if method != trained and hooks.record():
        raise ConfigError(f"hooks are of {trained}, got method={method!r}. Leave the method or the hooks out.")
    return hooks


def hook_name(hook: Any) -> str:
    """What a function or an object is called: `module:name` of it or of its class."""
    while isinstance(hook, functools.partial):
        hook = hook.func
    named = hook if hasattr(hook, "__qualname__") else type(hook)
    return f"{named.__module__}:{named.__qualname__}"


def _described(hook: Any) -> dict[str, str | None]:
    """Name of a hook, and the hash of its source where Python knows that."""
    inner = hook
    while isinstance(inner, functools.partial):
        inner = inner.func
    try:
        source = inspect.getsource(inner if hasattr(inner, "__qualname__") else type(inner))
    except (OSError, TypeError):
        return {"name": hook_name(hook), "source_sha256": None}
    return {"name": hook_name(hook), "source_sha256": hashlib.sha256(source.encode()).hexdigest()}


def identity_of(hooks: Hooks) -> Mapping[str, Any]:
    """What a checkpoint must share with the run that resumes it; nothing where no hook is given."""
    return {"hooks": hooks.record()} if hooks.record() else {}
