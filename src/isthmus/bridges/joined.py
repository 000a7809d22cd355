"""Spaces joined by routes into one: which there are, how each modality gets there, and where each space lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.bridges.member import ROLES, BridgeSpace, other_encoder
from isthmus.bridges.routes import Arrays, Route, validate_route
from isthmus.core.messages import RENAME
from isthmus.errors import BridgeError, ConfigError

if TYPE_CHECKING:
    from isthmus.spaces.space import Space


AS_IT_IS: Route = [{"kind": "normalize"}]
"""The route of a base: embeddings stay as their encoder made them, at unit length."""


@dataclass(eq=False)
class JoinedSpaces:
    """Spaces and routes that a bridge joins; attributes as in `isthmus.bridges.bridge.Bridge`."""

    method: str
    dim: int
    spaces: list[BridgeSpace]
    routes: dict[str, Route]
    arrays: Arrays

    def __post_init__(self) -> None:
        names = [space.name for space in self.spaces]
        if twice := {name for name in names if names.count(name) > 1}:
            raise BridgeError(f"two spaces of the bridge are called {min(twice)!r}. Give one of them another name.")
        for space in self.spaces:
            if space.role not in ROLES:
                raise BridgeError(f"space {space.name!r} has the role {space.role!r}. Expected {', '.join(ROLES)}.")
        for key, route in self.routes.items():
            where = f"route of {key!r}"
            if (ends := validate_route(route, self.arrays, self._space_of_route(key).dim, where=where)) != self.dim:
                raise BridgeError(f"{where}: ends in {ends} dimensions. The bridge has {self.dim}.")

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
            raise BridgeError(
                f"the bridge has no route for '{space}/{modality}'. Expected one of {self._route_names()}."
            )
        return self.routes[f"{space}/{modality}"]

    def _route_names(self) -> str:
        """The `space/modality` of all routes, for messages."""
        return ", ".join(self.routes)

    def _space_of_route(self, key: str) -> BridgeSpace:
        """The space of a route that is called `space/modality`."""
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

    @property
    def base_moved(self) -> list[str]:
        """The base's `space/modality` whose embeddings do not stay as they are; empty for every extension."""
        bases = {space.name for space in self.spaces if space.role == "base"}
        return [k for k, route in self.routes.items() if k.rpartition("/")[0] in bases and route != AS_IT_IS]

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
