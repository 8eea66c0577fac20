"""Finding the fastest, smallest or cheapest version of a model that is still good enough."""

from __future__ import annotations

import html
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from . import _native
from ._arrays import TensorSpec, plain, rows
from .errors import DataError, MissingPackageError, UsageError
from .models import ModelLike, as_model
from .session import Session

_LABELS = "labels"
"""Name of the array that data sets have their labels in."""

ProgressFunction = Callable[[int, int, str, str], object]
"""Is called with the work done, the work there is, the step and the candidate."""


@dataclass(frozen=True)
class Estimate:
    """A metric's value and the ends of its 95 % confidence interval."""

    metric: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Candidate:
    """A version of the model that was made and measured, or that failed."""

    name: str
    """Its name, unique in the report."""
    verdict: str
    """``chosen``, ``on_frontier``, ``dominated``, ``rejected`` or ``failed``."""
    why: str
    """The better one, the limits it breaks, or the error."""
    path: Path | None
    """Its file."""
    recipe: list[dict[str, Any]]
    """What was done to the model: methods and their parameters, in order."""
    estimates: tuple[Estimate, ...]
    """The metric, then others that make sense beside it, on the samples kept for evaluation."""
    drop: float | None
    """Loss against the original in points (hundredths), for errors in per cent of the original's."""
    latency_p50_us: float | None
    """Median time of a run in microseconds."""
    latency_p95_us: float | None
    """95th percentile of the time of a run in microseconds."""
    speedup: float | None
    """How many times faster than the original, in interleaved rounds; none for the original."""
    file_bytes: int | None
    """Bytes of its file."""
    memory_bytes: int | None
    """Bytes of its weights and of the memory it works in."""
    cost_usd_per_million: float | None
    """US dollars per million inferences, predicted from latency and price list."""

    def session(self, threads: int = 1) -> Session:
        """The candidate ready to run."""
        if self.path is None:
            raise UsageError(f"candidate `{self.name}` has no file: {self.why or self.verdict}")
        return Session(self.path, threads)


class Frontier:
    """What a search found: the candidates no other beats in every respect, fastest first.

    ``len``, iteration and indices go over the frontier; ``frontier["name"]`` finds any candidate.

    Attributes:
        report: The report, as in ``report.json``.
        folder: The folder with ``best.lepton``, ``report.html``, ``report.json`` and the journal.
        candidates: All candidates, the original first, in the order they were proposed.
        resumed_steps: Steps that an earlier, interrupted search in this folder had done.
        new_steps: Steps that were done now.
    """

    def __init__(self, report: dict[str, Any], folder: Path, resumed_steps: int = 0, new_steps: int = 0) -> None:
        self.report = report
        self.folder = folder
        self.resumed_steps = resumed_steps
        self.new_steps = new_steps
        self.candidates = [_candidate(row, folder) for row in report["candidates"]]
        on_it = [c for c in self.candidates if c.verdict in ("chosen", "on_frontier")]
        self._frontier = sorted(on_it, key=lambda c: c.latency_p50_us or 0.0)

    @property
    def best(self) -> Candidate | None:
        """The chosen one; ``None`` where no candidate keeps all limits: ``notes`` says what would."""
        chosen = self.report["chosen"]
        return None if chosen is None else self.candidates[chosen]

    @property
    def met(self) -> bool:
        """True where one was chosen and keeps the limit of the drop on the evaluation samples too."""
        return self.best is not None and bool(self.report["confirmed"])

    @property
    def notes(self) -> list[str]:
        """What would have to change where the goal was missed, and other remarks."""
        return list(self.report["notes"])

    def __len__(self) -> int:
        return len(self._frontier)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._frontier)

    @overload
    def __getitem__(self, key: int | str) -> Candidate: ...
    @overload
    def __getitem__(self, key: slice) -> list[Candidate]: ...
    def __getitem__(self, key: int | str | slice) -> Candidate | list[Candidate]:
        if not isinstance(key, str):
            return self._frontier[key]
        for candidate in self.candidates:
            if candidate.name == key:
                return candidate
        raise KeyError(f"{key}; there are {', '.join(c.name for c in self.candidates)}")

    def to_dataframe(self) -> Any:
        """All candidates as a ``pandas.DataFrame``, one a row.

        Raises:
            MissingPackageError: where pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            raise MissingPackageError("a data frame needs pandas", "pip install pandas") from None
        return pandas.DataFrame([_row(candidate) for candidate in self.candidates]).set_index("name")

    def _repr_html_(self) -> str:
        """The report's page with its plot, in a frame of its own so that no style leaks."""
        page = html.escape((self.folder / "report.html").read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:640px;border:0" sandbox></iframe>'

    def __repr__(self) -> str:
        lines = [f"Frontier of {len(self)} of {len(self.candidates)} candidates ({self.folder})"]
        for candidate in self:
            value = f"{candidate.estimates[0].metric} {candidate.estimates[0].value:.4f}" if candidate.estimates else ""
            lines.append(
                f"  {'*' if candidate.verdict == 'chosen' else ' '} {candidate.name}: {value}, "
                f"{candidate.latency_p50_us:.1f} us, {candidate.file_bytes} bytes"
            )
        return "\n".join(lines)


def _row(candidate: Candidate) -> dict[str, Any]:
    row: dict[str, Any] = {"name": candidate.name, "verdict": candidate.verdict}
    row.update({estimate.metric: estimate.value for estimate in candidate.estimates})
    for key in ("drop", "latency_p50_us", "latency_p95_us", "speedup", "file_bytes", "memory_bytes",
                "cost_usd_per_million", "why"):
        row[key] = getattr(candidate, key)
    return row


def _candidate(row: dict[str, Any], folder: Path) -> Candidate:
    measured = row["measured"] or {}
    verdict = row["verdict"]
    why = verdict.get("why", verdict.get("by", ""))
    latency = measured.get("latency") or {}
    return Candidate(
        name=row["name"],
        verdict=verdict["is"],
        why="; ".join(why) if isinstance(why, list) else why,
        path=folder / row["file"] if row["file"] else None,
        recipe=row["recipe"],
        estimates=tuple(
            Estimate(e["metric"], e["value"], e["low"], e["high"]) for e in measured.get("evaluation", ())
        ),
        drop=measured.get("drop"),
        latency_p50_us=latency.get("p50_us"),
        latency_p95_us=latency.get("p95_us"),
        speedup=(measured.get("speedup") or {}).get("ratio"),
        file_bytes=measured.get("file_bytes"),
        memory_bytes=measured.get("memory_bytes"),
        cost_usd_per_million=measured.get("cost_usd_per_million"),
    )


def optimize(
    model: ModelLike,
    data: Any,
    *,
    metric: str | None = None,
    max_drop: float = 0.5,
    max_latency_us: float | None = None,
    max_size_bytes: int | None = None,
    max_cost_usd: float | None = None,
    target: str = "latency",
    out: str | os.PathLike[str] | None = None,
    time_budget_s: float | None = None,
    threads: int = 1,
    seed: int = 0,
    calibration_samples: int = 512,
    tuning_samples: int = 2000,
    latency_time_s: float = 2.0,
    instance: str = "c7i.large",
    prices: str | os.PathLike[str] | None = None,
    utilisation: float = 0.5,
    progress: bool | ProgressFunction = True,
    example_inputs: Any = None,
) -> Frontier:
    """Searches for the version of ``model`` that meets the limits and has least of ``target``.

    The same search, journal and report as ``lepton optimize``. Candidates are measured on this
    machine. Ctrl-C stops it at its next step; called again with the same ``out`` it goes on.

    Args:
        model: See :func:`lepton_ai.as_model`.
        data: Path of a data set (``.npz``, ``.csv``, folder of images, archive, ``.toml`` description);
            or ``(X, y)`` with ``X`` ``(rows, …)`` for a model of one input and ``y`` ``(rows,)`` class
            indices or ``(rows, …)`` targets; or ``{input: (rows, …) array}``, labels under
            ``"labels"``. Arrays are written to ``out``/data.npz. Without parts of its own, half of
            the rows calibrate and tune, the other half evaluates.
        metric: A name from :func:`lepton_ai.metrics`. Default: ``top1`` where there are labels, else
            agreement with the original.
        max_drop: Most loss of the metric: points (hundredths), for errors per cent of the original's.
        max_latency_us: Most median time of a run, in microseconds.
        max_size_bytes: Most bytes of the file.
        max_cost_usd: Most US dollars per million inferences.
        target: What to make as small as possible: ``latency``, ``size`` or ``cost``.
        out: Folder of the results. Default: a new temporary folder, which stays.
        time_budget_s: Try no new candidate after this many seconds.
        threads: Threads of a run.
        seed: Seed of everything drawn at random.
        calibration_samples: Samples for calibration, at most.
        tuning_samples: Samples for tuning, at most.
        latency_time_s: Seconds spent on the latency of each candidate.
        instance: Instance type whose price counts.
        prices: A price list of your own, as TOML.
        utilisation: Share of the time a machine is busy.
        progress: Print where it is; or a function of the work done, the work there is, the step and
            the candidate. An exception it raises stops the search and is raised here.
        example_inputs: See :func:`lepton_ai.as_model`.

    Raises:
        UsageError, DataError, FileError: where arguments, data or files do not fit. Unmet limits are
            no error: see :attr:`Frontier.met`.
    """
    read = as_model(model, example_inputs)
    folder = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="lepton-"))
    source = _data_path(read, data, folder)
    request = {
        "metric": metric,
        "max_drop": max_drop,
        "max_latency_us": max_latency_us,
        "max_size_bytes": max_size_bytes,
        "max_cost_usd": max_cost_usd,
        "target": target,
        "time_budget_s": time_budget_s,
        "threads": threads,
        "seed": seed,
        "calibration_samples": calibration_samples,
        "tuning_samples": tuning_samples,
        "latency_time_s": latency_time_s,
        "instance": instance,
        "prices": prices,
        "utilisation": utilisation,
    }
    line = _Line() if progress is True else None
    listener = line.tell if line else None if isinstance(progress, bool) else progress
    try:
        report, resumed, new = _native.optimize(read, source, folder, request, listener)
    finally:
        if line:
            line.clear()
    return Frontier(json.loads(report), folder, resumed, new)


def evaluate(
    model: ModelLike,
    data: Any,
    metrics: str | list[str] = "top1",
    *,
    part: str = "all",
    threads: int = 1,
    example_inputs: Any = None,
) -> list[Estimate]:
    """Metrics of the model's first output over labelled data.

    Args:
        model: See :func:`lepton_ai.as_model`.
        data: See :func:`optimize`.
        metrics: One or several names from :func:`lepton_ai.metrics`.
        part: ``train``, ``test`` or ``all`` rows.
        threads: Threads of a run.
        example_inputs: See :func:`lepton_ai.as_model`.

    Returns:
        Each metric's value with its confidence interval, in the order asked for.
    """
    read = as_model(model, example_inputs)
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    with tempfile.TemporaryDirectory(prefix="lepton-") as folder:
        source = _data_path(read, data, Path(folder))
        return [Estimate(*row) for row in _native.evaluate(read, source, names, part, threads)]


def metrics() -> dict[str, str]:
    """Every metric there is, and what it is."""
    return dict(_native.metrics())


class _Line:
    """Progress on the error output: one line that changes on a terminal, else a line a candidate."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.width = 0
        self.last = ""

    def tell(self, done: int, total: int, step: str, candidate: str) -> None:
        if self.terminal:
            share = f"{min(done / total, 1.0):4.0%} " if total else ""
            text = f"{share}{step} {candidate}"
            print(f"\r{text:<{self.width}}", end="", file=sys.stderr, flush=True)
            self.width = len(text)
        elif candidate != self.last:
            print(f"{step} {candidate}", file=sys.stderr, flush=True)
            self.last = candidate

    def clear(self) -> None:
        if self.width:
            print(f"\r{'':<{self.width}}\r", end="", file=sys.stderr, flush=True)


def _data_path(model: _native.Model, data: Any, folder: Path) -> Path:
    """The path that ``data`` is, or of the file its arrays were written to."""
    if isinstance(data, (str, os.PathLike)):
        return Path(data)
    arrays = _named_arrays(model.inputs, data)
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"the arrays have different numbers of rows: {counts}", "give one row a sample in each")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "data.npz"
    # By another name first: a search that goes on may still have the old one open.
    part = folder / "data.part.npz"
    np.savez(part, **arrays)  # type: ignore[arg-type]
    part.replace(path)
    return path


def _named_arrays(inputs: list[TensorSpec], data: Any) -> dict[str, np.ndarray[Any, Any]]:
    types = {spec.name: spec.dtype for spec in inputs}
    if isinstance(data, dict):
        given = dict(data)
        labels = given.pop(_LABELS, None) if _LABELS not in types else None
        unknown = [name for name in given if name not in types]
        missing = [name for name in types if name not in given]
        if unknown or missing:
            raise DataError(
                f"arrays do not fit the model: unknown {unknown}, missing {missing}",
                f"the model's inputs are {list(types)}; labels go under {_LABELS!r}",
            )
    elif len(types) != 1:
        raise DataError(f"the model has {len(types)} inputs", "give {name: array}")
    elif isinstance(data, tuple) and len(data) == 2:
        given, labels = {next(iter(types)): data[0]}, data[1]
    else:
        given, labels = {next(iter(types)): data}, None
    arrays = {name: rows(value, types[name]) for name, value in given.items()}
    if labels is not None:
        arrays[_LABELS] = _targets(labels)
    return arrays


def _targets(labels: Any) -> np.ndarray[Any, Any]:
    """Class indices as int64, other targets as float32."""
    if hasattr(labels, "to_numpy") and not isinstance(labels, np.ndarray):
        labels = labels.to_numpy()
    array = plain(labels, "float32") if not isinstance(labels, (list, tuple)) else np.asarray(labels)
    if array.ndim == 0 or array.dtype.kind not in "biuf":
        raise DataError(
            f"labels of {array.dtype} with {array.ndim} axes", "give class indices or numeric targets, one a row"
        )
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
