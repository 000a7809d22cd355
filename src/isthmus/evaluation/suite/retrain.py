"""Recipes trained beside a bridge, on the spaces that it was trained on, over seeds; each training is done once.

Trained bridges lie in the cache as `trained/RECIPE-SEED-KEY.bridge`; the key is of the spaces' files and the settings,
so that another benchmark, or a run that was interrupted, takes them up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.bridges.bridge import Bridge, load_bridge
from isthmus.bridges.training_spaces import TrainingSpaces
from isthmus.core.files import sha256_json
from isthmus.core.messages import shorten
from isthmus.core.replace import remove_written
from isthmus.core.runtime import notifier
from isthmus.core.version import __version__
from isthmus.errors import ConfigError, EvaluationError, OverlapError
from isthmus.evaluation.suite.settings import SuiteSettings
from isthmus.recipes.config import RecipeConfig, make_config
from isthmus.recipes.training.loop import CHECKPOINTS

Step = dict[str, Any]


def trained(bridge: Bridge, recipe: str, seed: int, ends: Sequence[str], settings: SuiteSettings) -> Bridge:
    """Bridge of a recipe with a seed, from the cache or trained now.

    Args:
        bridge: The bridge whose spaces and overlaps are taken.
        recipe: One of `RECIPES`.
        seed: Seed of the training.
        ends: Names of the spaces that the benchmark's two sides are embedded in.
        settings: Cache, places of spaces, settings of the training.

    Raises:
        EvaluationError: The recipe cannot join these spaces.
        ConfigError: A setting of the training is unknown or out of range.
        BridgeError: A training space is not where it was.
    """
    spaces = TrainingSpaces(bridge, settings.space_paths)
    steps = own_steps(bridge) if recipe == "ours" else paper_steps(spaces, recipe, ends)
    steps = [{**step, "config": {**step["config"], **settings.train, "seed": seed}} for step in steps]
    for step in steps:  # a wrong setting is the user's fault, and told before anything is trained
        _config(step)
    names = list(dict.fromkeys(name for step in steps for name in step["spaces"]))
    key = sha256_json([__version__, steps, {name: spaces[name].content_hash for name in names}])[:16]
    path = settings.cache / "trained" / f"{recipe}-{seed}-{key}.bridge"
    if not path.exists():
        notifier(settings.quiet)(f"Training {recipe}, seed {seed}")
        checkpoints = path.with_suffix(".checkpoints")
        try:
            made = run(spaces, steps, checkpoints, settings)
        except (ConfigError, OverlapError) as error:  # too little data for a paper's batch, say: the row has none
            raise EvaluationError(str(error)) from error
        made.save(path, overwrite=True)
        remove_written(checkpoints, CHECKPOINTS)
    return load_bridge(path)


def own_steps(bridge: Bridge) -> list[Step]:
    """The steps that a bridge was made by, as its record says.

    Raises:
        EvaluationError: A step is a closed form, in which nothing is drawn: it is the same with every seed.
    """
    last = {"spaces": [space.name for space in bridge.spaces], "config": bridge.config, "record": bridge.record}
    steps: list[Step] = []
    for number, step in enumerate([*bridge.record.get("earlier", []), last]):
        # Who computes is the user's choice here: a record must not name a cluster that work is sent to.
        config = {key: value for key, value in step["config"].items() if key not in ("engine", "engine_address")}
        recipe = step.get("record", {}).get("recipe") or _recipe_of(config)
        if not isinstance(recipe, str):
            raise EvaluationError(f"the bridge's record has the recipe {shorten(repr(recipe), 80)}, expected a name.")
        if step.get("record", {}).get("hooks"):
            raise EvaluationError(
                "the bridge was trained with a loss, projector or aggregation of somebody's own, which a file never "
                "builds. Train each seed in Python, with hooks=."
            )
        if recipe in _UNDRAWN:
            raise EvaluationError(f"the bridge is a {_UNDRAWN[recipe]}: nothing in it is drawn, every seed is alike.")
        if "via" not in config:
            raise EvaluationError(f"step {number + 1} of the bridge's record does not say via what it was made.")
        via = config.pop("via")
        spaces = step["spaces"][:2] if number == 0 else step["spaces"][-1:]
        steps.append({"kind": recipe, "spaces": list(spaces), "via": via, "config": config})
    return steps


_UNDRAWN = {"closed-form": "closed form", "official": "released head"}
"""Recipes that no seed changes, in words."""


def _recipe_of(config: Mapping[str, Any]) -> str:
    """The recipe of a bridge that was made before bridges recorded it, from the settings that only it has."""
    if "learning_rate" not in config:
        return "closed-form"
    return "connect" if "pseudo_temperature" in config else "extend"


def paper_steps(spaces: TrainingSpaces, recipe: str, ends: Sequence[str]) -> list[Step]:
    """The steps of a paper's recipe over the spaces that lead from one end to the other.

    Raises:
        EvaluationError: Both ends are one space, or C-MCR is asked to join more than two.
    """
    if ends[0] == ends[1]:
        raise EvaluationError("query and gallery are of one space; there is nothing to join.")
    needed = {name for end in ends for name in spaces.path(end)}
    order = [space.name for space in spaces.bridge.spaces if space.name in needed]
    if recipe == "c-mcr":
        near, far = sorted(ends, key=order.index)
        if spaces.partner(far) != near:
            raise EvaluationError(f"C-MCR joins two spaces, and {near!r} and {far!r} share no overlap: see ex-mcr.")
        return [{"kind": "connect", "spaces": [near, far], "via": spaces.via(far), "config": {"preset": "paper"}}]
    steps: list[Step] = []
    for name in order[1:]:
        joined = [order[0], name] if not steps else [name]
        steps.append({"kind": "extend", "spaces": joined, "via": spaces.via(name), "config": {"preset": "paper"}})
    return steps


def run(spaces: TrainingSpaces, steps: Sequence[Step], checkpoints: Path, settings: SuiteSettings) -> Bridge:
    """Train step by step. A step that was interrupted goes on from its checkpoint."""
    made: Bridge | None = None
    for number, step in enumerate(steps):
        done = checkpoints / f"{number}.bridge"
        if done.exists():
            made = load_bridge(done)
            continue
        made = _step(spaces, made, step, checkpoints / str(number), settings)
        if number + 1 < len(steps):
            made.save(done)
    if made is None:
        raise EvaluationError("there is nothing to train.")
    return made


def _config(step: Step) -> RecipeConfig:
    """The settings of a step, checked."""
    from isthmus.recipes.connect import ConnectConfig
    from isthmus.recipes.extend import ExtendConfig

    return make_config(ConnectConfig if step["kind"] == "connect" else ExtendConfig, step["config"])


def _step(spaces: TrainingSpaces, base: Bridge | None, step: Step, folder: Path, settings: SuiteSettings) -> Bridge:
    """Train one step of a recipe: a connection, or an extension of the base."""
    from isthmus.recipes.connect import connect
    from isthmus.recipes.extend import extend

    opened = [spaces[name] for name in step["spaces"]]
    common: dict[str, Any] = {
        "via": step["via"],
        "config": _config(step),
        "device": settings.device,
        "checkpoint_dir": folder,
        "quiet": settings.quiet,
        "estimate": False,  # what is drawn from it is measured on pairs
    }
    if step["kind"] == "connect":
        return connect(opened[0], opened[1], **common)
    start = base if base is not None else opened[0]
    return extend(start, opened[-1], space_paths=_places(spaces, settings.space_paths), **common)


def _places(spaces: TrainingSpaces, given: Mapping[str, str | Path]) -> dict[str, str | Path]:
    """Where the bridge's spaces lie, for a base bridge that the cache holds."""
    known = {space.name: space.path for space in spaces.bridge.spaces if space.path}
    return {**known, **given}
