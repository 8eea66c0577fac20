"""Which weights of a Keras layer are kept: the largest ones of the channels that still learn."""

from __future__ import annotations

import functools
import importlib
import math
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from . import _schedule

if TYPE_CHECKING:
    from ._inplace_keras import KerasAttachment

_BISECTIONS = 26
"""Halvings of the threshold: more than a float32 has bits."""

_SAMPLE = 1 << 18
"""Weights of a layer, at most, from which the threshold of its kept share is found."""


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as one loop over memory where the back end would otherwise make one an operation."""
    if keras.backend.backend() != "tensorflow":
        return function
    tensorflow = importlib.import_module("tensorflow")
    try:
        compiled = tensorflow.function(function, jit_compile=True)
        compiled(ops.ones((2, 2)), ops.convert_to_tensor(1.0))
    except Exception:  # noqa: BLE001 # a build without the compiler: the same numbers, more slowly
        return function
    made: Callable[..., Any] = compiled
    return made


def value_of(variable: Any) -> Any:
    """What a Keras variable, or a tensor, holds. On TensorFlow a variable passes for a tensor, but is none."""
    if not isinstance(variable, keras.Variable):
        return ops.convert_to_tensor(variable)
    inner = variable.value
    return inner.value() if callable(getattr(inner, "value", None)) else inner


def _sampled(weights: Any) -> Any:
    """Every n-th row of a large layer; n is odd, so that it does not keep in step with channels."""
    rows, count = int(weights.shape[0]), math.prod(weights.shape)
    stride = max(count // _SAMPLE, 1) | 1
    return weights[::stride] if count > _SAMPLE and stride < rows else weights


@functools.cache
def _mask() -> Callable[..., Any]:
    def masked(kernel: Any, density: Any, learning: Any = 1.0) -> Any:
        sample = ops.abs(_sampled(kernel)) * learning
        keep = density * float(math.prod(sample.shape))
        low, high = ops.zeros_like(ops.max(sample)), ops.max(sample)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            more = ops.sum(ops.cast(sample > middle, "float32")) > keep
            low, high = ops.where(more, middle, low), ops.where(more, high, middle)
        return ops.where(ops.abs(kernel) * learning > low, kernel, ops.zeros_like(kernel))

    return fused(masked)


def keep_largest(kernel: Any, density: Any, learning: Any = None) -> Any:
    """``kernel`` with all but about the largest ``density`` of its weights set to zero.

    The threshold is that of every n-th row where the kernel is large.

    Args:
        learning: 1 for a channel that learns, 0 for one of which nothing is kept, ``(…, channels)``; default: all do.
    """
    weights = value_of(kernel)
    share = ops.cast(density, weights.dtype)
    every = ops.ones((1,) * len(weights.shape), weights.dtype)
    # Before the pruning begins a channel may be idle and still wake up.
    return _mask()(weights, share, every if learning is None else ops.where(share < 1.0, learning, every))


def learning_channels(optimizer: Any, variable: Any, channel_axes: int) -> Any:
    """1 for each channel that learns and 0 for the idle ones, by the averages of gradients the optimiser keeps.

    A unit that a rectifier has switched off for every row gets no gradient any more, and never will: it is worth
    nothing, however large its weights are.

    Args:
        variable: The variable, one the optimiser trains.
        channel_axes: How many of its last axes are channels.

    Returns:
        A tensor that can be broadcast over the variable; ``None`` where the optimiser keeps no such average.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    short = _slot(optimizer, variable, "_momentums", "momentums")
    if short is None:
        return None
    long = _slot(optimizer, variable, "_velocities")
    axes = tuple(range(len(variable.shape) - channel_axes))
    now = ops.mean(ops.square(_sampled(value_of(short))), axis=axes, keepdims=True)
    # Asked so that what is not a number counts as learning: it must not disappear.
    idle = now < _schedule.IDLE_BESIDE_OTHERS**2 * ops.max(now)
    if long is not None:
        ever = ops.mean(_sampled(value_of(long)), axis=axes, keepdims=True)
        idle = ops.logical_and(idle, now <= _schedule.IDLE_BESIDE_ITSELF**2 * ever)
    return 1.0 - ops.cast(idle, variable.dtype)


def _slot(optimizer: Any, variable: Any, *names: str) -> Any:
    """What the optimiser keeps for the variable under the first of these names that it has."""
    slots = next((found for name in names if (found := getattr(optimizer, name, None))), None)
    trained = getattr(optimizer, "_trainable_variables", None) or []
    at = next((at for at, one in enumerate(trained) if one is variable), None)
    return slots[at] if slots and at is not None and at < len(slots) else None


class KeepLargest(keras.constraints.Constraint):  # type: ignore[misc]
    """All but the largest weights set to zero; how many is a function of the optimiser's iterations."""

    def __init__(self, attachment: KerasAttachment, layer: str, variable: Any, channel_axes: int) -> None:
        self._attachment = weakref.ref(attachment)
        self._layer = layer
        self._variable = weakref.ref(variable)
        self._channel_axes = channel_axes
        self._before = variable.constraint

    def __call__(self, w: Any) -> Any:
        attachment, variable = self._attachment(), self._variable()
        value = value_of(w if self._before is None else self._before(w))
        if attachment is None or attachment.shares[self._layer].density >= 1:
            return value
        learning = learning_channels(attachment.optimizer(), variable, self._channel_axes)
        return keep_largest(value, attachment.kept(attachment.shares[self._layer].density), learning)
