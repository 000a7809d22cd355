"""The guard: who may ask, how much, how slowly; what it notes of a request."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is an extra: pip install 'isthmus[serve]'")

from isthmus.serve.guard import Guard, Metrics
from isthmus.serve.limits import Limits

TOKEN = "0123456789abcdef"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that reads the whole body and tells its length."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def ask(
    guard: Guard,
    path: str = "/spaces",
    *,
    headers: dict[str, str] | None = None,
    chunks: tuple[bytes, ...] = (b"",),
    wait: float = 0.0,
    query: str = "",
) -> tuple[int, bytes, dict[str, str]]:
    """Send one request; its status, body and headers."""
    given = {"host": "localhost:8000", **(headers or {})}
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    waiting = [
        {"type": "http.request", "body": chunk, "more_body": place < len(chunks) - 1}
        for place, chunk in enumerate(chunks)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(wait)
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    start = sent[0]
    told = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], b"".join(each.get("body", b"") for each in sent[1:]), told


def message(body: bytes) -> str:
    return str(json.loads(body)["message"])


def test_a_good_request_passes_with_headers_that_shut_the_page_in():
    status, body, headers = ask(Guard(echo, limits=Limits(), log=None), chunks=(b"ab", b"c"))
    assert (status, body) == (200, b"3")
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "localhost.evil"])
def test_a_host_that_is_not_its_own_is_refused(host: str):
    status, body, _ = ask(Guard(echo, limits=Limits(), log=None), headers={"host": host})
    assert status == 403
    assert message(body) == "this service answers to 127.0.0.1, localhost only."


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:9", "https://localhost"])
def test_another_sites_page_is_refused(origin: str):
    status, body, _ = ask(Guard(echo, limits=Limits(), log=None), headers={"origin": origin})
    assert status == 403
    assert "CORS is off" in message(body)


def test_its_own_page_is_answered():
    assert ask(Guard(echo, limits=Limits(), log=None), headers={"origin": "http://localhost:8000"})[0] == 200


@pytest.mark.parametrize("given", [None, "Bearer", "Bearer wrong", TOKEN, f"Bearer {TOKEN} ", f"bearer {TOKEN}"])
def test_without_the_token_nothing_but_health_is_answered(given: str | None):
    guard = Guard(echo, limits=Limits(), token=TOKEN, hosts=None, log=None)
    headers = {} if given is None else {"authorization": given}
    for path in ("/spaces", "/search", "/metrics", "/openapi.json", "/health/../spaces", "/nothing"):
        status, body, _ = ask(guard, path, headers=headers)
        assert status == 401
        assert message(body) == "this service needs its token: Authorization: Bearer TOKEN."
    assert ask(guard, "/health", headers=headers)[0] == 200


def test_with_the_token_all_is_answered_from_any_host():
    guard = Guard(echo, limits=Limits(), token=TOKEN, hosts=None, log=None)
    headers = {"authorization": f"Bearer {TOKEN}", "host": "search.example"}
    assert ask(guard, headers=headers)[0] == 200


@pytest.mark.parametrize("length", ["101", "-1", "1e9", "abc", "9" * 40])
def test_a_length_that_is_too_large_or_no_number_is_refused_before_the_body_is_read(length: str):
    guard = Guard(echo, limits=Limits(json_bytes=100), log=None)
    status, body, headers = ask(guard, headers={"content-length": length}, chunks=())
    assert status == 413
    assert "a body may hold 100 bytes here" in message(body)
    assert headers["connection"] == "close"


def test_a_body_that_grows_too_large_without_a_length_is_cut_off():
    guard = Guard(echo, limits=Limits(json_bytes=100), log=None)
    assert ask(guard, chunks=(b"x" * 60, b"x" * 40))[1] == b"100"
    status, body, _ = ask(guard, chunks=(b"x" * 60, b"x" * 41, b""))
    assert (status, message(body)) == (413, "a body may hold 100 bytes here.")


def test_a_file_to_embed_may_be_larger_than_words():
    guard = Guard(echo, limits=Limits(json_bytes=10, body_bytes=100), log=None)
    big = (b"x" * 50,)
    assert ask(guard, "/embed", chunks=big, query="modality=image")[0] == 200
    assert ask(guard, "/embed", chunks=big)[0] == 413
    assert ask(guard, "/search", chunks=big, query="modality=image")[0] == 413


def test_a_body_that_never_ends_is_given_up():
    guard = Guard(echo, limits=Limits(body_seconds=0.05), log=None)
    status, body, headers = ask(guard, chunks=(b"a", b"b"), wait=0.2)
    assert (status, message(body)) == (408, "the body took longer than 0.05 seconds.")
    assert headers["connection"] == "close"


def test_too_many_at_once_are_sent_away():
    guard = Guard(echo, limits=Limits(concurrent=0), log=None)
    status, body, _ = ask(guard)
    assert status == 503
    assert "too many requests" in message(body)


def test_the_log_has_a_line_of_json_without_content():
    log = io.StringIO()
    guard = Guard(echo, limits=Limits(), routes=frozenset({"/search"}), log=log)
    ask(guard, "/search", chunks=(b'{"text": "secret"}',), query="q=secret")
    ask(guard, "/secret-path")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(line["route"], line["status"]) for line in lines] == [("/search", 200), ("other", 200)]
    assert set(lines[0]) == {"time", "method", "route", "status", "ms"}
    assert "secret" not in log.getvalue()


def test_metrics_are_counted_as_prometheus_reads_them():
    metrics = Metrics()
    metrics.note("/search", 200, 0.02)
    metrics.note("/search", 400, 3.0)
    text = metrics.text()
    assert 'isthmus_requests_total{route="/search",status="200"} 1' in text
    assert 'isthmus_request_seconds_bucket{route="/search",le="0.025"} 1' in text
    assert 'isthmus_request_seconds_bucket{route="/search",le="+Inf"} 2' in text
    assert 'isthmus_request_seconds_sum{route="/search"} 3.020000' in text
