"""The bridge: the spaces it joins, a route from each of their modalities into one space, and how it came about."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.bridges.card import bridge_description, model_card, summary
from isthmus.bridges.folder import absolute_place, read_folder, relative_place, write_folder
from isthmus.bridges.joined import AS_IT_IS
from isthmus.bridges.member import BridgeSpace, EmbeddingsLike
from isthmus.bridges.projector import Projector
from isthmus.bridges.raw_items import EncoderChoice, embed_raw
from isthmus.bridges.records import check_manifest
from isthmus.bridges.routes import Arrays, Route, rename_arrays
from isthmus.core.geometry import Array
from isthmus.core.html import html_table
from isthmus.errors import BridgeError, ConfigError

if TYPE_CHECKING:
    from isthmus.bridges.explain import Explanation
    from isthmus.encoders.protocol import Encoder
    from isthmus.spaces.space import Space


@dataclass(eq=False)
class Bridge(Projector):
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

    config: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Bridge({self.method!r}, dim={self.dim}, routes={sorted(self.routes)})"

    def _repr_html_(self) -> str:
        """Table of spaces and routes for a notebook."""
        rows = [
            (space.name, space.role, space.dim, modality, " > ".join(step["kind"] for step in route))
            for key, route in self.routes.items()
            for space, modality in [(self._space_of_route(key), key.rpartition("/")[2])]
        ]
        header = ("space", "role", "dimensions", "modality", "route into the unified space")
        return html_table(f"bridge by {self.method}, {self.dim} dimensions", header, rows)

    # answers about items

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
        choice = EncoderChoice(space, encoder, encoder_options, batch_size, device, force)
        name, embedded = embed_raw(self, items, modality, choice)
        return self.project(embedded, space=name, modality=modality)

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

    def _earlier(self) -> dict[str, Any]:
        """Record of the steps before the next one, under the key `earlier`."""
        if not self.method:
            return {}
        record = {key: value for key, value in self.record.items() if key != "earlier"}
        step = {"method": self.method, "spaces": [s.name for s in self.spaces], "config": self.config, "record": record}
        return {"earlier": [*self.record.get("earlier", []), step]}

    # words, files, Hub

    def describe(self) -> dict[str, Any]:
        """Everything about the bridge but its numbers, ready for json; `summary()` says it to a person."""
        return bridge_description(self, self.config, self.record)

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
        spaces = [vars(space) | {"path": relative_place(space.path, path.resolve())} for space in self.spaces]
        manifest = {"method": self.method, "dim": self.dim, "spaces": spaces, "routes": self.routes}
        write_folder(
            path,
            manifest | {"config": self.config, "record": self.record},
            arrays=self.arrays,
            history=self.history,
            card=model_card(self.describe()),
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
        spaces = [
            BridgeSpace(**{**space, "path": absolute_place(space.get("path"), path)}) for space in manifest["spaces"]
        ]
    except TypeError as error:
        raise BridgeError(f"{path / 'bridge.json'}: is damaged ({error!r}). Copy the bridge again.") from error
    fields = {key: manifest[key] for key in ("method", "dim", "routes", "config", "record")}
    try:
        return Bridge(**fields, spaces=spaces, arrays=arrays, history=history)
    except BridgeError as error:
        raise BridgeError(f"{path}: {error}") from error
