"""Settings of training: noise, losses, the optimiser and its schedule, checkpoints."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from isthmus.core.geometry import noise_cosine


class TrainingConfig(BaseModel):
    """Settings of training. `None` means: chosen from the number of pseudo pairs, and recorded.

    Attributes:
        noise_cosine: Expected cosine between an embedding and its noisy self; 1 is no noise.
        noise_variance: Variance per coordinate instead, as the papers give it; it overrides `noise_cosine`.
        intra_weight: Weight of the intra loss (the papers' lambda).
        intra_norm: Distance of the intra loss, "l2" as Ex-MCR prints it or "l2sq" as C-MCR does.
        batch_norm: "joint" passes all modalities of a side through BatchNorm in one batch, "separate" one by one.
        hidden_ratio: Width of hidden layers as a multiple of their input.
        initialization: First weights of MLP blocks, "torch" or the authors' "xavier".
        members: Ensemble size: projectors trained from different draws, whose unit outputs are averaged (FreeBind
            averages seven). Where `epochs` is None the members share the steps of one.
        epochs: Passes over the pool.
        batch_size: Pseudo pairs per step.
        learning_rate: Step size of AdamW at the start; it falls to 0 along a cosine. `extend` starts at 0.002.
        weight_decay: Weight decay of AdamW.
        precision: Number type of the matrix products in training: "float32", "bf16", or "auto", which is bf16 where
            the processor has instructions for it (what was used is recorded).
        held_out: Share of the pool that chooses the best checkpoint and is never trained on.
        checkpoint_seconds: Time between checkpoints.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    noise_cosine: float = Field(0.573, gt=0.0, le=1.0)
    noise_variance: float | None = Field(None, ge=0.0)
    intra_weight: float = Field(0.1, ge=0.0)
    intra_norm: Literal["l2", "l2sq"] = "l2"
    batch_norm: Literal["joint", "separate"] = "joint"
    hidden_ratio: float = Field(2.0, gt=0.0, le=64.0)
    initialization: Literal["torch", "xavier"] = "torch"
    members: int = Field(1, ge=1, le=64)
    epochs: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=2)
    learning_rate: float = Field(1e-3, gt=0.0)
    weight_decay: float = Field(0.01, ge=0.0)
    precision: Literal["float32", "bf16", "auto"] = "float32"
    held_out: float = Field(0.01, gt=0.0, le=0.5)
    checkpoint_seconds: float = Field(30.0, ge=0.0)

    def noise_cosine_at(self, dim: int) -> float:
        """The noise as an expected cosine in `dim` dimensions, whichever way it was given."""
        return self.noise_cosine if self.noise_variance is None else noise_cosine(self.noise_variance, dim)
