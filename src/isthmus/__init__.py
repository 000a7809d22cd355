"""isthmus joins pretrained embedding spaces through a modality they share, without paired data.

The names below are the door of the library; each loads its module on first use, so that `import isthmus` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from isthmus.ablation.run import ablate
    from isthmus.bridge import Bridge, load_bridge
    from isthmus.encoding import encode
    from isthmus.errors import IsthmusError
    from isthmus.evaluate import evaluate_bridge, evaluate_retrieval, evaluate_zero_shot
    from isthmus.health import inspect
    from isthmus.importing import import_embeddings
    from isthmus.index import SearchIndex
    from isthmus.recipes.connect import ConnectConfig, connect
    from isthmus.recipes.extend import ExtendConfig, extend
    from isthmus.space import Space, make_space, open_space
    from isthmus.suite.compare import compare_bridges
    from isthmus.suite.run import run_suite

_DOOR = {
    "Bridge": "bridge",
    "ConnectConfig": "recipes.connect",
    "ExtendConfig": "recipes.extend",
    "IsthmusError": "errors",
    "SearchIndex": "index",
    "Space": "space",
    "ablate": "ablation.run",
    "compare_bridges": "suite.compare",
    "connect": "recipes.connect",
    "encode": "encoding",
    "evaluate_bridge": "evaluate",
    "evaluate_retrieval": "evaluate",
    "evaluate_zero_shot": "evaluate",
    "extend": "recipes.extend",
    "import_embeddings": "importing",
    "inspect": "health",
    "load_bridge": "bridge",
    "make_space": "space",
    "open_space": "space",
    "run_suite": "suite.run",
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
    "load_bridge",
    "make_space",
    "open_space",
    "run_suite",
]


def __getattr__(name: str) -> Any:
    if name not in _DOOR:
        raise AttributeError(f"module 'isthmus' has no attribute {name!r}")
    value = getattr(import_module(f"isthmus.{_DOOR[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
