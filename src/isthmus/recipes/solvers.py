"""Closed forms on arrays: maps between two spaces from the overlap alone, fitted in a second, as steps of routes.

Rows in are unit rows of the same items in both spaces, whatever was done to them before. Steps out carry a row of the
leaf, and where both sides move a row of the base, to the space where cosines count. What a method leaves open (a
temperature, a strength) is chosen on held-out items of the overlap: fitted on the rest, each should find itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.bridges.routes import Route, apply_route
from isthmus.core.geometry import Array, centroid, normalize
from isthmus.core.runtime import numpy_generator
from isthmus.errors import ConfigError

METHODS = ("dictionary", "ridge", "procrustes", "mean_offset", "cca")
TEMPERATURES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
STRENGTHS = (10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)
"""Penalties of ridge and CCA, as multiples of the mean variance of a coordinate, strongest first."""
SLACK = 0.05
"""The strongest regularisation that gives up at most this share of the best held-out score is taken: what is to be
mapped in the end lies off the overlap, where a smoother map is the safer one."""

HELD_OUT, CHOOSING_ROWS, LINEAR_ROWS = 512, 16_384, 200_000
"""Most items that are held out, that a choice is fitted on, and that a linear map is fitted on, drawn at random."""


@dataclass(frozen=True)
class ClosedFormConfig:
    """Settings of a closed form.

    Attributes:
        method: dictionary: softmax over the leaf's overlap, average of the base's rows of the same items.
            ridge: linear map of least squares, penalised. procrustes: rotation (semi-orthogonal where dims differ).
            mean_offset: shift by the difference of the overlap's means; needs equal dims.
            cca: canonical directions of both spaces, weighted by their correlation.
        center: True removes from every modality of both spaces its own mean first. "leaf" does so to the leaf alone and
            leaves the base as it is; the leaf then comes to lie around the origin, no mean of the base is added to it.
        two_sided: For a dictionary, True (or "concat") puts both spaces side by side, each item's own embedding beside
            its image in the other space, so that the cosines of both spaces add up; "average" carries base items, too,
            to averages of the base's overlap. For cca, True is the canonical space, False the same products from the
            leaf's side alone. None is False for a dictionary and True for cca.
        temperature: Temperature of the softmax over the leaf's overlap; None chooses.
        base_temperature: Temperature of the softmax over the base's overlap, where two-sided; None chooses.
        strength: Penalty of ridge and cca, as a multiple of the mean variance of a coordinate; None chooses.
        dim: Canonical directions kept; None is all.
        seed: Seed of the held-out split.
    """

    method: str = "dictionary"
    center: bool | str = False
    two_sided: bool | str | None = None
    temperature: float | None = None
    base_temperature: float | None = None
    strength: float | None = None
    dim: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"unknown method {self.method!r}. Expected one of {', '.join(METHODS)}.")
        if self.center not in (False, True, "leaf"):
            raise ConfigError(f"center got {self.center!r}. Expected False, True or 'leaf'.")
        sides = {"dictionary": (None, False, True, "concat", "average"), "cca": (None, False, True)}
        if self.two_sided not in sides.get(self.method, (None, False)):
            raise ConfigError(f"two_sided got {self.two_sided!r}, which {self.method} does not know. Leave it out.")
        for name in ("temperature", "base_temperature", "strength", "dim"):
            if (value := getattr(self, name)) is not None and not 0 < value < np.inf:
                raise ConfigError(f"{name} got {value!r}. Expected a number above 0, or nothing to have it chosen.")

    @property
    def sides(self) -> str:
        """How the base takes part: `one` (not at all), `concat`, `average` or `canonical`."""
        if self.method == "cca":
            return "one" if self.two_sided is False else "canonical"
        return "concat" if self.two_sided is True else str(self.two_sided or "one")

    @property
    def moves_base(self) -> bool:
        """Whether the base's own embeddings do not stay as they are."""
        return self.center is True or self.sides != "one"


@dataclass(frozen=True)
class Fit:
    """A fitted closed form.

    Attributes:
        leaf: Steps of the leaf's rows.
        base: Steps of the base's rows; none where the base stays.
        arrays: By name, `leaf/...` or `base/...` by the side that they belong to.
        config: The settings, with what was chosen filled in.
        held_out: `r@1` and `mrr` (both directions' mean) of held-out items of the overlap, and how many they were.
    """

    leaf: Route
    base: Route
    arrays: dict[str, NDArray[Any]]
    config: ClosedFormConfig
    held_out: dict[str, float] = field(default_factory=dict)


def solve(base: Array, leaf: Array, config: ClosedFormConfig) -> Fit:
    """Fit a closed form on an overlap.

    Args:
        base: (n, d) unit rows of the items in the base.
        leaf: (n, d') unit rows of the same items in the leaf.
        config: Settings.

    Raises:
        ConfigError: The method needs equal dims, or there are fewer than two items.
    """
    if base.shape[0] != leaf.shape[0] or base.shape[0] < 2:
        raise ConfigError(f"a closed form needs the same items of both spaces, got {base.shape} and {leaf.shape}.")
    held, rest = _split(len(base), config.seed)
    config = _chosen(_Overlap(base, leaf, held, rest), config)
    scores = _held_out(_Overlap(base, leaf, held, rest), config)
    return replace(_fit(base, leaf, config), held_out=scores | {"rows": len(held)})


def _fit(base: Array, leaf: Array, config: ClosedFormConfig) -> Fit:
    if config.method != "dictionary" and len(base) > LINEAR_ROWS:
        rows = np.sort(numpy_generator(config.seed, 1).choice(len(base), LINEAR_ROWS, replace=False))
        base, leaf = base[rows], leaf[rows]
    return _FITS[config.method](base, leaf, config)


# the methods


def _dictionary(base: Array, leaf: Array, config: ClosedFormConfig) -> Fit:
    arrays: dict[str, NDArray[Any]] = {
        "base/overlap": base.astype(np.float16),
        "leaf/overlap": leaf.astype(np.float16),
    }
    there = _look_up("leaf/overlap", "base/overlap", config.temperature)
    if config.sides == "one":
        # A base that stays owns no arrays.
        arrays["leaf/values"] = arrays.pop("base/overlap")
        return Fit(_look_up("leaf/overlap", "leaf/values", config.temperature), [], arrays, config)
    if config.sides == "average":
        return Fit(there, _look_up("base/overlap", "base/overlap", config.base_temperature), arrays, config)
    back = _look_up("base/overlap", "leaf/overlap", config.base_temperature)
    return Fit(_beside(there, []), _beside([], back), arrays, config)


def _look_up(keys: str, values: str, temperature: float | None) -> Route:
    return [{"kind": "dictionary", "keys": keys, "values": values, "temperature": temperature}]


def _beside(in_base: Route, in_leaf: Route) -> Route:
    return [{"kind": "concat", "weights": [0.5, 0.5], "chains": [in_base, in_leaf]}]


def _ridge(base: Array, leaf: Array, config: ClosedFormConfig) -> Fit:
    from sklearn.linear_model import Ridge

    assert config.strength is not None
    # Without an intercept: the overlap's mean is that of another modality than most rows to be mapped.
    penalty = config.strength * float(np.square(leaf, dtype=np.float64).sum()) / leaf.shape[1]
    model = Ridge(alpha=penalty, fit_intercept=False, solver="cholesky").fit(leaf.astype(np.float64), base)
    return _linear(model.coef_, config)


def _procrustes(base: Array, leaf: Array, config: ClosedFormConfig) -> Fit:
    from scipy.linalg import orthogonal_procrustes

    wide = max(base.shape[1], leaf.shape[1])
    # Coordinates of zeros make both spaces as wide as the wider one; what acts on them is cut away again.
    padded = (np.pad(x.astype(np.float64), ((0, 0), (0, wide - x.shape[1]))) for x in (leaf, base))
    rotation, _ = orthogonal_procrustes(*padded)
    return _linear(rotation[: leaf.shape[1], : base.shape[1]].T, config)


def _linear(weight: NDArray[Any], config: ClosedFormConfig) -> Fit:
    arrays: dict[str, NDArray[Any]] = {"leaf/weight": np.ascontiguousarray(weight, np.float32)}
    return Fit([{"kind": "linear", "weight": "leaf/weight", "bias": None}], [], arrays, config)


def _mean_offset(base: Array, leaf: Array, config: ClosedFormConfig) -> Fit:
    if base.shape[1] != leaf.shape[1]:
        raise ConfigError(
            f"mean_offset needs spaces of equal dims, got {base.shape[1]} and {leaf.shape[1]}: coordinates of other "
            "spaces cannot be compared. Use procrustes, ridge or dictionary."
        )
    if config.center:
        return Fit([], [], {}, config)
    return Fit(
        [{"kind": "center", "mean": "leaf/offset"}], [], {"leaf/offset": centroid(leaf) - centroid(base)}, config
    )


def _cca(base: Array, leaf: Array, config: ClosedFormConfig) -> Fit:
    """Regularised CCA by SVD of the whitened cross-covariance (Hotelling 1936; Vinod 1976 for the ridge).

    Directions are weighted by their canonical correlation on either side (Gong et al. 2014, section 3.1, power 1).
    """
    assert config.strength is not None
    means = centroid(leaf), centroid(base)
    x, y = (rows.astype(np.float64) - mean for rows, mean in zip((leaf, base), means, strict=True))
    white_x, white_y = _whitening(x, config.strength), _whitening(y, config.strength)
    u, correlation, vt = np.linalg.svd(white_x @ (x.T @ y / len(x)) @ white_y, full_matrices=False)
    kept = slice(0, config.dim)
    a, b = (white_x @ u * correlation)[:, kept], (white_y @ vt.T * correlation)[:, kept]
    if config.sides == "one":
        return _affine("leaf", b @ a.T, means[0], config)
    one, two = _affine("leaf", a.T, means[0], config), _affine("base", b.T, means[1], config)
    return Fit(one.leaf, two.leaf, one.arrays | two.arrays, config)


def _whitening(x: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
    """Inverse square root of the covariance of centred rows, the diagonal strengthened."""
    covariance = x.T @ x / len(x)
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors / np.sqrt(np.clip(values, 0, None) + strength * max(values.mean(), 1e-12)) @ vectors.T)


def _affine(side: str, weight: NDArray[np.float64], mean: Array, config: ClosedFormConfig) -> Fit:
    """weight (x - mean) as a linear step with a bias."""
    arrays: dict[str, NDArray[Any]] = {
        f"{side}/weight": np.ascontiguousarray(weight, np.float32),
        f"{side}/bias": np.asarray(-weight @ mean, np.float32),
    }
    return Fit([{"kind": "linear", "weight": f"{side}/weight", "bias": f"{side}/bias"}], [], arrays, config)


_FITS: dict[str, Callable[[Array, Array, ClosedFormConfig], Fit]] = {
    "dictionary": _dictionary,
    "ridge": _ridge,
    "procrustes": _procrustes,
    "mean_offset": _mean_offset,
    "cca": _cca,
}


# choosing on held-out items


@dataclass(frozen=True)
class _Overlap:
    """An overlap, split: rows `held` are looked for, rows `rest` are fitted on."""

    base: Array
    leaf: Array
    held: NDArray[np.int64]
    rest: NDArray[np.int64]

    def turned(self) -> _Overlap:
        """The same with the sides exchanged."""
        return replace(self, base=self.leaf, leaf=self.base)


def _split(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Held-out rows and those to fit on: a tenth held out, more of a small overlap, never above the limits."""
    order = numpy_generator(seed).permutation(n)
    held = min(HELD_OUT, max(n // 10, min(n // 2, 20)))
    return order[:held], order[held : held + CHOOSING_ROWS]


def _chosen(overlap: _Overlap, config: ClosedFormConfig) -> ClosedFormConfig:
    """The settings with everything that was left open chosen on the held-out rows."""
    if config.method in ("ridge", "cca") and config.strength is None:
        return _best(overlap, config, "strength", STRENGTHS, SLACK)
    if config.method != "dictionary":
        return config
    if config.temperature is None:
        config = replace(config, temperature=_temperature(overlap))
    if config.base_temperature is None and config.sides == "concat":
        config = replace(config, base_temperature=_temperature(overlap.turned()))
    if config.base_temperature is None and config.sides == "average":
        config = _best(overlap, config, "base_temperature", TEMPERATURES)
    return config


def _temperature(overlap: _Overlap) -> float:
    """The temperature at which the leaf's held-out items, looked up among the rest, best find themselves in the base.

    The products with the keys serve all temperatures; everything else is the dictionary step.
    """
    keys, values, there = overlap.leaf[overlap.rest], overlap.base[overlap.rest], overlap.base[overlap.held]
    products = overlap.leaf[overlap.held] @ keys.T
    products -= products.max(axis=1, keepdims=True)
    scores = []
    for temperature in TEMPERATURES:
        weights = np.exp(products / np.float32(temperature))
        # Unit length makes the sum of the weights cancel.
        scores.append(_self_retrieval(normalize(weights @ values) @ there.T)["mrr"])
    return TEMPERATURES[int(np.argmax(scores))]


def _best(overlap: _Overlap, config: Any, key: str, values: Sequence[float], slack: float = 0.0) -> ClosedFormConfig:
    tried: list[ClosedFormConfig] = [replace(config, **{key: value}) for value in values]
    scores = [_held_out(overlap, each)["mrr"] for each in tried]
    return next(each for each, score in zip(tried, scores, strict=True) if score >= (1 - slack) * max(scores))


def _held_out(overlap: _Overlap, config: ClosedFormConfig) -> dict[str, float]:
    fit = _fit(overlap.base[overlap.rest], overlap.leaf[overlap.rest], config)
    leaf = normalize(apply_route(fit.leaf, fit.arrays, overlap.leaf[overlap.held]))
    base = normalize(apply_route(fit.base, fit.arrays, overlap.base[overlap.held]))
    return _self_retrieval(leaf @ base.T)


def _self_retrieval(scores: Array) -> dict[str, float]:
    """Share of items that find themselves first, and mean reciprocal rank, of both directions; ties rank behind."""
    own = np.diag(scores)
    ranks = np.concatenate([(scores >= own[:, None]).sum(axis=1), (scores >= own[None, :]).sum(axis=0)])
    return {"r@1": float((ranks == 1).mean()), "mrr": float((1.0 / ranks).mean())}
