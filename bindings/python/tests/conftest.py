"""Models the tests run: small ones written here byte by byte, and real ones where the assets are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lepton_ai._onnx import Bytes, graph, model, node, tensor

# The networks here are tiny: threads would only wait for one another, on a busy machine for minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ASSETS = Path(os.environ.get("LEPTON_ASSETS", Path(__file__).parents[4] / "shared" / "assets"))


@pytest.fixture(scope="session")
def asset() -> Callable[[str], Path]:
    """Path of a file among the assets; skips the test where they are absent."""

    def find(name: str) -> Path:
        path = ASSETS / name
        if not path.exists():
            pytest.skip("no assets")
        return path

    return find


WEIGHT = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]], np.float32)


@pytest.fixture(scope="session")
def linear() -> Bytes:
    """``y = x @ WEIGHT``; x is ``(batch, 3)`` float32, y ``(batch, 2)``."""
    return model(
        graph([node("MatMul", ["x", "w"], ["y"])], {"x": (1, ["batch", 3])}, {"y": (1, ["batch", 2])},
              [tensor("w", WEIGHT)])
    )


@pytest.fixture(scope="session")
def pair() -> Bytes:
    """``sum = a + b`` and ``same = a``; a and b are ``(n, 2)`` int64."""
    return model(
        graph(
            [node("Add", ["a", "b"], ["sum"]), node("Identity", ["a"], ["same"])],
            {"a": (7, ["n", 2]), "b": (7, ["n", 2])},
            {"sum": (7, ["n", 2]), "same": (7, ["n", 2])},
        )
    )


def unary(operator: str, dtype: int, shape: list[int | str], version: int = 17) -> Bytes:
    """A model of one operator from ``x`` to ``y`` of the same type and shape."""
    return model(graph([node(operator, ["x"], ["y"])], {"x": (dtype, shape)}, {"y": (dtype, shape)}), version)
