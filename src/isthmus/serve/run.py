"""Starting the service: galleries opened, the address checked, the server run until it is told to stop."""

from __future__ import annotations

import contextlib
import ipaddress
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.errors import ConfigError, DependencyError

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge
    from isthmus.search.index import SearchIndex
    from isthmus.search.stores.protocol import Store
    from isthmus.serve.limits import Limits
    from isthmus.serve.service import AnyGallery
    from isthmus.spaces.embeddings import Embeddings

TOKEN_LENGTH = 16
"""Shortest token that is accepted."""


def serve(
    bridge: Bridge | str | Path,
    galleries: Sequence[Embeddings | SearchIndex | Store],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    editable: bool = False,
    encoders: Mapping[str, str] | None = None,
    device: str | None = None,
    limits: Limits | None = None,
    log: Any = sys.stderr,
    started: Callable[[str], None] | None = None,
    force: bool = False,
    space_paths: Mapping[str, str | Path] | None = None,
) -> None:
    """Serve a bridge and galleries over HTTP until interrupted: a page at `/`, the interface at `/openapi.json`.

    Args:
        bridge: The bridge, or its folder.
        galleries: What is searched: modalities of spaces, projected already or not, indexes and vector stores.
        host: Address to listen on. Any but the loopback one needs a token.
        port: Port; 0 takes a free one.
        token: What requests must carry as `Authorization: Bearer TOKEN`.
        editable: Let items be added and deleted, in memory only.
        encoders: By `space` or `space/modality`, an encoder to take instead of the recorded one.
        device: Where models go.
        limits: Bounds on requests.
        log: Where a line of JSON goes for each request, never with its content; None writes none.
        started: Called with the address of the page once it listens.
        force: Take galleries of encoders that the bridge does not know.
        space_paths: Where the bridge's spaces lie now, by name; matches may be explained from them.

    Raises:
        ConfigError: The address is open to others and there is no token, or there is nothing to search.
        DependencyError: The extra `serve` is not installed.
    """
    try:
        import uvicorn

        from isthmus.serve.app import THREADS, build_app
    except ImportError as error:
        raise DependencyError(
            f"the service needs {error.name}, not installed here. Run: pip install 'isthmus[serve]'"
        ) from error
    from threadpoolctl import threadpool_limits

    from isthmus.bridges.bridge import load_bridge
    from isthmus.core.threads import share_of_cores
    from isthmus.serve.service import Service

    local = check_address(host, token)
    opened = load_bridge(bridge) if isinstance(bridge, (str, Path)) else bridge
    service = Service(
        opened,
        [gallery for each in galleries for gallery in opened_galleries(opened, each, force=force)],
        name=Path(bridge).name if isinstance(bridge, (str, Path)) else opened.method,
        limits=limits,
        editable=editable,
        encoders=encoders,
        device=device,
        space_paths=space_paths,
    )
    # Behind the loopback address only its own names are answered, so that no web page reaches it by a name of its own.
    hosts = ("127.0.0.1", "localhost", "[::1]", host) if local else None
    app = build_app(service, token=token, hosts=hosts, log=log)
    config = _configured(app, host, port, service.limits)
    server = uvicorn.Server(config)
    if started is not None:
        _tell_start(server, host, started)
    try:
        # numpy's products know one number of threads for the whole process, unlike torch's.
        with threadpool_limits(share_of_cores(THREADS), user_api="blas"):
            server.run()
    finally:
        service.close()


def opened_galleries(
    bridge: Bridge, source: Embeddings | SearchIndex | Store, *, force: bool = False
) -> Sequence[AnyGallery]:
    """The galleries of one source.

    Raises:
        FingerprintError: It is of an encoder or of a bridge that this bridge does not know.
        ConfigError: A store without rows.
    """
    from isthmus.bridges.fingerprint import bridge_fingerprint
    from isthmus.search.ask import check_unified
    from isthmus.search.index import SearchIndex
    from isthmus.search.stores.protocol import check_record
    from isthmus.serve.galleries import Gallery
    from isthmus.serve.stored import StoredGallery
    from isthmus.spaces.embeddings import Embeddings

    if isinstance(source, SearchIndex):
        check_unified(bridge, source)
        return Gallery.of_index(source)
    if isinstance(source, Embeddings):
        return [Gallery.of(bridge, source, force=force)]
    check_record(source, bridge_fingerprint(bridge))
    return StoredGallery.of(source)


def _configured(app: Any, host: str, port: int, limits: Limits) -> Any:
    """The server's settings: no log and no name of its own, bounded heads and connections."""
    import uvicorn

    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=64 * 1024,
        limit_concurrency=4 * limits.concurrent,
    )


def _tell_start(server: Any, host: str, started: Callable[[str], None]) -> None:
    """Have `started` called when the server listens, with the port that it got."""
    begin = server.startup

    async def startup(sockets: Any = None) -> None:
        await begin(sockets)
        if server.started:
            port = server.servers[0].sockets[0].getsockname()[1]
            started(f"http://{f'[{host}]' if ':' in host else host}:{port}/")

    server.startup = startup


def check_address(host: str, token: str | None) -> bool:
    """Whether an address is the loopback one.

    Raises:
        ConfigError: It is not and there is no token, or the token is too short to be safe.
    """
    local = host == "localhost"
    with contextlib.suppress(ValueError):  # a name, not an address
        local = local or ipaddress.ip_address(host).is_loopback
    if token is not None and len(token) < TOKEN_LENGTH:
        raise ConfigError(
            f"the token has {len(token)} characters, expected {TOKEN_LENGTH} or more: openssl rand -hex 16 makes one."
        )
    if not local and token is None:
        raise ConfigError(
            f"host {host!r} can be reached by others, so a token is needed. Give --token (or ISTHMUS_TOKEN): "
            "openssl rand -hex 16 makes one. Or leave --host out to listen on this machine only."
        )
    return local
