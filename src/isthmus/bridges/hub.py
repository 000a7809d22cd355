"""Bridge folders to and from the Hugging Face Hub. Paths in and out: what lies in them is not looked at here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isthmus.bridges.folder import FILES
from isthmus.core.messages import one_line
from isthmus.errors import BridgeError


def upload(folder: Path, repo_id: str, *, private: bool | None, token: str | None, **options: Any) -> str:
    """Upload a bridge folder as a model repository, made where there is none; returns the address of the commit.

    Raises:
        BridgeError: The Hub refuses or cannot be reached; the message holds its reason.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="isthmus")
    try:
        api.create_repo(repo_id, repo_type="model", private=private, exist_ok=True)
        message = options.pop("commit_message", "Upload an isthmus bridge")
        commit = api.upload_folder(
            repo_id=repo_id, repo_type="model", folder_path=folder, commit_message=message, **options
        )
    except _faults() as error:
        raise BridgeError(
            f"{repo_id!r}: the bridge was not uploaded ({one_line(error)}). Check the name, the network, and that "
            "`hf auth login` or token= gives write access."
        ) from error
    return str(getattr(commit, "commit_url", commit))


def download(repo_id: str, *, revision: str | None, token: str | None, cache_dir: str | Path | None) -> Path:
    """Download a bridge repository, or find it in the cache; returns the local folder.

    Raises:
        BridgeError: There is no such repository or revision, or the Hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            repo_id, revision=revision, token=token, cache_dir=cache_dir, allow_patterns=list(FILES)
        )
    except _faults() as error:
        at = f" at revision {revision!r}" if revision else ""
        raise BridgeError(
            f"{repo_id!r}{at}: no folder here, and not to be had from the Hub ({one_line(error)}). Check the path, the "
            "name, the network and your access."
        ) from error
    return Path(folder)


def _faults() -> tuple[type[Exception], ...]:
    """What the Hub's client raises: its own faults, and those of the HTTP library beneath, which differs by version."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    return (OSError, HFValidationError, *HfHubHTTPError.__bases__)
