"""Making a bridge and saving it: what `connect` and `extend` share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.cli.output import Output, output
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.recipes.config import RecipeConfig
    from isthmus.spaces.space import Space

WORTH_KEEPING_SECONDS = 30.0
"""Checkpoints of a failed run that took less are not kept: doing it again takes no longer than saying so."""


@dataclass(frozen=True)
class Making:
    """Where a bridge goes and how it is made, as the options say."""

    out: Path
    preset: str | None
    config: Path | None
    assignments: list[str] | None
    memory_limit: str | None
    engine: str | None
    address: str | None
    checkpoint_dir: Path | None
    curves: Path | None
    tensorboard: Path | None
    overwrite: bool
    quiet: bool
    as_json: bool

    def settings(self, model: type[RecipeConfig], **flags: Any) -> dict[str, Any]:
        """The configuration of a recipe that trains, as its argument `config`; flags are settings that have options."""
        from isthmus.cli.config import resolve

        config = resolve(
            model,
            file=self.config,
            assignments=self.assignments or [],
            preset=self.preset,
            memory_limit=self.memory_limit,
            engine=self.engine,
            engine_address=self.address,
            **flags,
        )
        return {"config": config}

    def connect_settings(self, method: str | None) -> tuple[str, dict[str, Any]]:
        """The method of `connect` and its settings; without a method, options of training choose c-mcr."""
        from isthmus.cli.config import check_keys, collect, known_keys
        from isthmus.recipes.connect import ConnectConfig
        from isthmus.recipes.posterior.config import PosteriorConfig

        keys = collect(self.config, self.assignments or [])
        known = known_keys(PosteriorConfig)
        if method is None and (self._of_training or set(keys) - set(known)):
            # A key of neither is a fault of the method that is the default.
            method = "c-mcr" if self._of_training or set(keys) & set(known_keys(ConnectConfig)) else "auto"
        method = method or "auto"
        if method == "c-mcr":
            return method, self.settings(ConnectConfig)
        if method not in ("auto", "posterior", "cca"):
            return method, self.closed_form_settings(method, None)
        self._refuse_training("c-mcr", method)
        check_keys(keys, known, "--set or --config")
        return method, keys

    def extend_settings(
        self, method: str | None, center: str | None, modalities: list[str] | None, *, posteriors: bool
    ) -> tuple[str, dict[str, Any]]:
        """The method of `extend` and its settings; without a method, a bridge of posteriors takes a leaf as one."""
        from isthmus.cli.config import check_keys, collect, known_keys
        from isthmus.recipes.extend import METHODS, ExtendConfig
        from isthmus.recipes.posterior.config import PosteriorConfig

        trained, closed = METHODS[0], METHODS[3:]
        keys = collect(self.config, self.assignments or [])
        if method is None:
            asked = self._of_training or modalities or keys or center
            method = "posterior" if posteriors and not asked else trained
        if center is not None and method not in closed:
            raise ConfigError(f"--center is of the closed forms ({', '.join(closed)}), got --method {method}.")
        if method == trained:
            return method, self.settings(ExtendConfig, modalities=modalities or None)
        if modalities:
            raise ConfigError(f"--modality is of {trained}, got --method {method}, which brings in every modality.")
        if method in closed:
            return method, self.closed_form_settings(method, center)
        self._refuse_training(trained, method)
        check_keys(keys, known_keys(PosteriorConfig), "--set or --config")
        return method, keys

    @property
    def _of_training(self) -> bool:
        places = self.checkpoint_dir or self.curves or self.tensorboard
        return bool(self.preset or self.memory_limit or self.engine or self.address or places)

    def _refuse_training(self, trained: str, method: str) -> None:
        if self._of_training:
            training = "--preset, --memory-limit, --engine, --address, --checkpoint-dir, --curves and --tensorboard"
            raise ConfigError(f"{training} are of {trained}, got --method {method}.")

    def closed_form_settings(self, method: str, center: str | None) -> dict[str, Any]:
        """The settings of a closed form, as arguments; options that only training has are refused."""
        from isthmus.cli.config import collect
        from isthmus.recipes.solvers import ClosedFormConfig

        self._refuse_training("ex-mcr", method)
        known = {field.name: None for field in fields(ClosedFormConfig) if field.name not in ("method", "seed")}
        settings = collect(self.config, self.assignments or [], known)
        return settings if center is None else {**settings, "center": read_center(center)}

    def run(self, recipe: Callable[..., Bridge], *, inputs: Sequence[str | Path | None], **settings: Any) -> None:
        """Run a recipe, save its bridge, drop the checkpoints and report.

        Args:
            recipe: What makes the bridge.
            inputs: Files and folders that it reads, which are never written over.
            settings: Arguments of the recipe.
        """
        from isthmus.bridges.folder import BRIDGE
        from isthmus.core.locks import hold
        from isthmus.core.replace import check_place
        from isthmus.recipes.training.loop import check_checkpoints

        inputs = [*inputs, self.config]
        with output(as_json=self.as_json, quiet=self.quiet) as out:
            place = check_place(self.out, BRIDGE, overwrite=self.overwrite, inputs=inputs, option="--out")
            own = place.with_name(f".{place.name}.checkpoints")
            checkpoints = check_checkpoints(self.checkpoint_dir or own, inputs=[*inputs, place])
            started = time.monotonic()
            with hold(place), hold(checkpoints), self._kept_on_failure(checkpoints):
                settings |= self._callback([*inputs, place, checkpoints])
                bridge = recipe(checkpoint_dir=checkpoints, quiet=self.quiet, **settings)
                bridge.save(self.out, overwrite=self.overwrite)
            out.report = bridge_report(bridge, self.out, time.monotonic() - started)
            show_bridge(out, bridge)

    def _callback(self, inputs: Sequence[str | Path | None]) -> dict[str, Any]:
        """What each epoch's figures go to, as the argument of a recipe, where any of it was asked for."""
        if self.curves is None and self.tensorboard is None:
            return {}
        from isthmus.recipes.training.curves import Callback, CurveFile, TensorBoard, both

        boards: list[Callback] = [TensorBoard(self.tensorboard)] if self.tensorboard is not None else []
        files: list[Callback] = [CurveFile(self.curves, inputs=inputs)] if self.curves is not None else []
        return {"callback": both([*boards, *files])}

    @contextmanager
    def _kept_on_failure(self, checkpoints: Path) -> Iterator[None]:
        """Remove the checkpoints of a run that succeeded; keep those of one that failed where there is work to lose.

        A fault in the first seconds of a new run leaves the disk as it was; an interrupt always keeps what there is.
        """
        from isthmus.core.replace import remove_written
        from isthmus.recipes.training.loop import CHECKPOINTS

        resumed, started, keep = checkpoints.exists(), time.monotonic(), False
        try:
            yield
        except Exception:
            keep = resumed or time.monotonic() - started > WORTH_KEEPING_SECONDS
            raise
        except BaseException:
            keep = True
            raise
        finally:
            if self.checkpoint_dir is None and not (keep and any(checkpoints.glob("**/*.*"))):
                remove_written(checkpoints, CHECKPOINTS)


def share_listed_texts(
    spaces: Sequence[Space], texts: Sequence[str] | None, encoders: Sequence[str] | None, *, quiet: bool
) -> list[Space]:
    """Give spaces the texts of `--texts`, where it is given.

    Args:
        spaces: Open spaces.
        texts: Values of `--texts`: builtin, or files.
        encoders: Values of `--text-encoder`: SPACE=NAME.
        quiet: Show no progress.
    """
    from isthmus.cli.references import find_local_encoders, named_values

    named = named_values(encoders, option="--text-encoder", example="SPACE=NAME such as a=clip")
    if not texts:
        if named:
            raise ConfigError("--text-encoder is of --texts, which is not given. Add --texts builtin, or leave it out.")
        return list(spaces)
    from isthmus.items.vocabulary import read_texts
    from isthmus.recipes.texts import share_texts

    find_local_encoders(*named.values())
    listed = [text for source in texts for text in read_texts(source)]
    return share_texts(spaces, listed, encoders=named, quiet=quiet)


def share_texts_with_base(
    base: Space | Bridge,
    leaf: Space,
    places: Mapping[str, Any],
    texts: Sequence[str] | None,
    encoders: Sequence[str] | None,
    *,
    quiet: bool,
) -> tuple[Space | Bridge, Space, dict[str, Any]]:
    """Give a base and a leaf the texts of `--texts`, where it is given.

    Args:
        base: A space, or a bridge, whose own spaces with a route of text then get them.
        leaf: The space to bring in.
        places: Where spaces of a bridge lie now, by name.
        texts: Values of `--texts`.
        encoders: Values of `--text-encoder`.
        quiet: Show no progress.

    Returns:
        The base, the leaf, and the places with those of a bridge's spaces that hold the texts now.
    """
    from isthmus.bridges.bridge import Bridge

    if not isinstance(base, Bridge):
        base, leaf = share_listed_texts([base, leaf], texts, encoders, quiet=quiet)
        return base, leaf, dict(places)
    own = []
    if texts:
        named = [known.name for known in base.spaces if known.role != "leaf" and f"{known.name}/text" in base.routes]
        own = [base.open_space(name, places.get(name)) for name in named]
    *own, leaf = share_listed_texts([*own, leaf], texts, encoders, quiet=quiet)
    return base, leaf, {**places, **{space.name: space for space in own}}


def read_center(text: str) -> bool | str:
    """Read `--center`: which spaces have every modality's own mean removed first."""
    known: dict[str, bool | str] = {"no": False, "leaf": "leaf", "both": True}
    if text not in known:
        raise ConfigError(f"--center got {text!r}, expected one of {', '.join(known)}.")
    return known[text]


def bridge_report(bridge: Bridge, path: Path, seconds: float) -> dict[str, Any]:
    """What `connect --json` and `extend --json` print: the description of the bridge, the counts and scores first."""
    described = bridge.describe()
    record = described["record"]
    overlap = sum((record.get("overlap") or {}).values())
    rows = (record.get("pseudo_pairs") or {}).get("rows", overlap)
    return {
        "path": str(path),
        "rows": rows,
        "seconds": seconds,
        "held_out": record.get("held_out"),
        "gap": record.get("gap"),
        **described,
    }


def show_bridge(out: Output, bridge: Bridge) -> None:
    """Print what a finished bridge holds and what to do next."""
    path = out.report["path"]
    out.say(bridge.summary())
    if estimate := bridge.record.get("estimate"):
        from isthmus.recipes.posterior.auto import sentences

        for line in sentences(bridge.record.get("chosen"), estimate, bridge.record.get("families")):
            out.sentence(line)
    before, after = ((out.report["gap"] or {}).get(when, {}) for when in ("before", "after"))
    if after:
        rows = [[name, before.get(name), after.get(name)] for name in {**before, **after}]
        out.table(["modality gap", "before", "after"], rows)
    out.say(f"Saved {path} in {out.report['seconds']:.1f} s.")
    out.note(f"Next: isthmus evaluate {path} --query S.space/M --gallery T.space/M --pairs P.csv --baselines")
