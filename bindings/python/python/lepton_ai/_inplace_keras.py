"""Keras 3 models under compression: masks as constraints, kernels seen on their grid."""

from __future__ import annotations

import inspect
import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from .errors import UsageError
from .inplace import Layer, Plan

_COMPRESSED = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
"""Layers whose ``kernel`` has the output channels last."""

_RAMP = 0.7
"""Share of the steps over which the kept share falls."""

_BISECTIONS = 26
"""Halvings of the threshold: more than a float32 has bits."""

_BITS, _PLAIN, _MODEL = "_lepton_bits", "_lepton_plain", "_lepton_attachment"


def on_grid(kernel: Any, bits: int) -> Any:
    """``kernel`` rounded to multiples of a step, one a channel of its last axis; zero stays zero."""
    largest = float(2 ** (bits - 1) - 1)
    axes = tuple(range(len(kernel.shape) - 1))
    step = ops.maximum(ops.max(ops.abs(kernel), axis=axes, keepdims=True), 1e-30) / largest
    return ops.clip(ops.round(kernel / step), -largest, largest) * step


class _OnGrid:
    """What a layer's class gets: its forward pass sees ``kernel`` on the grid, gradients pass through.

    Saving writes the kernel that is used; loading goes to the variable.
    """

    @property
    def kernel(self) -> Any:
        latent = type(self).__mro__[2].kernel.fget(self)  # type: ignore[attr-defined]
        if self.__dict__.get(_PLAIN) or latent is None:
            return latent
        value = ops.convert_to_tensor(latent)
        return value + ops.stop_gradient(on_grid(value, self.__dict__[_BITS]) - value)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        # Copies made from a configuration, such as clone_model's, are plain layers.
        return cls.__mro__[2].from_config(config)  # type: ignore[attr-defined]

    def load_own_variables(self, store: Any) -> None:
        self.__dict__[_PLAIN] = True
        try:
            super().load_own_variables(store)  # type: ignore[misc]
        finally:
            del self.__dict__[_PLAIN]


class _Fits:
    """What a model's class gets: ``fit`` says how many steps there will be."""

    @classmethod
    def from_config(cls, *arguments: Any, **keywords: Any) -> Any:
        return cls.__mro__[2].from_config(*arguments, **keywords)  # type: ignore[attr-defined]

    def fit(self, *arguments: Any, **keywords: Any) -> Any:
        attachment: KerasAttachment = self.__dict__[_MODEL]
        plain = super().fit  # type: ignore[misc]
        bound = inspect.signature(plain).bind(*arguments, **keywords)
        bound.apply_defaults()
        attachment.begin_fit(_steps_of(bound.arguments))
        try:
            return plain(*arguments, **keywords)
        finally:
            attachment.end_fit()


_classes: dict[tuple[type, type], type] = {}


def _swapped(plain: type, extra: type) -> type:
    """The class of the same name with ``extra``; one for each plain class."""
    if (plain, extra) not in _classes:
        body = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__}
        _classes[plain, extra] = type(plain.__name__, (extra, plain), body)
    return _classes[plain, extra]


def _become(thing: Any, of: type) -> None:
    # Past Keras' own __setattr__, which tracks what is set.
    object.__setattr__(thing, "__class__", of)


def _steps_of(arguments: dict[str, Any]) -> int | None:
    """Optimiser steps that a call of ``fit`` will do, where its arguments tell."""
    epochs = arguments["epochs"] - arguments["initial_epoch"]
    if arguments["steps_per_epoch"] is not None:
        return int(arguments["steps_per_epoch"] * epochs)
    x = arguments["x"]
    leaf = next(iter(keras.tree.flatten(x)), None) if isinstance(x, (dict, list, tuple)) else x
    if arguments["y"] is None and hasattr(x, "__len__") and not isinstance(x, (dict, list, tuple, np.ndarray)):
        return len(x) * epochs
    if leaf is None or not hasattr(leaf, "shape"):
        return None
    rows = int(leaf.shape[0] * (1 - (arguments["validation_split"] or 0.0)))
    return math.ceil(rows / (arguments["batch_size"] or 32)) * epochs


class KeepLargest(keras.constraints.Constraint):  # type: ignore[misc]
    """All but the largest weights set to zero; how many is a function of the optimiser's iterations."""

    def __init__(self, attachment: KerasAttachment, before: Any) -> None:
        self.attachment = weakref.ref(attachment)
        self.before = before

    def __call__(self, w: Any) -> Any:
        attachment = self.attachment()
        value = ops.convert_to_tensor(w if self.before is None else self.before(w))
        if attachment is None or attachment.plan.density >= 1:
            return value
        magnitude = ops.abs(value)
        keep = attachment.density() * float(math.prod(value.shape))
        low, high = ops.zeros_like(ops.max(magnitude)), ops.max(magnitude)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            more = ops.sum(ops.cast(magnitude > middle, "float32")) > keep
            low, high = ops.where(more, middle, low), ops.where(more, high, middle)
        return value * ops.cast(magnitude > low, value.dtype)


class KerasAttachment:
    """The compression of one model."""

    def __init__(self, model: Any, plan: Plan, steps: int | None) -> None:
        self.plan = plan
        self.steps_total = steps
        self.left: list[tuple[str, str]] = []
        self._model = weakref.ref(model)
        self._begin = 0
        self._done = 0
        for layer in model._flatten_layers(include_self=False):
            why = _why_left(layer)
            if why:
                self.left.append((layer.name, why))
            elif isinstance(layer, _COMPRESSED):
                layer._kernel.constraint = KeepLargest(self, layer._kernel.constraint)
                layer.__dict__[_BITS] = plan.bits
                _become(layer, _swapped(type(layer), _OnGrid))
        _become(model, _swapped(type(model), _Fits))
        model.__dict__[_MODEL] = self
        self._begin = self._iterations()
        # Functions traced before have neither masks nor grid in them.
        model.train_function = model.test_function = model.predict_function = None

    def _optimizer(self) -> Any:
        # Late: compiling again makes another.
        model = self._model()
        return getattr(model, "optimizer", None)

    def _iterations(self) -> int:
        optimizer = self._optimizer()
        return 0 if optimizer is None else int(ops.convert_to_numpy(optimizer.iterations))

    def modules(self) -> list[Any]:
        """Every compressed layer."""
        model = self._model()
        return [] if model is None else [m for m in model._flatten_layers() if isinstance(m, _OnGrid)]

    def layers(self) -> list[Layer]:
        """The compressed layers with what is kept of them now."""
        found = []
        for layer in self.modules():
            kernel = ops.convert_to_numpy(on_grid(ops.convert_to_tensor(layer._kernel), self.plan.bits))
            found.append(Layer(layer.name, kernel.size, float(np.count_nonzero(kernel)) / max(kernel.size, 1)))
        return found

    def steps_done(self) -> int:
        """Steps of the optimiser under the compression."""
        return max(self._iterations() - self._begin, 0)

    def density(self) -> Any:
        """The share to keep after the step that is being done, as a tensor."""
        optimizer = self._optimizer()
        if self.steps_total is None or optimizer is None:
            return self.plan.density
        done = ops.cast(optimizer.iterations, "float32") + (1.0 - self._begin)
        progress = ops.clip(done / (_RAMP * self.steps_total), 0.0, 1.0)
        return 1.0 - (1.0 - self.plan.density) * (1.0 - (1.0 - progress) ** 3)

    def begin_fit(self, steps: int | None) -> None:
        """Before a ``fit`` of this many steps: the schedule, where none was given."""
        if self.steps_total is None:
            self.steps_total = steps
        if self.plan.density < 1 and self.steps_total is None:
            raise UsageError("fit does not say how many steps there are", "give steps to compress")
        # A model that was compiled again has an optimiser that counts from zero.
        self._begin = self._iterations() - self._done
        model = self._model()
        if model is not None:
            model.train_function = None

    def end_fit(self) -> None:
        """After a ``fit``: what averaging of weights may have brought back is masked again."""
        self._done = self.steps_done()
        for layer in self.modules():
            kernel = layer._kernel
            if self.plan.density < 1 and self._done:
                kernel.assign(kernel.constraint(kernel))

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """The model as plain layers with the kernels that are used."""
        latents = []
        model = self._model()
        try:
            for layer in self.modules():
                latents.append((layer, ops.convert_to_numpy(layer._kernel)))
                layer._kernel.assign(on_grid(ops.convert_to_tensor(layer._kernel), self.plan.bits))
                _become(layer, type(layer).__mro__[2])
            yield
        finally:
            for layer, latent in latents:
                if not isinstance(layer, _OnGrid):
                    _become(layer, _swapped(type(layer), _OnGrid))
                layer._kernel.assign(latent)
            if model is not None:
                model.predict_function = model.test_function = None


def _why_left(layer: Any) -> str:
    """Why a layer with weights of its own is not compressed; empty where it is, or has none."""
    if isinstance(layer, _COMPRESSED):
        if not layer.built:
            return "it is not built"
        if layer.lora_enabled or getattr(layer, "quantization_mode", None):
            return "it is quantised or has LoRA weights already"
        return ""
    own = [v for v in getattr(layer, "_trainable_variables", []) if len(v.shape) > 1]
    return f"{type(layer).__name__} is not one of the layers that are compressed in place" if own else ""


def attached(model: Any) -> KerasAttachment | None:
    """The compression the model is under, if any."""
    found: KerasAttachment | None = model.__dict__.get(_MODEL)
    return found


def attach(model: Any, plan: Plan, steps: int | None) -> KerasAttachment:
    """Puts the model under compression."""
    if not model.built:
        raise UsageError("the model is not built", "call it once, or give it an Input")
    layers = model._flatten_layers(include_self=False)
    if not any(isinstance(layer, _COMPRESSED) and not _why_left(layer) for layer in layers):
        raise UsageError("the model has no Dense layer or convolution to compress")
    return KerasAttachment(model, plan, steps)
