"""A folder in an object store: its URL, and its files by their relative paths, through fsspec."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from isthmus.core.messages import one_line
from isthmus.errors import DependencyError, SpaceError
from isthmus.spaces.manifest import MANIFEST
from isthmus.spaces.product import SPACE_FILES

_URL = re.compile(r"([a-z][a-z0-9+]+):/{1,2}([^/].*)")
"""A URL, also as `pathlib` leaves it, with one slash."""
_EXTRAS = {"s3": "s3", "s3a": "s3"}


def remote_url(path: object) -> str | None:
    """The URL that a path is, or None where it is a path of this machine."""
    match = _URL.fullmatch(str(path)) if isinstance(path, str | Path) else None
    if match is None:
        return None
    from fsspec import available_protocols

    return f"{match[1]}://{match[2].rstrip('/')}" if match[1] in available_protocols() else None


class RemoteFolder:
    """The files of a space in a store, by their relative paths; every fault of the store is told as one of the space.

    Raises:
        DependencyError: What reads the store is not installed.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self.url = url
        try:
            self.files, self.root = url_to_fs(url)
        except ImportError as error:
            scheme = url.partition(":")[0]
            extra = f"'isthmus[{_EXTRAS[scheme]}]'" if scheme in _EXTRAS else f"the package for {scheme}://"
            raise DependencyError(f"{url}: cannot be read ({one_line(error)}). Run: pip install {extra}") from error
        except Exception as error:  # each store has faults of its own
            raise self._fault(error) from error

    def _fault(self, error: Exception) -> SpaceError:
        return SpaceError(
            f"{self.url}: the store does not do it ({one_line(error)[:150]}). Check the address, the network and your "
            "credentials for it."
        )

    def read(self, name: str) -> bytes | None:
        """The bytes of a small file, or None where it is not there."""
        try:
            return bytes(self.files.cat_file(f"{self.root}/{name}"))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._fault(error) from error

    def get(self, name: str, target: Path) -> None:
        """Bring a file."""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.files.get_file(f"{self.root}/{name}", str(target))
        except Exception as error:
            raise self._fault(error) from error

    def put(self, source: Path, name: str) -> None:
        """Send a file."""
        try:
            self.files.put_file(str(source), f"{self.root}/{name}")
        except Exception as error:
            raise self._fault(error) from error

    def check_writable(self) -> None:
        """Write a file and remove it: whether that is allowed is told before the work, not after it."""
        name = f"{self.root}/.isthmus-write"
        try:
            self.files.pipe_file(name, b"")
            self.files.rm_file(name)
        except Exception as error:
            raise self._fault(error) from error

    def remove_others(self, names: set[str]) -> None:
        """Remove files that a space may have and this one has not; what anyone else put there stays."""
        try:
            self.files.invalidate_cache()
            every = [str(path)[len(self.root.rstrip("/")) + 1 :] for path in self.files.find(self.root)]
            for name in every:
                if name not in names and SPACE_FILES.fullmatch(name):
                    self.files.rm_file(f"{self.root}/{name}")
        except Exception as error:
            raise self._fault(error) from error

    def manifest_hash(self) -> str | None:
        """Hash of the manifest, or None where there is no space."""
        text = self.read(MANIFEST)
        return None if text is None else hashlib.sha256(text).hexdigest()
