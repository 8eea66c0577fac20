"""What pruning during a training does at which step, for every framework."""

from __future__ import annotations

from typing import Any

BEGIN, END = 0.1, 0.7
"""Shares of the steps between which the kept share falls. Before, a network finds out what it needs: the first
steps of a wide layer can switch most of its channels off for good, and pruning beside them all."""

IDLE_BESIDE_OTHERS = 1e-4
"""A channel whose gradient, averaged by the optimiser, is below this share of the layer's largest may be idle …"""

IDLE_BESIDE_ITSELF = 1e-2
"""… and is, where it is also below this share of its own longer average (where the optimiser keeps one)."""


def kept(density: float, progress: Any) -> Any:
    """The share to keep of a layer that ends at ``density``, by a cubic curve (Zhu and Gupta 2017).

    Args:
        progress: From 0 to 1, a number or a tensor.
    """
    return 1.0 - (1.0 - density) * (1.0 - (1.0 - progress) ** 3)
