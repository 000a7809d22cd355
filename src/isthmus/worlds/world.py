"""The folder of a world: what lies in it, and opening it.

```
my.world/
  world.json        format, version, and what the bridge and the index were made of
  README.md         what was done, and what to do next
  spaces/           one space a encoder
  unified.bridge/   the bridge that joins them
  index/            everything that was given, in the unified space (see isthmus.search.index_folder)
```
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isthmus.bridges.bridge import Bridge, load_bridge
from isthmus.core.files import read_json
from isthmus.core.version import __version__
from isthmus.errors import ConfigError, FormatError
from isthmus.search.index import SearchIndex
from isthmus.spaces.space import Space, open_space

FORMAT = "isthmus-world"
FORMAT_VERSION = 1
MANIFEST, SPACES, BRIDGE, INDEX = "world.json", "spaces", "unified.bridge", "index"
CHECKPOINTS = ".checkpoints"


@dataclass(frozen=True)
class World:
    """An open world.

    Attributes:
        path: Its folder.
        spaces: Its spaces, by name.
        bridge: What joins them.
        index: What is searched.
    """

    path: Path
    spaces: dict[str, Space]
    bridge: Bridge
    index: SearchIndex


def check_world(folder: Path) -> None:
    """Refuse to write a world where something else lies.

    Raises:
        ConfigError: The folder holds something else, or a world of a newer version.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"--out {folder}: is a file, expected the folder of a world. Give another path.")
    if not (folder / MANIFEST).is_file():
        if any(not each.name.startswith(".world.json") for each in folder.iterdir()):
            raise ConfigError(f"--out {folder}: holds something that is no world. Give another path.")
        return
    _check_version(folder)


def _check_version(folder: Path) -> None:
    """Refuse a world of a format that this version does not read."""
    record = read_json(folder / MANIFEST, kind="world")
    version = record.get("format_version")
    if record.get("format") != FORMAT or not isinstance(version, int):
        raise ConfigError(f"{folder / MANIFEST}: is of no world. Give another path.")
    if version > FORMAT_VERSION:
        raise ConfigError(
            f"{folder / MANIFEST}: format_version {version} is newer than the {FORMAT_VERSION} that isthmus "
            f"{__version__} reads. Upgrade it: pip install -U isthmus."
        )


def is_world(folder: str | Path) -> bool:
    """Whether a folder is a world."""
    return (Path(folder) / MANIFEST).is_file()


def open_world(path: str | Path) -> World:
    """Open a world that `join` made.

    Raises:
        FormatError: The folder is no world, or its joining was interrupted.
    """
    folder = Path(path)
    if not is_world(folder):
        raise FormatError(
            f"{folder}: is no world (a folder with {MANIFEST}). Make one: isthmus join PATHS --out {folder}."
        )
    _check_version(folder)
    if not (folder / BRIDGE).is_dir() or not (folder / INDEX).is_dir():
        raise FormatError(f"{folder}: is not whole, its joining was interrupted. Run the same isthmus join again.")
    spaces = {path.stem: open_space(path) for path in sorted((folder / SPACES).glob("*.space"))}
    return World(folder, spaces, load_bridge(folder / BRIDGE), SearchIndex.open(folder / INDEX))
