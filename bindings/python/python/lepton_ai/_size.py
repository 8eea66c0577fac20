"""What pruned weights take in the file, found with the file's own coder on a part of them.

A rule of thumb does not know how the weights of a network are distributed, nor that rows and columns
die: it misses by a third. So the share to keep is fitted, while the training goes on, to what the
coder makes of the weights as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _native
from .inplace import Plan, Share

AIM = 1.025
"""The ratio that is aimed at, over the one that is asked: weights still move after the last fit."""

SLACK = 1.01
"""As :data:`AIM`, where the training is over."""

MARKS = (0.5, 0.7, 0.85)
"""Shares of the steps after which the share to keep is fitted: in the ramp, at its end, and late."""

_SAMPLE = 1 << 19
"""Weights that are coded to find the size of all layers."""

_LEAST = 1 << 14
"""Weights of a layer, at least, that are coded."""

_STRETCH = 64
"""Rows, and columns, that are taken side by side: the coder looks at neighbours."""

_HEADER_BYTES, _LAYER_BYTES = 600, 170
"""Names, shapes and tables of a file, and of each layer of the model, coded or not."""

_ROUNDS = 8

GRIDS = (4, 5, 6, 8)
"""Bits of the grids that pruned weights may be stored on."""


@dataclass(frozen=True)
class Weights:
    """A part of a layer's weights, as the rows and columns of the file."""

    bits: int
    """Bits of the grid."""
    density: float | None
    """The share that is kept; ``None`` where it is to be fitted."""
    part: npt.NDArray[np.float32]
    """``(rows, columns)``."""
    largest: npt.NDArray[np.float32]
    """The largest magnitude of each channel of the part, to be broadcast over it."""
    magnitudes: npt.NDArray[np.float32]
    """Magnitudes of some weights, the smallest first."""
    count: int
    """Weights of the whole layer."""

    def integers(self, density: float, bits: int) -> npt.NDArray[np.float32]:
        """The part on a grid of ``bits``, with this share of the layer kept."""
        levels = 2 ** (bits - 1) - 1
        integers: npt.NDArray[np.float32] = np.rint(self.part * (levels / np.maximum(self.largest, 1e-30)))
        if density < 1:
            at = max(round((1 - density) * len(self.magnitudes)) - 1, 0)
            integers[np.abs(self.part) <= self.magnitudes[at]] = 0
        return integers

    def bytes(self, density: float, bits: int) -> float:
        """Bytes of the whole layer with this share kept on a grid of ``bits``, or what is decided for it."""
        share, grid = (density, bits) if self.density is None else (self.density, self.bits)
        coded = _native.coded_bytes(np.ascontiguousarray(self.integers(share, grid), np.int8))
        return coded * self.count / max(self.part.size, 1)

    def error(self, density: float, bits: int) -> float:
        """The sum of the squares of what the whole layer loses."""
        kept = self.integers(density, bits) * (np.maximum(self.largest, 1e-30) / (2 ** (bits - 1) - 1))
        return float(np.square(self.part - kept).sum(dtype=np.float64)) * self.count / max(self.part.size, 1)


def part_of(weights: Any, channel_axis: int, bits: int, density: float | None, total: int) -> Weights:
    """A part of ``(rows, columns)`` weights of which each row, or column, is a channel.

    Args:
        total: Weights of all layers; each is given a part of the sample by its size.
    """
    wanted = min(max(_SAMPLE * weights.size // max(total, 1), _LEAST), weights.size)
    rows, columns = weights.shape
    across = min(columns, max(round(wanted**0.5), wanted // rows))
    part = weights[np.ix_(_stretches(rows, -(-wanted // max(across, 1))), _stretches(columns, across))]
    largest = np.abs(weights).max(axis=1 - channel_axis, keepdims=True)
    chosen = _stretches(rows, -(-wanted // max(across, 1))) if channel_axis == 0 else _stretches(columns, across)
    stride = weights.size // (1 << 18) | 1
    return Weights(bits, density, part, largest.take(chosen, axis=channel_axis),
                   np.sort(np.abs(weights.reshape(-1)[::stride])), weights.size)


def _stretches(extent: int, wanted: int) -> npt.NDArray[np.int64]:
    """Places of at least ``wanted`` of an axis, in stretches spread over it."""
    if wanted >= extent:
        return np.arange(extent)
    count = -(-wanted // _STRETCH)
    starts = np.linspace(0, max(extent - _STRETCH, 0), count).astype(np.int64)
    return np.unique(starts[:, None] + np.arange(min(_STRETCH, extent)))


def budget_bytes(ratio: float, every: int, compressed: int, channels: int, layers: int) -> float:
    """Bytes that the coded weights may take of a file ``ratio`` times smaller than float32.

    Args:
        every: Numbers of the model.
        compressed: Weights that are coded.
        channels: Channels of the coded layers, which have a step each.
        layers: Layers of the model.
    """
    rest = 4 * (every - compressed) + 4 * channels + _HEADER_BYTES + layers * _LAYER_BYTES
    # A network so small that the rest takes most of the file is to be of use all the same.
    return max(4 * every / ratio - rest, 4 * compressed / ratio / 2)


def fitted(layers: Sequence[Weights], budget: float, density: float, bits: int) -> float:
    """The share to keep of the layers that leave it open, so that all take ``budget`` bytes.

    Args:
        density: Where to begin.
        bits: Of the grid of these layers.
    """
    closed = sum(layer.bytes(1.0, bits) for layer in layers if layer.density is not None)
    open_layers = [layer for layer in layers if layer.density is None]
    wanted = max(budget - closed, budget / 10)
    # More than there is now would let weights grow back whose bytes nobody has counted.
    held = sum(float((layer.magnitudes > 0).mean()) * layer.count for layer in open_layers)
    most = min(max(held / max(sum(layer.count for layer in open_layers), 1), 1e-5), 0.9)
    density = min(density, most)
    for _ in range(_ROUNDS):
        taken = sum(layer.bytes(density, bits) for layer in open_layers)
        if abs(taken / wanted - 1) < 0.002:
            break
        # Twice the weights take less than twice the bytes.
        density = min(max(density * (wanted / max(taken, 1.0)) ** 1.15, 1e-5), most)
    return density


def best(layers: Sequence[Weights], budget: float, density: float) -> tuple[float, int]:
    """Share and bits of the open layers that lose least of the weights in ``budget`` bytes.

    Fewer bits leave room for more weights, but round to zero what is small beside a channel's largest.
    """
    choices = [(fitted(layers, budget, density, bits), bits) for bits in GRIDS]
    return min(choices, key=lambda one: sum(layer.error(*one) for layer in layers if layer.density is None))


class Fitting:
    """The part of a compression that fits the shares to keep to the bytes of the file."""

    plan: Plan
    shares: dict[str, Share]
    steps_total: int | None
    open: set[str]
    """Names of the layers whose share is fitted; they all have the same."""
    _marks: tuple[float, ...] = MARKS

    def parts(self) -> tuple[list[Weights], int, int]:
        """A part of each layer's weights; numbers of the model; channels of the layers."""
        raise NotImplementedError

    def layers_in_all(self) -> int:
        """How many layers the model has, those without weights too."""
        raise NotImplementedError

    def fit_grid(self) -> None:
        """Where all weights are kept: the finest grid with which they take few enough bytes as they are now."""
        if self.plan.density < 1:
            return
        weights, budget = self._weights_and_budget(AIM)
        whole = [replace(layer, density=None) for layer in weights]

        def fits(bits: int) -> bool:
            return sum(of.bytes(layer.density or 1.0, bits) for layer, of in zip(weights, whole)) <= budget

        # Where the rest of the file outweighs the weights, coarser ones would not make it small either.
        least = max(self.plan.bits - 1, 4)
        bits = next((bits for bits in range(8, least - 1, -1) if fits(bits)), self.plan.bits)
        self.plan = replace(self.plan, bits=bits)
        self.shares = {name: replace(share, bits=bits) for name, share in self.shares.items()}
        self.grids_changed()

    def marks_passed(self, done: int) -> bool:
        """Whether the share to keep is to be fitted after this many steps; says so once a mark."""
        left = tuple(mark for mark in self._marks if self.steps_total is None or done < mark * self.steps_total)
        passed, self._marks = len(left) < len(self._marks), left
        return passed and bool(self.open)

    def grids_changed(self) -> None:
        """Called where the bits of a layer's grid are others."""
        raise NotImplementedError

    def is_lost(self) -> bool:
        """Whether the weights are gone."""
        return False

    def fit_shares(self, aim: float = AIM) -> bool:
        """Fits share and grid of what is pruned to the size that the file would have; whether they changed."""
        if not self.open:
            return False
        weights, budget = self._weights_and_budget(aim)
        before = self.shares[next(iter(self.open))]
        density, bits = best(weights, budget, before.density)
        if abs(density / before.density - 1) < 0.003 and bits == before.bits:
            return False
        self.shares |= {name: Share(bits, density) for name in self.open}
        if bits != before.bits:
            self.grids_changed()
        return True

    def fit_at_end(self, done: int) -> bool:
        """Takes weights away after the last step where the file would be too large; whether it did."""
        if not self.open or self.steps_total is None or done < self.steps_total:
            return False
        weights, budget = self._weights_and_budget(SLACK)
        before = self.shares[next(iter(self.open))]
        density = fitted(weights, budget, before.density, before.bits)
        if density > before.density * 0.997:
            return False
        self.shares |= {name: replace(self.shares[name], density=density) for name in self.open}
        return True

    def _weights_and_budget(self, aim: float) -> tuple[list[Weights], float]:
        weights, every, channels = self.parts()
        compressed = sum(layer.count for layer in weights)
        return weights, budget_bytes(self.plan.ratio * aim, every, compressed, channels, self.layers_in_all())
