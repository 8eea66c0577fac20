"""Keras 3 models under compression: masks as constraints, kernels seen on their grid."""

from __future__ import annotations

import functools
import inspect
import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from . import _schedule, _size
from ._average import Mean
from ._masks_keras import KeepLargest, fused, value_of
from .errors import UsageError
from .inplace import Layer, Plan, Share

_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
"""Layers of whose ``kernel`` the last two axes are channels."""

_COMPRESSED = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, *_DEPTHWISE)
"""Layers that have one ``kernel``, with the output channels last."""

_TEMPERATURE = 3.0
"""What answers are divided by before they are compared with the teacher's."""

_BITS, _PLAIN, _MODEL, _OWNER = "_lepton_bits", "_lepton_plain", "_lepton_attachment", "_lepton_owner"


def _is_jax() -> bool:
    return bool(keras.backend.backend() == "jax")


def _is_lost(variable: Any) -> bool:
    """Whether JAX's ``fit`` was broken off during a step, and took what the variable held along."""
    if not _is_jax():
        return False
    value = variable._value
    return value is None or bool(getattr(value, "is_deleted", lambda: False)())


def _counter(optimizer: Any) -> Any:
    """The variable that counts an optimiser's calls; ``iterations`` counts whole accumulations of gradients."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    count = getattr(inner, "_iterations", None)
    return inner.iterations if count is None else count


def _latent(layer: Any) -> Any:
    """The variable behind ``kernel``."""
    return layer.__dict__["kernel"] if isinstance(layer, _DEPTHWISE) else layer._kernel


def _channel_axes(layer: Any) -> int:
    return 2 if isinstance(layer, _DEPTHWISE) else 1


@functools.cache
def _grid(channel_axes: int) -> Callable[..., Any]:
    def rounded(kernel: Any, largest: Any) -> Any:
        axes = tuple(range(len(kernel.shape) - channel_axes))
        step = ops.maximum(ops.max(ops.abs(kernel), axis=axes, keepdims=True), 1e-30) / largest
        return ops.clip(ops.round(kernel / step), -largest, largest) * step

    return fused(rounded)


def on_grid(kernel: Any, bits: int, channel_axes: int = 1) -> Any:
    """``kernel`` rounded to multiples of a step, one a channel of its last axes; zero stays zero."""
    return _grid(channel_axes)(value_of(kernel), ops.convert_to_tensor(float(2 ** (bits - 1) - 1), dtype=kernel.dtype))


def _used(layer: Any) -> Any:
    """The kernel of a compressed layer, on its grid."""
    return on_grid(_latent(layer), layer.__dict__[_BITS], _channel_axes(layer))


def _seen(kernel: Any, bits: int, channel_axes: int, through: Any) -> Any:
    """``kernel`` on its grid where ``through`` says so; gradients pass as if it were not."""

    @ops.custom_gradient
    def straight(value: Any) -> Any:
        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            return arguments[0] if upstream is None else upstream

        if through is True:
            return on_grid(value, bits, channel_axes), gradient
        return ops.cond(through, lambda: on_grid(value, bits, channel_axes), lambda: value), gradient

    return straight(kernel)


class _OnGrid:
    """What a layer's class gets: its forward pass sees ``kernel`` on the grid, gradients pass through.

    Saving writes the kernel that is used; loading goes to the variable.
    """

    @property
    def kernel(self) -> Any:
        latent = _latent(self)
        if self.__dict__.get(_PLAIN):
            return latent
        attachment: KerasAttachment | None = self.__dict__[_OWNER]()
        through = True if attachment is None else attachment.sees_grid()
        return _seen(value_of(latent), self.__dict__[_BITS], _channel_axes(self), through)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        # Copies made from a configuration, such as clone_model's, are plain layers.
        return cls.__mro__[2].from_config(config)  # type: ignore[attr-defined]

    def save_own_variables(self, store: Any) -> None:
        # Of other layers Keras itself saves `kernel`; of these the variable.
        latent = ops.convert_to_numpy(_latent(self)) if isinstance(self, _DEPTHWISE) else None
        if latent is not None:
            _latent(self).assign(_used(self))
        super().save_own_variables(store)  # type: ignore[misc]
        if latent is not None:
            _latent(self).assign(latent)

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
        if attachment.prunes():
            given = bound.arguments["callbacks"]
            fitter = _Fitter(attachment)
            if isinstance(given, keras.callbacks.CallbackList):
                given.append(fitter)
            else:
                each = list(given) if isinstance(given, (list, tuple)) else [given] if given else []
                bound.arguments["callbacks"] = [*each, fitter]
        try:
            return plain(*bound.args, **bound.kwargs)
        finally:
            attachment.end_fit()

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True,
        **others: Any,
    ) -> Any:
        loss = super().compute_loss(x, y, y_pred, sample_weight, training, **others)  # type: ignore[misc]
        attachment: KerasAttachment = self.__dict__[_MODEL]
        if attachment.teacher is None or not training:
            return loss
        taught = ops.stop_gradient(attachment.teacher(x, training=False))
        return (1 - attachment.distil) * loss + attachment.distil * _distance(self, taught, y_pred)

    def train_step(self, *arguments: Any, **keywords: Any) -> Any:
        attachment: KerasAttachment = self.__dict__[_MODEL]
        with attachment.counted_in(arguments[0]):
            return super().train_step(*arguments, **keywords)  # type: ignore[misc]

    def save(self, filepath: Any, *arguments: Any, **keywords: Any) -> Any:
        plain = super().save  # type: ignore[misc]
        if not str(filepath).endswith((".h5", ".hdf5")):
            return plain(filepath, *arguments, **keywords)
        # Those files get the variables, whatever layers would save.
        with self.__dict__[_MODEL].plainly():
            return plain(filepath, *arguments, **keywords)

    def __reduce__(self) -> tuple[Any, ...]:
        # As the plain class, whose name pickle finds.
        made: Any = super().__reduce__()
        return getattr(type(self).__mro__[2], made[0].__name__), *made[1:]


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


class _Fitter(keras.callbacks.Callback):  # type: ignore[misc]
    """Fits the share to keep at the marks of the schedule, and averages the last weights."""

    def __init__(self, attachment: KerasAttachment) -> None:
        super().__init__()
        self._attachment = attachment
        self._before = attachment.steps_done()
        self._last = -1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._before, self._last = self._before + self._last + 1, -1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._last = batch
        done = self._before + batch + 1
        fits, averages = self._attachment.marks_passed(done), self._attachment.averages(done)
        if (fits or averages) and _is_jax():
            self.model.jax_state_sync()
        if fits and self._attachment.fit_shares():
            self.model.train_function = None
            self.model.make_train_function()
        if averages:
            self._attachment.average(done)


class KerasAttachment(_size.Fitting):
    """The compression of one model."""

    def __init__(
        self, model: Any, plan: Plan, steps: int | None, keep: Mapping[str, float] | None, distil: float,
        average: bool,
    ) -> None:
        self.plan = plan
        self.distil = distil
        self._averages = average
        self._mean: Mean | None = None
        self.teacher = _copied(model) if distil else None
        self.steps_total = steps
        self._model = weakref.ref(model)
        self._begin = 0
        self._done = 0
        self._counter: Any = None
        self._snapshot = [ops.convert_to_numpy(weight) for weight in model.weights]
        every = [(layer, _why_left(layer)) for layer in model._flatten_layers(include_self=False)]
        self.left = [(layer.name, why) for layer, why in every if why]
        chosen = [layer for layer, why in every if not why and isinstance(layer, _COMPRESSED)]
        frozen = [layer.name for layer in chosen if not layer.trainable]
        self.shares = plan.shares({layer.name: math.prod(_latent(layer).shape) for layer in chosen}, keep, frozen)
        self.open = {name for name, share in self.shares.items() if share.density < 1 and name not in (keep or {})}
        for layer in chosen:
            share = self.shares[layer.name]
            if share.density < 1:
                latent = _latent(layer)
                latent.constraint = KeepLargest(self, layer.name, latent, _channel_axes(layer))
            layer.__dict__[_OWNER] = weakref.ref(self)
            _become(layer, _swapped(type(layer), _OnGrid))
        self._hold_grids(chosen)
        _become(model, _swapped(type(model), _Fits))
        model.__dict__[_MODEL] = self
        self._begin = self._iterations() or 0
        self.fit_grid()
        # Functions traced before have neither masks nor grid in them.
        model.train_function = model.test_function = model.predict_function = None

    def optimizer(self) -> Any:
        """The model's optimiser now: compiling again makes another."""
        model = self._model()
        return getattr(model, "optimizer", None)

    def _iterations(self) -> int | None:
        """Steps of the optimiser so far; ``None`` where JAX's ``fit`` was broken off and took them along."""
        optimizer = self.optimizer()
        if optimizer is None:
            return 0
        count = _counter(optimizer)
        return None if _is_lost(count) else int(ops.convert_to_numpy(count))

    @contextmanager
    def counted_in(self, state: Any) -> Iterator[None]:
        """A step of training, traced or done. On JAX the optimiser's count is part of the step's state."""
        optimizer = self.optimizer()
        if optimizer is None:
            yield
            return
        counter = _counter(optimizer)
        if _is_jax():
            counter = state[2][next(at for at, one in enumerate(optimizer.variables) if one is counter)]
        self._counter = counter
        try:
            yield
        finally:
            self._counter = None

    def modules(self) -> list[Any]:
        """Every compressed layer."""
        model = self._model()
        return [] if model is None else [m for m in model._flatten_layers() if isinstance(m, _OnGrid)]

    def grids_changed(self) -> None:
        """Called where the bits of a layer's grid are others."""
        self._hold_grids(self.modules())
        model = self._model()
        if model is not None:
            model.test_function = model.predict_function = None

    def _hold_grids(self, layers: list[Any]) -> None:
        for layer in layers:
            layer.__dict__[_BITS] = self.shares[layer.name].bits

    def layers(self) -> list[Layer]:
        """The compressed layers with what is kept of them now."""
        found = []
        for layer in self.modules():
            kernel = ops.convert_to_numpy(_used(layer))
            kept = float(np.count_nonzero(kernel)) / max(kernel.size, 1)
            found.append(Layer(layer.name, kernel.size, kept, layer.__dict__[_BITS]))
        return found

    def steps_done(self) -> int:
        """Steps of the optimiser under the compression."""
        iterations = self._iterations()
        return self._done if iterations is None else max(iterations - self._begin, 0)

    def is_lost(self) -> bool:
        """Whether a broken off ``fit`` of JAX took the weights along."""
        return any(_is_lost(_latent(layer)) for layer in self.modules())

    def prunes(self) -> bool:
        """True if a layer keeps less than all of its weights."""
        return any(share.density < 1 for share in self.shares.values())

    def parts(self) -> tuple[list[_size.Weights], int, int]:
        """A part of each layer's weights; numbers of the model; channels of the layers."""
        modules, model = self.modules(), self._model()
        total = sum(math.prod(_latent(layer).shape) for layer in modules)
        weights = [_part(layer, self.shares[layer.name], layer.name in self.open, total) for layer in modules]
        return weights, 0 if model is None else model.count_params(), sum(map(_channels, modules))

    def layers_in_all(self) -> int:
        """How many layers the model has, those without weights too."""
        model = self._model()
        return 0 if model is None else sum(1 for _ in model._flatten_layers())

    def _progress(self, ahead: float) -> Any:
        """How far the pruning is, from 0 to 1, ``ahead`` steps from now, as a tensor."""
        optimizer = self.optimizer()
        if self.steps_total is None or optimizer is None or not self.prunes():
            return ops.convert_to_tensor(1.0)
        count = _counter(optimizer) if self._counter is None else self._counter
        done = ops.cast(count, "float32") + (ahead - self._begin)
        begin, end = (share * self.steps_total for share in (_schedule.BEGIN, _schedule.END))
        return ops.clip((done - begin) / (end - begin), 0.0, 1.0)

    def kept(self, density: float) -> Any:
        """The share to keep after the step that is being done of a layer that ends at ``density``."""
        return _schedule.kept(density, self._progress(1.0))

    def sees_grid(self) -> Any:
        """Whether forward passes see the grid, as a tensor or True. Steps of training do once the pruning is
        complete; all others always, so that they answer as the file would."""
        if self._counter is None or self.steps_total is None or not self.prunes():
            return True
        return self._progress(0.0) >= 1.0

    def begin_fit(self, steps: int | None) -> None:
        """Before a ``fit`` of this many steps: the schedule, where none was given."""
        before = self.steps_total, self._begin
        if self.steps_total is None:
            self.steps_total = steps
        if self.prunes() and self.steps_total is None:
            raise UsageError("fit does not say how many steps there are", "give steps to compress")
        # A model that was compiled again has an optimiser that counts from zero.
        self._begin = (self._iterations() or 0) - self._done
        model = self._model()
        if model is not None and before != (self.steps_total, self._begin):
            # Both are constants of what was traced.
            model.train_function = model.test_function = model.predict_function = None

    def end_fit(self) -> None:
        """After a ``fit``: what averaging of weights may have brought back is masked again."""
        if self._iterations() is None or self.is_lost():
            return
        self._done = self.steps_done()
        self.fit_at_end(self._done)
        if self._done:
            self._mask()

    def averages(self, done: int) -> bool:
        """Whether the weights after this many steps are part of the mean that the training ends with."""
        if self._mean is None and self._averages and self.steps_total is not None:
            self._mean = Mean(self.steps_total)
        return self._mean is not None and self._mean.due(done)

    def average(self, done: int) -> None:
        """Adds the weights to the mean; after the last step they become the mean."""
        model = self._model()
        if model is None or self._mean is None:
            return
        weights = [weight for weight in model.weights if "float" in str(weight.dtype)]
        self._mean.add(done, [ops.convert_to_numpy(weight) for weight in weights])
        mean = self._mean.take(done)
        for weight, value in zip(weights, mean):
            weight.assign(value)
        if mean:
            self._mask()

    def _mask(self) -> None:
        """Keeps of every kernel what is to be kept now."""
        for layer in self.modules():
            kernel = _latent(layer)
            if self.prunes() and kernel.constraint is not None:
                kernel.assign(kernel.constraint(kernel))

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """The model as plain layers with the kernels that are used."""
        latents = []
        model = self._model()
        try:
            for layer in self.modules():
                latents.append((layer, ops.convert_to_numpy(_latent(layer))))
                _latent(layer).assign(_used(layer))
                _become(layer, type(layer).__mro__[2])
            yield
        finally:
            for layer, latent in latents:
                if not isinstance(layer, _OnGrid):
                    _become(layer, _swapped(type(layer), _OnGrid))
                _latent(layer).assign(latent)
            if model is not None:
                model.predict_function = model.test_function = None

    @contextmanager
    def originally(self) -> Iterator[None]:
        """The model as plain layers with the weights it had when it was put under compression."""
        with self.plainly():
            model = self._model()
            weights = [] if model is None else model.weights
            now = [ops.convert_to_numpy(weight) for weight in weights]
            try:
                for weight, value in zip(weights, self._snapshot):
                    weight.assign(value)
                yield
            finally:
                for weight, value in zip(weights, now):
                    weight.assign(value)


def _copied(model: Any) -> Any:
    """A model of the same configuration and weights."""
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    copied.trainable = False
    return copied


def _distance(model: Any, taught: Any, found: Any) -> Any:
    """How far the answer is from the teacher's: of classes by temperature 3, of other numbers squared."""
    activation = getattr(getattr(model.layers[-1], "activation", None), "__name__", "")
    if activation in ("softmax", "sigmoid"):
        taught, found = (ops.log(ops.clip(value, 1e-7, 1.0)) for value in (taught, found))
        if activation == "sigmoid":
            taught, found = (ops.stack([value, ops.log(1.0 - ops.exp(value) + 1e-7)], -1) for value in (taught, found))
    elif not (getattr(model.loss, "_fn_kwargs", None) or {}).get("from_logits"):
        return ops.mean(ops.square(taught - found))
    taught, found = (ops.log_softmax(value / _TEMPERATURE, -1) for value in (taught, found))
    return ops.mean(ops.sum(ops.exp(taught) * (taught - found), -1)) * _TEMPERATURE**2


def _channels(layer: Any) -> int:
    return math.prod(_latent(layer).shape[-_channel_axes(layer) :])


def _part(layer: Any, share: Share, is_open: bool, total: int) -> _size.Weights:
    """A part of a layer's kernel, as the file has its rows and columns."""
    kernel = ops.convert_to_numpy(_latent(layer))
    axis = 1
    if isinstance(layer, _DEPTHWISE):
        kernel, axis = np.moveaxis(kernel, (-2, -1), (0, 1)).reshape(_channels(layer), -1), 0
    elif kernel.ndim > 2:
        # ONNX has the output channels first, Keras last.
        kernel, axis = np.moveaxis(kernel, (-1, -2), (0, 1)).reshape(kernel.shape[-1], -1), 0
    return _size.part_of(kernel, axis, share.bits, None if is_open else share.density, total)


def _why_left(layer: Any) -> str:
    """Why a layer with weights of its own is not compressed; empty where it is, or has none."""
    if isinstance(layer, _COMPRESSED):
        if not layer.built:
            return "it is not built"
        if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
            return "it is quantised or has LoRA weights already"
        return ""
    own = [v for v in getattr(layer, "_trainable_variables", []) if len(v.shape) > 1]
    return f"{type(layer).__name__} is not one of the layers that are compressed in place" if own else ""


def attached(model: Any) -> KerasAttachment | None:
    """The compression the model is under, if any."""
    found: KerasAttachment | None = model.__dict__.get(_MODEL)
    return found


def attach(
    model: Any, plan: Plan, steps: int | None, keep: Mapping[str, float] | None, distil: float = 0.0,
    average: bool = True,
) -> KerasAttachment:
    """Puts the model under compression."""
    if not model.built:
        raise UsageError("the model is not built", "call it once, or give it an Input")
    layers = model._flatten_layers(include_self=False)
    if not any(isinstance(layer, _COMPRESSED) and not _why_left(layer) for layer in layers):
        raise UsageError("the model has no Dense layer or convolution to compress")
    return KerasAttachment(model, plan, steps, keep, distil, average)
