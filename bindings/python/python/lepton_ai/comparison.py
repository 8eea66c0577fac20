"""A model before and after: size, time, cost and metrics side by side."""

from __future__ import annotations

import html
import json
import os
from dataclasses import asdict, dataclass
from typing import Any

from . import _native
from .errors import UsageError
from .models import ModelLike, as_model
from .search import Estimate, evaluate

_METRICS = ("top1", "recall")


@dataclass(frozen=True)
class Version:
    """What one of the two is."""

    file_bytes: int
    """Bytes of its file."""
    latency_p50_us: float
    """Median time of a run of one row on this machine, in microseconds."""
    latency_p95_us: float
    """95th percentile of that time."""
    memory_bytes: int
    """Bytes of its weights and of the memory it works in."""
    cost_usd_per_million: float
    """US dollars per million rows by the price list, were the priced machine's cores as fast as these."""
    metrics: dict[str, Estimate]
    """Each metric's value with its confidence interval; empty without data."""


@dataclass(frozen=True)
class Report:
    """Speed, cost, size and metrics of a model before and after."""

    before: Version
    after: Version
    speedup: float
    """Median time before over after, of interleaved rounds."""
    speedup_low: float
    """Lower end of its 95 % interval: ``faster`` may be said where it is above 1."""
    speedup_high: float
    """Upper end of its 95 % interval."""
    threads: int
    """Threads of a run."""
    instance: str
    """The instance type whose price counts."""

    @property
    def smaller(self) -> float:
        """How many times smaller the file is after."""
        return self.before.file_bytes / max(self.after.file_bytes, 1)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, strings and dictionaries, ready for JSON."""
        return {**asdict(self), "smaller": self.smaller}

    def rows(self) -> list[tuple[str, str, str, str]]:
        """What is shown: name, before, after, and what changed."""
        one, other = self.before, self.after
        cheaper = one.cost_usd_per_million / other.cost_usd_per_million
        found = [
            ("size, bytes", f"{one.file_bytes:,}", f"{other.file_bytes:,}", f"{self.smaller:.2f}x smaller"),
            ("time of a run, median us", f"{one.latency_p50_us:.1f}", f"{other.latency_p50_us:.1f}",
             f"{self.speedup:.2f}x as fast ({self.speedup_low:.2f} to {self.speedup_high:.2f})"),
            ("time of a run, 95th percentile us", f"{one.latency_p95_us:.1f}", f"{other.latency_p95_us:.1f}", ""),
            ("memory, bytes", f"{one.memory_bytes:,}", f"{other.memory_bytes:,}",
             f"{one.memory_bytes / max(other.memory_bytes, 1):.2f}x less"),
            (f"US dollars a million rows, {self.instance}", f"{one.cost_usd_per_million:.4g}",
             f"{other.cost_usd_per_million:.4g}", f"{cheaper:.2f}x cheaper"),
        ]
        for name, before in one.metrics.items():
            after = other.metrics[name]
            shown = "accuracy (top1)" if name == "top1" else name
            found.append((shown, _with_interval(before), _with_interval(after), f"{100 * (after.value - before.value):+.2f} points"))
        return found

    def __str__(self) -> str:
        table = [("", "before", "after", ""), *self.rows()]
        widths = [max(len(row[at]) for row in table) for at in range(3)]
        lines = [f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in table]
        return "\n".join([*lines, f"(one row a run, {self.threads} thread(s), measured on this machine in interleaved rounds)"])

    def _repr_html_(self) -> str:
        cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows())
        return f"<table><tr><th></th><th>before</th><th>after</th><th></th></tr>{cells}</table>"


def _with_interval(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} ({estimate.low:.4f} to {estimate.high:.4f})"


def report(
    before: ModelLike,
    after: ModelLike,
    data: Any = None,
    *,
    metrics: str | list[str] | None = None,
    threads: int = 1,
    time_s: float = 2.0,
    instance: str = "c7i.large",
    prices: str | os.PathLike[str] | None = None,
    utilisation: float = 0.5,
    example_inputs: Any = None,
) -> Report:
    """Measures two versions of a model side by side on this machine.

    Args:
        before: The model as it was; see :func:`lepton_ai.as_model`.
        after: The model as it is now, such as an exported ``.lepton`` file.
        data: Labelled rows for the metrics, as for :func:`lepton_ai.optimize`: ``(X, y)``, a dictionary or a
            path. Without, there are no metrics.
        metrics: Names from :func:`lepton_ai.metrics`. Default: ``top1`` (accuracy) and ``recall``.
        threads: Threads of a run.
        time_s: Seconds spent on the times of the two.
        instance: Instance type whose price counts.
        prices: A price list of your own, as TOML.
        utilisation: Share of the time a machine is busy.
        example_inputs: See :func:`lepton_ai.as_model`.

    Raises:
        UsageError, DataError: where arguments or data do not fit.

    Example:
        >>> print(lepton_ai.report("model.onnx", "model.lepton", (X, y)))     # doctest: +SKIP
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise UsageError(f"threads is {threads!r}; it must be a whole number from 1 to 1024")
    models = as_model(before, example_inputs), as_model(after, example_inputs)
    sides = json.loads(_native.paired(*models, threads, time_s, instance, prices, utilisation))
    names = list(_METRICS) if metrics is None else [metrics] if isinstance(metrics, str) else list(metrics)
    found = []
    for model, side in zip(models, sides):
        estimates = evaluate(model, data, names, threads=threads) if data is not None else []
        latency = side["timing"]["latency"]
        found.append(Version(
            file_bytes=side["file_bytes"], latency_p50_us=latency["p50_us"], latency_p95_us=latency["p95_us"],
            memory_bytes=side["timing"]["memory_bytes"], cost_usd_per_million=side["cost_usd_per_million"],
            metrics={estimate.metric: estimate for estimate in estimates},
        ))
    speedup = sides[1]["timing"]["speedup"]
    return Report(found[0], found[1], speedup["ratio"], speedup["low"], speedup["high"], threads, instance)
