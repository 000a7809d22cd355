"""Encoding as Ray tasks: each encodes one part of the items, and the one that ends last joins them.

Parts are those of `--shard i/n`, so that the space is the one a single process makes, byte for byte, and a part that
is lost with its machine goes on, on another, from what it had written. All machines must see the files and the space
by the same paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from isthmus.core.ray import ray_session
from isthmus.encoders.pipeline.settings import EncodeReport
from isthmus.errors import ConfigError

_SUMS = ("items", "encoded", "present", "rejected", "duplicates", "truncated")


def encode_parts(options: Mapping[str, Any], count: int | None, address: str | None) -> list[EncodeReport]:
    """Encode all parts of a call of `encode`.

    Args:
        options: The call's arguments, without those that say who works.
        count: Parts; None is one for each core of the cluster. Each loads the model.
        address: Of the cluster; None is a local one.

    Returns:
        A report a part.

    Raises:
        ConfigError: The encoder is no name, or there is no part.
        DependencyError: Ray is not installed.
    """
    if count is not None and count < 1:
        raise ConfigError(f"tasks is {count}. Expected at least 1.")
    if not isinstance(options["encoder"], str):
        raise ConfigError(f"the engine 'ray' needs an encoder's name, got a {type(options['encoder']).__name__}.")
    with ray_session(address) as ray:
        number = count or max(1, int(ray.cluster_resources().get("CPU", 1)))
        task = ray.remote(num_cpus=1, max_retries=8)(_encode_part)
        reports: list[EncodeReport] = ray.get([task.remote(dict(options), part, number) for part in range(number)])
    return reports


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


def _encode_part(options: dict[str, Any], part: int, count: int) -> EncodeReport:
    import torch

    from isthmus.encoders.pipeline.encode import encode

    # A task a core leaves a core a task, for decoding too.
    torch.set_num_threads(1)
    return encode(**{**options, "shard": (part, count), "workers": 0, "max_rejected": 1.0, "quiet": True})
