"""Encoding as Ray tasks: each encodes one part of the items, and the one that ends last joins them.

Parts are those of `--shard i/n`, so that the space is the one a single process makes, byte for byte, and a part that
is lost with its machine goes on, on another, from what it had written. All machines must see the files and the space
by the same paths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from isthmus.encoders.pipeline.options import EncodeOptions
from isthmus.encoders.pipeline.settings import EncodeReport

_SUMS = ("items", "encoded", "present", "rejected", "duplicates", "truncated")


def encode_parts(call: Callable[..., EncodeReport], options: EncodeOptions) -> list[EncodeReport]:
    """Encode all parts of a call of `encode`.

    Args:
        call: `encode` with its arguments but for the options.
        options: Its options: how many parts, and the cluster's address.

    Returns:
        A report a part.

    Raises:
        DependencyError: Ray is not installed.
    """
    alone = replace(options, engine="local", tasks=None, address=None, workers=0, max_rejected=1.0, quiet=True)
    return options.distribution.on_ray(partial(_encode_part, call, alone))


def joined_report(reports: list[EncodeReport]) -> EncodeReport:
    """The report of the whole from those of its parts."""
    whole: dict[str, Any] = dict(max(reports, key=lambda report: report["rows"]))
    for key in _SUMS:
        whole[key] = sum(cast("dict[str, Any]", report)[key] for report in reports)
    files = [report["rejected_file"] for report in reports if report["rejected_file"]]
    # Those of parts went when the parts were joined.
    whole["rejected_file"] = next((file for file in files if Path(file).is_file()), None)
    whole["waiting_for"] = []
    whole["seconds"] = max(report["seconds"] for report in reports)
    whole["items_per_second"] = round(whole["encoded"] / max(whole["seconds"], 1e-9), 1)
    return cast(EncodeReport, whole)


def _encode_part(call: Callable[..., EncodeReport], options: EncodeOptions, part: tuple[int, int]) -> EncodeReport:
    """Encode one shard of the items, in a task of Ray."""
    return call(options=replace(options, shard=part))
