"""Verbs that make and use bridges: connect, extend, project."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import options as o
from isthmus.cli.output import Output, output
from isthmus.errors import BridgeError, ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from isthmus.bridge import Bridge

METHODS = ("ex-mcr", "dictionary", "ridge", "procrustes")
PRESETS = ("default", "paper", "auto")


@dataclass(frozen=True)
class Training:
    """What `connect` and `extend` share: where the bridge goes and how it is made."""

    via: str
    out: Path
    preset: str
    config: Path | None
    assignments: list[str] | None
    seed: int | None
    device: str | None
    memory_limit: str | None
    checkpoint_dir: Path | None
    overwrite: bool
    quiet: bool
    as_json: bool

    def make(self, recipe: Callable[..., Bridge], model: type[BaseModel], **more: Any) -> None:
        """Run a recipe with the merged configuration, save the bridge, drop the checkpoints and report."""
        from isthmus.cli.references import split_modalities

        with output(as_json=self.as_json, quiet=self.quiet) as out:
            self._check()
            started = time.monotonic()
            bridge = recipe(
                via=split_modalities(self.via),
                config=self._resolve(model),
                seed=self.seed,
                device=self.device,
                checkpoint_dir=self._checkpoints(),
                quiet=self.quiet,
                **more,
            )
            bridge.save(self.out, overwrite=self.overwrite)
            if self.checkpoint_dir is None:
                shutil.rmtree(self._checkpoints(), ignore_errors=True)
            out.report = {**bridge.describe(), "path": str(self.out), "seconds": time.monotonic() - started}
            show_bridge(out)

    def _check(self) -> None:
        if self.out.exists() and not self.overwrite:
            raise BridgeError(f"--out {self.out} exists already. Give another folder, or --overwrite.")
        if self.preset not in PRESETS:
            raise ConfigError(f"--preset got {self.preset!r}, expected one of {', '.join(PRESETS)}.")

    def _checkpoints(self) -> Path:
        return self.checkpoint_dir or self.out.parent / f".{self.out.name}.checkpoints"

    def _resolve(self, model: type[BaseModel]) -> Any:
        from isthmus.cli.config import resolve

        return resolve(
            model,
            preset=self.preset,
            file=self.config,
            assignments=self.assignments or [],
            memory_limit=self.memory_limit,
        )


def connect(
    first: Annotated[Path, typer.Argument(metavar="A.space", help="A space.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B.space", help="Another space.", show_default=False)],
    via: o.Via,
    out: o.BridgeOut,
    preset: o.Preset = "default",
    config: o.ConfigFile = None,
    assignments: o.Set = None,
    seed: o.Seed = None,
    device: o.Device = None,
    memory_limit: o.MemoryLimit = None,
    checkpoint_dir: o.CheckpointDir = None,
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Connect two spaces into a new one (C-MCR)."""
    from isthmus.recipes.connect import ConnectConfig
    from isthmus.recipes.connect import connect as recipe
    from isthmus.space import open_space

    training = Training(
        via, out, preset, config, assignments, seed, device, memory_limit, checkpoint_dir, overwrite, quiet, as_json
    )
    training.make(lambda **given: recipe(open_space(first), open_space(second), **given), ConnectConfig)


def extend(
    base: Annotated[
        Path, typer.Argument(metavar="BASE", help="A space or a bridge; it stays as it is.", show_default=False)
    ],
    leaf: Annotated[Path, typer.Argument(metavar="LEAF.space", help="The space to bring in.", show_default=False)],
    via: o.Via,
    out: o.BridgeOut,
    method: Annotated[
        str, typer.Option(metavar="|".join(METHODS), help="Trained, or closed form in a second.")
    ] = "ex-mcr",
    preset: o.Preset = "default",
    config: o.ConfigFile = None,
    assignments: o.Set = None,
    seed: o.Seed = None,
    device: o.Device = None,
    memory_limit: o.MemoryLimit = None,
    checkpoint_dir: o.CheckpointDir = None,
    space: o.SpacePaths = None,
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Extend a frozen space or bridge by a leaf space (Ex-MCR)."""
    from isthmus.cli.references import named_paths
    from isthmus.recipes.extend import ExtendConfig
    from isthmus.recipes.extend import extend as recipe
    from isthmus.space import open_space

    training = Training(
        via, out, preset, config, assignments, seed, device, memory_limit, checkpoint_dir, overwrite, quiet, as_json
    )
    training.make(
        lambda **given: recipe(open_base(base), open_space(leaf), **given),
        ExtendConfig,
        method=method,
        space_paths=named_paths(space),
    )


def open_base(path: Path) -> Any:
    """Open what `extend` may start from: a bridge folder or a space folder."""
    if (path / "bridge.json").is_file():
        from isthmus.bridge import load_bridge

        return load_bridge(path)
    from isthmus.space import open_space

    return open_space(path)


def show_bridge(out: Output) -> None:
    """Print what a finished bridge holds: its routes, its held-out scores and what to do next."""
    report = out.report
    out.say(
        f"Bridge {report['path']}: {report.get('method')}, {report.get('dim')} dimensions, {report['seconds']:.1f} s"
    )
    routes = report.get("routes", {})
    if isinstance(routes, dict):
        out.table(["from", "by"], [[name, describe_route(route)] for name, route in routes.items()])
    for key in ("gap", "held_out"):
        if report.get(key):
            out.say(f"{key.replace('_', ' ')}: {report[key]}")
    out.say(f"Next: isthmus evaluate {report['path']} --query S.space/M --gallery T.space/M --pairs P.csv --baselines")


def describe_route(route: Any) -> str:
    """Write a route as its step names in order."""
    if isinstance(route, (list, tuple)):
        return " > ".join(str(step.get("kind", step)) if isinstance(step, dict) else str(step) for step in route)
    return str(route)


def project(
    bridge: o.BridgePath,
    space: o.SpacePath,
    into: Annotated[Path, typer.Option("--into", metavar="U.space", help="The space to write.", show_default=False)],
    modality: Annotated[
        list[str] | None,
        typer.Option(
            metavar="M", help="Only this modality; repeatable (default: all that have a route).", show_default=False
        ),
    ] = None,
    overwrite: o.Overwrite = False,
    force: o.Force = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Project a space through a bridge into the unified space."""
