"""Sums of a softmax over part of a memory, which merge exactly, so that a memory may lie in many places."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from isthmus.errors import ConfigError, FormatError


@dataclass
class OnlineSoftmax:
    """The unfinished softmax average of q queries over some rows of a memory.

    With logits l_j = cosine_j / temperature and a reference r per query,
    total = sum_j exp(l_j - r), moment = sum_j exp(l_j - r) * l_j, sums[i] = sum_j exp(l_j - r) * values[i][j].

    Attributes:
        shift: (q,) the reference r, the largest logit seen or a constant that no logit passes by much.
        total: (q,) the softmax denominator relative to the shift.
        moment: (q,) the weighted logits, for the entropy; None where it was not asked for.
        sums: One (q, d_v) float32 tensor per matrix of values.
        rows: Memory rows seen.
    """

    shift: torch.Tensor
    total: torch.Tensor
    moment: torch.Tensor | None
    sums: list[torch.Tensor]
    rows: int

    def merge(self, other: OnlineSoftmax) -> OnlineSoftmax:
        """Add the sums of other rows of the same memory for the same queries; associative and commutative.

        Raises:
            ConfigError: The partials are of other queries, of other values, or only one holds the moment.
        """
        mine, yours = [tuple(s.shape) for s in self.sums], [tuple(s.shape) for s in other.sums]
        if mine != yours or self.total.shape != other.total.shape:
            raise ConfigError(
                f"partial sums of shapes {mine} and {yours} do not merge. Expected the same queries and values."
            )
        if (self.moment is None) != (other.moment is None):
            raise ConfigError("one partial has statistics and the other has none. Ask for them in both or in neither.")
        shift = torch.maximum(self.shift, other.shift)
        a, b = torch.exp(self.shift - shift), torch.exp(other.shift - shift)
        moment = None
        if self.moment is not None and other.moment is not None:
            moment = self.moment * a + other.moment * b
        sums = [x * a[:, None] + y * b[:, None] for x, y in zip(self.sums, other.sums, strict=True)]
        return OnlineSoftmax(shift, self.total * a + other.total * b, moment, sums, self.rows + other.rows)

    def finish(self) -> list[torch.Tensor]:
        """The averages: one (q, d_v) tensor per matrix of values."""
        return [s / self.total[:, None] for s in self.sums]

    def log_sum_exp(self) -> torch.Tensor:
        """(q,) log of the softmax denominator."""
        return self.shift + torch.log(self.total)

    def effective_neighbours(self) -> torch.Tensor:
        """(q,) exponential of the entropy of each query's weights: how many memory rows it averages.

        Raises:
            ConfigError: The moment was not gathered.
        """
        if self.moment is None:
            raise ConfigError("these partial sums hold no statistics. Ask for them when they are made.")
        return torch.exp(self.log_sum_exp() - self.moment / self.total).clamp_(min=1.0, max=max(1.0, float(self.rows)))

    def save(self, path: str | Path) -> None:
        """Write the sums to a safetensors file."""
        from safetensors.torch import save_file

        tensors = {"shift": self.shift, "total": self.total, "rows": torch.tensor([self.rows])}
        if self.moment is not None:
            tensors["moment"] = self.moment
        tensors |= {f"sums.{i}": s for i, s in enumerate(self.sums)}
        save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, str(path))

    @classmethod
    def load(cls, path: str | Path) -> OnlineSoftmax:
        """Read what `save` wrote.

        Raises:
            FormatError: The file is no such file.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(str(path))
            sums = [tensors[f"sums.{i}"] for i in range(sum(name.startswith("sums.") for name in tensors))]
            return cls(tensors["shift"], tensors["total"], tensors.get("moment"), sums, int(tensors["rows"][0]))
        except (SafetensorError, KeyError) as error:
            raise FormatError(
                f"{path} is no file of partial sums ({error}). Expected one of OnlineSoftmax.save; make it again."
            ) from error
