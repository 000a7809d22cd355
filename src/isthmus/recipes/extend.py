"""Ex-MCR: extend a frozen base space by a leaf space, through a modality they share (arXiv 2310.08884).

Read from top to bottom: settings, recipe, objective. The base is never changed; the leaf gets a decoupled projector,
f_l that closes the leaf's own modality gap and f_m that carries the leaf to the base (section 3.3), trained on pseudo
pairs that start from every modality (section 3.2) with a dense alignment of all leaf and base embeddings (section 3.4).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.gaps import gaps_after, gaps_before
from isthmus.bridges.member import BridgeSpace
from isthmus.bridges.opening import as_base
from isthmus.core.messages import unknown_name
from isthmus.core.modality import via_list
from isthmus.core.runtime import notifier, resolve_device, torch_generator
from isthmus.errors import ConfigError
from isthmus.pairs.builder import Builder
from isthmus.pairs.cache import open_store
from isthmus.pairs.kinds import choose_kinds
from isthmus.pairs.side import Side, Slot
from isthmus.recipes.config import RecipeConfig, check_space_names, settle
from isthmus.recipes.hooks import NO_HOOKS, Hooks, check_hooks, identity_of
from isthmus.recipes.posterior import frozen
from isthmus.recipes.posterior.addition import recognises
from isthmus.recipes.posterior.description import describe_leaf
from isthmus.recipes.posterior.forecast import with_estimate
from isthmus.recipes.sides import bridge_side, space_side, warn_of_sides
from isthmus.recipes.training.curves import of_member
from isthmus.recipes.training.loop import train, working_folder
from isthmus.recipes.training.losses import dense_info_nce, intra_distance
from isthmus.recipes.training.members import mean_alignment, mean_route, training_record
from isthmus.recipes.training.objective import Batch, LossParts, held_out_scores
from isthmus.recipes.training.projectors import LeafProjector, arrays, initialize
from isthmus.recipes.training.schedule import make_schedule
from isthmus.spaces.space import as_space

if TYPE_CHECKING:
    from isthmus.spaces.space import Space

METHODS = ("ex-mcr", "posterior", "cca", "dictionary", "ridge", "procrustes")


class ExtendConfig(RecipeConfig):
    """Settings of `extend`; those of `RecipeConfig`, and:

    Attributes:
        temperature: Temperature of the InfoNCE losses (the paper's tau 2).
        learning_rate: As in `RecipeConfig`; twice the papers', with which half of the steps are enough.
        modalities: Modalities of the leaf, beside the overlap, that are brought in; None is all. Each is a column of
            the pseudo pairs and a term of the loss.
        align: Which embeddings InfoNCE draws together, leaf side first; the paper's dense alignment takes all four.
        leaf_layer: What closes the leaf's modality gap (f_l): a "linear" layer, an "mlp" block, "mlp2" (two of
            them), or "none".
        blocks: MLP blocks that carry the leaf to the base (f_m); 0 is a single linear layer.
        description: Weight of the leaf's items described by the base's own beside the projection; None chooses it by an
            estimate without labels, 0 leaves it out, as the paper does.
    """

    temperature: float = Field(0.05, gt=0.0)
    learning_rate: float = Field(2e-3, gt=0.0)
    modalities: tuple[str, ...] | None = None
    align: tuple[Literal["leaf-base", "leaf-overlap", "overlap-base", "overlap-overlap"], ...] = Field(
        ("leaf-base", "leaf-overlap", "overlap-base", "overlap-overlap"), min_length=1
    )
    leaf_layer: Literal["linear", "mlp", "mlp2", "none"] = "linear"
    blocks: int = Field(2, ge=0, le=8)
    description: float | None = Field(None, ge=0.0)

    steps: ClassVar[int] = 480
    paper: ClassVar[dict[str, Any]] = {
        "epochs": 36,
        "batch_size": 4096,
        "learning_rate": 1e-3,
        "aggregation_method": "exact",
        "pair_storage": "dense",
        "initialization": "xavier",
        "description": 0.0,
    }


def extend(
    base: Space | Bridge | str | Path,
    leaf: Space | str | Path,
    *,
    via: str | Sequence[str],
    method: str | None = None,
    config: ExtendConfig | Mapping[str, Any] | None = None,
    preset: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    checkpoint_dir: str | Path | None = None,
    space_paths: Mapping[str, str | Path] | None = None,
    pairs_dir: str | Path | None = None,
    callback: Callable[[Mapping[str, Any]], None] | None = None,
    quiet: bool = False,
    estimate: bool = True,
    hooks: Hooks | None = None,
    **options: Any,
) -> Bridge:
    """Extend a base by a leaf, through modalities they share, without a single pair across the spaces.

    Args:
        base: A space, a bridge or the folder of either. Of a bridge the unified space is the base, and stays bit for
            bit.
        leaf: The space to bring in.
        via: Modalities that both have, matched by id: "text", "image,text".
        method: "ex-mcr" trains, and is the default but for a bridge of posteriors without config or preset, where it is
            "posterior"; the others are closed forms through the overlap.
        config: Settings; None is the defaults.
        preset: "default", "paper" or "auto", where no config is given.
        seed: Overrides the config's.
        device: cpu, cuda, cuda:N, mps or auto.
        checkpoint_dir: Folder to checkpoint to and resume from.
        space_paths: Where spaces of a base bridge lie now, by name.
        pairs_dir: Folder that keeps pseudo pairs for later runs, which take them up where their spaces and settings
            of pseudo pairs are the same; None keeps them beside the checkpoints, for this run alone.
        callback: Called with each epoch's row of the history.
        quiet: Show no progress.
        estimate: Record how good the bridge may be, from the spaces alone.
        hooks: A loss, a projector, an aggregation of one's own (`isthmus.recipes.hooks.Hooks`), for "ex-mcr".
        **options: Settings of the closed forms, such as `center="leaf"` (see
            `isthmus.recipes.solvers.ClosedFormConfig`, for posterior and cca `PosteriorConfig`).

    Returns:
        A bridge of the base's spaces and the leaf.

    Raises:
        OverlapError: Too few shared ids, or `via` names a modality that one of them lacks.
        ConfigError: A setting is unknown or does not fit.
    """
    names = via_list(via)
    base, leaf = as_base(base), as_space(leaf)
    stock = all(one is None for one in (config, preset, hooks))
    method = method or ("posterior" if stock and recognises(base) else "ex-mcr")
    if method not in METHODS:
        raise ConfigError(unknown_name("unknown method", str(method), METHODS))
    own = check_hooks(hooks, method, "ex-mcr")
    settings = settle(ExtendConfig, config, preset, seed)
    if method != "ex-mcr":
        bridge = _closed(base, leaf, method, via=names, space_paths=space_paths, **{"seed": settings.seed, **options})
        return with_estimate(bridge, base, leaf, via=names, space_paths=space_paths) if estimate else bridge
    if options:
        raise ConfigError(
            f"unknown option {min(options)!r}. It is no setting of ex-mcr: those go into config=ExtendConfig()."
        )
    started = time.monotonic()
    over = Bridge.over(base)
    place = resolve_device(device or "auto")
    near = bridge_side(base, names, space_paths) if isinstance(base, Bridge) else space_side(base)
    far = leaf_side(leaf, names, settings.modalities)
    check_sides(over, leaf, (near, far), names, settings)
    folder = Path(checkpoint_dir) if checkpoint_dir is not None else None
    store = open_store(pairs_dir, folder)
    aggregation = own.own_aggregation(settings)
    builder = Builder(near, far, names, settings, device=place, notify=notifier(quiet), store=store, own=aggregation)
    with working_folder(folder) as work:
        pairs = builder.build(choose_kinds(near, far, names, settings.centric), work / "pairs")
        paired = time.monotonic()
        schedule = make_schedule(len(pairs), settings)
        made, results = [], []
        for member in range(settings.members):
            projector = make_projector(far, near, names, settings, member, own).to(place)
            objective = DenseAlignment(projector, pairs.slots, names, settings, own)
            checkpoint = folder / f"extend-{member}.safetensors" if folder else None
            result = train(
                projector, objective, pairs, settings, schedule, device=place, checkpoint=checkpoint,
                callback=of_member(callback, member), member=member, quiet=quiet, also=identity_of(own),
            )  # fmt: skip
            results.append(result)
            made.append(objective)
        held_out = held_out_scores(mean_alignment(made), pairs.take(schedule.scored_rows, place))
    projectors = [objective.projector for objective in made]
    weights: dict[str, NDArray[np.float32]] = {}
    for member, projector in enumerate(projectors):
        weights |= arrays(projector, f"{member}.")
    record = training_record("extend", names, pairs, results, projectors, seed=settings.seed) | {
        "held_out": held_out,
        "best_steps": [result.best_step for result in results],
        **identity_of(own),
    }
    resolved = {**settings.model_dump(mode="json"), **schedule.settings, "via": names}
    bridge = over.with_leaf(
        BridgeSpace.of(leaf, role="leaf"),
        {name: mean_route(projectors, name) for name in far.embeddings},
        weights,
        method="ex-mcr",
        config=resolved,
        record=record,
        history=[{"member": n, **row} for n, result in enumerate(results) for row in result.history],
    )
    bridge = describe_leaf(bridge, near, far, leaf.name, names, weight=settings.description, seed=settings.seed)
    bridge.record["gap"] = extension_gaps(bridge, near, far, leaf.name)
    finished = time.monotonic()
    bridge.record["seconds"] = {
        "pairs": paired - started,
        "training": sum(o.seconds for o in results),
        "all": finished - started,
    }
    return with_estimate(bridge, base, leaf, via=names, space_paths=space_paths) if estimate else bridge


def _closed(base: Space | Bridge, leaf: Space, method: str, **options: Any) -> Bridge:
    """The bridge of a closed form."""
    from isthmus.recipes.closed_form import fit_closed_form_bridge

    if method in frozen.METHODS:
        return frozen.extend_frozen(base, leaf, method=method, **options)
    return fit_closed_form_bridge(base, leaf, method=method, **options)


def check_sides(
    over: Bridge, leaf: Space, sides: tuple[Side, Side], via: Sequence[str], settings: ExtendConfig
) -> None:
    """Refuse a leaf that is in the bridge already and settings of other spaces, and warn of what is worth a look."""
    over.check_new(BridgeSpace.of(leaf, role="leaf"))
    check_space_names(settings, (sides[0].name, sides[1].name))
    warn_of_sides(*sides, via)


def leaf_side(leaf: Space, via: Sequence[str], modalities: Sequence[str] | None) -> Side:
    """The leaf's overlap, and of its other modalities those that are asked for.

    Raises:
        ConfigError: One is asked for that the leaf has not, or that is an overlap.
    """
    side = space_side(leaf)
    own = [name for name in side.embeddings if name not in via]
    for name in modalities or ():
        if name not in own:
            raise ConfigError(
                f"modalities names {name!r}, expected some of space {leaf.name!r} beside the overlap: "
                f"{', '.join(own) or 'it has none'}."
            )
    chosen = [name for name in side.embeddings if name in via or modalities is None or name in modalities]
    ids, embeddings = {n: side.ids[n] for n in chosen}, {n: side.embeddings[n] for n in chosen}
    return Side(side.name, ids, embeddings, {n: side.content[n] for n in chosen})


def make_projector(
    leaf: Side, base: Side, via: Sequence[str], settings: ExtendConfig, member: int, hooks: Hooks = NO_HOOKS
) -> LeafProjector:
    """The untrained projector of a member, its weights drawn from the seed and the member's number."""
    projector = LeafProjector(
        [name for name in leaf.embeddings if name not in via],
        leaf.dim,
        base.dim,
        ratio=settings.hidden_ratio,
        leaf_layer=settings.leaf_layer,
        blocks=settings.blocks,
        own=hooks.projector_of(leaf.dim, base.dim, seed=settings.seed, number=member),
    )
    initialize(projector, torch_generator(settings.seed, 1, member), scheme=settings.initialization)
    return projector


class DenseAlignment:
    """Ex-MCR's objective (equations 3 to 7): lambda * intra + mean InfoNCE over every leaf and base embedding.

    Args:
        projector: f_l and f_m.
        slots: Slots of the pseudo pairs.
        via: Overlap modalities; the first is what f_l is drawn to.
        config: Temperature, lambda, the intra norm, BatchNorm batching.
        hooks: A loss of the user's own in the place of InfoNCE.
    """

    def __init__(
        self,
        projector: LeafProjector,
        slots: Sequence[Slot],
        via: Sequence[str],
        config: ExtendConfig,
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        self.projector, self.config, self.hooks = projector, config, hooks
        self.base = [slot for slot in slots if slot.side == 0]
        self.alone = [slot for slot in slots if slot.side == 1 and slot.modality not in via]
        self.shared = [Slot(1, name) for name in via]

    def loss(self, batch: Batch) -> tuple[Tensor, LossParts]:
        """lambda * intra + the dense alignment. The intra term sees f_l alone: its gradient never reaches f_m."""
        moved = [self.projector.to_overlap(batch[slot], slot.modality) for slot in self.alone]
        leaf = self.projector.to_base([*moved, *(batch[slot] for slot in self.shared)], joint=self.joint)
        align = self._align(leaf, torch.stack([batch[slot] for slot in self.base]))
        if not moved:
            return align, {"align": align.detach()}
        target, squared = batch[self.shared[0]], self.config.intra_norm == "l2sq"
        intra = torch.stack([intra_distance(x, target, squared=squared) for x in moved]).mean()
        return align + self.config.intra_weight * intra, {"align": align.detach(), "intra": intra.detach()}

    def _align(self, leaf: Tensor, base: Tensor) -> Tensor:
        """The mean InfoNCE of the wanted pairs; all of them at once where all are wanted."""
        tau, wanted = self.config.temperature, self.config.align
        if len(set(wanted)) == 4 and self.hooks.loss is None:
            return dense_info_nce(leaf, base, tau)
        names = {slot: "overlap" if Slot(1, slot.modality) in self.shared else "base" for slot in self.base}
        leaf_names = ["leaf"] * len(self.alone) + ["overlap"] * len(self.shared)
        terms = [
            self.hooks.contrast(x, z, tau)
            for x, mine in zip(leaf, leaf_names, strict=True)
            for z, slot in zip(base, self.base, strict=True)
            if f"{mine}-{names[slot]}" in wanted
        ]
        if not terms:
            raise ConfigError(f"align names {', '.join(wanted)}, which these spaces have none of. Name others too.")
        return torch.stack(terms).mean()

    @property
    def joint(self) -> bool:
        """Whether all modalities pass BatchNorm in one batch."""
        return self.config.batch_norm == "joint"

    def aligned(self, batch: Batch) -> list[tuple[str, Tensor, Tensor]]:
        """The leaf's own modalities against the base's own, and the overlap against itself."""
        moved = [self.projector.to_overlap(batch[slot], slot.modality) for slot in self.alone]
        leaf = self.projector.to_base([*moved, *(batch[slot] for slot in self.shared)])
        own = [slot for slot in self.base if Slot(1, slot.modality) not in self.shared]
        pairs = [(x, y) for x in self.alone for y in own or self.base]
        pairs += [(x, Slot(0, x.modality)) for x in self.shared]
        projected = dict(zip([*self.alone, *self.shared], leaf, strict=True))
        return [(f"{x.modality} to {y.modality}", projected[x], batch[y]) for x, y in pairs]


def extension_gaps(bridge: Bridge, base: Side, leaf: Side, name: str) -> dict[str, dict[str, float]]:
    """Modality gaps before and after an extension; the base's own embeddings lie in the unified space already."""
    after = {f"{base.name}/{modality}": rows for modality, rows in base.embeddings.items()}
    before = gaps_before({side.name: side.embeddings for side in (base, leaf)})
    return {"before": before, "after": gaps_after(bridge, {name: leaf.embeddings}, after)}
