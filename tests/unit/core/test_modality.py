"""Names of modalities, and the one parser of `via`."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.core.modality import embedding_stem, source_column, via_list
from isthmus.errors import ConfigError


@pytest.mark.parametrize("via", ["text,image", "text, image", ("text", "image"), ["text ", "image"]])
def test_via_is_one_list_however_it_is_written(via: Any):
    assert via_list(via) == ["text", "image"]
    assert via_list("text") == ["text"]


@pytest.mark.parametrize("bad", ["", ",", "text,text", "text,", (), ("text", ""), 3, None, ["text", 3]])
def test_a_via_that_names_nothing_or_a_modality_twice_is_refused(bad: Any):
    with pytest.raises(ConfigError, match=r"^--via got .* Expected one modality or several different ones") as caught:
        via_list(bad, option="--via")
    assert "\n" not in str(caught.value)


def test_names_on_disk():
    assert [embedding_stem(name) for name in ("image", "point_cloud", "smell")] == ["img_emb", "pc_emb", "smell_emb"]
    assert [source_column(name) for name in ("text", "audio")] == ["text", "audio_path"]
