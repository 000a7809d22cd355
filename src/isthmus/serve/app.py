"""The HTTP interface: typed requests and answers over a `Service`, described at /openapi.json."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from isthmus import __version__
from isthmus.core.geometry import Array
from isthmus.core.threads import limited_threads, share_of_cores
from isthmus.errors import IsthmusError
from isthmus.serve.batching import Batcher
from isthmus.serve.galleries import UnknownItem
from isthmus.serve.guard import Guard, Refused
from isthmus.serve.queries import Decoded, Embedded
from isthmus.serve.schema import (
    FAULTS,
    CountAnswer,
    DeleteRequest,
    EmbedAnswer,
    ExplainAnswer,
    ExplainRequest,
    ItemAnswer,
    ItemsAnswer,
    ItemsRequest,
    NewItem,
    QueryPart,
    SearchAnswer,
    SearchRequest,
    TextsRequest,
)
from isthmus.serve.service import Service, Wanted

PAGE = Path(__file__).parent / "page"
"""The built page; made from the folder `page/` of the repository, and part of the wheel."""
PAGE_FILES = {"": "index.html", "page.js": "page.js", "page.css": "page.css"}
THREADS = 2
"""Threads that encode and multiply, with half of the cores each: texts of one batch beside searches of another."""


class _Engine:
    """Turns requests into batched work: texts that arrive together are encoded together, searches multiplied."""

    def __init__(self, service: Service) -> None:
        self.service, self.limits = service, service.limits
        self.threads = limited_threads(THREADS, "isthmus-work", share_of_cores(THREADS))
        self.uploads = ThreadPoolExecutor(1, "isthmus-upload")
        self.media = ThreadPoolExecutor(2, "isthmus-media")
        self.texts: Batcher[str, Embedded] = Batcher(service.encoders.texts, self.threads)
        self.decoded: Batcher[Decoded, Embedded] = Batcher(service.encoders.embed, self.threads, most=16)
        self.searches: Batcher[Wanted, list[dict[str, Any]]] = Batcher(service.search, self.threads)

    async def run(self, pool: ThreadPoolExecutor, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)

    async def query(self, parts: list[QueryPart]) -> Array:
        """One vector of all parts."""
        if len(parts) > self.limits.queries:
            raise Refused(413, "SizeError", f"a query may have {self.limits.queries} items, got {len(parts)}.")
        items = await asyncio.gather(*[self.item(part) for part in parts])
        return self.service.combine([item.row for item in items], [part.weight for part in parts])

    async def item(self, part: QueryPart | NewItem) -> Embedded:
        """One part in the unified space."""
        if part.text is not None:
            self.check_text(part.text)
            return await self.texts(part.text)
        if part.handle is not None:
            kept = self.service.handles.item(part.handle)
            if kept is None:
                raise UnknownItem("the uploaded file is no longer remembered. Send it again.")
            return kept
        if part.vector is not None:
            row = np.asarray(part.vector, dtype=np.float32)
            if len(row) != self.service.bridge.dim or not np.isfinite(row).all() or not row.any():
                dim = self.service.bridge.dim
                raise Refused(422, "VectorError", f"a vector needs {dim} finite numbers, not all 0; got {len(row)}.")
            return Embedded(row / np.linalg.norm(row))
        assert isinstance(part, QueryPart)
        found: Embedded = await self.run(self.threads, self.service.item, part.gallery or "", part.id or "")
        return found

    def check_text(self, text: str) -> None:
        """Refuse what is too long or cannot be written as UTF-8."""
        if len(text) > self.limits.text_characters:
            raise Refused(
                413, "SizeError", f"a text may have {self.limits.text_characters:,} characters, got {len(text):,}."
            )
        if any(0xD800 <= ord(each) <= 0xDFFF for each in text):
            raise Refused(422, "TextError", "a text holds half a character (a lone surrogate).")

    def close(self) -> None:
        for pool in (self.threads, self.uploads, self.media):
            pool.shutdown(wait=False, cancel_futures=True)
        self.service.close()


def build_app(
    service: Service,
    *,
    token: str | None = None,
    hosts: tuple[str, ...] | None = ("127.0.0.1", "localhost", "[::1]"),
    log: Any = None,
) -> Guard:
    """The application of a service, guarded.

    Args:
        service: What is asked.
        token: What requests must carry; None asks for none, which is for the loopback address only.
        hosts: Names in the `Host` header that are answered; None is any.
        log: Where a line of JSON goes for each request; None writes none.
    """
    engine = _Engine(service)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close()

    app = FastAPI(
        title="isthmus",
        version=__version__,
        description="Search over joined embedding spaces. Errors are `{error, message}` with the status that fits.",
        docs_url=None,
        redoc_url=None,
        lifespan=life,
        responses=FAULTS,
    )
    _answer_faults(app)
    _add_reading(app, engine)
    _add_asking(app, engine)
    _add_changing(app, engine)
    routes = frozenset(route.path for route in app.routes if hasattr(route, "path"))
    page = {f"/{name}" for name in PAGE_FILES}
    guard = Guard(
        app,
        limits=service.limits,
        token=token,
        hosts=hosts,
        # The page's own files say nothing; without them there would be nowhere to type the token.
        open_paths=lambda path: path == "/health" or path in page,
        routes=routes,
        log=log,
    )
    app.state.guard = guard
    return guard


def _answer_faults(app: FastAPI) -> None:
    """Every fault is `{error, message}`, whoever raised it."""

    def fault(status: int, kind: str, message: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"error": kind, "message": " ".join(message.split())[:400]}, status, headers)

    @app.exception_handler(RequestValidationError)
    async def _(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "body"
        return fault(422, "RequestError", f"{place}: {first['msg'].removeprefix('Value error, ')}.")

    @app.exception_handler(HTTPException)
    async def _(_: Request, error: HTTPException) -> JSONResponse:
        return fault(error.status_code, getattr(error, "kind", "HttpError"), str(error.detail), error.headers)

    @app.exception_handler(UnknownItem)
    async def _(_: Request, error: UnknownItem) -> JSONResponse:
        return fault(404, "UnknownItem", str(error))

    @app.exception_handler(IsthmusError)
    async def _(_: Request, error: IsthmusError) -> JSONResponse:
        return fault(400, type(error).__name__, str(error))

    @app.exception_handler(Exception)
    async def _(_: Request, error: Exception) -> JSONResponse:
        return fault(500, "InternalError", f"{type(error).__name__}. This is a fault of isthmus.")


def _add_page(app: FastAPI) -> None:
    """The built page's files."""

    async def page(request: Request) -> Response:
        name = PAGE_FILES[request.url.path.strip("/")]
        if not (PAGE / name).is_file():
            raise Refused(404, "PageError", "the page is not built here: npm ci and npm run build in page/.")
        return FileResponse(PAGE / name, headers={"cache-control": "no-cache"})

    for name in PAGE_FILES:
        app.add_api_route(f"/{name}", page, include_in_schema=False)


def _add_reading(app: FastAPI, engine: _Engine) -> None:
    """Routes that tell: health, metrics, spaces, items, media, map."""
    service = engine.service
    _add_page(app)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the service is up."""
        return {"status": "ok", "version": __version__}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counts and latencies, for Prometheus."""
        guard: Guard = app.state.guard
        return Response(guard.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/spaces")
    async def spaces() -> dict[str, Any]:
        """What the service holds and takes."""
        return service.describe()

    @app.get("/items")
    async def items(
        gallery: str, offset: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> ItemsAnswer:
        """Some items of a gallery, in its order."""
        found = service.gallery(gallery)

        def shown() -> list[ItemAnswer]:
            names = found.page(offset, limit)
            return [ItemAnswer(id=name, metadata=found.shown_metadata(name)) for name in names]

        return ItemsAnswer(total=len(found), items=await engine.run(engine.media, shown))

    @app.get("/media", response_class=Response)
    async def media(gallery: str, id: str) -> Response:
        """An item as it is seen and heard: webp, wav, or points (count, float32 xyz, bytes rgb)."""
        data, kind = await engine.run(engine.media, service.preview, service.gallery(gallery), id)
        return Response(data, media_type=kind, headers={"cache-control": "private, max-age=300"})

    @app.get("/map")
    async def map_() -> dict[str, Any]:
        """Items of all galleries in two dimensions."""
        found: dict[str, Any] = await engine.run(engine.media, service.map)
        return found


def _add_asking(app: FastAPI, engine: _Engine) -> None:
    """Routes that work: embed, search, explain."""
    service, limits = engine.service, engine.limits

    @app.post(
        "/embed",
        openapi_extra={
            "requestBody": {
                "content": {
                    "application/json": {"schema": TextsRequest.model_json_schema()},
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                },
                "required": True,
            }
        },
    )
    async def embed(request: Request, modality: str | None = None, name: str = "") -> EmbedAnswer:
        """Texts (JSON), or one file as the body with `?modality=audio&name=dog.wav`, in the unified space."""
        body = await request.body()
        if modality is None or modality == "text":
            return await _embed_texts(engine, request, body)
        if modality not in service.encoders.modalities():
            known = ", ".join(service.encoders.modalities()) or "none"
            raise Refused(400, "ModalityError", f"{modality[:40]!r} cannot be encoded here. Expected one of: {known}.")
        if not body:
            raise Refused(422, "RequestError", "the body is empty. Send the file as it is.")
        decoded = await engine.run(engine.uploads, service.encoders.decode, body, modality, name[-80:])
        item = await engine.decoded(decoded)
        return EmbedAnswer(dim=len(item.row), embeddings=[item.row.tolist()], handle=service.handles.keep(item))

    @app.post("/search", response_model=SearchAnswer)
    async def search(request: SearchRequest) -> Response:
        """The nearest items of each gallery to a query of one or several items."""
        if request.k > limits.hits:
            raise Refused(413, "SizeError", f"k may be {limits.hits} at most, got {request.k}.")
        names = list(dict.fromkeys(request.galleries)) if request.galleries else list(service.galleries)
        galleries = [service.gallery(name) for name in names]
        vector = await engine.query(request.queries)
        wanted = [Wanted(gallery, vector, request.k, request.filter or None) for gallery in galleries]
        found = await asyncio.gather(*[engine.searches(one) for one in wanted])
        results = [
            {"gallery": gallery.name, "modality": gallery.modality, "hits": hits}
            for gallery, hits in zip(galleries, found, strict=True)
        ]
        # The hits are ours, in the shape of `SearchAnswer`: checking them as models costs as much as the search.
        body = to_json({"results": results}, inf_nan_mode="null", serialize_unknown=True)
        return Response(body, media_type="application/json")

    @app.post("/explain")
    async def explain(request: ExplainRequest) -> ExplainAnswer:
        """The shared texts that carry a match."""
        gallery = service.gallery(request.gallery)
        # Of several items the one that weighs most is explained: a sum of meanings has no posterior of its own.
        part = max(request.queries, key=lambda each: each.weight)
        found = await engine.run(engine.threads, service.explain, await engine.item(part), gallery, request.id)
        return ExplainAnswer(**found)


async def _embed_texts(engine: _Engine, request: Request, body: bytes) -> EmbedAnswer:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "TypeError", "texts are sent as application/json; a file needs ?modality=.")
    try:
        texts = TextsRequest.model_validate_json(body).texts
    except ValidationError as error:
        raise Refused(422, "RequestError", str(error.errors()[0]["msg"])) from error
    if len(texts) > engine.limits.texts:
        raise Refused(413, "SizeError", f"at most {engine.limits.texts} texts at once, got {len(texts)}.")
    for text in texts:
        engine.check_text(text)
    items = await asyncio.gather(*[engine.texts(text) for text in texts])
    return EmbedAnswer(dim=engine.service.bridge.dim, embeddings=[item.row.tolist() for item in items])


def _add_changing(app: FastAPI, engine: _Engine) -> None:
    """Routes that change galleries: refused unless the service was started to allow it. Changes live in memory."""
    service = engine.service

    def allowed() -> None:
        if not service.editable:
            raise Refused(403, "ReadOnly", "items are not changed here. Start the service with --editable.")

    @app.post("/items")
    async def add(request: ItemsRequest) -> CountAnswer:
        """Add items, or replace those of the same ids."""
        allowed()
        gallery = service.gallery(request.gallery)
        found = await asyncio.gather(*[engine.item(item) for item in request.items])
        rows = [each.row for each in found]
        metadata = [item.metadata | ({} if item.text is None else {"text": item.text}) for item in request.items]
        await engine.run(engine.threads, gallery.add, [item.id for item in request.items], np.stack(rows), metadata)
        service.forget_map()
        return CountAnswer(changed=len(rows), total=len(gallery))

    @app.delete("/items")
    async def delete(request: DeleteRequest) -> CountAnswer:
        """Delete items; where one is unknown, none is deleted."""
        allowed()
        gallery = service.gallery(request.gallery)
        await engine.run(engine.threads, gallery.delete, list(dict.fromkeys(request.ids)))
        service.forget_map()
        return CountAnswer(changed=len(set(request.ids)), total=len(gallery))


def page_files(folder: Path = PAGE) -> list[str]:
    """Names of the built page's files."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
