"""Model files: a folder, or a repository of the Hugging Face Hub through its cache, with exact revision and weights.

Weights load from safetensors where there are any, else from a `.bin` of plain arrays; code of a repository never runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.core.messages import one_line
from isthmus.encoders.model_code import check_model_folder
from isthmus.encoders.protocol import weights_sha256
from isthmus.errors import EncoderError

LOCAL = "local"
"""Revision of a folder that does not come from the Hub: its weights' hash says which model it is."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
_CONFIGS = ("*.json", "*.txt", "*.model", "*.jinja")
_ELSEWHERE = ("onnx/*", "openvino/*", "*.msgpack", "*.h5", "*.ot", "*.gguf", "*.onnx")


@dataclass(frozen=True)
class Checkpoint:
    """A model's files on this machine.

    Attributes:
        given: The name as the user gave it; loads the same again on this machine.
        id: Repository of the Hub, or the name of the folder.
        revision: Commit of the Hub, or "local".
        folder: Where the files are.
        weights: The weight files that are loaded, sorted.
    """

    given: str
    id: str
    revision: str
    folder: Path
    weights: tuple[Path, ...]

    def identity(self, library: str) -> dict[str, str]:
        """The identity that a space records; hashing large weights takes seconds."""
        digest = weights_sha256(self.weights)
        return {"library": library, "id": self.id, "revision": self.revision, "weights_sha256": digest}


def find_checkpoint(name: str, *, revision: str | None = None) -> Checkpoint:
    """Find a model's files, downloading what is not yet in the Hub's cache.

    Args:
        name: Folder, or repository of the Hub such as `openai/clip-vit-base-patch32`; a revision may follow, after `@`.
        revision: Branch, tag or commit of the Hub; None takes the main branch.

    Raises:
        EncoderError: There is no such folder or repository, it cannot be downloaded, it holds no weights, or its
            configuration names code that does not come with the library.
    """
    folder, given = Path(name).expanduser(), name
    if "@" in name and not folder.exists():
        name, _, revision = name.partition("@")
        folder = Path(name).expanduser()
    if folder.is_file():
        raise EncoderError(
            f"{name} is a file; expected the folder of a model, or a repository such as organisation/name."
        )
    if folder.is_dir():
        folder = folder.resolve()
        identity, commit = _cached_name(folder)
    else:
        folder = _snapshot(name, revision)
        identity, commit = name, folder.name if _COMMIT.fullmatch(folder.name) else LOCAL
    check_model_folder(folder, given)
    weights = weight_files(folder)
    if not weights:
        raise EncoderError(f"{folder} holds no weights. Expected model.safetensors or pytorch_model.bin.")
    return Checkpoint(given, identity, commit, folder, weights)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The weight files below a model's folder: of each folder its safetensors, else its `.bin`; sorted."""
    by_folder: dict[Path, list[Path]] = {}
    for pattern in ("**/*.safetensors", "**/*.bin"):
        for file in sorted(folder.glob(pattern)):
            ours = file.suffix == ".safetensors" or file.name.startswith("pytorch_model")
            if ours and not {"onnx", "openvino"} & set(file.relative_to(folder).parts):
                by_folder.setdefault(file.parent, []).append(file)
    chosen = (_preferred(files) for files in by_folder.values())
    return tuple(sorted(file for files in chosen for file in files))


def _preferred(files: list[Path]) -> list[Path]:
    """What the loader takes of one folder: a whole file before its shards before anything else, safetensors first."""
    for pattern in (r"model\.safetensors", r"model-\d+-of-\d+\.safetensors", r".*\.safetensors", r"pytorch_model\.bin"):
        if matching := [file for file in files if re.fullmatch(pattern, file.name)]:
            return matching
    return files


def _cached_name(folder: Path) -> tuple[str, str]:
    """(id, revision) of a folder; one inside the Hub's cache still knows its repository and commit."""
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith("models--") and _COMMIT.fullmatch(folder.name):
        return repository.removeprefix("models--").replace("--", "/"), folder.name
    return folder.name, LOCAL


def _snapshot(name: str, revision: str | None) -> Path:
    """Folder of a model of the Hugging Face Hub, downloaded where it is not there."""
    if not _REPOSITORY.fullmatch(name):
        raise EncoderError(
            f"there is no folder {name!r}. Expected the folder of a model, or a repository as organisation/name."
        )
    folder = _download(name, revision, (*_CONFIGS, "*.safetensors"))
    return folder if weight_files(folder) else _download(name, revision, (*_CONFIGS, "*.bin"))


def _download(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """Download some files of a model from the Hugging Face Hub."""
    from huggingface_hub import snapshot_download

    options: dict[str, Any] = {"allow_patterns": list(patterns), "ignore_patterns": list(_ELSEWHERE)}
    try:
        return Path(snapshot_download(name, revision=revision, **options))
    except Exception as error:  # the library raises its own, requests', httpx' and OS errors
        at = f" at revision {revision}" if revision else ""
        raise EncoderError(
            f"model {name!r}{at} is neither a folder, nor in the Hugging Face cache, nor to be downloaded "
            f"({type(error).__name__}: {one_line(error)}). Check the name and the network, or give its folder."
        ) from error
