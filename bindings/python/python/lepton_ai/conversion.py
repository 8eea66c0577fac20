"""What the compressed model would reach, found again and again while a model trains.

:class:`lepton_ai.keras.ConversionCallback` and :class:`lepton_ai.torch.ConversionHook` convert the weights of
the moment every so many steps, and log size, latency on this machine and the metric, to TensorBoard too.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _native
from ._arrays import rows
from .errors import UsageError
from .inplace import LeptonAI, _framework, _on_cpu
from .models import as_model
from .session import Session

Metric = Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]
"""A number, the larger the better, of the model's first output ``(rows, …)`` and the labels ``(rows, …)``."""


@dataclass(frozen=True)
class Conversion:
    """What the compressed model reached at one step of the training."""

    step: int
    """Steps of the optimiser, or batches, done."""
    file_bytes: int
    """Bytes of the artefact."""
    latency_us: float
    """Median time of a run of one row on this machine, in microseconds."""
    metric: float | None
    """The metric on the validation rows; ``None`` where there are none."""
    seconds: float
    """What this conversion took of the training, in seconds."""

    def values(self) -> dict[str, float]:
        """What goes to the log, by name."""
        found = {"lepton/file_bytes": float(self.file_bytes), "lepton/latency_us": self.latency_us}
        return found if self.metric is None else {**found, "lepton/metric": self.metric}


def accuracy(outputs: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
    """Share of rows whose class is right: ``(rows, classes)`` scores, or ``(rows, 1)`` from 0 to 1."""
    scores = outputs.reshape(len(outputs), -1)
    found = scores.argmax(1) if scores.shape[1] > 1 else scores[:, 0] > 0.5
    return float((found == labels.reshape(len(labels), -1)[:, 0]).mean())


class Converter:
    """Converts the weights that a model has now.

    Args:
        model: A Keras 3 model or ``torch.nn.Module``, under compression or not. A model that is gets its file
            as :meth:`lepton_ai.LeptonAI.export` writes it; another one int8, calibrated on the rows.
        every: Steps from one conversion to the next.
        validation: ``(X, y)``: rows ``(rows, …)`` of the only input and labels; without, no metric is found.
        metric: The metric; the share of right classes where it is left out.
        runs: Runs of one row the latency is the median of.
        example_inputs: For PyTorch, as in :func:`lepton_ai.as_model`; the first validation row where left out.
    """

    def __init__(
        self, model: Any, every: int, validation: tuple[Any, Any] | None, metric: Metric, runs: int, example_inputs: Any
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise UsageError(f"every is {every!r}; it must be a whole number of steps, 1 or above")
        self.model, self.every, self.metric, self.runs = model, every, metric, max(int(runs), 1)
        self.validation = validation
        self.example_inputs = validation[0][:1] if example_inputs is None and validation else example_inputs
        self.conversions: list[Conversion] = []

    def after(self, step: int) -> Conversion | None:
        """After this many steps: a conversion, where one is due."""
        return self.now(step) if step % self.every == 0 else None

    def now(self, step: int) -> Conversion:
        """Converts the weights as they are; the training goes on with the same ones."""
        begun = time.perf_counter()
        session = Session(_native.Model.from_bytes("model.lepton", self._artefact()))
        row, metric = self._row(session), None
        times = []
        for _ in range(self.runs + 1):
            at = time.perf_counter_ns()
            session.run(row)
            times.append((time.perf_counter_ns() - at) / 1e3)
        if self.validation is not None:
            given, labels = self.validation
            metric = float(self.metric(session.predict(_on_cpu(given)), np.asarray(_on_cpu(labels))))
        bytes_now = session.model.file_bytes
        # The first run plans.
        found = Conversion(step, bytes_now, statistics.median(times[1:]), metric, time.perf_counter() - begun)
        self.conversions.append(found)
        return found

    def _artefact(self) -> bytes:
        attachment = _framework(self.model).attached(self.model)
        if attachment is not None:
            with attachment.plainly():
                read = as_model(self.model, self.example_inputs)
            return _native.compressed(read, json.dumps([{"method": "weight-int8", "parameters": {"exact": True}}]), [])
        read = as_model(self.model, self.example_inputs)
        samples = [] if self.validation is None else LeptonAI(self.model)._samples(read, self.validation[0][:64])
        method = "static-int8" if samples else "dynamic-int8"
        return _native.compressed(read, json.dumps([{"method": method}]), samples)

    def _row(self, session: Session) -> dict[str, Any]:
        """One row of the validation data, or zeros."""
        row = {}
        for spec in session.inputs:
            extents = [extent if isinstance(extent, int) else 1 for extent in spec.shape]
            row[spec.name] = np.zeros(extents, spec.dtype)
        if self.validation is not None and len(row) == 1 and not isinstance(session.inputs[0].shape[0], int):
            spec = session.inputs[0]
            row[spec.name] = rows(_on_cpu(self.validation[0][:1]), spec.dtype)
        return row
