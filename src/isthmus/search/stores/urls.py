"""URLs of stores as a message may show them."""

from __future__ import annotations

from urllib.parse import urlsplit


def without_password(url: str) -> str:
    """A URL as a message may show it."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return url.partition("://")[0] + "://..."
    user = f"{parts.username}@" if parts.username else ""
    return f"{parts.scheme}://{user}{parts.hostname or ''}{port}{parts.path}"


def without_secrets(url: str) -> str:
    """Any store's URL, with its table, as a message may show it."""
    head, hash_, table = url.partition("#")
    return (without_password(head) if "://" in head else head) + hash_ + table
