"""Keras' own files, ``.keras``, ``.h5`` and ``.hdf5``, as ONNX: read by h5py, without Keras and TensorFlow."""

from __future__ import annotations

import importlib
import io
import json
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ._keras_graph import Unknown, written
from .errors import FileError, MissingPackageError, ModelError, UnsupportedError


def keras_file_as_onnx(path: str) -> bytes:
    """The model in a file as ONNX.

    A model of layers that are not known here goes through Keras, where it is loaded.

    Raises:
        MissingPackageError: without h5py.
        FileError: for a file that cannot be read.
        ModelError: for one that holds no whole model.
        UnsupportedError: for layers that are not known, where Keras is not loaded.
    """
    try:
        h5py = importlib.import_module("h5py")
    except ImportError:
        raise MissingPackageError(f"{path}: reading Keras' files needs h5py", "pip install h5py") from None
    try:
        config, weights = _new_file(path, h5py) if path.endswith(".keras") else _old_file(path, h5py)
        if config["class_name"] not in ("Sequential", "Functional", "Model"):
            raise Unknown(f"a model of class {config['class_name']}")
        return written(config["config"], lambda name: weights.get(name, []), sequential=config["class_name"] == "Sequential")
    except Unknown as error:
        return _through_keras(path, str(error))
    except OSError as error:
        raise FileError(f"{path}: {error}", "check that it is there, and was made by Keras' save") from None
    except (KeyError, ValueError, IndexError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: not a whole Keras model: {type(error).__name__}: {error}",
                         "save the whole model: model.save(path)") from None


Found = tuple[Mapping[str, Any], "dict[str, list[npt.NDArray[Any]]]"]


def _old_file(path: str, h5py: Any) -> Found:
    """Configuration and weights in the HDF5 file of Keras 2, which Keras 3 writes too."""
    with h5py.File(path) as file:
        said = file.attrs["model_config"]
        config = json.loads(said.decode() if isinstance(said, bytes) else said)
        weights = {}
        for name, group in file["model_weights"].items():
            keys = [key.decode() if isinstance(key, bytes) else key for key in group.attrs.get("weight_names", [])]
            weights[name] = [np.array(group[key]) for key in keys]
    return config, weights


def _new_file(path: str, h5py: Any) -> Found:
    """Configuration and weights in the archive of Keras 3, which numbers layers of the same class."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        data = archive.read("model.weights.h5")
    weights, seen = {}, dict[str, int]()
    with h5py.File(io.BytesIO(data)) as file:
        for layer in config["config"]["layers"]:
            snake = _snake(layer["class_name"])
            number = seen[snake] = seen.get(snake, -1) + 1
            held = file.get(f"layers/{snake}_{number}/vars" if number else f"layers/{snake}/vars")
            keys = sorted(held or {}, key=int)
            weights[layer["config"]["name"]] = [np.array(held[key]) for key in keys]
    return config, weights


def _snake(name: str) -> str:
    """A class's name as Keras has it in files: ``MaxPooling2D`` is ``max_pooling2d``."""
    parted = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", parted).lower()


def _through_keras(path: str, why: str) -> bytes:
    keras = sys.modules.get("keras")
    if keras is None:
        raise UnsupportedError(f"{Path(path).name}: {why} is not known without Keras", "import keras first")
    from .models import from_keras

    return from_keras(keras.models.load_model(path, compile=False))
