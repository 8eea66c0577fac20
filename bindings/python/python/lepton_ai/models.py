"""Models of other libraries as Lepton's: files, bytes, ONNX, PyTorch, scikit-learn, Keras."""

from __future__ import annotations

import importlib
import io
import os
import sys
import tempfile
from typing import Any

import numpy as np

from ._native import Model
from .errors import MissingPackageError, UnsupportedError, UsageError

ModelLike = Any
"""What :func:`as_model` takes: a path, bytes, a :class:`lepton_ai.Model`, an ``onnx.ModelProto``, a
``torch.nn.Module``, a fitted scikit-learn estimator, or a Keras model."""


def as_model(model: ModelLike, example_inputs: Any = None) -> Model:
    """``model`` read and verified.

    Args:
        model: Path of an ``.onnx``, ``.tflite``, ``.lepton`` file or one of Keras (:func:`load_keras`), the bytes of one, an ``onnx.ModelProto``, a
            ``torch.nn.Module`` (exported by ``torch.onnx``), a fitted scikit-learn estimator
            (converted by ``skl2onnx``) or a Keras 3 model (by its own ``export``).
        example_inputs: For PyTorch: a tensor, or a tuple of tensors, the module can be called with;
            the first axis is left open. For scikit-learn: rows like those it was fitted on, needed
            only where the estimator does not know its number of features.

    Raises:
        MissingPackageError: where the conversion needs a package that is not installed.
        ModelError: where the bytes are no valid model.
        UnsupportedError: where Lepton has no operator of that kind, or ``model`` is of no known kind.
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, (str, os.PathLike)):
        if os.fspath(model).endswith((".keras", ".h5", ".hdf5")):
            return load_keras(model)
        return Model.open(os.fspath(model))
    if isinstance(model, (bytes, bytearray, memoryview)):
        return Model.from_bytes("model", bytes(model))
    if hasattr(model, "SerializeToString") and hasattr(model, "graph"):
        name = getattr(model.graph, "name", "") or "model"
        return Model.from_bytes(f"{_file_name(name)}.onnx", model.SerializeToString())
    name = f"{_file_name(type(model).__name__)}.onnx"
    # Before PyTorch's: on that back end a Keras model is both.
    if _is_instance(model, "keras", "Model"):
        return Model.from_bytes(name, from_keras(model))
    if _is_instance(model, "torch.nn", "Module"):
        return Model.from_bytes(name, _from_torch(model, example_inputs))
    if _is_instance(model, "sklearn.base", "BaseEstimator"):
        return Model.from_bytes(name, _from_sklearn(model, example_inputs))
    raise UnsupportedError(
        f"{type(model).__module__}.{type(model).__name__} is not a model Lepton can read",
        "give a path, bytes, or a model of onnx, torch, scikit-learn or keras",
    )


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:64]


def _is_instance(model: object, module: str, name: str) -> bool:
    """True for an instance of a class whose library is loaded; nothing is imported for it."""
    loaded = sys.modules.get(module)
    of = getattr(loaded, name, None)
    return isinstance(of, type) and isinstance(model, of)


def _needed(module: str, install: str, why: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingPackageError(f"{why} needs {module}", f"pip install {install}") from None


def unwrapped(module: Any) -> Any:
    """The ``torch.nn.Module`` in what ``torch.compile``, ``DataParallel`` and the like put around it."""
    while True:
        if _is_instance(module, "torch._dynamo.eval_frame", "OptimizedModule"):
            module = module._orig_mod
        elif any(_is_instance(module, "torch.nn.parallel", name) for name in ("DataParallel", "DistributedDataParallel")):
            module = module.module
        else:
            return module


def _from_torch(module: Any, example_inputs: Any) -> bytes:
    if example_inputs is None:
        raise UsageError(
            "a torch.nn.Module does not say what it takes",
            "give example_inputs: a tensor, or a tuple of tensors, to call it with",
        )
    torch, module = sys.modules["torch"], unwrapped(module)
    _needed("torch.onnx", "torch", "exporting a torch.nn.Module")
    _needed("onnx", "onnx", "exporting a torch.nn.Module")
    tensors = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    tensors = tuple(torch.as_tensor(tensor) for tensor in tensors)
    names = [f"input_{index}" if len(tensors) > 1 else "input" for index in range(len(tensors))]
    file = io.BytesIO()
    was_training = module.training
    module.eval()
    try:
        # The exporter of graphs that were traced: it leaves axes open by name, and needs no more
        # packages than `onnx`.
        torch.onnx.export(
            module,
            tensors,
            file,
            input_names=names,
            dynamic_axes={name: {0: "batch"} for name, t in zip(names, tensors) if t.ndim},
            dynamo=False,
        )
    finally:
        module.train(was_training)
    return file.getvalue()


def _from_sklearn(estimator: Any, example_inputs: Any) -> bytes:
    skl2onnx = _needed("skl2onnx", "skl2onnx", "converting a scikit-learn estimator")
    types = importlib.import_module("skl2onnx.common.data_types")
    features = getattr(estimator, "n_features_in_", None)
    if example_inputs is not None:
        features = np.asarray(example_inputs).shape[-1]
    if features is None:
        raise UsageError("the estimator does not know its number of features", "fit it, or give example_inputs")
    # Probabilities as one array: maps are not tensors.
    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
    inputs = [("X", types.FloatTensorType([None, int(features)]))]
    proto = skl2onnx.convert_sklearn(estimator, initial_types=inputs, options=options)
    converted: bytes = proto.SerializeToString()
    return converted


def from_keras(model: Any) -> bytes:
    """A Keras model as ONNX: by its configuration where its layers are known, else by its own export."""
    found = _by_configuration(model)
    if found is not None:
        return found
    _needed("onnx", "onnx", "exporting a Keras model")
    keras = sys.modules["keras"]
    backend = keras.backend.backend()
    exporter = {"tensorflow": "tf2onnx", "jax": "jax2onnx"}.get(backend)
    if exporter:
        _needed(exporter, exporter, f"exporting a Keras model on {backend}")
    if not getattr(model, "_called", True):
        # The export wants a model that was called; a compiled `fit` or `predict` does not count.
        rows = [keras.ops.zeros([extent or 1 for extent in x.shape], x.dtype) for x in model.inputs]
        model(rows if len(rows) > 1 else rows[0])
    with tempfile.TemporaryDirectory(prefix="lepton-") as folder:
        path = os.path.join(folder, "model.onnx")
        model.export(path, format="onnx", verbose=False)
        with open(path, "rb") as file:
            return file.read()


def _by_configuration(model: Any) -> bytes | None:
    from ._keras_graph import Unknown, written

    keras = sys.modules["keras"]
    kind = type(model).__name__
    own = all(type(layer) is getattr(keras.layers, type(layer).__name__, None) for layer in model.layers)
    # A subclass may do anything in its call.
    if kind not in ("Sequential", "Functional") or not type(model).__module__.startswith("keras.") or not own:
        return None
    if any(getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None) for layer in model.layers):
        return None

    def weights(name: str) -> list[Any]:
        return [keras.ops.convert_to_numpy(weight) for weight in model.get_layer(name).weights]

    try:
        return written(model.get_config(), weights, sequential=kind == "Sequential")
    except (Unknown, KeyError):
        return None


def load_keras(path: str | os.PathLike[str]) -> Model:
    """The model in a file of Keras: ``.keras``, ``.h5`` or ``.hdf5``.

    Sequential and functional models of common layers are read by h5py, without Keras and TensorFlow, in the
    files of Keras 2 as well; others go through Keras, where it is imported.

    Raises:
        MissingPackageError, FileError, ModelError, UnsupportedError: where that cannot be done.
    """
    from ._keras_file import keras_file_as_onnx

    name = os.fspath(path)
    return Model.from_bytes(f"{_file_name(os.path.basename(name))}.onnx", keras_file_as_onnx(name))
