"""Verbs that make and use bridges: connect, extend, project."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import options as o
from isthmus.cli.output import Output, output
from isthmus.errors import BridgeError

if TYPE_CHECKING:
    from isthmus.bridge import Bridge
    from isthmus.config import RecipeConfig

METHODS = ("ex-mcr", "dictionary", "ridge", "procrustes")


@dataclass(frozen=True)
class Training:
    """What `connect` and `extend` share: where the bridge goes and how it is made."""

    out: Path
    preset: str | None
    config: Path | None
    assignments: list[str] | None
    memory_limit: str | None
    checkpoint_dir: Path | None
    overwrite: bool
    quiet: bool
    as_json: bool

    def make(self, model: type[RecipeConfig], recipe: Callable[..., Bridge], **settings: Any) -> None:
        """Run a recipe with the merged configuration, save the bridge, drop the checkpoints and report."""
        from isthmus.cli.config import resolve

        with output(as_json=self.as_json, quiet=self.quiet) as out:
            if self.out.exists() and not self.overwrite:
                raise BridgeError(f"--out {self.out} exists already. Give another folder, or --overwrite.")
            config = resolve(
                model,
                file=self.config,
                assignments=self.assignments or [],
                preset=self.preset,
                memory_limit=self.memory_limit,
            )
            checkpoints = self.checkpoint_dir or self.out.parent / f".{self.out.name}.checkpoints"
            started = time.monotonic()
            with self._kept_on_failure(checkpoints):
                bridge = recipe(config=config, checkpoint_dir=checkpoints, quiet=self.quiet, **settings)
                bridge.save(self.out, overwrite=self.overwrite)
            out.report = bridge_report(bridge, self.out, time.monotonic() - started)
            show_bridge(out, bridge)

    @contextmanager
    def _kept_on_failure(self, checkpoints: Path) -> Iterator[None]:
        """Keep the checkpoints of a run that failed, if it came to any, and remove those of one that succeeded."""
        worth_keeping = False
        try:
            yield
        except BaseException:
            worth_keeping = any(checkpoints.glob("*.safetensors"))
            raise
        finally:
            if self.checkpoint_dir is None and not worth_keeping:
                shutil.rmtree(checkpoints, ignore_errors=True)


def connect(
    first: Annotated[Path, typer.Argument(metavar="A.space", help="A space.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B.space", help="Another space.", show_default=False)],
    via: o.Via,
    out: o.BridgeOut,
    preset: o.Preset = None,
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

    training = Training(out, preset, config, assignments, memory_limit, checkpoint_dir, overwrite, quiet, as_json)
    training.make(
        ConnectConfig,
        lambda **settings: recipe(open_space(first), open_space(second), **settings),
        via=via,
        seed=seed,
        device=device,
    )


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
    preset: o.Preset = None,
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

    training = Training(out, preset, config, assignments, memory_limit, checkpoint_dir, overwrite, quiet, as_json)
    training.make(
        ExtendConfig,
        lambda **settings: recipe(open_base(base), open_space(leaf), **settings),
        via=via,
        method=method,
        seed=seed,
        device=device,
        space_paths=named_paths(space),
    )


def open_base(path: Path) -> Any:
    """Open what `extend` may start from: a bridge folder or a space folder."""
    if (path / "bridge.json").is_file():
        from isthmus.bridge import load_bridge

        return load_bridge(path)
    from isthmus.space import open_space

    return open_space(path)


def bridge_report(bridge: Bridge, path: Path, seconds: float) -> dict[str, Any]:
    """What `connect --json` and `extend --json` print: the description of the bridge, the counts and scores first."""
    described = bridge.describe()
    record = described["record"]
    return {
        "path": str(path),
        "rows": (record.get("pseudo_pairs") or {}).get("rows", record.get("rows")),
        "seconds": seconds,
        "held_out": record.get("held_out"),
        "gap": record.get("gap"),
        **described,
    }


def show_bridge(out: Output, bridge: Bridge) -> None:
    """Print what a finished bridge holds and what to do next."""
    path = out.report["path"]
    out.say(bridge.summary())
    before, after = ((out.report["gap"] or {}).get(when, {}) for when in ("before", "after"))
    if after:
        rows = [[name, before.get(name), after.get(name)] for name in {**before, **after}]
        out.table(["modality gap", "before", "after"], rows)
    out.say(f"Saved {path} in {out.report['seconds']:.1f} s.")
    out.say(f"Next: isthmus evaluate {path} --query S.space/M --gallery T.space/M --pairs P.csv --baselines")


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
    from isthmus.bridge import load_bridge
    from isthmus.cli.projection import project_space
    from isthmus.space import open_space

    with output(as_json=as_json, quiet=quiet) as out:
        started = time.monotonic()
        rows = project_space(
            load_bridge(bridge),
            open_space(space),
            into,
            maker=bridge,
            modalities=modality,
            overwrite=overwrite,
            force=force,
        )
        out.report = {"path": str(into), "rows": rows, "seconds": time.monotonic() - started}
        out.table(["modality", "rows"], list(rows.items()))
        out.say(f"Next: isthmus inspect {into}")
