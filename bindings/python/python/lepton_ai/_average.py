"""The mean of a network's weights over the last steps of a training.

While the step size stays large, a training ends somewhere around its optimum; the mean of where it has been lies
nearer (Polyak and Juditsky 1992; Izmailov and others 2018). What is pruned and rounded moves most, so it gains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SHARE = 0.1
"""Share of the steps, the last ones, over which weights are averaged."""

SAMPLES = 12
"""Times that weights are read on the way, at most."""


class Mean:
    """The mean of weights over the last steps of a training."""

    def __init__(self, steps: int) -> None:
        last = max(math.floor(SHARE * steps), 1)
        self._stride = -(-last // SAMPLES)
        self._next: float = steps - (last - 1) // self._stride * self._stride
        self._end = steps
        self._count = 0
        self._mean: list[npt.NDArray[Any]] = []

    def due(self, done: int) -> bool:
        """Whether the weights after this many steps are to be added."""
        return self._next <= done

    def add(self, done: int, weights: Sequence[npt.NDArray[Any]]) -> None:
        """Adds weights, always in the same order, as they are after this many steps."""
        # Steps may be skipped, but the last one counts.
        self._next = min(done + self._stride, self._end) if done < self._end else math.inf
        self._count += 1
        if not self._mean:
            self._mean = [np.array(weight) for weight in weights]
            return
        for mean, weight in zip(self._mean, weights):
            mean += (weight - mean) / np.asarray(self._count, mean.dtype)

    def take(self, done: int) -> list[npt.NDArray[Any]]:
        """The mean, once, where the training has done all its steps; before, and after, nothing."""
        if done < self._end:
            return []
        taken, self._mean = self._mean, []
        return taken
