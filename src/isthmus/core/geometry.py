"""Geometry of plain arrays, float32 numpy in and out: normalising, cosines, centroids, gaps and the size of noise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


_ALIGNMENT = 64
"""Bytes of a cache line, and of the widest vector register."""


def normalize(x: Array, eps: float = 1e-12) -> Array:
    """Scale rows to unit length.

    Args:
        x: (n, d) or (d,) embeddings.
        eps: Norms below this are taken as this, so that a zero row stays zero instead of becoming NaN.

    Returns:
        Array of the same shape, float32.
    """
    x = np.asarray(x, dtype=np.float32)
    norms = np.sqrt(np.einsum("...d,...d->...", x, x, dtype=np.float32))[..., None]
    return np.asarray(x / np.maximum(norms, np.float32(eps)), dtype=np.float32)


def aligned_empty(shape: tuple[int, ...]) -> Array:
    """A float32 array that begins where a vector register does.

    numpy lets arrays begin at any 16 bytes, another place in every process, and a matrix product may sum in another
    order by it: results that shall repeat to the last digit are made of operands that begin alike.
    """
    bytes_ = np.empty(4 * int(np.prod(shape)) + _ALIGNMENT, np.uint8)
    start = -bytes_.ctypes.data % _ALIGNMENT
    return bytes_[start : start + 4 * int(np.prod(shape))].view(np.float32).reshape(shape)


def aligned(x: Array) -> Array:
    """The array as it is where it is float32 and begins as `aligned_empty` does, else a copy that does."""
    if x.dtype == np.float32 and x.flags.c_contiguous and x.ctypes.data % _ALIGNMENT == 0:
        return x
    out = aligned_empty(x.shape)
    out[...] = x
    return out


def centroid(x: Array) -> Array:
    """Mean of the rows of (n, d), summed in float64, as (d,) float32."""
    return np.asarray(np.asarray(x).mean(axis=0, dtype=np.float64), dtype=np.float32)


def modality_gap(x: Array, y: Array) -> float:
    """Norm of the difference of the centroids of (n, d) and (m, d) unit rows (Liang et al., arXiv 2203.02053)."""
    return float(np.linalg.norm(centroid(x) - centroid(y)))


def noise_std(cosine: float, dim: int) -> float:
    """Per-coordinate standard deviation of Gaussian noise that leaves unit vectors at an expected cosine.

    A unit vector x and normalize(x + s * g), g standard normal in `dim` dimensions, have a cosine near
    1 / sqrt(1 + dim * s**2).
    The papers' variance of 0.004 at 512 dimensions is a cosine of 0.573; held fixed, the variance would mean
    0.703 at 256 and 0.404 at 1280 dimensions, so isthmus fixes the cosine (C-MCR and Ex-MCR, section 3.2).

    Args:
        cosine: Target cosine, in (0, 1]; 1 is no noise.
        dim: Number of dimensions.
    """
    if not 0.0 < cosine <= 1.0:
        raise ValueError(f"the noise cosine must lie in (0, 1], got {cosine}")
    return math.sqrt((1.0 / cosine**2 - 1.0) / dim)


def noise_cosine(variance: float, dim: int) -> float:
    """The expected cosine that a noise `variance` per coordinate leaves in `dim` dimensions; inverse of `noise_std`."""
    if variance < 0.0:
        raise ValueError(f"the noise variance must not be negative, got {variance}")
    return 1.0 / math.sqrt(1.0 + dim * variance)


def effective_rank(x: Array) -> float:
    """Exponential of the entropy of the normalised singular values of (n, d) centred rows (Roy and Vetterli, 2007)."""
    centred = np.asarray(x, dtype=np.float64) - np.asarray(x, dtype=np.float64).mean(axis=0)
    # Both products have the same eigenvalues but for zeros: the smaller one costs the cube of the smaller side.
    few = len(centred) < centred.shape[1]
    eigenvalues = np.linalg.eigvalsh(centred @ centred.T if few else centred.T @ centred)
    singular = np.sqrt(np.clip(eigenvalues, 0.0, None))
    total = singular.sum()
    if total == 0.0:
        return 0.0
    p = singular[singular > 0.0] / total
    return float(np.exp(-(p * np.log(p)).sum()))


def evenly_spaced(n: int, most: int) -> NDArray[np.int64]:
    """Row numbers of a sample of `n` rows: all of them, or `most` that lie evenly spaced."""
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(np.int64)
