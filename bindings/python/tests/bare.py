"""A model made and run with nothing but the wheel and NumPy."""

import sys

import numpy as np

import lepton_ai
from lepton_ai._onnx import graph, model, node, tensor

weight = np.arange(6, dtype=np.float32).reshape(3, 2)
made = model(graph([node("MatMul", ["x", "w"], ["y"]), node("Relu", ["y"], ["z"])], {"x": (1, ["batch", 3])},
                   {"z": (1, ["batch", 2])}, [tensor("w", weight)]))
rows = np.array([[1.0, -2.0, 0.5], [-1.0, 0.0, 0.0]], np.float32)
np.testing.assert_allclose(lepton_ai.Session(made).predict(rows), np.maximum(rows @ weight, 0), rtol=1e-6)
others = {name.partition(".")[0] for name in sys.modules} & {"onnx", "torch", "keras", "tensorflow", "sklearn", "pandas"}
assert not others, others
print(f"lepton_ai {lepton_ai.__version__} runs a model with NumPy {np.__version__} alone")
