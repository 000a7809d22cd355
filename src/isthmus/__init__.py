"""isthmus joins pretrained embedding spaces through a modality they share, without paired data.

The names below are the door of the library; each loads its module on first use, so that `import isthmus` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from isthmus.core.version import __version__ as __version__

if TYPE_CHECKING:
    from isthmus.bridges.bridge import Bridge, load_bridge
    from isthmus.bridges.official import load_official
    from isthmus.bridges.project import project
    from isthmus.encoders.pipeline.encode import encode
    from isthmus.encoders.registry import list_encoders
    from isthmus.errors import IsthmusError
    from isthmus.evaluation.ablation.ablate import ablate
    from isthmus.evaluation.benchmarks.declaration import list_benchmarks
    from isthmus.evaluation.evaluate import evaluate_bridge, evaluate_retrieval, evaluate_zero_shot
    from isthmus.evaluation.suite.compare import compare_bridges
    from isthmus.evaluation.suite.run_suite import run_suite
    from isthmus.items.vocabulary import load_vocabulary
    from isthmus.recipes.connect import ConnectConfig, connect
    from isthmus.recipes.extend import ExtendConfig, extend
    from isthmus.recipes.texts import share_texts
    from isthmus.search.index import SearchIndex
    from isthmus.spaces.health import inspect
    from isthmus.spaces.importing.importer import import_embeddings
    from isthmus.spaces.space import Space, make_space, open_space
    from isthmus.worlds.join import join

_DOOR = {
    "Bridge": "bridges.bridge",
    "ConnectConfig": "recipes.connect",
    "ExtendConfig": "recipes.extend",
    "IsthmusError": "errors",
    "SearchIndex": "search.index",
    "Space": "spaces.space",
    "ablate": "evaluation.ablation.ablate",
    "compare_bridges": "evaluation.suite.compare",
    "connect": "recipes.connect",
    "encode": "encoders.pipeline.encode",
    "evaluate_bridge": "evaluation.evaluate",
    "evaluate_retrieval": "evaluation.evaluate",
    "evaluate_zero_shot": "evaluation.evaluate",
    "extend": "recipes.extend",
    "import_embeddings": "spaces.importing.importer",
    "inspect": "spaces.health",
    "join": "worlds.join",
    "list_benchmarks": "evaluation.benchmarks.declaration",
    "list_encoders": "encoders.registry",
    "load_bridge": "bridges.bridge",
    "load_official": "bridges.official",
    "load_vocabulary": "items.vocabulary",
    "make_space": "spaces.space",
    "open_space": "spaces.space",
    "project": "bridges.project",
    "run_suite": "evaluation.suite.run_suite",
    "share_texts": "recipes.texts",
}

__all__ = [
    "Bridge",
    "ConnectConfig",
    "ExtendConfig",
    "IsthmusError",
    "SearchIndex",
    "Space",
    "ablate",
    "compare_bridges",
    "connect",
    "encode",
    "evaluate_bridge",
    "evaluate_retrieval",
    "evaluate_zero_shot",
    "extend",
    "import_embeddings",
    "inspect",
    "join",
    "list_benchmarks",
    "list_encoders",
    "load_bridge",
    "load_official",
    "load_vocabulary",
    "make_space",
    "open_space",
    "project",
    "run_suite",
    "share_texts",
]


def __getattr__(name: str) -> Any:
    if name not in _DOOR:
        raise AttributeError(f"module 'isthmus' has no attribute {name!r}")
    value = getattr(import_module(f"isthmus.{_DOOR[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
