"""C-MCR: connect two spaces into a new one, through a modality they share (arXiv 2305.14381).

Read from top to bottom: settings, recipe, objective. Each space gets a projector of its own into the new space, trained
on pseudo pairs with InfoNCE between the spaces and attraction without negatives inside each of them, which closes its
modality gap. Pairs start from every modality in turn, as in Ex-MCR; with `preset="paper"` from the overlap alone, as
C-MCR prints it. Both spaces' embeddings change; `extend` keeps one of them as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.gaps import gaps_after, gaps_before
from isthmus.bridges.member import BridgeSpace
from isthmus.core.messages import RENAME
from isthmus.core.modality import via_list
from isthmus.core.runtime import notifier, resolve_device, torch_generator
from isthmus.errors import ConfigError
from isthmus.pairs.builder import Builder
from isthmus.pairs.cache import open_store
from isthmus.pairs.kinds import choose_kinds
from isthmus.pairs.side import Slot
from isthmus.recipes.config import RecipeConfig, check_space_names, settle
from isthmus.recipes.hooks import NO_HOOKS, Hooks, Loss, check_hooks, identity_of
from isthmus.recipes.posterior.forecast import with_estimate
from isthmus.recipes.sides import space_side, warn_of_sides
from isthmus.recipes.training.loop import check_checkpoints, train, working_folder
from isthmus.recipes.training.losses import info_nce, intra_distance
from isthmus.recipes.training.members import training_record
from isthmus.recipes.training.objective import Batch, LossParts
from isthmus.recipes.training.projectors import ConnectProjectors, arrays, initialize
from isthmus.recipes.training.schedule import make_schedule
from isthmus.spaces.space import as_space

if TYPE_CHECKING:
    from isthmus.spaces.space import Space


class ConnectConfig(RecipeConfig):
    """Settings of `connect`; those of `RecipeConfig`, and:

    Attributes:
        dim: Width of the new space.
        head: What a projector is: "mlp" (two layers, the released CLAP-CLIP head) or "half" (Linear, BatchNorm, ReLU,
            the released ULIP-CLIP head, whose embeddings are never negative).
        temperature: Temperature of InfoNCE between the overlap's two embeddings (tau 2).
        pseudo_temperature: Temperature of InfoNCE between the modalities that only one space has (tau 3); None is
            `temperature`.
    """

    dim: int = Field(512, ge=2)
    head: Literal["mlp", "half"] = "mlp"
    temperature: float = Field(0.01, gt=0.0)
    pseudo_temperature: float | None = Field(None, gt=0.0)

    steps: ClassVar[int] = 450
    paper: ClassVar[dict[str, Any]] = {
        "epochs": 36,
        "batch_size": 10240,
        "intra_norm": "l2sq",
        "initialization": "xavier",
        "centric": ("overlap",),
        "aggregation_method": "exact",
        "pair_storage": "dense",
    }


METHODS = ("auto", "posterior", "cca", "c-mcr", "dictionary", "ridge", "procrustes", "mean_offset")


def connect(
    *spaces: Space | str | Path,
    via: str | Sequence[str],
    method: str | None = None,
    config: ConnectConfig | Mapping[str, Any] | None = None,
    preset: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    checkpoint_dir: str | Path | None = None,
    pairs_dir: str | Path | None = None,
    callback: Callable[[Mapping[str, Any]], None] | None = None,
    quiet: bool = False,
    estimate: bool = True,
    hooks: Hooks | None = None,
    **options: Any,
) -> Bridge:
    """Connect spaces into a new one, through modalities they share, without a single pair across the spaces.

    Args:
        *spaces: Two spaces or their folders, or more by auto, posterior and cca.
        via: Modalities that all have, matched by id: "text", "image,text"; or for each pair of spaces "A,B:text".
        method: One of `METHODS`. "auto", the default, chooses between "posterior" and "cca" and their sums by an
            estimate that needs no pair; "c-mcr" trains, and is the default where a config, a preset or hooks are given;
            the others are closed forms through the overlap of two spaces.
        config: Settings of "c-mcr"; None is the defaults.
        preset: "default", "paper" or "auto", where no config is given; of "c-mcr".
        seed: Overrides the config's.
        device: cpu, cuda, cuda:N, mps or auto; for training.
        checkpoint_dir: Folder to checkpoint training to and resume from; closed forms leave it alone.
        pairs_dir: Folder that keeps pseudo pairs for later runs, which take them up where their spaces and settings
            of pseudo pairs are the same; None keeps them beside the checkpoints, for this run alone.
        callback: Called with each epoch's row of the history.
        quiet: Show no progress.
        estimate: Record how good the bridge may be, from the spaces alone; auto, posterior and cca always do.
        hooks: A loss, a projector, an aggregation of one's own (`isthmus.recipes.hooks.Hooks`), for "c-mcr".
        **options: Settings of the closed forms: of `isthmus.recipes.posterior.config.PosteriorConfig` for auto,
            posterior and cca, else of `isthmus.recipes.solvers.ClosedFormConfig`.

    Returns:
        A bridge of the spaces; every modality of each is projected.

    Raises:
        OverlapError: Too few shared ids, or `via` names a modality that one of them lacks.
        ConfigError: A setting is unknown or does not fit.
    """
    chosen = method or ("auto" if all(one is None for one in (config, preset, hooks)) else "c-mcr")
    if chosen not in METHODS:
        raise ConfigError(f"unknown method {chosen!r}. Expected one of {', '.join(METHODS)}.")
    if chosen != "c-mcr" and (config is not None or preset is not None):
        raise ConfigError(f"config and preset are of c-mcr, got method={chosen!r}. Give its settings by their names.")
    own = check_hooks(hooks, chosen, "c-mcr")
    if checkpoint_dir is not None:
        check_checkpoints(Path(checkpoint_dir))
    opened = [as_space(space) for space in spaces]
    options = options if seed is None or chosen == "c-mcr" else {"seed": seed, **options}
    if chosen in ("auto", "posterior", "cca"):
        from isthmus.recipes.posterior.join import join

        return join(opened, via=via, method=chosen, settings=options)
    if len(opened) != 2:
        raise ConfigError(f"{chosen} connects two spaces, got {len(opened)}. Use auto, posterior or cca for more.")
    if chosen != "c-mcr":
        bridge = _closed(opened[0], opened[1], via_list(via), chosen, options)
        return with_estimate(bridge, *opened, via=via) if estimate else bridge
    if options:
        raise ConfigError(
            f"unknown option {min(options)!r}. It is no setting of c-mcr: those go into config=ConnectConfig()."
        )
    bridge = connect_trained(
        *opened, via=via, config=config, preset=preset, seed=seed, device=device, checkpoint_dir=checkpoint_dir,
        pairs_dir=pairs_dir, callback=callback, quiet=quiet, hooks=own,
    )  # fmt: skip
    return with_estimate(bridge, *opened, via=via) if estimate else bridge


def _closed(first: Space, second: Space, via: Sequence[str], method: str, options: Mapping[str, Any]) -> Bridge:
    """The bridge of a closed form, both sides centred."""
    from isthmus.recipes.closed_form import fit_closed_form_bridge

    both_sides = {"center": True, **({"two_sided": True} if method == "dictionary" else {})}
    return fit_closed_form_bridge(first, second, via=via, method=method, **{**both_sides, **options})


def connect_trained(
    first: Space,
    second: Space,
    *,
    via: str | Sequence[str],
    config: ConnectConfig | Mapping[str, Any] | None = None,
    preset: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    checkpoint_dir: str | Path | None = None,
    pairs_dir: str | Path | None = None,
    callback: Callable[[Mapping[str, Any]], None] | None = None,
    quiet: bool = False,
    hooks: Hooks = NO_HOOKS,
) -> Bridge:
    """Connect two spaces by C-MCR; arguments and faults are those of `connect`."""
    names = via_list(via)
    if first.name == second.name:
        raise ConfigError(f"two spaces are called {first.name!r}, expected names of their own. {RENAME}")
    settings = settle(ConnectConfig, config, preset, seed)
    check_space_names(settings, (first.name, second.name))
    started = time.monotonic()
    place = resolve_device(device or "auto")
    sides = (space_side(first), space_side(second))
    warn_of_sides(*sides, names)
    folder = Path(checkpoint_dir) if checkpoint_dir is not None else None
    store = open_store(pairs_dir, folder)
    aggregation = hooks.own_aggregation(settings)
    builder = Builder(*sides, names, settings, device=place, notify=notifier(quiet), store=store, own=aggregation)
    with working_folder(folder) as work:
        pairs = builder.build(choose_kinds(*sides, names, settings.centric), work / "pairs")
        paired = time.monotonic()
        schedule = make_schedule(len(pairs), settings)
        projectors = make_projectors((sides[0].dim, sides[1].dim), settings, hooks)
        projectors.to(place)
        objective = InterIntra(projectors, pairs.slots, names, settings, contrast=hooks.contrast)
        result = train(
            projectors, objective, pairs, settings, schedule,
            device=place, checkpoint=folder / "connect.safetensors" if folder else None, callback=callback, quiet=quiet,
            also=identity_of(hooks),
        )  # fmt: skip
    routes = {
        f"{side.name}/{name}": projectors.steps(number, "")
        for number, side in enumerate(sides)
        for name in side.embeddings
    }
    scores = {"held_out": result.held_out, "best_step": result.best_step}
    record = training_record("connect", names, pairs, [result], [projectors], seed=settings.seed)
    record |= {**scores, **identity_of(hooks)}
    bridge = Bridge(
        method="c-mcr",
        dim=settings.dim,
        spaces=[BridgeSpace.of(first, role="first"), BridgeSpace.of(second, role="second")],
        routes=routes,
        arrays=arrays(projectors, ""),
        config={**settings.model_dump(mode="json"), **schedule.settings, "via": names},
        record=record,
        history=result.history,
    )
    memories = {side.name: side.embeddings for side in sides}
    bridge.record["gap"] = {"before": gaps_before(memories), "after": gaps_after(bridge, memories)}
    finished = time.monotonic()
    bridge.record["seconds"] = {"pairs": paired - started, "training": result.seconds, "all": finished - started}
    return bridge


def make_projectors(dims: tuple[int, int], settings: ConnectConfig, hooks: Hooks = NO_HOOKS) -> ConnectProjectors:
    """The untrained projectors of both sides: one's own, or those of the settings, drawn from the seed."""
    first, second = (hooks.projector_of(d, settings.dim, seed=settings.seed, number=n) for n, d in enumerate(dims))
    own = (first, second) if first is not None and second is not None else None
    projectors = ConnectProjectors(dims, settings.dim, ratio=settings.hidden_ratio, head=settings.head, own=own)
    initialize(projectors, torch_generator(settings.seed, 1), scheme=settings.initialization)
    return projectors


class InterIntra:
    """C-MCR's objective: InfoNCE between the spaces, and lambda times attraction inside each.

    The overlap's two embeddings are native pairs. The modalities that only one space has are pseudo pairs; a space that
    has none (all of it is overlap) lends its overlap instead.

    Args:
        projectors: f_1 and f_2.
        slots: Slots of the pseudo pairs.
        via: Overlap modalities; the first is what the others are drawn to.
        config: Temperatures, lambda, the intra norm, BatchNorm batching.
        contrast: The contrastive loss of two row-aligned batches at a temperature.
    """

    def __init__(
        self,
        projectors: ConnectProjectors,
        slots: Sequence[Slot],
        via: Sequence[str],
        config: ConnectConfig,
        *,
        contrast: Loss = info_nce,
    ) -> None:
        self.contrast = contrast
        self.projectors, self.slots, self.via, self.config = projectors, slots, list(via), config
        self.alone = [[s for s in slots if s.side == side and s.modality not in via] for side in (0, 1)]

    def loss(self, batch: Batch) -> tuple[Tensor, LossParts]:
        """Inter + lambda * intra."""
        z = self._project(batch, joint=self.config.batch_norm == "joint")
        native = [self.contrast(z[Slot(0, name)], z[Slot(1, name)], self.config.temperature) for name in self.via]
        tau = self.config.pseudo_temperature or self.config.temperature
        pseudo = [self.contrast(z[x], z[y], tau) for x, y in self._pseudo()]
        inter = torch.stack(native).mean() + (torch.stack(pseudo).mean() if pseudo else 0.0)
        squared = self.config.intra_norm == "l2sq"
        inside = [
            intra_distance(z[s], z[Slot(s.side, self.via[0])], squared=squared)
            for s in [*self.alone[0], *self.alone[1]]
        ]
        if not inside:
            return inter, {"inter": inter.detach()}
        # The mean within a side, then the sum over the sides, as the equation has one modality a side.
        intra = torch.stack(inside).mean() * sum(1 for side in self.alone if side)
        return inter + self.config.intra_weight * intra, {"inter": inter.detach(), "intra": intra.detach()}

    def aligned(self, batch: Batch) -> list[tuple[str, Tensor, Tensor]]:
        """The overlap's two embeddings, and the modalities that only one space has."""
        z = self._project(batch, joint=True)
        pairs = [(Slot(0, name), Slot(1, name)) for name in self.via] + self._pseudo()
        return [(f"{y.modality} to {x.modality}", z[y], z[x]) for x, y in pairs]

    def _project(self, batch: Batch, *, joint: bool) -> dict[Slot, Tensor]:
        out: dict[Slot, Tensor] = {}
        for side in (0, 1):
            slots = [slot for slot in self.slots if slot.side == side]
            projected = self.projectors([batch[slot] for slot in slots], side, joint=joint)
            out.update(zip(slots, projected, strict=True))
        return out

    def _pseudo(self) -> list[tuple[Slot, Slot]]:
        if not any(self.alone):
            return []
        mine, theirs = ([*alone] or [Slot(side, self.via[0])] for side, alone in enumerate(self.alone))
        return [(x, y) for x in mine for y in theirs]
