"""From an item to a point cloud, in a worker process. No torch, no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.items import Item, Rejected
from isthmus.items.decoding.point_cloud import decode_point_cloud


@dataclass(frozen=True)
class PointDecoder:
    """A mesh or a point cloud to points: mean at the origin, the farthest at distance 1.

    Attributes:
        points: Points sampled from a mesh, and kept of a larger cloud.
        colours: Add red, green and blue from 0 to 1.
        up: The axis that points up in the files.
        fewest: Clouds with fewer points are rejected.
        repeat: Repeat the points of a smaller cloud until there are enough; else it stays small.
    """

    points: int
    colours: bool = False
    up: str = "y"
    fewest: int = 1
    repeat: bool = True

    def __call__(self, item: Item) -> NDArray[np.float32]:
        """The (points, 3) of an item, (points, 6) with colours.

        Raises:
            Rejected: It is no shape, is damaged, or has too few points.
        """
        cloud = decode_point_cloud(
            item.read_bytes(),
            suffix=item.suffix,
            points=self.points,
            colours=self.colours,
            up=self.up,
            repeat=self.repeat,
        )
        if len(cloud) < self.fewest:
            raise Rejected(f"{len(cloud)} points; at least {self.fewest} are needed")
        return cloud

    def describe(self) -> dict[str, Any]:
        """For a space's preprocessing record."""
        smaller = "repeated" if self.repeat else "kept"
        return {
            "points": self.points,
            "smaller_clouds": smaller,
            "colours": self.colours,
            "up_axis": self.up,
            "scale": "unit sphere",
        }
