"""Why hits match: exact where their spaces are at hand and the routes tell, by their rows in the index where not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.worlds import three_spaces

from isthmus.bridges.bridge import Bridge
from isthmus.bridges.project import project
from isthmus.recipes.posterior.join import join
from isthmus.search.ask import QueryPart, embed_parts, explain_hits, search_index
from isthmus.search.gallery import index_of
from isthmus.search.hits import Hits
from isthmus.search.query import QueryItem
from isthmus.spaces.selection import Selection
from isthmus.spaces.space import Space, open_space


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bridge, Space, Space]:
    clip, clap, _ = three_spaces(tmp_path_factory.mktemp("spaces"), 200)
    settings = {"concept_items": 10, "dim": 32, "agreement": False}
    return join([clip, clap], via="text", method="posterior", settings=settings), clip, clap


def query(bridge: Bridge, clap: Space) -> list[QueryItem]:
    return embed_parts(bridge, [QueryPart("audio", "a5", source=clap["audio"])])


def test_with_their_space_hits_are_explained_exactly(joined: tuple[Bridge, Space, Space]):
    bridge, clip, clap = joined
    items = query(bridge, clap)
    index = index_of(bridge, {"clip/image": clip["image"]})
    hits = search_index(bridge, items, index, k=3)
    told = explain_hits(bridge, items, hits, sources={"clip/image": clip["image"]})
    assert [hit.id for hit in told] == [hit.id for hit in hits]
    sound = Selection.of_ids(clap["audio"], ["a5"])
    for hit in told:
        assert hit.why == bridge.explain(sound, Selection.of_ids(clip["image"], [hit.id]))
        assert hit.why is not None
        assert hit.why.exact
    assert str(told[0].why) in told._repr_html_()


def test_without_their_space_they_are_explained_by_their_rows_in_the_index(joined: tuple[Bridge, Space, Space]):
    bridge, clip, clap = joined
    items = query(bridge, clap)
    index = index_of(bridge, {"clip/image": clip["image"]})
    hits = search_index(bridge, items, index, k=3)
    told = explain_hits(bridge, items, hits, index=index)
    assert all(hit.why is not None and not hit.why.exact and "unified space" in hit.why.basis for hit in told)
    assert all(hit.why is None for hit in explain_hits(bridge, items, hits))


def test_of_several_items_the_heaviest_is_explained(joined: tuple[Bridge, Space, Space]):
    bridge, clip, clap = joined
    parts = [QueryPart("audio", "a5", source=clap["audio"]), QueryPart("text", "t3", 0.5, source=clip["text"])]
    items = embed_parts(bridge, parts)
    index = index_of(bridge, {"clip/image": clip["image"]})
    hits = Hits(search_index(bridge, items, index, k=2))
    told = explain_hits(bridge, items, hits, sources={"clip/image": clip["image"]})
    alone = explain_hits(bridge, items[:1], hits, sources={"clip/image": clip["image"]})
    assert [hit.why for hit in told] == [hit.why for hit in alone]


def test_an_item_that_was_projected_before_is_explained_by_its_place(
    joined: tuple[Bridge, Space, Space], tmp_path: Path
):
    bridge, clip, clap = joined
    bridge.save(tmp_path / "u.bridge")
    project(tmp_path / "u.bridge", [clip.path], into=tmp_path / "u.space", modalities=["image"])
    images = open_space(tmp_path / "u.space")["image"]
    items = query(bridge, clap)
    hits = search_index(bridge, items, index_of(bridge, {"u": images}), k=2)
    told = explain_hits(bridge, items, hits, sources={"u": images})
    assert all(hit.why is not None and not hit.why.exact for hit in told)
