"""Keras 3 and PyTorch models compressed in place, while their own training goes on.

``LeptonAI(model).compress(20)`` changes the model object; the user's own ``fit`` or loop then trains
under the compression: weights outside the kept share are zero after every step of the optimiser, and
the forward pass sees weights on the grid they will be stored on. ``export`` writes the artefact.

The artefact stores weights as the integers of their grid, entropy-coded, and keeps activations float32, so
that it answers as the model does; ``report()`` gives the bytes of the real file.
"""

from __future__ import annotations

import html
import json
import math
import os
import warnings
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _native, _schedule, comparison
from .errors import MissingPackageError, UnsupportedError, UsageError
from .models import _is_instance, as_model

if TYPE_CHECKING:
    from .comparison import Report
    from ._inplace_keras import KerasAttachment
    from ._inplace_torch import TorchAttachment

_FOUR_BITS = 3.5
"""Bits a kept 4-bit weight takes after coding, in the rule of thumb."""

_MARGIN = 0.95
"""Share of the asked bytes that weights are planned for until the first fit to the coder."""

_SMALLEST_FILE = 2000
"""Bytes below which names, shapes and headers outweigh the weights."""


@dataclass(frozen=True)
class Plan:
    """What a ratio asks of the weights.

    The rule of thumb is ``ratio = 32 / (H(density) + density * bits)``, with H the entropy of which
    weights are kept, in bits. Up to 32/3.5 all are, on the finest grid of 4 to 8 bits with which the file is
    small enough; above that weights are pruned.
    """

    ratio: float
    """The ratio asked for: float32 bytes over bytes of the coded file."""
    bits: int
    """Bits of the grid of kept weights."""
    density: float
    """Share of the weights that is kept."""

    @staticmethod
    def of(ratio: float) -> Plan:
        """The plan for a ratio from 1 to 1000.

        Raises:
            UsageError: for other ratios.
        """
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 1 <= ratio <= 1000:
            raise UsageError(f"the ratio is {ratio!r}; it must be a number from 1 to 1000")
        if ratio <= 32 / _FOUR_BITS:
            return Plan(float(ratio), min(max(math.floor(32 / ratio), 4), 8), 1.0)
        return Plan(float(ratio), 4, _density_of(32 / ratio))

    def shares(
        self, weights: Mapping[str, int], keep: Mapping[str, float] | None = None, frozen: Collection[str] = ()
    ) -> dict[str, Share]:
        """What each layer gets: bits and the share of its weights that is kept.

        The smallest layers, which hold little and matter much, keep all weights at 8 bits as long as
        they take less than a tenth of the budget together, and so do those that are not trained, whatever
        they take. Where weights are pruned the other layers share the rest of the budget evenly, a tenth of it
        at least.

        Args:
            weights: Number of weights of each layer by its name.
            keep: Shares the caller decides, above 0 and up to 1.
            frozen: Names of layers that are not trained, and so would not recover.

        Raises:
            UsageError: for a layer there is not, and a share that is none.
        """
        chosen = dict(keep or {})
        for name, share in chosen.items():
            if name not in weights:
                raise UsageError(f"there is no compressed layer {name!r}", f"the layers are {list(weights)}")
            if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
                raise UsageError(f"the share to keep of {name!r} is {share!r}; it must be above 0 and up to 1")
        if self.density >= 1:
            return {name: Share(self.bits, float(chosen.get(name, 1.0))) for name in weights}
        budget_bits = 32 * sum(weights.values()) / self.ratio * _MARGIN
        whole_bits = 0.0
        shares = {}
        for name in sorted(weights, key=lambda name: weights[name]):
            if name in chosen:
                shares[name] = Share(self.bits, float(chosen[name]))
            elif name in frozen or whole_bits + 8 * weights[name] <= budget_bits / 10:
                whole_bits += 8 * weights[name] if name not in frozen else 0
                shares[name] = Share(8, 1.0)
        whole_bits += sum(8 * weights[name] for name in frozen if name not in chosen)
        spent = whole_bits + sum(weights[name] * _bits_a_weight(chosen[name]) for name in chosen)
        open_weights = sum(count for name, count in weights.items() if name not in shares)
        rest_bits = max(budget_bits - spent, budget_bits / 10)
        density = _density_of(rest_bits / open_weights) if open_weights else 1.0
        return {name: shares.get(name, Share(self.bits, density)) for name in weights}


@dataclass(frozen=True)
class Share:
    """What a plan gives one layer."""

    bits: int
    """Bits of the grid of its kept weights."""
    density: float
    """Share of its weights that is kept."""


def _bits_a_weight(density: float) -> float:
    """Bits of the coded file for each weight, kept or not, by the rule of thumb."""
    if density >= 1:
        return _FOUR_BITS
    entropy = -density * math.log2(density) - (1 - density) * math.log2(1 - density)
    return entropy + density * _FOUR_BITS


def _density_of(bits: float) -> float:
    """The share to keep so that each weight takes this many bits."""
    low, high = 1e-6, 0.9
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _bits_a_weight(middle) < bits else (low, middle)
    return high


@dataclass(frozen=True)
class Layer:
    """A layer that is compressed."""

    name: str
    weights: int
    """Number of its weights, the bias left out."""
    density: float
    """Share of them that is not zero now."""
    bits: int
    """Bits of the grid they are on."""


@dataclass(frozen=True)
class InPlaceReport:
    """Where an in-place compression stands."""

    plan: Plan
    layers: tuple[Layer, ...]
    """The layers that are compressed."""
    left: tuple[tuple[str, str], ...]
    """Name of each layer with weights that is left as it is, and why."""
    steps_done: int
    """Steps of the optimiser under the compression."""
    steps_total: int | None
    """Steps of the training as far as known; the pruning is complete after 70 % of them."""
    file: Path | None
    """The exported artefact, if there is one."""
    file_bytes: int | None
    """Bytes of that file, with every header."""
    dense_bytes: int | None
    """Bytes of the same model as float32 ONNX."""
    notes: tuple[str, ...] = field(default=())
    versions: Report | None = None
    """The model as it was when it was put under compression beside the exported file, where it was measured."""

    @property
    def file_ratio(self) -> float | None:
        """``dense_bytes / file_bytes``: what the file really reaches."""
        if not self.file_bytes or not self.dense_bytes:
            return None
        return self.dense_bytes / self.file_bytes

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, strings and dictionaries, ready for JSON."""
        return {
            **asdict(replace(self, file=None, versions=None)), "file": None if self.file is None else str(self.file),
            "file_ratio": self.file_ratio, "versions": None if self.versions is None else self.versions.to_dict(),
        }

    def _repr_html_(self) -> str:
        table = "" if self.versions is None else self.versions._repr_html_()
        return f"<pre>{html.escape(str(replace(self, versions=None)))}</pre>{table}"

    def __str__(self) -> str:
        plan = self.plan
        lines = [f"asked for {plan.ratio:g}x: planned {plan.bits}-bit weights, {plan.density:.1%} kept"]
        total = "" if self.steps_total is None else f" of {self.steps_total}"
        lines.append(f"{self.steps_done}{total} steps done")
        lines += [f"  {layer.name}: {layer.weights} weights of {layer.bits} bits, {layer.density:.2%} not zero" for layer in self.layers]
        lines += [f"  {name}: left as it is, {why}" for name, why in self.left]
        if self.file_ratio is not None:
            lines.append(
                f"{self.file}: {self.file_bytes} bytes, {self.file_ratio:.2f}x smaller than {self.dense_bytes} "
                "bytes of float32 ONNX"
            )
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines if self.versions is None else [*lines, str(self.versions)])


class LeptonAI:
    """A Keras 3 model or ``torch.nn.Module`` whose training is to go on under compression.

    Args:
        model: The model. It stays the user's: names, ``state_dict`` keys and saved files do not change.
        example_inputs: For PyTorch: a tensor, or a tuple of them, the model can be called with; needed
            by :meth:`export`, which also calibrates on it where it is given no other samples.

    Example:
        >>> lepton = LeptonAI(model).compress(20, steps=len(loader) * epochs)     # doctest: +SKIP
        >>> train(model)                                                          # doctest: +SKIP
        >>> print(lepton.export("model.lepton"))                                  # doctest: +SKIP
    """

    def __init__(self, model: Any, example_inputs: Any = None) -> None:
        self.model = model
        self.example_inputs = example_inputs
        self._file: Path | None = None
        self._file_bytes: int | None = None
        self._dense_bytes: int | None = None
        self._export_notes: list[str] = []
        self._framework = _framework(model)
        self._attachment: KerasAttachment | TorchAttachment | None = self._framework.attached(model)

    def compress(
        self,
        ratio: float,
        steps: int | None = None,
        *,
        keep: Mapping[str, float] | None = None,
        distil: float = 0.0,
        average: bool = True,
    ) -> LeptonAI:
        """Puts the model under a compression by ``ratio``; call it before the training.

        Args:
            ratio: float32 bytes over bytes of the coded file, from 1 to 1000; see :class:`Plan`.
            steps: Optimiser steps of the training. Needed where weights are pruned and Keras' ``fit``
                does not say it: the kept share falls by a cubic curve until 70 % of the steps.
            keep: Share of the weights to keep, above 0 and up to 1, of layers by their names; the others
                share what remains, see :meth:`Plan.shares`. Nothing is kept of units that no longer learn.
            distil: For a model that was trained already: how much of the loss, from 0 to 1, is the distance to
                what the model as it is now answers (Hinton and others 2015, temperature 3); 0.7 is a good
                start. Keras' ``fit`` adds it by itself, a PyTorch loop by :meth:`distilled`.
            average: Where weights are pruned, the training ends with the mean of the weights, and of what batch
                normalisation remembers, of its last tenth (Izmailov and others 2018): what is kept is few and still
                moves much. False: with the weights of the last step.

        Raises:
            UsageError: where the model is under compression already, has no weights that can be
                compressed, or ``steps`` is missing.
        """
        if self._attachment is not None:
            raise UsageError("the model is under compression already")
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
            raise UsageError(f"steps is {steps!r}; it must be a whole number, 1 or above")
        if isinstance(distil, bool) or not isinstance(distil, (int, float)) or not 0 <= distil <= 1:
            raise UsageError(f"distil is {distil!r}; it must be a number from 0 to 1")
        plan = Plan.of(ratio)
        attachment = self._framework.attach(self.model, plan, steps, keep, float(distil), bool(average))
        weights = sum(layer.weights for layer in attachment.layers())
        if weights * 4 / plan.ratio < _SMALLEST_FILE:
            warnings.warn(
                f"{weights} weights at {plan.ratio:g}x are {weights * 4 / plan.ratio:.0f} bytes: headers and the "
                "parts left as they are will outweigh them",
                stacklevel=2,
            )
        self._attachment = attachment
        return self

    def distilled(self, loss: Any, outputs: Any, *inputs: Any) -> Any:
        """The loss of a PyTorch loop with the distance to what the model answered at :meth:`compress`.

        Args:
            loss: The loss of the batch.
            outputs: What the module answered, ``(rows, …, classes)`` before the softmax.
            inputs: What it was called with.

        Raises:
            UsageError: where ``compress`` was called without ``distil``, or for Keras, whose ``fit`` does it.
        """
        attachment = self._needed()
        distilled = getattr(attachment, "distilled", None)
        if distilled is None or attachment.teacher is None:
            raise UsageError("there is nobody to learn from", "PyTorch: call compress(…, distil=0.7)")
        return distilled(loss, outputs, inputs)

    def report(self, data: Any = None, **options: Any) -> InPlaceReport:
        """Where it stands: plan, kept shares, steps, and the bytes of the exported file.

        Args:
            data: Labelled rows. With them the exported file is measured beside the model as it was when
                it was put under compression: time, cost, size, accuracy and recall; see :func:`lepton_ai.report`.
            options: What else :func:`lepton_ai.report` takes.

        Raises:
            UsageError: with data, before :meth:`export`.
        """
        attachment = self._needed()
        versions = None
        if data is not None or options:
            if self._file is None:
                raise UsageError("there is no file to measure", "call export first")
            with attachment.originally():
                before = as_model(self.model, self.example_inputs)
            versions = comparison.report(before, self._file, data, **options)
        return InPlaceReport(
            plan=attachment.plan,
            layers=tuple(attachment.layers()),
            left=tuple(attachment.left),
            steps_done=attachment.steps_done(),
            steps_total=attachment.steps_total,
            file=self._file,
            file_bytes=self._file_bytes,
            dense_bytes=self._dense_bytes,
            notes=tuple(self._notes(attachment)),
            versions=versions,
        )

    def export(
        self, path: str | os.PathLike[str], calibration: Any = None, *, activations: str = "float32"
    ) -> InPlaceReport:
        """Writes the model, with its weights as they are used, as an artefact.

        Args:
            path: The file, such as ``model.lepton``; replaced whole.
            calibration: Rows of the model's only input, or a list of rows of each, to find the ranges
                of int8 activations with. Default: ``example_inputs``.
            activations: ``float32`` answers as the model does, up to rounding. ``int8`` is faster where
                products are large, and changes answers by about a hundredth.

        Returns:
            The report, with the real bytes.

        Raises:
            UsageError: for other ``activations``.
        """
        if activations not in ("float32", "int8"):
            raise UsageError(f"activations is {activations!r}", "choose float32 or int8")
        attachment = self._needed()
        with attachment.plainly():
            model = as_model(self.model, self.example_inputs)
        samples = self._samples(model, self.example_inputs if calibration is None else calibration)
        method: dict[str, Any] = {"method": "weight-int8", "parameters": {"exact": True}}
        if activations == "int8":
            method = {"method": "static-int8" if samples else "dynamic-int8"}
        data = _native.compressed(model, json.dumps([method]), samples)
        target = Path(path)
        part = target.with_name(target.name + ".part")
        part.write_bytes(data)
        part.replace(target)
        self._file, self._file_bytes, self._dense_bytes = target, target.stat().st_size, model.file_bytes
        self._export_notes = []
        if activations == "int8" and not samples:
            self._export_notes.append("no calibration samples: only matrix products are int8")
        return self.report()

    def _needed(self) -> KerasAttachment | TorchAttachment:
        if self._attachment is None:
            raise UsageError("the model is not under compression", "call compress first")
        if self._attachment.is_lost():
            raise UsageError(
                "the training was broken off during a step, and JAX took the weights along",
                "load weights that were saved before, then go on",
            )
        return self._attachment

    def _samples(self, model: _native.Model, given: Any) -> list[list[Any]]:
        """``given`` as runs of the model: cut to rows where it fixes how many a run takes."""
        from ._arrays import rows

        if given is None:
            return []
        specs = model.inputs
        each = list(given) if isinstance(given, (list, tuple)) and len(specs) > 1 else [given]
        if len(specs) == 1 and isinstance(given, (list, tuple)) and len(given) == 1:
            each = list(given)
        if len(each) != len(specs):
            raise UsageError(f"{len(each)} arrays for {len(specs)} inputs")
        arrays = [rows(_on_cpu(value), spec.dtype) for value, spec in zip(each, specs)]
        fixed = specs[0].shape[0] if specs[0].shape else None
        size = fixed if isinstance(fixed, int) else 32
        count = min(len(array) for array in arrays)
        if fixed == size:
            ends = list(range(0, count + 1, size))
        else:
            # The first run is kept in the file, for checking: one row is enough.
            ends = [0, *range(1, count, size), count]
        return [[array[at:to] for array in arrays] for at, to in zip(ends, ends[1:]) if to > at]

    def _notes(self, attachment: KerasAttachment | TorchAttachment) -> list[str]:
        notes = list(self._export_notes)
        if not attachment.steps_done():
            notes.append("it has not been trained under the compression yet")
        if attachment.prunes() and attachment.steps_total is not None:
            missing = math.ceil(_schedule.END * attachment.steps_total) - attachment.steps_done()
            if missing > 0:
                notes.append(f"the pruning is complete after {missing} more steps")
        reached = None if not self._file_bytes or not self._dense_bytes else self._dense_bytes / self._file_bytes
        if reached is not None and reached < attachment.plan.ratio:
            notes.append(
                f"the file reaches {reached:.1f}x, not {attachment.plan.ratio:g}x: names, biases and layers left as "
                "they are outweigh the weights, or the training was too short"
            )
        return notes


def _on_cpu(value: Any) -> Any:
    return value.detach().cpu() if hasattr(value, "detach") else value


def _framework(model: Any) -> Any:
    """The module that knows the model's library. On Keras' PyTorch back end a model is of both."""
    if _is_instance(model, "keras", "Model"):
        from . import _inplace_keras

        return _inplace_keras
    if _is_instance(model, "torch.nn", "Module"):
        from . import _inplace_torch

        return _inplace_torch
    if type(model).__module__.partition(".")[0] in ("keras", "torch"):
        raise MissingPackageError("the model's library is not loaded", "import keras or torch first")
    raise UnsupportedError(
        f"{type(model).__module__}.{type(model).__name__} cannot be compressed in place",
        "give a keras.Model (Keras 3) or a torch.nn.Module",
    )
