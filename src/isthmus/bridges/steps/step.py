"""What a kind of step is: its keys, its check, its run, and how its array names are replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isthmus.core.geometry import Array
from isthmus.errors import BridgeError

Step = dict[str, Any]
Route = list[Step]
Arrays = Mapping[str, NDArray[Any]]
"""Arrays by name. A mapping with a method `shape(name)` is asked for that alone, and checks values on reading them."""


class StepKind(NamedTuple):
    """Kind of a route's step: its keys, check, run and renaming.

    Attributes:
        required: Keys that must be there, besides `kind`.
        optional: Keys that may be there.
        check: (step, reader, dim_in) to dim_out; raises BridgeError where keys or shapes do not fit.
        run: (step, arrays, rows) to rows, trusting what `check` has seen.
        rename: (step, function of a name) to the step with every array name replaced.
    """

    required: frozenset[str]
    optional: frozenset[str]
    check: Callable[[Step, Reader, int], int]
    run: Callable[[Step, Arrays, Array], Array]
    rename: Callable[[Step, Callable[[str], str]], Step]


def kind(required: str, optional: str, check: Any, run: Any, rename: Any) -> StepKind:
    """Describe a kind of step, its keys as words apart by blanks."""
    return StepKind(frozenset(required.split()), frozenset(optional.split()), check, run, rename)


class Reader:
    """Looks arrays up for the checks, so that every fault names the step and the array."""

    def __init__(self, arrays: Arrays, place: str) -> None:
        self.arrays, self.place = arrays, place

    def shape(self, name: Any, *expected: int | None) -> tuple[int, ...]:
        """Shape of an array that must be there, finite, and of the expected shape (None: any length)."""
        if not isinstance(name, str) or name not in self.arrays:
            raise BridgeError(f"{self.place}: array {name!r} is not among the bridge's {len(self.arrays)} arrays.")
        lazy = getattr(self.arrays, "shape", None)
        shape = tuple(lazy(name) if lazy else self.arrays[name].shape)
        if len(shape) != len(expected) or any(e not in (None, s) for s, e in zip(shape, expected, strict=True)):
            wanted = ", ".join("any" if e is None else str(e) for e in expected)
            raise BridgeError(f"{self.place}: array {name!r} has shape {shape}. Expected ({wanted}).")
        if not lazy and not np.isfinite(self.arrays[name]).all():
            raise BridgeError(f"{self.place}: array {name!r} holds NaN or infinite values. Train it again.")
        return shape

    def positive(self, key: str, value: Any) -> None:
        """Raise unless value is a finite number above zero."""
        if not is_number(value) or value <= 0:
            raise BridgeError(f"{self.place}: {key} is {value!r}. Expected a number above 0.")


def is_number(value: Any) -> bool:
    """Whether a value of a step's json is a finite number."""
    # up to 1e300: what is beyond has no square, and an integer of that size is no float
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e300  # NaN is not


def rename_keys(*keys: str) -> Callable[[Step, Callable[[str], str]], Step]:
    """The renaming of a step's arrays, whose names stand under these keys of the step."""

    def rename(step: Step, to: Callable[[str], str]) -> Step:
        return {key: to(value) if key in keys and value is not None else value for key, value in step.items()}

    return rename
