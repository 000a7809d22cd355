"""The outermost layer of the service: who may ask, how large and how slow a request may be, logs and metrics.

It is plain ASGI, so that a body is counted as it arrives and a request that may not be answered is never read.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from starlette.exceptions import HTTPException

from isthmus.serve.limits import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the latency histogram, in seconds."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
        b"media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]
"""Sent with every answer: the page may load nothing from anywhere else, and nobody may frame it."""


class Refused(HTTPException):
    """A request that is answered without being worked on.

    Args:
        status: HTTP status.
        kind: Name of the fault.
        message: What is wrong and what to do.
    """

    def __init__(self, status: int, kind: str, message: str) -> None:
        # The rest of a body that is too large or too slow is not read, so the connection cannot be used again.
        super().__init__(status, message, {"connection": "close"} if status in (408, 413) else None)
        self.kind = kind


@dataclass
class Metrics:
    """Counts of what was asked and how long it took, as Prometheus reads them."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    buckets: Counter[tuple[str, float]] = field(default_factory=Counter)
    active: int = 0

    def note(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests[route, status] += 1
        self.seconds[route] += seconds  # type: ignore[assignment]
        for bound in BUCKETS:
            if seconds <= bound:
                self.buckets[route, bound] += 1

    def text(self) -> str:
        """The exposition format, version 0.0.4."""
        lines = ["# TYPE isthmus_requests_total counter"]
        lines += [
            f'isthmus_requests_total{{route="{route}",status="{status}"}} {count}'
            for (route, status), count in sorted(self.requests.items())
        ]
        lines.append("# TYPE isthmus_request_seconds histogram")
        for route in sorted(self.seconds):
            count = sum(n for (name, _), n in self.requests.items() if name == route)
            for bound in BUCKETS:
                lines.append(
                    f'isthmus_request_seconds_bucket{{route="{route}",le="{bound}"}} {self.buckets[route, bound]}'
                )
            lines.append(f'isthmus_request_seconds_bucket{{route="{route}",le="+Inf"}} {count}')
            lines.append(f'isthmus_request_seconds_sum{{route="{route}"}} {self.seconds[route]:.6f}')
            lines.append(f'isthmus_request_seconds_count{{route="{route}"}} {count}')
        lines += ["# TYPE isthmus_requests_active gauge", f"isthmus_requests_active {self.active}"]
        return "\n".join(lines) + "\n"


class Guard:
    """Checks a request before the application sees it.

    - The host must be one that this service answers to, and a browser's origin must be the service's own: so no page
      of another site can ask, not even through a name that it points at the loopback address.
    - Where a token is set, every route but `/health` and the page's own files needs it.
    - A body is counted and timed while it arrives.

    Args:
        app: The application.
        limits: Bounds.
        token: What `Authorization: Bearer` must carry; None asks for none.
        hosts: Names that the `Host` header may have; None takes any (a token must then be set).
        open_paths: Paths that need no token.
        routes: Known paths, for the metrics; others are counted together.
        log: Where a line of JSON goes for each request; None writes none. Never a query's content.
    """

    def __init__(
        self,
        app: App,
        *,
        limits: Limits,
        token: str | None = None,
        hosts: tuple[str, ...] | None = LOOPBACK,
        open_paths: Callable[[str], bool] = lambda path: path == "/health",
        routes: frozenset[str] = frozenset(),
        log: TextIO | None = sys.stderr,
    ) -> None:
        self.app, self.limits, self.token, self.hosts = app, limits, token, hosts
        self.open_paths, self.routes, self.log = open_paths, routes, log
        self.metrics = Metrics()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, sent = time.monotonic(), 500, False

        async def watched(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status, sent = int(message["status"]), True
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        self.metrics.active += 1
        try:
            self._admit(scope)
            await self.app(scope, self._counted(scope, receive), watched)
        except Refused as refused:
            if not sent:
                await _answer(watched, refused)
        finally:
            self.metrics.active -= 1
            self._note(scope, status, time.monotonic() - started)

    def _admit(self, scope: Scope) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self.hosts is not None and name.lower() not in self.hosts:
            raise Refused(403, "HostError", f"this service answers to {', '.join(self.hosts[:2])} only.")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise Refused(403, "OriginError", "requests of other sites are not answered (CORS is off).")
        if self.metrics.active > self.limits.concurrent:
            raise Refused(503, "BusyError", "too many requests at once. Try again in a moment.")
        if self.token is not None and not self.open_paths(scope["path"]):
            given = headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
                raise Refused(401, "TokenError", "this service needs its token: Authorization: Bearer TOKEN.")
        length, most = headers.get("content-length", "0"), self._most(scope)
        if not length.isdigit() or int(length) > most:
            raise Refused(413, "SizeError", f"a body may hold {most:,} bytes here, got {length[:20]}.")

    def _most(self, scope: Scope) -> int:
        """Largest body of a request: a file to embed may be larger than words about one."""
        upload = scope["path"] == "/embed" and b"modality=" in scope.get("query_string", b"")
        return self.limits.body_bytes if upload else self.limits.json_bytes

    def _counted(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` that stops where the body is too large or too slow."""
        count, end, most = 0, time.monotonic() + self.limits.body_seconds, self._most(scope)
        whole = False

        async def counted() -> Message:
            nonlocal count, whole
            if whole:  # what follows is the client's hanging up, which may take as long as the answer does
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
            except asyncio.TimeoutError:
                seconds = self.limits.body_seconds
                raise Refused(408, "TimeError", f"the body took longer than {seconds:g} seconds.") from None
            count += len(message.get("body", b""))
            if count > most:
                raise Refused(413, "SizeError", f"a body may hold {most:,} bytes here.")
            whole = not message.get("more_body", False)
            return message

        return counted

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope["path"] if scope["path"] in self.routes else "other"
        self.metrics.note(route, status, seconds)
        if self.log is not None:
            line = {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000, 1)}
            print(json.dumps({"time": round(time.time(), 3), **line}), file=self.log, flush=True)


async def _answer(send: Send, refused: Refused) -> None:
    body = json.dumps({"error": refused.kind, "message": refused.detail}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **(refused.headers or {})}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status_code, "headers": raw})
    await send({"type": "http.response.body", "body": body})
