"""Lepton: a trained model and a few samples in, the fastest version that still meets your accuracy out.

>>> import lepton_ai
>>> session = lepton_ai.Session("model.onnx")                                     # doctest: +SKIP
>>> session.run({"features": features})                                           # doctest: +SKIP
>>> frontier = lepton_ai.optimize("model.onnx", (X, y), max_drop=0.5)             # doctest: +SKIP
>>> fast = lepton_ai.Session(frontier.best.path)                                  # doctest: +SKIP
"""

from ._arrays import TensorSpec
from ._native import Model, __version__
from .comparison import Report, Version, report
from .errors import (
    DataError,
    FileError,
    InputNameError,
    InputShapeError,
    InputTypeError,
    LeptonError,
    MissingPackageError,
    ModelError,
    RunError,
    UnsupportedError,
    UsageError,
)
from .inplace import InPlaceReport, Layer, LeptonAI, Plan
from .models import as_model, load_keras
from .search import Candidate, Estimate, Frontier, evaluate, metrics, optimize
from .session import Profile, Session, Step

__all__ = [
    "Candidate",
    "DataError",
    "Estimate",
    "FileError",
    "Frontier",
    "InPlaceReport",
    "InputNameError",
    "InputShapeError",
    "InputTypeError",
    "Layer",
    "LeptonAI",
    "LeptonError",
    "MissingPackageError",
    "Model",
    "ModelError",
    "Plan",
    "Profile",
    "Report",
    "RunError",
    "Session",
    "Step",
    "TensorSpec",
    "UnsupportedError",
    "UsageError",
    "Version",
    "__version__",
    "as_model",
    "evaluate",
    "load_keras",
    "metrics",
    "optimize",
    "report",
]
