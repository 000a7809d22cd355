"""Options of PyAV come and go; what is opened stays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from isthmus.items.decoding.containers import open_container


@pytest.mark.parametrize(("version", "options"), [("12.0.0", {"metadata_errors": "ignore"}), ("19.0.2", {})])
def test_a_container_is_opened_with_the_options_that_its_version_knows(version: str, options: dict[str, str]) -> None:
    given: dict[str, Any] = {}
    av = SimpleNamespace(__version__=version, open=lambda source, mode, **more: given.update(more, source=source))
    open_container(av, "a.m4a")
    assert given == {"source": "a.m4a", **options}
