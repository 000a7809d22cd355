"""One aggregation of a memory bank: queries, keys and values read, a method chosen and checked, results written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from isthmus.errors import ConfigError
from isthmus.memory.exact import Work
from isthmus.memory.matrix import Matrix, MatrixReader
from isthmus.memory.method import METHODS, choose_method, percentiles

if TYPE_CHECKING:
    from isthmus.memory.bank import MemoryBank


class Run:
    """One aggregation: its work, its queries, and the effective neighbours that it finds."""

    def __init__(
        self, bank: MemoryBank, queries: Matrix, values: Any, temperature: float, *, stats: bool, bias: Any = None
    ) -> None:
        self.bank, self.given, self.stats = bank, queries, stats
        wanted, self.many = value_readers(bank, values)
        # The neighbours come free where the memory itself is averaged.
        self.work = Work(
            bank.keys,
            wanted,
            positive("temperature", temperature),
            stats or (None in wanted and bias is None),
            bank.normalize,
            bias_vector(bank, bias),
        )
        self.queries = query_reader(bank, queries)
        self.neighbours = torch.ones(self.queries.n, device=bank.device)

    def aggregate(self, method: str, tolerance: float, seed: int, out: Any) -> Any:
        """Choose a method, go through the memory, and fill the results; see `MemoryBank.aggregate`."""
        if method not in METHODS:
            raise ConfigError(f"unknown method {method!r}. Expected one of {', '.join(METHODS)}.")
        if self.work.bias is not None and method not in ("exact", "auto"):
            raise ConfigError(f"the method {method!r} knows no bias. Expected exact or auto where one is given.")
        results = self._results(out)
        method = "exact" if self.work.bias is not None else method
        choice = choose_method(self.work, self.queries, method, positive("tolerance", tolerance), seed)
        step = self.work.pass_queries(choice.pass_bytes)
        for start in range(0, self.queries.n, step):
            part = slice(start, min(start + step, self.queries.n))
            sums = choice.sums(self.work, self.queries.block(part.start, part.stop))
            for result, average in zip(results, sums.finish(), strict=True):
                result[part] = average if isinstance(result, torch.Tensor) else average.cpu().numpy()
            if self.work.stats:
                self.neighbours[part] = sums.effective_neighbours()
        if self.work.stats:
            choice.report["effective_neighbours"] = percentiles(self.neighbours)
        self.bank.report = choice.report
        finished = [r if out is not None else like_given(self.given, r) for r in results]
        return finished if self.many else finished[0]

    def _results(self, out: Any) -> list[Any]:
        """Arrays that receive the averages: the caller's, or new ones."""
        shapes = [(self.queries.n, width) for width in self.work.widths]
        if out is None:
            return [torch.empty(shape, device=self.bank.device) for shape in shapes]
        given = list(out) if isinstance(out, (list, tuple)) else [out]
        if [tuple(o.shape) for o in given] != shapes:
            raise ConfigError(f"out has shapes {[tuple(o.shape) for o in given]}. Expected {shapes}.")
        return given


def query_reader(bank: MemoryBank, queries: Matrix) -> MatrixReader:
    """A reader of queries of the bank's dimension."""
    reader = MatrixReader(queries, bank.device, unit=bank.normalize, name="queries", resident_bytes=0)
    if reader.dim != bank.dim:
        raise ConfigError(f"the queries have {reader.dim} dimensions, the memory {bank.dim}. Expected one space.")
    return reader


def bias_vector(bank: MemoryBank, bias: Any) -> torch.Tensor | None:
    """(m,) bias of the memory's rows on the bank's device."""
    if bias is None:
        return None
    given = torch.as_tensor(bias, dtype=torch.float32, device=bank.device)
    if given.shape != (len(bank),) or not bool(torch.isfinite(given).all()):
        raise ConfigError(
            f"the bias has shape {tuple(given.shape)} for a memory of {len(bank):,} rows. Expected one finite "
            "number a row."
        )
    return given


def value_readers(bank: MemoryBank, values: Any) -> tuple[list[MatrixReader | None], bool]:
    """A reader for each matrix of values, None where it is the memory itself, and whether several were given."""
    many = isinstance(values, (list, tuple))
    given = list(values) if many else [values]
    rows = [
        None
        if v is None
        else MatrixReader(v, bank.device, unit=False, name="values", resident_bytes=bank._resident_bytes)
        for v in given
    ]
    for number, v in enumerate(rows):
        if v is None:
            continue
        if v.n != bank.keys.n:
            raise ConfigError(f"the values have {v.n} rows, the memory {bank.keys.n}. Expected a value per memory row.")
        if _same_matrix(v, bank.keys):
            rows[number] = None
    return rows, many


def positive(name: str, value: float) -> float:
    """A setting that must be a finite number above 0."""
    if not value > 0.0 or value == float("inf"):
        raise ConfigError(f"the {name} must be above 0, got {value}.")
    return float(value)


def _same_matrix(a: MatrixReader, b: MatrixReader) -> bool:
    """Whether two held matrices are one and the same memory."""
    if a.tensor is None or b.tensor is None:
        return False
    return a.tensor.shape == b.tensor.shape and a.tensor.data_ptr() == b.tensor.data_ptr()


def like_given(given: Any, result: torch.Tensor) -> Any:
    """A result as numpy or torch, as the queries were given."""
    return result if isinstance(given, torch.Tensor) else result.cpu().numpy()
