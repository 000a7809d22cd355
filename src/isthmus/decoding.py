"""The address that `isthmus.items.decoding` had; it stays, so that code written for it goes on."""

from __future__ import annotations

import importlib
import sys

from isthmus.items import decoding

for _name in ("audio", "image", "object_npy", "point_cloud", "text", "video", "worker"):
    sys.modules[f"{__name__}.{_name}"] = importlib.import_module(f"{decoding.__name__}.{_name}")
sys.modules[__name__] = decoding
