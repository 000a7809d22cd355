"""The bridge: the spaces it joins, a route from each of their modalities into one space, and how it came about."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isthmus.bridges.card import card, route_words, summary
from isthmus.bridges.fingerprint import bridge_fingerprint, unified_fingerprint
from isthmus.bridges.folder import FORMAT_VERSION, plain, read_folder, write_folder
from isthmus.bridges.member import ROLES, BridgeSpace, EmbeddingsLike, check_rows, other_encoder
from isthmus.bridges.records import check_manifest
from isthmus.bridges.routes import Arrays, Route, apply_route, rename_arrays, validate_route
from isthmus.bridges.training_spaces import space_of, spaces_with
from isthmus.core.arrays import to_numpy
from isthmus.core.geometry import Array, normalize
from isthmus.core.html import html_table
from isthmus.core.messages import RENAME
from isthmus.errors import BridgeError, ConfigError, FormatError

if TYPE_CHECKING:
    from isthmus.bridges.explain import Explanation
    from isthmus.encoders.protocol import Encoder
    from isthmus.spaces.space import Space

AS_IT_IS: Route = [{"kind": "normalize"}]
"""The route of a base: embeddings stay as their encoder made them, at unit length."""


@dataclass(eq=False)
class Bridge:
    """Spaces joined into one.

    Attributes:
        method: How it was made; several methods of several leaves are joined by `+`.
        dim: Dimension of the unified space.
        spaces: The spaces, base or first first.
        routes: By `space/modality`, the route into the unified space (see `isthmus.bridges.routes`).
        arrays: By name, the arrays of the routes; read lazily when the bridge comes from disk.
        config: Resolved configuration of the last step of making.
        record: What came out: gap before and after, held-out scores, counts, seeds, versions, seconds; `earlier` holds
            the steps before the last one.
        history: One dict a logged training step.
    """

    method: str
    dim: int
    spaces: list[BridgeSpace]
    routes: dict[str, Route]
    arrays: Arrays
    config: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = [space.name for space in self.spaces]
        if twice := {name for name in names if names.count(name) > 1}:
            raise BridgeError(f"two spaces of the bridge are called {min(twice)!r}. Give one of them another name.")
        for space in self.spaces:
            if space.role not in ROLES:
                raise BridgeError(f"space {space.name!r} has the role {space.role!r}. Expected {', '.join(ROLES)}.")
        for key, route in self.routes.items():
            where = f"route of {key!r}"
            if (ends := validate_route(route, self.arrays, self._space_of(key).dim, where=where)) != self.dim:
                raise BridgeError(f"{where}: ends in {ends} dimensions. The bridge has {self.dim}.")

    def __repr__(self) -> str:
        return f"Bridge({self.method!r}, dim={self.dim}, routes={sorted(self.routes)})"

    def _repr_html_(self) -> str:
        rows = [
            (space.name, space.role, space.dim, modality, " > ".join(step["kind"] for step in route))
            for key, route in self.routes.items()
            for space, modality in [(self._space_of(key), key.rpartition("/")[2])]
        ]
        header = ("space", "role", "dimensions", "modality", "route into the unified space")
        return html_table(f"bridge by {self.method}, {self.dim} dimensions", header, rows)

    # spaces and routes

    def space(self, name: str) -> BridgeSpace:
        """The space of a name.

        Raises:
            BridgeError: The bridge joins no such space.
        """
        for space in self.spaces:
            if space.name == name:
                return space
        names = ", ".join(repr(space.name) for space in self.spaces)
        raise BridgeError(f"the bridge joins no space {name!r}. Expected one of {names}.")

    def route(self, space: str, modality: str) -> Route:
        """The route of a modality of a space.

        Raises:
            BridgeError: The bridge has no such route.
        """
        if f"{space}/{modality}" not in self.routes:
            self.space(space)
            raise BridgeError(f"the bridge has no route for '{space}/{modality}'. Expected one of {self._keys()}.")
        return self.routes[f"{space}/{modality}"]

    def _keys(self) -> str:
        return ", ".join(self.routes)

    def _space_of(self, key: str) -> BridgeSpace:
        name, slash, modality = key.rpartition("/")
        if not slash or not modality:
            raise BridgeError(f"a route is called {key!r}. Expected SPACE/MODALITY.")
        return self.space(name)

    def space_path(self, name: str) -> Path | None:
        """Where a space lay when the bridge was made, or None where that is unknown."""
        path = self.space(name).path
        return Path(path) if path else None

    def open_space(self, name: str, override: str | Path | Space | None = None) -> Space:
        """Open a space of the bridge, from where it lay or from `override`, and check that it is the same encoder's.

        Args:
            name: Name of the space in the bridge.
            override: Where it lies now, or the space, open already.

        Raises:
            BridgeError: Its place is unknown, or nothing lies there now.
            FingerprintError: What lies there comes from another encoder.
            SpaceError: What lies there is no whole space.
        """
        from isthmus.spaces.space import Space, open_space

        if isinstance(override, Space):
            path: Path | None = override.path
        else:
            path = Path(override) if override is not None else self.space_path(name)
        advice = f"Pass its place: --space {name}=PATH (open_space({name!r}, PATH))."
        if path is None:
            raise BridgeError(f"the bridge does not know where the space {name!r} lies. {advice}")
        if override is None and not path.exists():
            raise BridgeError(
                f"the space {name!r} lay at {path} when the bridge was made and is not there now. {advice}"
            )
        opened = override if isinstance(override, Space) else open_space(path)
        for modality, expected in self.space(name).fingerprints.items():
            if modality in opened and opened.fingerprint(modality) != expected:
                raise other_encoder(f"{path}/{modality}", opened[modality].info, [self.space(name)], modality)
        return opened

    # projecting

    def project(
        self,
        x: EmbeddingsLike | NDArray[Any],
        *,
        space: str | None = None,
        modality: str | None = None,
        force: bool = False,
    ) -> Array:
        """Carry embeddings into the unified space.

        Args:
            x: One modality of a space, recognised by its fingerprint, or an array (n, d), which needs `space` and
                `modality`.
            space: Name of the space in the bridge; decides where several have the fingerprint.
            modality: Modality; that of `x` where it has one.
            force: Project embeddings of another encoder too, on your own word.

        Returns:
            (n, dim) float32, unit rows, in the order of `x`.

        Raises:
            FingerprintError: `x` comes from an encoder that the bridge does not know.
            BridgeError: The bridge has no such route, the dimension differs, or a row is zero or not finite.
        """
        if isinstance(x, np.ndarray) or not hasattr(x, "blocks"):
            return self._project_array(to_numpy(x), space, modality)
        out = np.empty((len(x), self.dim), dtype=np.float32)
        start = 0
        for block in self.project_blocks(x, space=space, modality=modality, force=force):
            out[start : start + len(block)] = block
            start += len(block)
        return out

    def project_blocks(
        self,
        x: EmbeddingsLike,
        *,
        space: str | None = None,
        modality: str | None = None,
        force: bool = False,
        size: int = 65536,
    ) -> Iterator[Array]:
        """`project` for what does not fit into memory: blocks of unit rows in order. Faults as there."""
        made_by = unified_fingerprint(x)
        if made_by is not None and space is None and (force or made_by == bridge_fingerprint(self)):
            yield from self._projected_blocks(x, size)
            return
        modality = modality or x.modality
        name = space_of(self, x, space=space, modality=modality, force=force)
        where = f"{x.space_name}/{x.modality}"
        route = self._fitting_route(name, modality, x.dim, where)
        start = 0
        for block in x.blocks(size):
            yield self._run(route, block, where, x.ids, start)
            start += len(block)

    def _projected_blocks(self, x: EmbeddingsLike, size: int) -> Iterator[Array]:
        """Rows that this bridge projected before: they are in the unified space already."""
        start = 0
        for block in x.blocks(size):
            check_rows(block, f"{x.space_name}/{x.modality}", x.ids, start)
            yield np.asarray(block, dtype=np.float32)
            start += len(block)

    def _project_array(self, x: NDArray[Any], space: str | None, modality: str | None) -> Array:
        if space is None or modality is None:
            raise BridgeError(f"an array needs space= and modality= to be projected. Expected one of {self._keys()}.")
        if x.ndim != 2:
            raise BridgeError(f"got an array of shape {x.shape}. Expected two dimensions, (items, dimensions).")
        where = f"{space}/{modality}"
        return self._run(self._fitting_route(space, modality, x.shape[1], where), x, where, None, 0)

    def _fitting_route(self, name: str, modality: str, dim: int, where: str) -> Route:
        route, expected = self.route(name, modality), self.space(name).dim
        if dim != expected:
            raise BridgeError(f"{where}: got embeddings of {dim} dimensions. The space {name!r} has {expected}.")
        return route

    def _run(self, route: Route, x: NDArray[Any], where: str, ids: Sequence[str] | None, start: int) -> Array:
        x = np.asarray(x, dtype=np.float32)
        check_rows(x, where, ids, start)
        out = apply_route(route, self.arrays, x, where=where)
        # A route that ends at unit length is left alone: the embeddings of a base keep their very bits.
        return out if route and route[-1]["kind"] == "normalize" else normalize(out)

    def explain(
        self,
        query: EmbeddingsLike,
        hit: EmbeddingsLike,
        *,
        top: int = 5,
        space_paths: Mapping[str, str | Path] | None = None,
    ) -> Explanation:
        """The shared items that carry the match of two items, with their shares.

        Exact where both routes have a posterior over the same named items; else by the posteriors of both items over
        what their spaces share, read from the spaces themselves, which `Explanation.basis` says.

        Args:
            query: One item of a space, such as `Selection`; of several the first counts.
            hit: One item of another space, or of the same.
            top: Names in the answer.
            space_paths: Where spaces of the bridge lie now, by name; only read where the routes do not tell.

        Raises:
            BridgeError: The routes do not tell, and the bridge's spaces are not there or share nothing with a name.
            FingerprintError: An item comes from an encoder that the bridge does not know.
        """
        from isthmus.bridges.explain import Explainer

        explainer = Explainer(self, space_paths=space_paths)
        return explainer.explain(explainer.item(query), explainer.item(hit), top=top)

    # encoding raw items

    def encode(
        self,
        items: Any,
        *,
        modality: str,
        space: str | None = None,
        encoder: str | Encoder | None = None,
        encoder_options: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        device: str | None = None,
        force: bool = False,
    ) -> Array:
        """Raw items into the unified space, through the encoder that the space was made by.

        Args:
            items: A list of paths, or for the modality `text` of texts; also of PIL images, arrays, sounds as
                {"array", "sampling_rate"}, or bytes (see `isthmus.items.as_items`). One of them alone is one row.
            modality: Their modality.
            space: Which space's encoder; by default that of the first space that has the modality, the base first.
            encoder: An encoder, or the name to load it by, where the recorded identity does not say enough, or names
                what a file may not have loaded (a class of your own, a model in a folder).
            encoder_options: Passed to the encoder's factory, when `encoder` is a name.
            batch_size: Items in one pass through the model.
            device: Where the model goes.
            force: Take another encoder than the recorded one, on your own word.

        Returns:
            (n, dim) float32, unit rows, in the order of `items`.

        Raises:
            FingerprintError: The encoder at hand is not the recorded one.
            EncoderError: It cannot be loaded, or an item cannot be encoded.
            FormatError: An item is of a type that is no item.
            BridgeError: The bridge has no route for the modality.
        """
        name, embedded = self.embed(
            items, modality=modality, space=space, encoder=encoder, encoder_options=encoder_options,
            batch_size=batch_size, device=device, force=force,
        )  # fmt: skip
        return self.project(embedded, space=name, modality=modality)

    def embed(
        self,
        items: Any,
        *,
        modality: str,
        space: str | None = None,
        encoder: str | Encoder | None = None,
        encoder_options: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        device: str | None = None,
        force: bool = False,
    ) -> tuple[str, Array]:
        """Embed raw items in the space of their encoder, as `encode` does before it projects; arguments as there.

        Returns:
            The name of the space, and (n, d) float32 rows of it, in the order of `items`.
        """
        from isthmus.encoders import embed_items
        from isthmus.items import as_items

        wrapped = as_items(items, modality)
        target = self.space(space) if space else spaces_with(self, modality)[0]
        self.route(target.name, modality)
        if encoder is None or isinstance(encoder, str):
            for each in wrapped:  # a wrong path is told before a model is loaded
                if each.path and not Path(each.path).exists():
                    raise FormatError(f"{each.path}: no such file. Check the path.")
            encoder = target.load_encoder(modality, encoder, device=device, options=encoder_options)
        if not force:
            target.check_encoder(encoder, modality)
        return target.name, embed_items(encoder, wrapped, modality=modality, batch_size=batch_size)

    # growing

    @classmethod
    def over(cls, base: Space | Bridge) -> Bridge:
        """The bridge that is only its base, every modality as it is; a bridge is its own base."""
        if isinstance(base, Bridge):
            return base
        routes = {f"{base.name}/{modality}": list(AS_IT_IS) for modality in base.modalities}
        return cls("", base.dim, [BridgeSpace.of(base, role="base")], routes, {})

    def with_leaf(
        self,
        leaf: BridgeSpace,
        routes: Mapping[str, Route],
        arrays: Arrays,
        *,
        method: str,
        config: Mapping[str, Any] | None = None,
        record: Mapping[str, Any] | None = None,
        history: Iterable[Mapping[str, Any]] = (),
    ) -> Bridge:
        """This bridge and one more space; what was there stays bit for bit.

        Args:
            leaf: The space.
            routes: By modality of the leaf, the route into the unified space.
            arrays: By name, the arrays of the routes; names get the leaf's name and a slash in front.
            method: How the routes were made.
            config: Resolved configuration of this step.
            record: What came of this step; that of the steps before moves to `earlier`.
            history: Training log of this step; it replaces the one before.

        Raises:
            ConfigError: The bridge has this space, or one of this name, already.
        """
        self.check_new(leaf)
        prefix = f"{leaf.name}/"
        added = {prefix + name.removeprefix(prefix): array for name, array in arrays.items()}
        if clash := sorted(added.keys() & set(self.arrays)):
            raise ConfigError(f"the bridge has an array called {clash[0]!r} already. Give the leaf another name.")
        named = {
            f"{leaf.name}/{modality}": rename_arrays(route, lambda name: prefix + name.removeprefix(prefix))
            for modality, route in routes.items()
        }
        return Bridge(
            method="+".join(dict.fromkeys([*filter(None, self.method.split("+")), method])),
            dim=self.dim,
            spaces=[*self.spaces, leaf],
            routes=self.routes | named,
            arrays={**self.arrays, **added},
            config=dict(config or {}),
            record=dict(record or {}) | self._earlier(),
            history=[dict(line) for line in history],
        )

    def check_new(self, leaf: BridgeSpace) -> None:
        """Refuse a space that the bridge joins already, by its name or under another.

        Raises:
            ConfigError: It does.
        """
        for space in self.spaces:
            if space.name == leaf.name:
                raise ConfigError(f"two spaces are called {leaf.name!r}, expected names of their own. {RENAME}")
            if space.fingerprints and space.fingerprints == leaf.fingerprints:
                raise ConfigError(
                    f"{leaf.name!r} is the space {space.name!r}, which the bridge joins already. Join another."
                )

    def _earlier(self) -> dict[str, Any]:
        if not self.method:
            return {}
        record = {key: value for key, value in self.record.items() if key != "earlier"}
        step = {"method": self.method, "spaces": [s.name for s in self.spaces], "config": self.config, "record": record}
        return {"earlier": [*self.record.get("earlier", []), step]}

    # words, files, Hub

    def describe(self) -> dict[str, Any]:
        """Everything about the bridge but its numbers, ready for json; `summary()` says it to a person."""
        shapes = {name: list(_shape(self.arrays, name)) for name in sorted(self.arrays)}
        description: dict[str, Any] = plain(
            {
                "format_version": FORMAT_VERSION,
                "method": self.method,
                "dim": self.dim,
                "spaces": [vars(space) for space in self.spaces],
                "routes": {k: route_words(r, lambda name: _shape(self.arrays, name)) for k, r in self.routes.items()},
                "base_moved": self.base_moved,
                "arrays": shapes,
                "parameters": sum(int(np.prod(shape)) for shape in shapes.values()),
                "config": self.config,
                "record": self.record,
            }
        )
        return description

    @property
    def base_moved(self) -> list[str]:
        """The base's `space/modality` whose embeddings do not stay as they are; empty for every extension."""
        bases = {space.name for space in self.spaces if space.role == "base"}
        return [k for k, route in self.routes.items() if k.rpartition("/")[0] in bases and route != AS_IT_IS]

    def summary(self) -> str:
        """The bridge in a few lines for a person."""
        return summary(self.describe())

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the bridge folder beside `path` and rename it whole.

        Raises:
            BridgeError: Something lies at `path` (a bridge is replaced if `overwrite`), or an array is not finite.
            OSError: The disk refuses; `path` is as it was.
        """
        path = Path(path)
        spaces = [vars(space) | {"path": _relative(space.path, path.resolve())} for space in self.spaces]
        manifest = {"method": self.method, "dim": self.dim, "spaces": spaces, "routes": self.routes}
        write_folder(
            path,
            manifest | {"config": self.config, "record": self.record},
            arrays=self.arrays,
            history=self.history,
            card=card(self.describe()),
            overwrite=overwrite,
        )

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, **options: Any
    ) -> str:
        """Upload the bridge to the Hugging Face Hub, without the paths of its spaces on this machine.

        Args:
            repo_id: `user/name`; made where there is none.
            private: Whether a new repository is private.
            token: Access token; by default that of `hf auth login`.
            **options: For `huggingface_hub.HfApi.upload_folder`: `commit_message`, `revision`, `create_pr`...

        Returns:
            Address of the commit.

        Raises:
            BridgeError: The Hub refuses or cannot be reached.
        """
        from isthmus.bridges.hub import upload

        placeless = replace(self, spaces=[replace(space, path=None) for space in self.spaces])
        with tempfile.TemporaryDirectory() as folder:
            placeless.save(Path(folder, "bridge"))
            return upload(Path(folder, "bridge"), repo_id, private=private, token=token, **options)

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
    ) -> Bridge:
        """Load a bridge from a folder, or from a repository of the Hugging Face Hub.

        Raises:
            BridgeError: Neither is there, or what is there is no whole bridge.
        """
        if Path(repo_or_folder).exists():
            return load_bridge(repo_or_folder)
        from isthmus.bridges.hub import download

        bridge = load_bridge(download(str(repo_or_folder), revision=revision, token=token, cache_dir=cache_dir))
        # Where spaces lay on its maker's machine says nothing here, and may point at anything.
        return replace(bridge, spaces=[replace(space, path=None) for space in bridge.spaces])


def load_bridge(path: str | Path) -> Bridge:
    """Open a bridge folder. Its arrays are hashed now and read when they are needed.

    Raises:
        BridgeError: It is missing, not whole, changed, of a newer format, or its routes do not fit its arrays.
    """
    path = Path(path)
    manifest, arrays, history = read_folder(path)
    check_manifest(path / "bridge.json", manifest)
    try:
        spaces = [BridgeSpace(**{**space, "path": _absolute(space.get("path"), path)}) for space in manifest["spaces"]]
    except TypeError as error:
        raise BridgeError(f"{path / 'bridge.json'}: is damaged ({error!r}). Copy the bridge again.") from error
    fields = {key: manifest[key] for key in ("method", "dim", "routes", "config", "record")}
    try:
        return Bridge(**fields, spaces=spaces, arrays=arrays, history=history)
    except BridgeError as error:
        raise BridgeError(f"{path}: {error}") from error


def _shape(arrays: Arrays, name: str) -> tuple[int, ...]:
    lazy = getattr(arrays, "shape", None)
    return tuple(lazy(name)) if lazy else tuple(arrays[name].shape)


def _relative(path: str | None, start: Path) -> str | None:
    if path is None:
        return None
    try:
        return Path(os.path.relpath(path, start)).as_posix()
    except ValueError:  # another drive
        return path


def _absolute(path: str | None, start: Path) -> str | None:
    return None if path is None else os.path.realpath(os.path.join(os.path.realpath(start), path))
