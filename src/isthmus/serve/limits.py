"""Limits of the service: how large, how many, how long. Every request is checked against them before work is done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of one service.

    Attributes:
        body_bytes: Largest file that may be sent.
        json_bytes: Largest body of any other request.
        body_seconds: Longest time that a body may take to arrive.
        decode_seconds: Longest time that an uploaded file may take to decode; its process is ended then.
        text_characters: Longest text of a query.
        texts: Texts in one request to embed.
        queries: Query items combined in one search.
        hits: Most hits a gallery and search.
        concurrent: Requests that are worked on at once; more are answered with 503.
        handles: Embedded uploads that are remembered, the oldest forgotten first.
        media_bytes: Largest file of a gallery that is decoded for display.
        map_items: Items on the map, spread evenly over the galleries.
    """

    body_bytes: int = 32 * 2**20
    json_bytes: int = 2 * 2**20
    body_seconds: float = 30.0
    decode_seconds: float = 60.0
    text_characters: int = 2_000
    texts: int = 256
    queries: int = 16
    hits: int = 500
    concurrent: int = 64
    handles: int = 512
    media_bytes: int = 256 * 2**20
    map_items: int = 2_000
